//! The listening end at work: takes bonds, and serves each of them.

use std::sync::Arc;
use std::time::Duration;

use bondwire::{
    AllowedPeers, Bond, BondConfig, Identity, ListenConfig, Listener, PairingToken, PublicKey, TokenId,
};
use bondwire_tcp::{AddressFilter, Listening as TcpListening};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use crate::access::{Access, Always, Grants, Numbered, Rules};
use crate::control::program::Program;
use crate::discovery::Told;
use crate::failure::Failure;
use crate::forward::carrier::Carrier;
use crate::forward::drain::Drain;
use crate::link_spec::LinkSpec;
use crate::medium::{Accepting, CABLES_CONNECT, Media, Medium};
use crate::peers::{PeerName, PeersFile, PeersWatch};
use crate::service::{self, Services, close_code};
use crate::tun::{TunSpec, Tunnel};
use crate::{events, keys, session};

/// How often the peers file is looked at.
const PEERS_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What a peer reads that may come in no longer.
const NOT_ALLOWED: &str = "your key was removed from the peers of this host; pair again";
/// What peers read when this program ends.
const LISTENER_ENDS: &str = "the listener ends";

/// Whether `links` can be listened on.
pub(crate) fn check(links: &[LinkSpec]) -> Result<(), Failure> {
    Media::check(links)?;
    if let Some(link) = links.iter().find(|link| !link.options.is_default()) {
        return Err(Failure::configuration(format!(
            "{link}: policy=, cap= and the like go with the end that connects"
        )));
    }
    match links.iter().find(|link| matches!(link.medium, Medium::Usb(_))) {
        Some(link) => Err(Failure::configuration(format!("{link}: {CABLES_CONNECT}"))),
        None => Ok(()),
    }
}

/// Where to listen and whom to let in: what a command line or a configuration comes to.
pub(crate) struct ListenPlan {
    pub(crate) identity: Identity,
    pub(crate) links: Vec<LinkSpec>,
    pub(crate) config: BondConfig,
    pub(crate) grants: Grants,
    pub(crate) peers_file: PeersFile,
    /// Name for whoever pairs, if the user has chosen one.
    pub(crate) pairing_name: Option<PeerName>,
    /// Which addresses peers are told, if any.
    pub(crate) told: Option<AddressFilter>,
    /// The interface for IP packets of peers, if there is to be one.
    pub(crate) tun: Option<TunSpec>,
    /// Whether serial ports and USB device controllers that are not there yet are waited for.
    pub(crate) waits: bool,
}

/// A listening end at work.
pub(crate) struct Listening {
    listener: Listener,
    own_key: PublicKey,
    access: Arc<Access>,
    /// What the listener was last told of these.
    applied: Arc<Rules>,
    rules: watch::Receiver<Arc<Rules>>,
    media: Media,
    acceptors: Vec<Acceptor>,
    last_number: u32,
    filter: Option<AddressFilter>,
    told: Option<Arc<Told>>,
    tunnel: Option<Arc<Tunnel>>,
    token: Option<Pending>,
    drain: Drain,
    /// Tells the bonds that this program ends, and how.
    end: watch::Sender<Ending>,
    /// Each answers the key of its peer.
    bonds: JoinSet<Option<PublicKey>>,
    look: Interval,
}

/// One LINK that is listened on.
struct Acceptor {
    number: u32,
    link: LinkSpec,
    /// Where, if it is TCP.
    listening: Option<TcpListening>,
}

/// A token that was given out and is not used yet.
struct Pending {
    id: TokenId,
    expires_at: Instant,
}

/// Whether the bonds are to end, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    AtOnce,
    /// When the peers have all that was written, or so much time is over.
    Delivered(Duration),
}

