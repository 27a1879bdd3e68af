use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bondwire_core::config::LinkPolicy;
use bondwire_core::error::code;
use bondwire_core::event::{LinkSnapshot, Stats};
use bondwire_core::handshake::{PairingToken, TokenId};
use bondwire_core::id::{Class, LinkId, PublicKey, Role};
use bondwire_core::ordered::OrderedStats;
use bondwire_core::streams::{OpenError, StreamStats};
use bondwire_core::time::{Duration, Instant};
use bytes::Bytes;

use crate::config::BondConfig;
use crate::connector::{Connector, Wanted};
use crate::driver::shared::{Clock, Shared, State};
use crate::driver::timer;
use crate::error::{AddLinkError, CloseReason, NoSuchLink, OpenStreamError, SendDatagramError};
use crate::events::Events;
use crate::identity::{Identity, NoEntropy};
use crate::link::{Dialer, MediumCounters, PacketLink};
use crate::redial::{self, DialerHandle};
use crate::stream::BondStream;

/// A connection to one peer over any number of links.
///
/// It lives apart from its links: it exists before the first, loses nothing while there is none, and goes on when one
/// joins. Clones are handles on the same bond; when the last handle and the last stream are dropped, the bond closes
/// once everything written has been delivered (or cannot be within ten seconds).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener, link::memory};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let (here, there) = (Identity::generate()?, Identity::generate()?);
/// let mut listener = Listener::new(&there, ListenConfig::allow([here.public_key()]))?;
/// let bond = Bond::connect(&here, there.public_key(), BondConfig::default())?;
///
/// let (near, far) = memory::pair(1500, 64 * 1024); // two ends of a cable
/// listener.add_link(far);
/// bond.add_link(near).await?;
///
/// let mut stream = bond.open_stream(Class::Bulk).await?;
/// stream.write_all(b"hello").await?;
/// stream.shutdown().await?;
///
/// let accepted = listener.accept().await;
/// assert_eq!(accepted.peer(), Some(here.public_key()));
/// let mut text = String::new();
/// accepted.accept_stream().await?.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello");
/// bond.close(0x100, "done").await;
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Bond {
    handle: Handle,
    connector: Option<Arc<Connector>>,
    paired_by: Option<TokenId>,
}

/// What keeps a bond alive: every [`Bond`] and every stream has one.
#[derive(Clone)]
pub(crate) struct Handle(Arc<LastHandle>);

struct LastHandle(Arc<Shared>);

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(LastHandle(shared)))
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        self.shared().with(change)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.0.with(|state, now| state.close(now, code::NONE, "", true));
    }
}

impl Bond {
    /// A bond to the host with the key `peer`, as yet without a link: [`add_link`](Self::add_link) or
    /// [`add_dialer`](Self::add_dialer) gives it some. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// [`NoEntropy`] if the operating system gives no random bytes.
    pub fn connect(identity: &Identity, peer: PublicKey, config: BondConfig) -> Result<Self, NoEntropy> {
        Self::connect_to(identity, Wanted::Peer(peer), config)
    }

    /// The same to whoever answers: encrypted, but any host on the way can be the peer. Say so to your user.
    ///
    /// # Errors
    /// [`NoEntropy`] if the operating system gives no random bytes.
    pub fn connect_to_anyone(identity: &Identity, config: BondConfig) -> Result<Self, NoEntropy> {
        Self::connect_to(identity, Wanted::Anyone, config)
    }

    /// A bond to the host that made `token` with [`Listener::new_pairing_token`](crate::Listener::new_pairing_token), and
    /// does not know this host's key yet. Name that host's key as `peer` if it came with the token: then even who stole
    /// the token cannot pose as that host. Without it the token alone proves the host.
    ///
    /// The token serves this bond only. Once a link is up, [`peer`](Self::peer) is the key to remember; later bonds
    /// [`connect`](Self::connect) to it. A token that is unknown, used or expired shows as a refusal of every link.
    ///
    /// # Errors
    /// [`NoEntropy`] if the operating system gives no random bytes.
    pub fn connect_paired(
        identity: &Identity,
        peer: Option<PublicKey>,
        token: PairingToken,
        config: BondConfig,
    ) -> Result<Self, NoEntropy> {
        Self::connect_to(identity, Wanted::Paired { peer, token }, config)
    }

