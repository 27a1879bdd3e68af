use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bondwire_core::config::Config;
use bondwire_core::endpoint::{self, Endpoint, EndpointConfig, EndpointStats};
use bondwire_core::error::{CloseReason, code};
use bondwire_core::handshake::{Attachment, LinkOffer, PairingToken, Step, TokenId};
use bondwire_core::id::{BondId, PublicKey, Role};
use bondwire_core::streams::streams_allowed;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::bond::Bond;
use crate::config::{AllowedPeers, BondConfig, ListenConfig, PeerLimits};
use crate::driver::attach::{Attaching, Medium, attach};
use crate::driver::handshake::{Answerer, Exchange, Fault, SharedEndpoint, run};
use crate::driver::shared::{Clock, Shared};
use crate::driver::timer;
use crate::error::PairingTokenError;
use crate::identity::{Identity, NoEntropy, random};
use crate::limits::{ACCEPT_BACKOFF_MAX, ACCEPT_BACKOFF_MIN, ACCEPT_QUEUE_MAX, MTU_MAX_BYTES};
use crate::link::{Acceptor, LinkDescription, PacketLink, PacketReader, PacketWriter};

/// Takes the bonds that others open, over links from any number of acceptors.
///
/// One bad link harms itself alone: strangers, noise and floods are bounded before they cost anything much, and an
/// acceptor that runs out of descriptors goes on when there are some again. Dropping the listener ends its acceptors
/// and unfinished handshakes; accepted bonds live on, but no link can join them any more.
///
/// See [`Bond`] for an example.
pub struct Listener {
    registry: Arc<Registry>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Bond>>,
    /// The tasks of the acceptors, by their numbers.
    acceptors: Mutex<Vec<(u32, JoinHandle<()>)>>,
}

/// What the links of a listener share.
struct Registry {
    endpoint: SharedEndpoint,
    config: BondConfig,
    /// Of peers that may not have everything.
    limits: Mutex<HashMap<PublicKey, PeerLimits>>,
    clock: Clock,
    bonds: Mutex<HashMap<BondId, Arc<Shared>>>,
    /// A bond was put into `bonds`.
    added: Notify,
    queue: mpsc::Sender<Bond>,
    stopped: watch::Sender<bool>,
}

impl Listener {
    /// A listener with this identity, as yet without links. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// [`NoEntropy`] if the operating system gives no random bytes.
    pub fn new(identity: &Identity, config: ListenConfig) -> Result<Self, NoEntropy> {
        let allowed = match config.allowed {
            AllowedPeers::Keys(keys) => endpoint::AllowedPeers::Only(keys.into_iter().collect()),
            AllowedPeers::Any => endpoint::AllowedPeers::Any,
        };
        let suites = config.bond.suites.clone();
        let secret = identity.secret().clone();
        let endpoint = Endpoint::new(EndpointConfig { secret, allowed, suites }, random()?);
        let (queue, accepted) = mpsc::channel(ACCEPT_QUEUE_MAX);
        let registry = Registry {
            endpoint: SharedEndpoint::new(endpoint),
            config: config.bond,
            limits: Mutex::default(),
            clock: Clock::start(),
            bonds: Mutex::default(),
            added: Notify::new(),
            queue,
            stopped: watch::Sender::new(false),
        };
        Ok(Self {
            registry: Arc::new(registry),
            accepted: tokio::sync::Mutex::new(accepted),
            acceptors: Mutex::default(),
        })
    }

    /// Waits for the next bond. Cancel safe. Its peer is authenticated; whether it is welcome is told by
    /// [`Bond::peer`], and [`Bond::close`] turns it away.
    pub async fn accept(&self) -> Bond {
        match self.accepted.lock().await.recv().await {
            Some(bond) => bond,
            // The registry holds a sender for as long as the listener lives.
            None => std::future::pending().await,
        }
    }

    /// Takes a link that somebody dialled. The handshake runs in a task of its own; the link then opens a bond or joins
    /// one.
    pub fn add_link(&self, link: impl PacketLink) {
        self.registry.clone().spawn(link, 0);
    }

    /// Takes links from `acceptor` from now on.
    pub fn add_acceptor(&self, acceptor: impl Acceptor) {
        self.add_acceptor_as(0, acceptor);
    }