impl Listening {
    /// Opens the LINKs. Bonds that come in wait for [`run`](Self::run).
    pub(crate) async fn start(plan: ListenPlan, drain: Drain) -> Result<Self, Failure> {
        let ListenPlan { identity, links, config, grants, peers_file, pairing_name, told, tun, waits } = plan;
        check(&links)?;
        let peers = PeersWatch::start(peers_file)?;
        let allowed = match &grants.always {
            Always::Anyone => AllowedPeers::Any,
            Always::Keys(keys) => AllowedPeers::Keys(keys.clone()),
        };
        let listener = Listener::new(&identity, ListenConfig { allowed, bond: config })
            .map_err(Failure::configuration)?;
        let numbered: Numbered = (0..).zip(links.iter().cloned()).collect();
        let access = Arc::new(Access::new(grants, numbered, peers, pairing_name));
        let mut rules = access.rules();
        let applied = Arc::clone(&rules.borrow_and_update());
        // Before anybody can come in.
        applied.apply(&listener, None);
        let mut look = interval(PEERS_LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Before any link: none must leave by it.
        let tunnel = tun.map(Tunnel::open).transpose()?;
        let mut listening = Self {
            listener,
            own_key: identity.public_key(),
            access,
            applied,
            rules,
            media: Media::waiting(waits),
            acceptors: Vec::new(),
            last_number: 0,
            filter: told,
            told: None,
            tunnel,
            token: None,
            drain,
            end: watch::Sender::new(Ending::No),
            bonds: JoinSet::new(),
            look,
        };
        for (number, link) in (0..).zip(links) {
            listening.accept(number, link).await?;
        }
        listening.tell();
        Ok(listening)
    }

    /// Takes links by an acceptor with this number.
    async fn accept(&mut self, number: u32, link: LinkSpec) -> Result<(), Failure> {
        let at_link = |error| Failure::configuration(format!("{link}: {error}"));
        let accepted = self.media.accept(&link.medium, (&self.listener, &self.own_key), number).await;
        let Accepting { name, listening } = accepted.map_err(at_link)?;
        tracing::info!("listening on {name}");
        self.last_number = self.last_number.max(number);
        self.acceptors.push(Acceptor { number, link, listening });
        Ok(())
    }

    /// Listens on `links` and lets in whom `grants` say from now on. If a link cannot be listened on, all stays as it was. Bonds
    /// stay, but for those of peers that may come in no longer.
    pub(crate) async fn change(
        &mut self,
        links: &[LinkSpec],
        grants: Grants,
        told: Option<AddressFilter>,
    ) -> Result<(), Failure> {
        let before: Vec<_> = self.acceptors.iter().map(|acceptor| acceptor.link.clone()).collect();
        if let Err(failure) = self.set_links(links).await {
            // They were listened on a moment ago.
            if let Err(lost) = self.set_links(&before).await {
                tracing::error!("no longer listening: {lost}");
            }
            return Err(failure);
        }
        let numbered =
            self.acceptors.iter().map(|acceptor| (acceptor.number, acceptor.link.clone())).collect();
        self.access.set(grants, numbered);
        self.apply();
        self.filter = told;
        self.tell();
        Ok(())
    }

    async fn set_links(&mut self, wanted: &[LinkSpec]) -> Result<(), Failure> {
        // First those that go: a new one may want the same port.
        let gone: Vec<_> =
            self.acceptors.extract_if(.., |acceptor| !wanted.contains(&acceptor.link)).collect();
        for Acceptor { number, link, .. } in gone {
            self.listener.remove_acceptors(number).await;
            tracing::info!("no longer listening on {link}");
        }
        for link in wanted {
            if !self.acceptors.iter().any(|acceptor| acceptor.link == *link) {
                self.accept(self.last_number + 1, link.clone()).await?;
            }
        }
        Ok(())
    }

    /// What peers are told that come in from now on.
    fn tell(&mut self) {
        let listening = self.listening().map(|(number, at)| (number, at.clone())).collect();
        self.told = self.filter.clone().map(|filter| Arc::new(Told { listening, filter }));
    }

    /// Where this end listens, as far as it is TCP, with the numbers of the acceptors.
    pub(crate) fn listening(&self) -> impl Iterator<Item = (u32, &TcpListening)> {
        self.acceptors.iter().filter_map(|acceptor| Some((acceptor.number, acceptor.listening.as_ref()?)))
    }

    /// Makes a token with which one host can come in and be written down, for so long.
    pub(crate) fn new_token(&mut self, valid_for: Duration) -> Result<PairingToken, Failure> {
        let token = self.listener.new_pairing_token(valid_for).map_err(Failure::configuration)?;
        self.token = Some(Pending { id: token.id(), expires_at: Instant::now() + valid_for });
        Ok(token)
    }

    /// Serves bonds for as long as it is polled, and lists them in `program`. Cancel safe.
    pub(crate) async fn run(&mut self, program: &Arc<Program>) {
        *program.listened_on() = self.acceptors.iter().map(|acceptor| acceptor.link.clone()).collect();
        loop {
            tokio::select! {
                // Bonds first, so that those which wait when the program ends are closed like the others.
                biased;
                bond = self.listener.accept() => self.take(bond, program),
                Ok(()) = self.rules.changed() => self.apply(),
                Some(ended) = self.bonds.join_next(), if !self.bonds.is_empty() => {
                    // One that paired and was never written down has to pair again.
                    if let Ok(Some(key)) = ended && !self.access.allows(&key) {
                        self.listener.disallow(key);
                    }
                }
                _ = self.look.tick() => self.access.look(),
                () = expired(self.token.as_ref()) => {
                    self.token = None;
                    tracing::warn!("the pairing token has expired unused; to make a new one, start again with --pair");
                }
            }
        }
    }

    /// The interface for IP packets.
    pub(crate) fn tunnel(&self) -> Option<&Arc<Tunnel>> {
        self.tunnel.as_ref()
    }

    fn take(&mut self, bond: Bond, program: &Arc<Program>) {
        self.token.take_if(|token| bond.paired_by() == Some(token.id));
        let services = Services {
            access: Some(Arc::clone(&self.access)),
            peer: bond.peer(),
            pairs: bond.paired_by().is_some(),
            speed: true,
            told: self.told.clone(),
            tunnel: self.tunnel.clone(),
        };
        let (access, peer) = (Arc::clone(&self.access), bond.peer());
        let name = Box::new(move || access.known_name_of(&peer?));
        let registered = program.register(bond.clone(), name, None);
        let carrier = Carrier::new(bond, self.drain.clone());
        let served = serve(carrier, services, Arc::clone(&self.access), self.end.subscribe());
        self.bonds.spawn(async move {
            let _registered = registered;
            served.await
        });
    }

    fn apply(&mut self) {
        let rules = Arc::clone(&self.rules.borrow_and_update());
        rules.apply(&self.listener, Some(&self.applied));
        self.applied = rules;
    }

    /// Waits until no link can ever come in again.
    pub(crate) fn used_up(&self) -> impl Future<Output = ()> + use<> {
        let links: Vec<_> = self.acceptors.iter().map(|acceptor| acceptor.link.clone()).collect();
        let media = self.media.clone();
        async move { media.used_up(&links).await }
    }

    /// Ends the bonds at once, and waits until ports are free.
    pub(crate) async fn end(self) {
        self.end_so(Ending::AtOnce).await;
    }

    /// Ends each bond when its peer has all that was written, or when `patience` is over.
    pub(crate) async fn finish(self, patience: Duration) {
        self.end_so(Ending::Delivered(patience)).await;
    }

    async fn end_so(mut self, how: Ending) {
        self.end.send_replace(how);
        // The bonds' last words need the links, of which some go with the listener: those of a gadget.
        let mut late = JoinSet::new();
        while !self.bonds.is_empty() {
            tokio::select! {
                _ = self.bonds.join_next() => {}
                bond = self.listener.accept() => {
                    late.spawn(async move { session::close(&bond, close_code::LISTENER_ENDS, LISTENER_ENDS).await });
                }
            }
        }
        self.listener.close().await;
        self.media.ended().await;
    }
}

async fn expired(token: Option<&Pending>) {
    match token {
        Some(token) => sleep_until(token.expires_at).await,
        None => std::future::pending().await,
    }
}

/// Serves one bond until it ends, this program does, or its peer may come in no longer.
async fn serve(
    carrier: Carrier,
    services: Services,
    access: Arc<Access>,
    mut end: watch::Receiver<Ending>,
) -> Option<PublicKey> {
    let bond = &carrier.bond;
    let peer = bond.peer()?;
    let about = format!("{}: ", access.name_of(&peer));
    tracing::info!("{about}new bond from {}", keys::public_key_text(&peer));
    if !services.pairs && !access.allows(&peer) {
        // It came in just before it was removed.
        session::close(bond, close_code::NOT_ALLOWED, NOT_ALLOWED).await;
        return Some(peer);
    }
    // It fails only with the program.
    let ending = async { end.wait_for(|end| *end != Ending::No).await.map_or(Ending::AtOnce, |end| *end) };
    let end = async {
        tokio::select! {
            how = ending => {
                if let Ending::Delivered(patience) = how {
                    // What is not delivered by then is lost.
                    let _ = timeout(patience, bond.close(close_code::LISTENER_ENDS, LISTENER_ENDS)).await;
                }
                session::close(bond, close_code::LISTENER_ENDS, LISTENER_ENDS).await;
            }
            () = access.removed(&peer) => {
                tracing::info!("{about}removed from the peers; its bond ends");
                session::close(bond, close_code::NOT_ALLOWED, NOT_ALLOWED).await;
            }
            _ = bond.closed() => {}
        }
    };
    tokio::join!(end, events::log(bond, &about), service::serve(&carrier, services));
    Some(peer)
}