    fn connect_to(identity: &Identity, wanted: Wanted, config: BondConfig) -> Result<Self, NoEntropy> {
        let shared = Shared::new(Clock::start(), Role::Initiator, wanted.peer(), config.engine.clone());
        let connector = Connector::new(identity, wanted, config, shared.clone())?;
        tokio::spawn(timer::run(shared.clone()));
        Ok(Self { handle: Handle::new(shared), connector: Some(Arc::new(connector)), paired_by: None })
    }

    /// A bond that was accepted; its timer task is the caller's business.
    pub(crate) fn accepted(shared: Arc<Shared>, paired_by: Option<TokenId>) -> Self {
        Self { handle: Handle::new(shared), connector: None, paired_by }
    }

    /// Adds a link: runs the handshake on it and answers its number once both ends have agreed. The first links open
    /// the bond (several may do so at once), later ones join it. When the link's medium ends the link is gone; see
    /// [`add_dialer`](Self::add_dialer) for links that come back.
    ///
    /// Cancel safe: dropping the call gives the link up.
    ///
    /// # Errors
    /// What was wrong with this link; the bond and its other links are as before. If the peer has restarted and no
    /// longer knows this bond, the bond ends with [`CloseReason::PeerRestarted`].
    pub async fn add_link(&self, link: impl PacketLink) -> Result<LinkId, AddLinkError> {
        match &self.connector {
            Some(connector) => connector.add_link(link, None).await.map(|control| control.id),
            None => Err(AddLinkError::NotInitiator { link: link.describe().name }),
        }
    }

    /// Keeps a link up: dials, dials again after a failure (100 ms to 5 s apart) and after the link has ended, for as
    /// long as the bond lives. While its link is suspect it dials a replacement.
    ///
    /// On a bond that was accepted the dialer does nothing, and its fault says so.
    pub fn add_dialer(&self, dialer: impl Dialer) -> DialerHandle {
        redial::start(dialer, self.shared().clone(), self.connector.clone())
    }

    /// Waits until the first link is up. Cancel safe.
    ///
    /// # Errors
    /// The bond ended before that.
    pub async fn connected(&self) -> Result<(), CloseReason> {
        self.shared()
            .wait_until(|state| match state.closed_reason() {
                Some(reason) => Some(Err(reason)),
                None => state.connection.has_usable_link().then_some(Ok(())),
            })
            .await
    }

    /// The other end's key. On a bond to anyone it is known once the first link is up.
    pub fn peer(&self) -> Option<PublicKey> {
        self.shared().peer()
    }

    /// The pairing token with which the peer opened this bond, at the end that accepted it: the peer's key is new here,
    /// and worth remembering.
    pub fn paired_by(&self) -> Option<TokenId> {
        self.paired_by
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.shared().role
    }

    /// Opens a stream. Waits while the peer allows no more of them (also until the first link is up). Cancel safe.
    ///
    /// # Errors
    /// The bond has ended.
    pub async fn open_stream(&self, class: Class) -> Result<BondStream, OpenStreamError> {
        self.open_stream_with(class, DEFAULT_PRIORITY, "").await
    }

    /// Opens a stream with a priority (lower goes first within its class) and a label that the peer sees before any
    /// byte of it, to tell what it is for. Waits and is cancel safe like [`open_stream`](Self::open_stream).
    ///
    /// # Errors
    /// The bond has ended, or the label is too long.
    pub async fn open_stream_with(
        &self,
        class: Class,
        priority: u8,
        label: &str,
    ) -> Result<BondStream, OpenStreamError> {
        let signals = &self.shared().signals;
        let id = loop {
            let mut possible = std::pin::pin!(signals.openable.notified());
            possible.as_mut().enable();
            let opened = self.handle.with(|state, _| match state.closed_reason() {
                Some(reason) => Err(OpenStreamError::BondEnded(reason)),
                None => match state.connection.open_stream(class, priority, label) {
                    Ok(id) => Ok(Some(id)),
                    Err(OpenError::LimitReached { .. }) => Ok(None),
                    Err(e) => Err(e.into()),
                },
            })?;
            match opened {
                Some(id) => break id,
                None => possible.await,
            }
        };
        Ok(BondStream::new(self.handle.clone(), id, class, priority, label.to_owned()))
    }

