//! Addresses that this host listens on for its peers.
//!
//! A peer that died leaves its bond, and with it its forwards, until the bond's idle time is over. When it comes back
//! with a new bond and asks for the same address, the old one gives way.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bondwire::{Bond, LinkState, PublicKey};
use tokio::sync::watch;

use super::address::Address;
use super::inlet::Inlet;

type Key = (Option<PublicKey>, Address);

/// Who holds which address.
#[derive(Default)]
pub(crate) struct Held(Mutex<HashMap<Key, Holder>>);

struct Holder {
    bond: Bond,
    wanted: watch::Sender<bool>,
}

/// Keeps one address; whoever has it listens until [`is_wanted`](Self::is_wanted).
pub(crate) struct Hold {
    held: Arc<Held>,
    key: Key,
    wanted: watch::Receiver<bool>,
}

impl Held {
    /// Opens `address` for the peer of `bond`.
    pub(crate) async fn open(self: &Arc<Self>, address: &Address, bond: &Bond) -> io::Result<(Hold, Inlet)> {
        let key = (bond.peer(), address.clone());
        let inlet = match Inlet::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && self.take_over(&key).await => {
                Inlet::bind(address).await?
            }
            bound => bound?,
        };
        let wanted = watch::Sender::new(false);
        let hold = Hold { held: Arc::clone(self), key: key.clone(), wanted: wanted.subscribe() };
        // Several with port 0 have the same key; the last of them is known.
        self.lock().insert(key, Holder { bond: bond.clone(), wanted });
        Ok((hold, inlet))
    }

    /// Has a bond of the same peer that has no link left give the address up; `false` if there is none.
    async fn take_over(&self, key: &Key) -> bool {
        let wanted = match self.lock().get(key) {
            Some(holder) if !is_linked(&holder.bond) => holder.wanted.clone(),
            _ => return false,
        };
        tracing::info!("{} changes over to a new bond of the same peer", key.1);
        wanted.send_replace(true);
        wanted.closed().await;
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_linked(bond: &Bond) -> bool {
    bond.links().iter().any(|link| link.state == LinkState::Active)
}

impl Hold {
    /// Waits until another bond of the same peer wants the address. Cancel safe.
    pub(crate) async fn is_wanted(&mut self) {
        // While the sender lives, nobody wants it.
        let _ = self.wanted.wait_for(|wanted| *wanted).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        let is_ours =
            held.get(&self.key).is_some_and(|holder| self.wanted.same_channel(&holder.wanted.subscribe()));
        if is_ours {
            held.remove(&self.key);
        }
    }
}