    /// The same for an acceptor to be told from others by [`PeerLimits::acceptors`]; those without a number of their own,
    /// and [`add_link`](Self::add_link), have number 0.
    pub fn add_acceptor_as(&self, number: u32, acceptor: impl Acceptor) {
        let registry = self.registry.clone();
        let mut stopped = registry.stopped.subscribe();
        let task = tokio::spawn(async move {
            tokio::select! {
                // First, so that a listener that is gone complains of nothing.
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = accept_links(registry, acceptor, number) => {}
            }
        });
        self.acceptors().push((number, task));
    }

    /// Takes no more links from the acceptors with this number, and waits until what they listened on is free. Links that
    /// came in by them stay.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use bondwire::{Identity, ListenConfig, Listener, link::memory};
    /// struct Never;
    /// impl bondwire::link::Acceptor for Never {
    ///     type Link = memory::MemoryLink;
    ///     fn name(&self) -> String { "never".to_owned() }
    ///     async fn accept(&mut self) -> std::io::Result<Self::Link> { std::future::pending().await }
    /// }
    /// let listener = Listener::new(&Identity::generate()?, ListenConfig::allow([]))?;
    /// listener.add_acceptor_as(7, Never);
    /// listener.remove_acceptors(7).await;
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn remove_acceptors(&self, number: u32) {
        let removed: Vec<_> = self.acceptors().extract_if(.., |(of, _)| *of == number).collect();
        for (_, task) in removed {
            task.abort();
            // It was aborted, which is how it ends.
            let _ = task.await;
        }
    }

    /// Ends the listener as dropping it does, and waits until all that its acceptors listened on is free: a port can be bound
    /// again, and a USB gadget is gone.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use bondwire::{Identity, ListenConfig, Listener};
    /// let listener = Listener::new(&Identity::generate()?, ListenConfig::allow([]))?;
    /// listener.close().await;
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn close(self) {
        self.registry.stopped.send_replace(true);
        let tasks = std::mem::take(&mut *self.acceptors());
        for (_, task) in tasks {
            // One that panicked has let go of everything, too.
            let _ = task.await;
        }
    }

    fn acceptors(&self) -> std::sync::MutexGuard<'_, Vec<(u32, JoinHandle<()>)>> {
        self.acceptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `peer` open bonds from now on.
    pub fn allow(&self, peer: PublicKey) {
        self.registry.endpoint.lock().allow(peer);
    }

    /// Lets `peer` open no more bonds; those it has stay.
    pub fn disallow(&self, peer: PublicKey) {
        self.registry.endpoint.lock().disallow(peer);
    }

    /// Says what `peer` may have here from its next handshake on; its bonds stay as they are. It need not be allowed yet.
    /// `PeerLimits::default()` takes the limits away again.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use bondwire::{Identity, ListenConfig, Listener, PeerLimits};
    /// let (here, board) = (Identity::generate()?, Identity::generate()?);
    /// let listener = Listener::new(&here, ListenConfig::allow([board.public_key()]))?;
    /// let limits = PeerLimits { bonds_max: Some(1), streams_max: Some(100), ..PeerLimits::default() };
    /// listener.set_limits(board.public_key(), limits);
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn set_limits(&self, peer: PublicKey, limits: PeerLimits) {
        self.registry.endpoint.lock().set_rules(peer, limits.rules());
        let mut all = self.registry.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if limits == PeerLimits::default() {
            all.remove(&peer);
        } else {
            all.insert(peer, limits);
        }
    }

    /// Makes a token with which one host that is not allowed yet can open a bond, once and within `valid_for`
    /// ([`PAIRING_TOKEN_VALID`](crate::limits::PAIRING_TOKEN_VALID) is the usual time, a day the longest). Carry its bytes to
    /// that host over something you trust; there [`Bond::connect_paired`] takes them. The bond that comes of it answers
    /// [`Bond::paired_by`], and its peer is allowed from then on: store that key, this listener keeps it in memory only.
    ///
    /// Wrong guesses do not use a token up; they are answered at a bounded rate.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use bondwire::limits::PAIRING_TOKEN_VALID;
    /// use bondwire::{Bond, BondConfig, Identity, ListenConfig, Listener, PairingToken, link::memory};
    ///
    /// let (here, there) = (Identity::generate()?, Identity::generate()?);
    /// let listener = Listener::new(&there, ListenConfig::allow([]))?;
    /// let token = listener.new_pairing_token(PAIRING_TOKEN_VALID)?;
    ///
    /// // At the other host, which was given the token's bytes and the listener's public key.
    /// let carried = PairingToken::from_bytes(*token.to_bytes());
    /// let bond = Bond::connect_paired(&here, Some(there.public_key()), carried, BondConfig::default())?;
    /// let (near, far) = memory::pair(1500, 64 * 1024);
    /// listener.add_link(far);
    /// bond.add_link(near).await?;
    ///
    /// let accepted = listener.accept().await;
    /// assert_eq!(accepted.paired_by(), Some(token.id()));
    /// assert_eq!(accepted.peer(), Some(here.public_key()), "the key to remember");
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The operating system gives no random bytes, or too many tokens wait to be used.
    pub fn new_pairing_token(&self, valid_for: Duration) -> Result<PairingToken, PairingTokenError> {
        let token = PairingToken::from_bytes(random()?);
        let now = self.registry.clock.now();
        self.registry.endpoint.lock().add_pairing_token(now, &token, valid_for)?;
        Ok(token)
    }

