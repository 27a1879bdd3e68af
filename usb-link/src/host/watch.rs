use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use futures_core::Stream;
use nusb::hotplug::HotplugWatch;
use nusb::{DeviceId, DeviceInfo};
use tokio::time::{Instant, sleep_until};

use super::cable::{Cable, cables};
use crate::limits::LIST_INTERVAL;

/// Tells what is plugged in, as it happens.
///
/// It listens to the system's hotplug events from its beginning on, so before its first list, and lists again every two
/// seconds: without udev there are no events, and an interface may be ready only after its device was announced.
pub struct CableWatch {
    /// None where the system has no events.
    events: Option<HotplugWatch>,
    list_at: Instant,
    /// What the last list had. A device that is plugged in again is another one.
    known: Vec<(DeviceId, u8)>,
}

impl CableWatch {
    /// Begins to watch.
    pub fn new() -> Self {
        let events = nusb::watch_devices()
            .inspect_err(|e| tracing::debug!(target: "bondwire", "no hotplug events: {e}"))
            .ok();
        Self { events, list_at: Instant::now(), known: Vec::new() }
    }

    /// What is plugged in.
    ///
    /// # Errors
    /// If the system cannot list its USB devices at all.
    pub async fn list(&mut self) -> io::Result<Vec<Cable>> {
        self.list_at = Instant::now() + LIST_INTERVAL;
        let listed = cables().await?;
        self.known = listed.iter().filter_map(key).collect();
        Ok(listed)
    }

    /// Waits until something is plugged in that the last list did not have, and answers it. Cancel safe.
    pub async fn plugged_in(&mut self) -> Vec<Cable> {
        loop {
            self.wait().await;
            let before = self.known.clone();
            let listed = self.list().await.unwrap_or_else(|e| {
                tracing::debug!(target: "bondwire", "USB devices cannot be listed: {e}");
                Vec::new()
            });
            let is_new = |cable: &Cable| key(cable).is_some_and(|key| !before.contains(&key));
            let new: Vec<Cable> = listed.into_iter().filter(is_new).collect();
            if !new.is_empty() {
                return new;
            }
        }
    }

    /// Waits for an event, or until it is time to look without one.
    async fn wait(&mut self) {
        let Self { events, list_at, .. } = self;
        let event = poll_fn(|cx| match events {
            Some(events) => Pin::new(events).poll_next(cx).map(|event| event.is_some()),
            None => Poll::Pending,
        });
        let has_ended = tokio::select! {
            is_event = event => !is_event,
            () = sleep_until(*list_at) => false,
        };
        if has_ended {
            self.events = None;
        }
    }
}

fn key(cable: &Cable) -> Option<(DeviceId, u8)> {
    Some((cable.device.as_ref().map(DeviceInfo::id)?, cable.interface))
}

impl Default for CableWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CableWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CableWatch").field("known", &self.known).finish_non_exhaustive()
    }
}
