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
    file: Mutex<PeersWatch>,
    rules: watch::Sender<Arc<Rules>>,
    /// Name for whoever pairs, if the user has chosen one.
    pairing_name: Option<PeerName>,
}

/// What options or a configuration say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grants {
    /// Keys that may come in whatever the peers file says.
    pub(crate) always: Always,
    /// What peers may do unless their entries say otherwise.
    pub(crate) defaults: Permits,
    /// Peers of a configuration, which go before those of the peers file.
    pub(crate) configured: Peers,
}

/// Who is let in by an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Always {
    Anyone,
    Keys(Vec<PublicKey>),
}

/// What is listened on: the numbers of the acceptors and their LINKs.
pub(crate) type Numbered = Vec<(u32, LinkSpec)>;

/// What holds at one moment.
#[derive(Debug)]
pub(crate) struct Rules {
    grants: Grants,
    links: Numbered,
    /// Those of the peers file.
    remembered: Peers,
    /// All of them.
    peers: Peers,
}

impl Rules {
    fn new(grants: Grants, links: Numbered, remembered: Peers) -> Self {
        let peers = grants.configured.before(&remembered);
        Self { grants, links, remembered, peers }
    }

    /// Whether the host with this key may come in.
    fn allow(&self, key: &PublicKey) -> bool {
        let always = match &self.grants.always {
            Always::Anyone => true,
            Always::Keys(keys) => keys.contains(key),
        };
        always || self.peers.with_key(key).is_some()
    }

    /// Those who may come in, by their keys.
    fn keys(&self) -> impl Iterator<Item = PublicKey> {
        let always = match &self.grants.always {
            Always::Anyone => &[][..],
            Always::Keys(keys) => keys,
        };
        always.iter().copied().chain(self.peers.iter().map(|peer| peer.key))
    }

    fn limits_of(&self, peer: &Peer) -> PeerLimits {
        let Limits { bonds_max, streams_max, receive_buffer_bytes, send_buffer_bytes } = peer.limits;
        let number =
            |link: &LinkSpec| self.links.iter().find(|(_, own)| own == link).map(|(number, _)| *number);
        let acceptors =
            peer.permit_links.as_ref().map(|permitted| permitted.iter().filter_map(number).collect());
        PeerLimits { bonds_max, streams_max, receive_buffer_bytes, send_buffer_bytes, acceptors }
    }

    /// Brings the listener here from what held before.
    pub(crate) fn apply(&self, listener: &Listener, before: Option<&Self>) {
        for gone in before.iter().flat_map(|before| before.peers.iter()) {
            if self.peers.with_key(&gone.key).is_none() {
                listener.set_limits(gone.key, PeerLimits::default());
            }
        }
        for gone in before.iter().flat_map(|before| before.keys()).filter(|key| !self.allow(key)) {
            listener.disallow(gone);
        }
        for peer in self.peers.iter() {
            listener.set_limits(peer.key, self.limits_of(peer));
        }
        for key in self.keys() {
            listener.allow(key);
        }
    }
}

impl Access {
    pub(crate) fn new(
        grants: Grants,
        links: Numbered,
        (file, remembered): (PeersWatch, Peers),
        pairing_name: Option<PeerName>,
    ) -> Self {
        let rules = Rules::new(grants, links, remembered);
        Self { file: Mutex::new(file), rules: watch::Sender::new(Arc::new(rules)), pairing_name }
    }

    /// The rules now, and whenever they change.
    pub(crate) fn rules(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    /// Says anew who may do what, and what is listened on.
    pub(crate) fn set(&self, grants: Grants, links: Numbered) {
        self.rules.send_modify(|rules| {
            *rules = Arc::new(Rules::new(grants, links, rules.remembered.clone()));
        });
    }

    /// Whether the host with this key may come in.
    pub(crate) fn allows(&self, key: &PublicKey) -> bool {
        self.rules.borrow().allow(key)
    }

    /// What the host with this key is called; a part of its key if it has no name.
    pub(crate) fn name_of(&self, key: &PublicKey) -> String {
        self.known_name_of(key).unwrap_or_else(|| crate::keys::short_key_text(key))
    }

    /// What the host with this key is called, if it has a name.
    pub(crate) fn known_name_of(&self, key: &PublicKey) -> Option<String> {
        Some(self.rules.borrow().peers.with_key(key)?.name.to_string())
    }

    /// What the host with this key may do now.
    pub(crate) fn permissions(&self, key: Option<&PublicKey>) -> Permissions {
        let rules = self.rules.borrow();
        Permissions::of(key.and_then(|key| rules.peers.with_key(key)), &rules.grants.defaults)
    }

    /// The acceptors by which the host with this key may come in, unless it may use all.
    pub(crate) fn acceptors(&self, key: Option<&PublicKey>) -> Option<Vec<u32>> {
        let rules = self.rules.borrow();
        rules.limits_of(rules.peers.with_key(key?)?).acceptors
    }

    /// Waits until the host with this key, which may come in or is about to be written down, may come in no longer.
    pub(crate) async fn removed(&self, key: &PublicKey) {
        let mut rules = self.rules();
        if rules.wait_for(|rules| rules.allow(key)).await.is_err()
            || rules.wait_for(|rules| !rules.allow(key)).await.is_err()
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
                let changes = describe(&self.rules.borrow().remembered, &peers);
                self.rules.send_modify(|rules| {
                    *rules = Arc::new(Rules::new(rules.grants.clone(), rules.links.clone(), peers));
                });
                // Now that it is so: whoever reads it may rely on it.
                tracing::info!("peers: {changes}");
            }
            Change::Broken(why) => tracing::error!("the peers stay as they were: {why}"),
        }
    }

    fn file(&self) -> MutexGuard<'_, PeersWatch> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
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
