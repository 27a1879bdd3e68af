//! A bond, and what all forwards over it share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bondwire::error::OpenStreamError;
use bondwire::{Bond, BondStream, Class, StreamId};
use tokio::sync::watch;

use super::address::Address;
use super::drain::Drain;
use super::flows::Flows;

/// All forwards have the same priority: the middle.
const PRIORITY: u8 = 128;

/// A bond that carries forwards.
#[derive(Clone)]
pub(crate) struct Carrier {
    pub(crate) bond: Bond,
    pub(crate) flows: Arc<Flows>,
    pub(crate) returns: Arc<Returns>,
    pub(crate) drain: Drain,
}

impl Carrier {
    pub(crate) fn new(bond: Bond, drain: Drain) -> Self {
        Self { bond, flows: Arc::default(), returns: Arc::default(), drain }
    }

    pub(crate) async fn open(&self, class: Class, label: &str) -> Result<BondStream, OpenStreamError> {
        self.bond.open_stream_with(class, PRIORITY, label).await
    }
}

/// Waits for a bond that has not ended: between one that did and the next, connections wait for a moment. `None` when
/// there will be none.
pub(crate) async fn current(carrier: &mut watch::Receiver<Carrier>) -> Option<Carrier> {
    let open = carrier.wait_for(|carrier| carrier.bond.close_reason().is_none()).await;
    open.ok().map(|carrier| carrier.clone())
}

/// Where connections go that the peer takes for this end (`-R`), by the stream that asked for them.
#[derive(Default)]
pub(crate) struct Returns(Mutex<HashMap<StreamId, Address>>);

impl Returns {
    pub(crate) fn insert(self: &Arc<Self>, asked_by: StreamId, target: Address) -> Return {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(asked_by, target);
        Return { returns: Arc::clone(self), asked_by }
    }

    pub(crate) fn target(&self, asked_by: StreamId) -> Option<Address> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&asked_by).cloned()
    }
}

/// Keeps one entry of [`Returns`].
pub(crate) struct Return {
    returns: Arc<Returns>,
    asked_by: StreamId,
}

impl Drop for Return {
    fn drop(&mut self) {
        self.returns.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.asked_by);
    }
}
