//! Who may do what at a listener, as its options and the peers file say at the moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bondwire::{Listener, PeerLimits, PublicKey};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::forward::permits::Permits;
use crate::link_spec::LinkSpec;
use crate::peers::{Change, Limits, NewPeer, Peer, PeerName, Peers, PeersWatch, Remembered, WantedName};
use crate::permissions::Permissions;

/// Shared by all bonds of a listener.
pub(crate) struct Access {
    /// Keys that may come in whatever the peers file says.
    always: Always,
    /// What peers may do unless their entries say otherwise.
    defaults: Permits,
    /// What is listened on; their places are the numbers of the acceptors.
    links: Vec<LinkSpec>,
    file: Mutex<PeersWatch>,
    peers: watch::Sender<Arc<Peers>>,
    /// Name for whoever pairs, if the user has chosen one.
    pairing_name: Option<PeerName>,
}

/// Who is let in by an option.
#[derive(Debug, Clone)]
pub(crate) enum Always {
    Anyone,
    Keys(Vec<PublicKey>),
}

impl Access {
    pub(crate) fn new(
        always: Always,
        defaults: Permits,
        links: Vec<LinkSpec>,
        (file, peers): (PeersWatch, Peers),
        pairing_name: Option<PeerName>,
    ) -> Self {
        let (peers, file) = (watch::Sender::new(Arc::new(peers)), Mutex::new(file));
        Self { always, defaults, links, file, peers, pairing_name }
    }

    /// The peers now, and whenever they change.
    pub(crate) fn peers(&self) -> watch::Receiver<Arc<Peers>> {
        self.peers.subscribe()
    }

    /// Whether the host with this key may come in.
    pub(crate) fn allows(&self, key: &PublicKey) -> bool {
        self.is_always_allowed(key) || self.peers.borrow().with_key(key).is_some()
    }

    fn is_always_allowed(&self, key: &PublicKey) -> bool {
        match &self.always {
            Always::Anyone => true,
            Always::Keys(keys) => keys.contains(key),
        }
    }

    /// What the host with this key is called; a part of its key if it has no name.
    pub(crate) fn name_of(&self, key: &PublicKey) -> String {
        match self.peers.borrow().with_key(key) {
            Some(peer) => peer.name.to_string(),
            None => crate::keys::short_key_text(key),
        }
    }

    /// What the host with this key is called, if it has a name.
    pub(crate) fn known_name_of(&self, key: &PublicKey) -> Option<String> {
        Some(self.peers.borrow().with_key(key)?.name.to_string())
    }

    /// What the host with this key may do now.
    pub(crate) fn permissions(&self, key: Option<&PublicKey>) -> Permissions {
        let peers = self.peers.borrow();
        Permissions::of(key.and_then(|key| peers.with_key(key)), &self.defaults)
    }

    /// The acceptors by which the host with this key may come in, unless it may use all.
    pub(crate) fn acceptors(&self, key: Option<&PublicKey>) -> Option<Vec<u32>> {
        let peers = self.peers.borrow();
        self.limits_of(peers.with_key(key?)?).acceptors
    }

    /// Waits until the host with this key, which is in or about to be written down, may come in no longer.
    pub(crate) async fn removed(&self, key: &PublicKey) {
        let mut peers = self.peers();
        let known = |peers: &Arc<Peers>| peers.with_key(key).is_some();
        if self.is_always_allowed(key)
            || peers.wait_for(known).await.is_err()
            || peers.wait_for(|peers| !known(peers)).await.is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Looks whether the peers file has changed, and says so.
    pub(crate) fn look(&self) {
        let change = self.file().look();
        if let Some(change) = change {
            self.take(change);
        }
    }

    /// Writes a host down that has just paired, under the name it proposes unless the user has chosen one.
    pub(crate) fn remember(&self, key: PublicKey, proposed: PeerName) -> Result<Remembered, Failure> {
        let name = match &self.pairing_name {
            Some(name) => WantedName::Given { name, option: "--pair=NAME" },
            None => WantedName::Proposed(proposed),
        };
        let mut file = self.file();
        let remembered = file.file().remember(&NewPeer { key, name, links: &[], ssh: None })?;
        let change = file.reload();
        drop(file);
        self.take(change);
        Ok(remembered)
    }

    fn take(&self, change: Change) {
        match change {
            Change::Peers(peers) => {
                let changes = describe(&self.peers.borrow(), &peers);
                self.peers.send_replace(Arc::new(peers));
                // Now that it is so: whoever reads it may rely on it.
                tracing::info!("peers: {changes}");
            }
            Change::Broken(why) => tracing::error!("the peers stay as they were: {why}"),
        }
    }

    fn file(&self) -> MutexGuard<'_, PeersWatch> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the listener from `old` peers to `new` ones.
    pub(crate) fn apply(&self, listener: &Listener, old: &Peers, new: &Peers) {
        for gone in old.iter().filter(|peer| new.with_key(&peer.key).is_none()) {
            listener.set_limits(gone.key, PeerLimits::default());
            if !self.is_always_allowed(&gone.key) {
                listener.disallow(gone.key);
            }
        }
        for peer in new.iter() {
            listener.set_limits(peer.key, self.limits_of(peer));
            listener.allow(peer.key);
        }
    }

    fn limits_of(&self, peer: &Peer) -> PeerLimits {
        let Limits { bonds_max, streams_max, receive_buffer_bytes, send_buffer_bytes } = peer.limits;
        let number = |link: &LinkSpec| self.links.iter().position(|own| own == link);
        let acceptors = peer.permit_links.as_ref().map(|permitted| {
            let numbers =
                permitted.iter().filter_map(|link| number(link).and_then(|n| u32::try_from(n).ok()));
            numbers.collect()
        });
        PeerLimits { bonds_max, streams_max, receive_buffer_bytes, send_buffer_bytes, acceptors }
    }
}

/// What differs between two versions of the peers file.
fn describe(old: &Peers, new: &Peers) -> String {
    let names = |peers: &mut dyn Iterator<Item = &Peer>| {
        peers.map(|peer| peer.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let added = names(&mut new.iter().filter(|peer| old.with_key(&peer.key).is_none()));
    let removed = names(&mut old.iter().filter(|peer| new.with_key(&peer.key).is_none()));
    let changed =
        names(&mut new.iter().filter(|peer| old.with_key(&peer.key).is_some_and(|before| before != *peer)));
    let parts: Vec<_> = [("added", added), ("removed", removed), ("changed", changed)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what} {names}"))
        .collect();
    if parts.is_empty() { "read again, nothing has changed".to_owned() } else { parts.join("; ") }
}
