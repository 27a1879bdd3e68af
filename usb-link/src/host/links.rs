//! A link over every cable that is meant, now and later.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bondwire::{Bond, DialerHandle, LinkPolicy};
use tokio::task::JoinHandle;

use super::cable::{Cable, CableId};
use super::watch::CableWatch;
use super::{UsbAddress, UsbDialer};
use crate::limits::{CABLES_MAX, LIST_INTERVAL};

/// Keeps a link up over each cable that an address means, as they are plugged in. A cable whose hint names another peer than
/// the bond's is left alone.
///
/// When it is dropped its links end.
///
/// ```
/// # async fn example(bond: bondwire::Bond) -> Result<(), Box<dyn std::error::Error>> {
/// use bondwire_usb::host::CableLinks;
/// let cables = CableLinks::start(&bond, "1d6b:0104".parse()?);
/// for link in cables.links() {
///     println!("{}: {:?}", link.cable, link.dialer.state());
/// }
/// # Ok(()) }
/// ```
pub struct CableLinks {
    shared: Arc<Shared>,
    watching: JoinHandle<()>,
}

/// A link over one cable.
#[derive(Clone, Debug)]
pub struct CableLink {
    /// The cable.
    pub cable: CableId,
    /// What keeps the link up.
    pub dialer: DialerHandle,
}

struct Shared {
    address: UsbAddress,
    state: Mutex<State>,
}

struct State {
    bond: Bond,
    dialers: BTreeMap<CableId, DialerHandle>,
    /// Cables that are not to be used any more.
    removed: BTreeSet<CableId>,
    policy: LinkPolicy,
    keep_alive: Option<Duration>,
    /// Why there is no cable.
    fault: Option<String>,
}

impl CableLinks {
    /// Begins to watch and to dial. Needs a tokio runtime.
    pub fn start(bond: &Bond, address: UsbAddress) -> Self {
        let state = State {
            bond: bond.clone(),
            dialers: BTreeMap::new(),
            removed: BTreeSet::new(),
            policy: LinkPolicy::default(),
            keep_alive: None,
            fault: Some("USB devices are being listed".to_owned()),
        };
        let shared = Arc::new(Shared { address, state: Mutex::new(state) });
        let watching = tokio::spawn(watch(shared.clone()));
        Self { shared, watching }
    }

    /// The links of all cables that were seen, plugged in or not.
    pub fn links(&self) -> Vec<CableLink> {
        let state = self.shared.lock();
        let link = |(cable, dialer): (&CableId, &DialerHandle)| CableLink {
            cable: cable.clone(),
            dialer: dialer.clone(),
        };
        state.dialers.iter().map(link).collect()
    }

    /// Why there is no cable, if there is none.
    pub fn fault(&self) -> Option<String> {
        let state = self.shared.lock();
        if state.dialers.is_empty() { state.fault.clone() } else { None }
    }

    /// Ends the link of one cable, and makes none over it any more.
    pub fn remove(&self, cable: &CableId) {
        let mut state = self.shared.lock();
        state.removed.insert(cable.clone());
        if let Some(dialer) = state.dialers.remove(cable) {
            dialer.stop();
        }
    }

    /// What links that are found later will be used for, and their keep-alive interval.
    pub fn wishes(&self) -> (LinkPolicy, Option<Duration>) {
        let state = self.shared.lock();
        (state.policy, state.keep_alive)
    }

    /// Sets that. Links that are there already stay as they are.
    pub fn set_wishes(&self, policy: LinkPolicy, keep_alive: Option<Duration>) {
        let mut state = self.shared.lock();
        (state.policy, state.keep_alive) = (policy, keep_alive);
    }

    /// Goes on with another bond, in place of one that ended. Each cable's link is used for what it was last set to.
    pub fn set_bond(&self, bond: &Bond) {
        let mut state = self.shared.lock();
        state.bond = bond.clone();
        for (cable, dialer) in &mut state.dialers {
            let next = bond.add_dialer(UsbDialer::new(cable.clone()));
            next.set_policy(dialer.policy());
            next.set_keep_alive(dialer.keep_alive());
            std::mem::replace(dialer, next).stop();
        }
    }
}

impl Drop for CableLinks {
    fn drop(&mut self) {
        self.watching.abort();
        self.shared.lock().dialers.values().for_each(DialerHandle::stop);
    }
}

impl fmt::Debug for CableLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CableLinks")
            .field("address", &self.shared.address)
            .field("links", &self.links())
            .finish()
    }
}

/// Finds cables for ever.
async fn watch(shared: Arc<Shared>) {
    let mut watch = CableWatch::new();
    let mut listed = loop {
        match watch.list().await {
            Ok(listed) => break listed,
            Err(e) => shared.lock().fault = Some(format!("USB devices cannot be listed: {e}")),
        }
        tokio::time::sleep(LIST_INTERVAL).await;
    };
    loop {
        shared.take(&listed);
        listed = watch.plugged_in().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials what was plugged in and is meant.
    fn take(&self, plugged_in: &[Cable]) {
        let mut state = self.lock();
        let peer = state.bond.peer();
        let (meant, others): (Vec<_>, Vec<_>) = plugged_in
            .iter()
            .filter(|cable| self.address.matches(cable))
            .partition(|cable| peer.is_none_or(|peer| cable.hint.may_be(&peer)));
        for cable in meant {
            state.dial(cable.id());
        }
        let kind =
            if self.address == UsbAddress::default() { "with Bondwire's interface" } else { "that is meant" };
        state.fault = Some(match others.first() {
            Some(other) => format!("the device at {} leads to another peer", other.port),
            None => format!("no USB device {kind} is plugged in; `bondwire devices` lists them"),
        });
    }
}

impl State {
    fn dial(&mut self, cable: CableId) {
        // Its dialer hears of it by itself.
        if self.dialers.contains_key(&cable) || self.removed.contains(&cable) {
            return;
        }
        if self.dialers.len() >= CABLES_MAX {
            let idle = |dialer: &DialerHandle| dialer.state().link.is_none();
            let Some(oldest) = self.dialers.iter().find(|(_, dialer)| idle(dialer)) else { return };
            let oldest = oldest.0.clone();
            if let Some(dialer) = self.dialers.remove(&oldest) {
                dialer.stop();
            }
        }
        let dialer = self.bond.add_dialer(UsbDialer::new(cable.clone()));
        dialer.set_policy(self.policy);
        dialer.set_keep_alive(self.keep_alive);
        self.dialers.insert(cable, dialer);
    }
}
