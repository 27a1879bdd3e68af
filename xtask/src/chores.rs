//! Chores that call another program.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use xshell::{Shell, cmd};

/// Builds the program and the benchmark for release, and runs the benchmark; with `--vm` first, the one of the guest.
pub(crate) fn bench(shell: &Shell, arguments: &[String]) -> Result<ExitCode> {
    #[cfg(target_os = "linux")]
    if let Some(("--vm", arguments)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return crate::vm::bench(arguments);
    }
    cmd!(shell, "cargo build --release --package bondwire-cli --package bondwire-bench").quiet().run()?;
    let run = cmd!(shell, "cargo run --quiet --release --package bondwire-bench -- {arguments...}");
    Ok(exit_code(run.quiet().run().is_ok()))
}

/// Arguments of `cargo xtask mutants`.
#[derive(Args)]
pub(crate) struct Mutants {
    /// Try so many mutants, drawn at random, instead of all
    #[arg(long, value_name = "COUNT")]
    sample: Option<usize>,
    /// Which sample
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Arguments of cargo mutants
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Mutants {
    /// Mutation tests of the engine: every surviving mutant is a line that no test holds.
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        if cmd!(shell, "cargo mutants --version").quiet().ignore_stderr().read().is_err() {
            bail!("cargo-mutants is not installed; install it with: cargo install cargo-mutants");
        }
        let mut arguments = self.arguments.clone();
        if let Some(count) = self.sample {
            let list = cmd!(shell, "cargo mutants --list --package bondwire-core").quiet().read()?;
            let chosen = sample(list.lines().collect(), count, self.seed);
            arguments.extend(chosen.iter().map(|name| format!("--re=^{}$", escaped(name))));
        }
        // Optimized a little: each mutant is built once, and then runs thousands of cases.
        let _optimized = shell.push_env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
        let _no_debug = shell.push_env("CARGO_PROFILE_DEV_DEBUG", "0");
        let run = cmd!(shell, "cargo mutants --package bondwire-core --test-tool nextest {arguments...}");
        Ok(exit_code(run.quiet().run().is_ok()))
    }
}

/// `count` of `items`, each as likely as any other; the same for the same seed.
fn sample<T>(mut items: Vec<T>, count: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    for at in 0..count.min(items.len()) {
        let left = (items.len() - at) as u64;
        items.swap(at, at + (split_mix(&mut state) % left) as usize);
    }
    items.truncate(count);
    items
}

/// The next number of SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// `text` as a regular expression that matches nothing else.
fn escaped(text: &str) -> String {
    let escape = |character: char| {
        let backslash = r"\.+*?()|[]{}^$#&-~".contains(character).then_some('\\');
        backslash.into_iter().chain([character])
    };
    text.chars().flat_map(escape).collect()
}

/// The called program has said what went wrong.
fn exit_code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_its_size_and_nothing_twice() {
        let chosen = sample((0..1000).collect(), 100, 7);
        assert_eq!(chosen, sample((0..1000).collect(), 100, 7));
        assert_ne!(chosen, sample((0..1000).collect(), 100, 8));
        assert_eq!(chosen.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
        assert_eq!(sample(vec![1, 2, 3], 100, 7).len(), 3);
    }

    #[test]
    fn a_name_matches_itself_only() {
        assert_eq!(escaped("a.rs:1: <T> -> (u8)"), r"a\.rs:1: <T> \-> \(u8\)");
    }
}
