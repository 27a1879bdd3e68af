//! The last messages of this process, kept whatever the log shows, and handed to whoever listens.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer};

/// Messages kept: some hours of a bad night.
const ENTRIES_MAX: usize = 1000;
/// Longest message kept, in bytes.
const MESSAGE_MAX_BYTES: usize = 1024;
/// Messages that wait for a slow listener; then it is told how many it missed.
const LISTENER_QUEUE_MAX: usize = 256;

/// One message. The names are those of the control protocol.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Counts from 1 in each process.
    pub(crate) number: u64,
    /// UTC, as RFC 3339 has it.
    pub(crate) time: String,
    pub(crate) level: &'static str,
    pub(crate) message: String,
    /// Of a link's change: its name and new state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    /// The link's number in its bond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<u32>,
}

/// The last messages of the process.
pub(crate) struct History {
    kept: Mutex<Kept>,
    listeners: broadcast::Sender<Entry>,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Entry>,
    last_number: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { kept: Mutex::default(), listeners: broadcast::Sender::new(LISTENER_QUEUE_MAX) }
    }
}

impl History {
    /// All that is kept, oldest first.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().entries.iter().cloned().collect()
    }

    /// What is kept with a number above `after`, and all that follows, without a gap between.
    pub(crate) fn listen(&self, after: u64) -> (Vec<Entry>, broadcast::Receiver<Entry>) {
        let kept = self.lock();
        let missed = kept.entries.iter().filter(|entry| entry.number > after).cloned().collect();
        (missed, self.listeners.subscribe())
    }

    /// The number of the last message.
    pub(crate) fn last_number(&self) -> u64 {
        self.lock().last_number
    }

    fn add(&self, mut entry: Entry) {
        let mut kept = self.lock();
        kept.last_number += 1;
        entry.number = kept.last_number;
        if kept.entries.len() == ENTRIES_MAX {
            kept.entries.pop_front();
        }
        kept.entries.push_back(entry.clone());
        // Under the lock, so that a new listener sees each message once. Nobody listening is no fault.
        let _ = self.listeners.send(entry);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the program's own messages into a [`History`].
pub(crate) struct Recorder(pub(crate) &'static History);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, link, state, id } = fields;
        let level = name(*event.metadata().level());
        self.0.add(Entry { number: 0, time: now(), level, message, link, state, id });
    }
}

/// The time of day, UTC, as RFC 3339 has it.
pub(crate) fn now() -> String {
    let mut time = String::new();
    // Writing to a string cannot fail, and a message without its time is better than none.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    link: Option<String>,
    state: Option<String>,
    id: Option<u32>,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "id" => self.id = value.try_into().ok(),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = format!("{value:?}");
        if text.len() > MESSAGE_MAX_BYTES {
            let end = (0..=MESSAGE_MAX_BYTES).rev().find(|&end| text.is_char_boundary(end));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        match field.name() {
            "message" => self.message = text,
            "link" => self.link = Some(text),
            "state" => self.state = Some(text),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str) -> Entry {
        let message = message.to_owned();
        Entry { number: 0, time: String::new(), level: "info", message, link: None, state: None, id: None }
    }

    #[test]
    fn the_last_messages_stay_and_listeners_hear_each_once() {
        let history = History::default();
        for number in 1..=ENTRIES_MAX as u64 + 10 {
            history.add(entry(&number.to_string()));
        }
        let entries = history.entries();
        assert_eq!(entries.len(), ENTRIES_MAX);
        assert!(entries.iter().all(|entry| entry.number.to_string() == entry.message));
        let (missed, mut news) = history.listen(ENTRIES_MAX as u64 + 8);
        assert_eq!(missed.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1009, 1010]);
        history.add(entry("new"));
        assert_eq!(news.try_recv().unwrap().message, "new");
        assert_eq!(history.last_number(), 1011);
    }

    #[test]
    fn a_recorder_keeps_the_message_and_what_it_is_about() {
        use tracing_subscriber::layer::SubscriberExt;
        let history: &'static History = Box::leak(Box::default());
        let subscriber = tracing_subscriber::registry().with(Recorder(history));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(id = 1_u32, link = %"tcp 10.0.0.2:7700", state = %"suspect", "link {} is {}", 1, "suspect");
            tracing::info!("{}", "ä".repeat(MESSAGE_MAX_BYTES));
        });
        let [first, second] = &history.entries()[..] else { panic!("two messages") };
        assert_eq!((first.level, first.message.as_str()), ("warn", "link 1 is suspect"));
        assert_eq!(first.link.as_deref(), Some("tcp 10.0.0.2:7700"));
        assert_eq!((first.state.as_deref(), first.id), (Some("suspect"), Some(1)));
        assert!(first.time.starts_with("20") && first.time.ends_with('Z'), "{}", first.time);
        assert!(second.message.len() <= MESSAGE_MAX_BYTES + 3);
    }
}
