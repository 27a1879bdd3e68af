//! The `bondwire` program: several links between two hosts as one connection.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(
    not(unix),
    allow(
        dead_code,
        unused_imports,
        irrefutable_let_patterns,
        reason = "control sockets and Unix sockets are Unix ones; what only they use stands idle elsewhere"
    )
)]

mod access;
mod addresses;
mod attach;
mod commands;
mod config;
mod connecting;
mod control;
mod demo;
mod devices;
mod discovery;
// The pages show what Linux has.
#[cfg(all(test, target_os = "linux"))]
mod doc_pages;
mod events;
mod failure;
mod forward;
mod keys;
mod link_options;
mod link_spec;
mod link_table;
mod links;
mod listening;
mod logging;
mod medium;
mod metrics;
#[cfg(unix)]
mod monitor;
mod observers;
mod options;
mod output;
mod pairing;
mod peers;
mod permissions;
mod plot;
mod quota;
mod recording;
mod service;
mod session;
mod signals;
#[cfg(unix)]
mod socket_file;
mod speed;
mod ssh;
mod target;
mod toml_file;
mod tun;
#[cfg(target_os = "linux")]
mod udev;
#[cfg(unix)]
mod up;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, Parser};

use crate::commands::Command;
use crate::failure::{Exit, Failure};

/// Joins several links between two hosts into one connection with their combined bandwidth, which survives the loss of
/// any of them.
#[derive(Parser)]
#[command(name = "bondwire", version, arg_required_else_help = true)]
struct Cli {
    /// Say more: -v debugging, -vv everything; RUST_LOG goes before it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let ended = match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => Err(Failure::new(Exit::Usage, usage_message(&error))),
        },
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_interruption() {
                // Nothing is left to do when standard error is gone.
                let _ = writeln!(std::io::stderr(), "bondwire: {failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    logging::start(cli.command.quietness(), cli.verbose);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::configuration(format!("cannot start the runtime: {error}")))?;
    let ended = runtime.block_on(commands::run(cli.command));
    // A name look-up may still block a thread; the process need not wait for it.
    runtime.shutdown_background();
    ended
}

/// Clap's message without its usage text: one line, as every other error of the program.
fn usage_message(error: &clap::Error) -> String {
    let text = error.to_string();
    let message = text.split("\n\nUsage:").next().unwrap_or_default();
    let message = message.split("\n\nFor more information").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let parts: Vec<_> = message.split("\n\n").map(str::trim).collect();
    format!("{} (see {} --help)", parts.join("; "), usage_command(&text))
}

/// The command that a usage text is about: its words before the first argument.
fn usage_command(text: &str) -> String {
    let usage = text.split("Usage: ").nth(1).unwrap_or_default();
    let is_name = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    let words: Vec<_> = usage.split(' ').take_while(is_name).collect();
    if words.is_empty() { "bondwire".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line_with_the_nearest_option() {
        let Err(error) = Cli::try_parse_from(["bondwire", "keygen", "--forse"]) else {
            panic!("a misspelt option is an error");
        };
        let message = Failure::new(Exit::Usage, usage_message(&error)).to_string();
        assert_eq!(
            message,
            "unexpected argument '--forse' found; tip: a similar argument exists: '--force' (see bondwire keygen --help)"
        );
    }
}
