//! What the service manager is told: sd_notify(3). Without one nothing happens.

use std::time::Duration;

/// The service manager that started this process, if one did.
pub(super) struct Manager {
    watchdog: Option<Duration>,
    /// The last status that it was told.
    status: String,
}

impl Manager {
    #[cfg(target_os = "linux")]
    pub(super) fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), status: String::new() }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn from_environment() -> Self {
        Self { watchdog: None, status: String::new() }
    }

    /// How soon it wants a sign of life again, if it wants any.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// All is open, at first or again.
    pub(super) fn ready(&mut self, status: &str) {
        status.clone_into(&mut self.status);
        say(&["READY=1", &format!("STATUS={status}")]);
    }

    /// The configuration is being read again.
    pub(super) fn reloading(&self) {
        // So that systemd can tell this reload from the next one.
        match monotonic_usec() {
            Some(now) => say(&["RELOADING=1", &format!("MONOTONIC_USEC={now}")]),
            None => say(&["RELOADING=1"]),
        }
    }

    /// The process is about to end.
    pub(super) fn stopping(&mut self) {
        "ending".clone_into(&mut self.status);
        say(&["STOPPING=1", "STATUS=ending"]);
    }

    /// A sign of life, if any is wanted, and the status if it is a new one.
    pub(super) fn alive(&mut self, status: &str) {
        if self.watchdog.is_some() {
            say(&["WATCHDOG=1"]);
        }
        if self.status != status {
            status.clone_into(&mut self.status);
            say(&[&format!("STATUS={status}")]);
        }
    }
}

#[cfg(target_os = "linux")]
fn say(lines: &[&str]) {
    let states: Vec<_> = lines.iter().map(|line| sd_notify::NotifyState::Custom(line)).collect();
    if let Err(error) = sd_notify::notify(&states) {
        tracing::debug!("the service manager does not hear: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn say(_lines: &[&str]) {}

#[cfg(target_os = "linux")]
fn monotonic_usec() -> Option<u128> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).ok().map(|now| now.as_micros())
}

#[cfg(not(target_os = "linux"))]
fn monotonic_usec() -> Option<u128> {
    None
}
