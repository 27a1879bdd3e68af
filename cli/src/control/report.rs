//! What a maintainer would ask for when something is wrong, without secrets.

use serde_json::{Value, json};

use super::history::History;
use super::status::Status;

/// State, last messages, and what they ran on. Keys in it are public ones; there are addresses and names.
pub(crate) fn report(status: &Status, history: &History) -> Value {
    json!({
        "bondwire_report": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "system": {
            "name": std::env::consts::OS,
            "release": system_release(),
            "machine": std::env::consts::ARCH,
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
        },
        "status": status,
        "events": history.entries(),
    })
}

#[cfg(unix)]
fn system_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn system_release() -> String {
    String::new()
}
