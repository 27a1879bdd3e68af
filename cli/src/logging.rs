//! Messages of a running command on standard error.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

/// How much a command says when neither `-v` nor `RUST_LOG` asks for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quietness {
    /// Link events: for commands that run for long.
    Events,
    /// Warnings only: for commands that print a result.
    Results,
    /// Nothing, but for why the command failed: for one that stands in for a connection.
    Failures,
}

/// Starts logging. `RUST_LOG` goes before `-v`, and `-v` before the command's own level.
pub(crate) fn start(quietness: Quietness, verbose: u8) {
    let level = match (quietness, verbose) {
        (Quietness::Failures, 0) => "error",
        (Quietness::Results, 0) => "warn",
        (Quietness::Events, 0) | (Quietness::Results | Quietness::Failures, 1) => "info",
        (Quietness::Events, 1) | (Quietness::Results | Quietness::Failures, 2) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // The library tells of its links, too; the program does it with the peer's name.
    let once =
        filter_fn(move |event| verbose > 0 || event.target() != LIBRARY || *event.level() <= Level::WARN);
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color())
        .with_target(verbose > 0);
    // journald notes the time by itself.
    let started = if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry().with(layer.without_time().with_filter(filter.and(once))).try_init()
    } else {
        registry().with(layer.with_filter(filter.and(once))).try_init()
    };
    debug_assert!(started.is_ok(), "logging is started once");
}

/// Target of the library's own messages.
const LIBRARY: &str = "bondwire";

/// Whether the user asked for no colours (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