    /// Withdraws a token that nobody has used. Who was paired with it stays allowed.
    pub fn remove_pairing_token(&self, token: TokenId) {
        self.registry.endpoint.lock().remove_pairing_token(token);
    }

    /// Counts of what came in and what was refused, and why.
    pub fn stats(&self) -> EndpointStats {
        self.registry.endpoint.lock().stats()
    }

    /// Bonds that have not ended.
    pub fn bonds(&self) -> usize {
        self.registry.bonds().len()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.registry.stopped.send_replace(true);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("bonds", &self.bonds()).finish_non_exhaustive()
    }
}

/// Accepts for ever. Errors cost a wait, so that a process without descriptors neither spins nor stops listening.
async fn accept_links<A: Acceptor>(registry: Arc<Registry>, mut acceptor: A, number: u32) {
    let mut backoff = ACCEPT_BACKOFF_MIN;
    loop {
        match acceptor.accept().await {
            Ok(link) => {
                backoff = ACCEPT_BACKOFF_MIN;
                registry.clone().spawn(link, number);
            }
            Err(e) => {
                if backoff == ACCEPT_BACKOFF_MIN {
                    let name = acceptor.name();
                    tracing::warn!(target: "bondwire", "{name}: no link can be accepted: {e}; trying again");
                }
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
            }
        }
    }
}

