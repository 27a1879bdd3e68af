use bondwire_core::error::CloseReason;
use bondwire_core::event::{Change, LinkState};
use bondwire_core::id::LinkId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Something that happened to a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BondEvent {
    /// A link joined, became suspect, came back or left.
    Link {
        /// The link.
        id: LinkId,
        /// Its name, such as `tcp 10.0.0.2:7700`.
        name: String,
        /// Its state before.
        from: LinkState,
        /// Its state now.
        to: LinkState,
        /// What made it change.
        why: Change,
    },
    /// The bond ended. No event follows.
    Closed(CloseReason),
}

/// A subscription to a bond's events, from the moment of [`Bond::events`](crate::Bond::events) on. Its last one is
/// [`BondEvent::Closed`], also when the bond had ended before that moment.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<BondEvent>,
}

/// Why there is no next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// The subscriber was too slow and missed some; the next call goes on behind them.
    #[error(
        "{0} events were missed because they were not fetched in time; fetch them sooner, or look at Bond::links"
    )]
    Missed(u64),
    /// The bond is over and all its events were fetched.
    #[error("the bond is over, no event follows")]
    Over,
}

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<BondEvent>) -> Self {
        Self { receiver }
    }

    /// Waits for the next event. Cancel safe.
    ///
    /// # Errors
    /// [`EventsError::Missed`] tells how many were lost to slowness; [`EventsError::Over`] is the end.
    pub async fn next(&mut self) -> Result<BondEvent, EventsError> {
        self.receiver.recv().await.map_err(|e| match e {
            RecvError::Lagged(count) => EventsError::Missed(count),
            RecvError::Closed => EventsError::Over,
        })
    }
}