    /// Waits for a stream that the peer opens. Cancel safe.
    ///
    /// # Errors
    /// The bond has ended; streams that arrived before that were answered first.
    pub async fn accept_stream(&self) -> Result<BondStream, CloseReason> {
        let signals = &self.shared().signals;
        loop {
            let mut acceptable = std::pin::pin!(signals.acceptable.notified());
            acceptable.as_mut().enable();
            let accepted = self.handle.with(|state, _| match state.connection.accept_stream() {
                Some(accepted) => Ok(Some(accepted)),
                None => state.closed_reason().map_or(Ok(None), Err),
            })?;
            if let Some(stream) = accepted {
                return Ok(BondStream::new(
                    self.handle.clone(),
                    stream.id,
                    stream.class,
                    stream.priority,
                    stream.label,
                ));
            }
            acceptable.await;
        }
    }

    /// Sends a datagram of at most 64 KiB: unreliable, unordered, dropped when it gets old. Datagrams of one flow
    /// stay on one link while that is good. Does not wait: the oldest unsent ones are dropped when too many wait.
    ///
    /// # Errors
    /// It is too large, or the bond has ended.
    pub fn send_datagram(&self, flow: u64, data: Bytes) -> Result<(), SendDatagramError> {
        self.handle.with(|state, now| match state.closed_reason() {
            Some(reason) => Err(SendDatagramError::BondEnded(reason)),
            None => Ok(state.connection.send_datagram(now, flow, data)?),
        })
    }

    /// Waits for a datagram; answers its flow and contents. Cancel safe.
    ///
    /// # Errors
    /// The bond has ended.
    pub async fn recv_datagram(&self) -> Result<(u64, Bytes), CloseReason> {
        let signals = &self.shared().signals;
        loop {
            let mut readable = std::pin::pin!(signals.datagram.notified());
            readable.as_mut().enable();
            let received = self.handle.with(|state, _| match state.connection.read_datagram() {
                Some(datagram) => Ok(Some(datagram)),
                None => state.closed_reason().map_or(Ok(None), Err),
            })?;
            match received {
                Some(datagram) => return Ok(datagram),
                None => readable.await,
            }
        }
    }

    /// Sends an ordered datagram of at most 64 KiB, for what is a network itself: unreliable, over all links, and those of one flow
    /// arrive in order unless one is more than a tenth of a second late. Flows below 32 are those that somebody waits for. Does not
    /// wait: when too much is queued, the last datagrams of the longest flow are dropped.
    ///
    /// # Errors
    /// It is too large, or the bond has ended.
    pub fn send_ordered(&self, flow: u8, data: Bytes) -> Result<(), SendDatagramError> {
        self.handle.with(|state, now| match state.closed_reason() {
            Some(reason) => Err(SendDatagramError::BondEnded(reason)),
            None => Ok(state.connection.send_ordered(now, flow, data)?),
        })
    }

    /// Waits for ordered datagrams and takes those that are there, at most `max`. Cancel safe.
    ///
    /// # Errors
    /// The bond has ended.
    pub async fn recv_ordered(&self, max: usize, into: &mut Vec<Bytes>) -> Result<(), CloseReason> {
        let signals = &self.shared().signals;
        loop {
            let mut readable = std::pin::pin!(signals.ordered.notified());
            readable.as_mut().enable();
            let before = into.len();
            self.handle.with(|state, _| {
                into.extend(std::iter::from_fn(|| state.connection.read_ordered()).take(max));
                if into.len() > before { Ok(()) } else { state.closed_reason().map_or(Ok(()), Err) }
            })?;
            if into.len() > before {
                return Ok(());
            }
            readable.await;
        }
    }

    /// Counters of ordered datagrams.
    pub fn ordered_stats(&self) -> OrderedStats {
        self.shared().look(|state| state.connection.ordered_stats())
    }

    /// The links as they are now, those that just ended included.
    pub fn links(&self) -> Vec<LinkSnapshot> {
        let now = self.now();
        self.shared().look(|state| state.connection.links(now).collect())
    }

