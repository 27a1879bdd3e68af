//! `docs/commands`: a page for each command, which says what its `--help` says.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use clap::{Command, CommandFactory};

use crate::Cli;

/// Set to write the pages instead of comparing them.
const UPDATE: &str = "BONDWIRE_UPDATE_DOCS";

/// The pages by their file names.
fn pages() -> BTreeMap<String, String> {
    let mut program = Cli::command();
    // Gives the commands their whole names.
    program.build();
    let mut index =
        "# Commands\n\nEach page is what `--help` says; the package has the same as manual pages.\n\n"
            .to_owned();
    let mut pages = BTreeMap::new();
    for command in commands_of(&program) {
        let (name, about) = (command.get_name(), command.get_about().map(ToString::to_string));
        index += &format!("- [`bondwire {name}`]({name}.md): {}\n", about.unwrap_or_default());
        pages.insert(format!("{name}.md"), section(command, "#"));
    }
    pages.insert("README.md".to_owned(), index);
    pages
}

/// Those that people use.
fn commands_of(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// A command's help, and below it that of the commands within it.
fn section(command: &Command, heading: &str) -> String {
    let name = command.get_bin_name().unwrap_or_default();
    let help = command.clone().render_long_help().to_string();
    let lines: String = help.trim_end().lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    let within: String =
        commands_of(command).map(|within| format!("\n{}", section(within, &format!("{heading}#")))).collect();
    format!("{heading} `{name}`\n\n```text\n{lines}```\n{within}")
}

#[test]
fn each_command_has_its_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands");
    let pages = pages();
    if env::var_os(UPDATE).is_some() {
        fs::create_dir_all(&folder).unwrap();
        pages.iter().for_each(|(name, page)| fs::write(folder.join(name), page).unwrap());
    }
    let written: BTreeMap<_, _> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    for (name, page) in &pages {
        assert!(written.get(name) == Some(page), "docs/commands/{name}: write it anew with {UPDATE}=1");
    }
    assert!(written.keys().eq(pages.keys()), "{:?}", written.keys());
}