impl Registry {
    fn bonds(&self) -> std::sync::MutexGuard<'_, HashMap<BondId, Arc<Shared>>> {
        self.bonds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `link` a task for its handshake, if there are not too many of these.
    fn spawn(self: Arc<Self>, link: impl PacketLink, via: u32) {
        let mut description = link.describe();
        description.mtu_bytes = description.mtu_bytes.min(MTU_MAX_BYTES);
        let offer = self.offer(&description, via);
        let told = offer.parameters.streams_max;
        let responder = match self.endpoint.lock().accept_link(self.clock.now(), offer) {
            Ok(responder) => responder,
            Err(busy) => {
                tracing::warn!(target: "bondwire", "{}: {busy}", description.name);
                return;
            }
        };
        let answerer = Answerer::new(responder, self.endpoint.clone());
        let (reader, writer) = link.split();
        tokio::spawn(async move {
            let mut stopped = self.stopped.subscribe();
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = self.answer(answerer, told, Medium { description, reader, writer }) => {}
            }
        });
    }

    /// The responder's handshake on one link.
    async fn answer<R: PacketReader, W: PacketWriter>(
        self: &Arc<Self>,
        mut answerer: Answerer,
        streams_told: u64,
        mut medium: Medium<R, W>,
    ) {
        let shaken = run(&mut answerer, self.clock, &mut medium.reader, &mut medium.writer).await;
        let name = medium.description.name.clone();
        match shaken {
            Ok(Step::NewBond { attachment, evicted, token }) => {
                self.evict(&evicted);
                let shared = self.open(&attachment, streams_told);
                self.deliver(&shared, &attachment, token, answerer, medium);
            }
            Ok(Step::LinkJoined(attachment)) => self.join(&attachment, answerer, medium).await,
            Ok(_) => {}
            Err(Fault::Medium(e)) => tracing::debug!(target: "bondwire", "{name}: no handshake: {e}"),
            Err(Fault::Handshake(e)) => tracing::info!(target: "bondwire", "{name}: no handshake: {e}"),
        }
    }

    /// Bonds that make way for a newer one of their peer.
    fn evict(&self, evicted: &[BondId]) {
        let evicted: Vec<_> = {
            let bonds = self.bonds();
            evicted.iter().filter_map(|id| bonds.get(id).cloned()).collect()
        };
        for shared in evicted {
            shared.with(|state, now| {
                if state.connection.has_usable_link() {
                    // Told, the peer does not open it anew, which would end another one.
                    state.close(now, code::EVICTED, &CloseReason::Evicted.to_string(), false);
                } else {
                    state.connection.fail(CloseReason::Evicted);
                }
            });
        }
    }

    /// What this end brings to a handshake, before it knows with whom: as many streams as anyone may have. The rest is
    /// granted when the peer is known.
    fn offer(&self, description: &LinkDescription, via: u32) -> LinkOffer {
        let mut offer = LinkOffer { via, ..self.config.offer(description) };
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        for limits in limits.values() {
            let engine = limits.lower(&self.config.engine);
            let allowed = streams_allowed(engine.receive_buffer_bytes, engine.streams_max);
            offer.parameters.streams_max = offer.parameters.streams_max.min(allowed);
        }
        offer
    }

    /// Makes the bond that a peer has opened, within its limits.
    fn open(self: &Arc<Self>, attachment: &Attachment, streams_told: u64) -> Arc<Shared> {
        let id = attachment.bond.id();
        let engine = match self.limits.lock().unwrap_or_else(PoisonError::into_inner).get(&attachment.peer) {
            Some(limits) => limits.lower(&self.config.engine),
            None => self.config.engine.clone(),
        };
        let engine = Config { streams_told: Some(streams_told), ..engine };
        let shared = Shared::new(self.clock, Role::Responder, Some(attachment.peer), engine);
        self.bonds().insert(id, shared.clone());
        self.added.notify_waiters();
        let (registry, timed) = (self.clone(), shared.clone());
        tokio::spawn(async move {
            timer::run(timed).await;
            registry.bonds().remove(&id);
            registry.endpoint.lock().forget(registry.clock.now(), id);
        });
        shared
    }

    /// Puts the first link of a bond to work, and hands the bond to the application.
    fn deliver<R: PacketReader, W: PacketWriter>(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        attachment: &Attachment,
        token: Option<TokenId>,
        answerer: Answerer,
        medium: Medium<R, W>,
    ) {
        let bond = Bond::accepted(shared.clone(), token);
        if self.attach(shared, attachment, answerer, medium) && self.queue.try_send(bond).is_err() {
            let id = attachment.bond.id();
            tracing::warn!(target: "bondwire", "bond {id}: refused, {ACCEPT_QUEUE_MAX} bonds wait to be accepted");
        }
    }

    async fn join<R: PacketReader, W: PacketWriter>(
        self: &Arc<Self>,
        attachment: &Attachment,
        answerer: Answerer,
        medium: Medium<R, W>,
    ) {
        // The task of the link that opened the bond may be about to put it into the table.
        let found = timeout(Duration::from_secs(1), self.find(attachment.bond.id())).await;
        if let Ok(shared) = found {
            self.attach(&shared, attachment, answerer, medium);
        }
    }

    async fn find(&self, id: BondId) -> Arc<Shared> {
        loop {
            let mut added = std::pin::pin!(self.added.notified());
            added.as_mut().enable();
            let found = self.bonds().get(&id).cloned();
            if let Some(shared) = found {
                return shared;
            }
            added.await;
        }
    }

    /// Puts the link to work; `false` if the bond cannot take it.
    fn attach<R: PacketReader, W: PacketWriter>(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        attachment: &Attachment,
        mut answerer: Answerer,
        medium: Medium<R, W>,
    ) -> bool {
        let id = attachment.bond.id();
        let name = medium.description.name.clone();
        let (registry, counted) = (self.clone(), shared.clone());
        let ended = move || registry.count_links(id, &counted);
        let last_message = answerer.poll_transmit(self.clock.now());
        let attaching = Attaching { attachment, answerer: Some(answerer), last_message };
        let attached = attach(shared, attaching, medium, ended);
        self.count_links(id, shared);
        if let Err(e) = &attached {
            tracing::info!(target: "bondwire", "{name}: {e}");
        }
        attached.is_ok()
    }

    fn count_links(&self, id: BondId, shared: &Shared) {
        let links = shared.look(|state| state.links.len());
        self.endpoint.lock().set_links(id, links);
    }
}