    /// One link, to change it.
    pub fn link(&self, id: LinkId) -> Link<'_> {
        Link { bond: self, id }
    }

    /// Now, on the clock of [`LinkSnapshot::since`].
    pub fn now(&self) -> Instant {
        self.shared().clock.now()
    }

    /// Events from now on.
    pub fn events(&self) -> Events {
        Events::new(self.shared().subscribe())
    }

    /// Counters of the bond.
    pub fn stats(&self) -> Stats {
        self.shared().look(|state| state.connection.stats())
    }

    /// Counters and levels of its streams.
    pub fn stream_stats(&self) -> StreamStats {
        self.shared().look(|state| state.connection.stream_stats())
    }

    /// Packets that were dropped because they did not open: noise, forgeries, replays.
    pub fn dropped_packets(&self) -> u64 {
        self.shared().dropped_packets()
    }

    /// Closes the bond for good, at both ends, with a code (of an application: from 0x100) and a reason of at most 128
    /// bytes. First waits until the peer has everything that was written, for ten seconds at most. Cancel safe:
    /// once called, the bond closes even if the call is dropped.
    pub fn close(&self, code: u64, reason: &str) -> impl Future<Output = CloseReason> + Send + use<> {
        self.handle.with(|state, now| state.close(now, code, reason, true));
        self.ended()
    }

    /// Closes the bond at once: what is not yet delivered is lost.
    pub fn close_now(&self, code: u64, reason: &str) -> impl Future<Output = CloseReason> + Send + use<> {
        self.handle.with(|state, now| state.close(now, code, reason, false));
        self.ended()
    }

    /// Waits until the bond has ended, and answers why. Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        self.shared().wait_until(State::closed_reason).await
    }

    /// Why the bond has ended, if it has.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared().look(State::closed_reason)
    }

    /// Waits until the bond has ended and the peer was told, as far as that was possible.
    fn ended(&self) -> impl Future<Output = CloseReason> + Send + use<> {
        let shared = self.shared().clone();
        async move {
            shared.wait_until(|state| state.closed_reason().filter(|_| state.connection.is_closed())).await
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.handle.shared()
    }
}

/// Priority of a stream that was given none: in the middle.
const DEFAULT_PRIORITY: u8 = 128;

impl fmt::Debug for Bond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bond").field("role", &self.role()).field("peer", &self.peer()).finish_non_exhaustive()
    }
}

/// One link of a bond, to look at and to change; [`Bond::link`].
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    bond: &'a Bond,
    id: LinkId,
}

impl Link<'_> {
    /// The link as it is now, `None` if it is gone.
    pub fn snapshot(&self) -> Option<LinkSnapshot> {
        let now = self.bond.now();
        self.bond.shared().look(|state| state.connection.link(now, self.id))
    }

    /// What its medium has counted, where it does, as long as the link is there.
    pub fn medium_counters(&self) -> Option<MediumCounters> {
        // The medium has locks of its own, so it is asked outside the bond's.
        let control = self.bond.shared().look(|state| state.links.get(&self.id).cloned());
        control?.medium_counters()
    }

    /// Says what the link is to be used for, in both directions: a [`Policy`](crate::Policy), or a whole [`LinkPolicy`] with tier,
    /// weight and cap. A dialer's next link starts with the default unless [`DialerHandle::set_policy`] was used
    /// instead.
    ///
    /// # Errors
    /// The link is gone.
    pub fn set_policy(&self, policy: impl Into<LinkPolicy>) -> Result<(), NoSuchLink> {
        let policy = policy.into();
        self.change(|state, now, id| state.connection.set_link_policy(now, id, policy))
    }

    /// Sets the time without traffic after which this end probes the link; `None` is the bond's
    /// [`keep_alive`](crate::Config::keep_alive).
    ///
    /// # Errors
    /// The link is gone.
    pub fn set_keep_alive(&self, keep_alive: Option<Duration>) -> Result<(), NoSuchLink> {
        self.change(|state, _, id| state.connection.set_link_keep_alive(id, keep_alive))
    }

    /// Takes the link out of the bond; its traffic goes over the others. A dialer would dial again: stop it first.
    ///
    /// # Errors
    /// The link is gone.
    pub fn close(&self) -> Result<(), NoSuchLink> {
        self.change(|state, now, id| state.connection.close_link(now, id))
    }

    fn change(&self, change: impl FnOnce(&mut State, Instant, LinkId) -> bool) -> Result<(), NoSuchLink> {
        let found = self.bond.handle.with(|state, now| change(state, now, self.id));
        if found { Ok(()) } else { Err(NoSuchLink(self.id)) }
    }
}
