//! Messages of a running command on standard error.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, FilterFn, Filtered, filter_fn};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, registry, reload};

use crate::control::history::{History, Recorder};

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
    SHOWS_LIBRARY.store(verbose > 0, Ordering::Relaxed);
    // The library tells of its links, too; the program does it with the peer's name.
    let once = filter_fn(|event| {
        SHOWS_LIBRARY.load(Ordering::Relaxed) || event.target() != LIBRARY || *event.level() <= Level::WARN
    });
    let (filter, handle) = reload::Layer::new(filter);
    // Set once, as logging is started once.
    let _ = FILTER.set(handle);
    let kept: FilterFn = FilterFn::new(is_kept);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color())
        .with_target(verbose > 0)
        .fmt_fields(debug_fn(write_field));
    let registry = registry().with(Recorder(history()).with_filter(kept));
    // journald notes the time by itself.
    let started = if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(layer.without_time().with_filter(filter.and(once))).try_init()
    } else {
        registry.with(layer.with_filter(filter.and(once))).try_init()
    };
    debug_assert!(started.is_ok(), "logging is started once");
}

/// The last messages of this process.
pub(crate) fn history() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(History::default)
}

/// Sets the level of the log while the process runs, as `RUST_LOG` has it.
pub(crate) fn set_level(level: &str) -> Result<(), LevelError> {
    let filter =
        EnvFilter::try_new(level).map_err(|error| LevelError::Form(level.to_owned(), error.to_string()))?;
    let handle = FILTER.get().ok_or(LevelError::NotStarted)?;
    SHOWS_LIBRARY.store(true, Ordering::Relaxed);
    handle.reload(filter).map_err(|_| LevelError::NotStarted)
}

/// Why the level of the log stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LevelError {
    #[error("{0:?} is no level; write error, warn, info, debug, trace, or as RUST_LOG has it ({1})")]
    Form(String, String),
    #[error("this command has no log")]
    NotStarted,
}

/// Fields that scripts find in `bondwire events --json`; the text says the same.
const FIELDS_OF_EVENTS: [&str; 3] = ["id", "link", "state"];

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        name if FIELDS_OF_EVENTS.contains(&name) => Ok(()),
        name => write!(writer, " {name}={value:?}"),
    }
}

/// Whether the library's own messages are shown, too.
static SHOWS_LIBRARY: AtomicBool = AtomicBool::new(false);

/// The filter of the log, to change it.
static FILTER: OnceLock<reload::Handle<EnvFilter, Recorded>> = OnceLock::new();

/// What the log lies upon.
type Recorded = Layered<Filtered<Recorder, FilterFn, Registry>, Registry>;

/// Whether a message is worth keeping when the log does not show it.
fn is_kept(event: &Metadata<'_>) -> bool {
    event.target().starts_with(LIBRARY) && *event.level() <= Level::INFO
}

/// Target of the library's own messages; those of this program begin alike.
const LIBRARY: &str = "bondwire";

/// Whether the user asked for no colours (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
