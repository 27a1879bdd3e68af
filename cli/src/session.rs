//! The connecting end of a bond.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bondwire::error::{AddLinkError, CloseReason, DialError};
use bondwire::{Bond, BondConfig, Identity, PublicKey};
use bondwire_tcp::DiscoveryConfig;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::discovery::{self, PeerPaths};
use crate::failure::{Exit, Failure};
use crate::link_spec::LinkSpec;
use crate::link_table::{DialledLink, LinkTable};
use crate::medium::Media;
use crate::options::{Destination, PeerOptions, PeerProof};
use crate::pairing::Invitation;
use crate::service::close_code;
use crate::ssh::{FarListener, Login, SshTarget};

/// How often the dialers' faults are looked at until then.
const FAULT_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Time in which the peer is told that a bond ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What it takes to open a bond to one peer, again and again.
pub(crate) struct Session {
    identity: Identity,
    /// A token until the peer is paired with, its key from then on.
    peer: Mutex<PeerProof>,
    config: BondConfig,
    pub(crate) links: Arc<LinkTable>,
    media: Media,
    /// The other end, if this program has started it.
    far: Mutex<Option<FarListener>>,
    first_link_timeout: Duration,
}

/// A bond whose links are dialled as long as this lives.
pub(crate) struct DialledBond {
    pub(crate) bond: Bond,
    links: Arc<LinkTable>,
    _learning: Option<Learning>,
    first_link_timeout: Duration,
}

/// Learns the peer's addresses for as long as this lives.
struct Learning(JoinHandle<()>);

impl Drop for Learning {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whom a session leads to, and how: what a command line or a configuration comes to.
pub(crate) struct SessionPlan {
    pub(crate) identity: Identity,
    pub(crate) peer: PeerProof,
    pub(crate) links: Vec<LinkSpec>,
    /// What is found by itself, if anything is.
    pub(crate) found: Option<DiscoveryConfig>,
    pub(crate) config: BondConfig,
    /// Time in which the first link must come up.
    pub(crate) first_link_timeout: Duration,
}

impl Session {
    /// A session without a bond as yet.
    pub(crate) fn new(plan: SessionPlan) -> Result<Self, Failure> {
        let SessionPlan { identity, peer, links, found, config, first_link_timeout } = plan;
        Media::check_dialled(&links)?;
        let media = Media::default();
        let links = LinkTable::new(media.clone(), links, found)
            .map_err(|excluded| Failure::new(Exit::Usage, excluded))?;
        Ok(Self {
            config,
            identity,
            peer: Mutex::new(peer),
            links: Arc::new(links),
            media,
            far: Mutex::default(),
            first_link_timeout,
        })
    }

    /// The same over an ssh login, which lives as long as the session.
    pub(crate) async fn over_ssh(options: &PeerOptions, login: &Login) -> Result<Self, Failure> {
        let (listener, far) = FarListener::start(&login.target, options.cipher.for_other_end()).await?;
        login.check(&far)?;
        let peer = PeerProof::Invitation(far.invitation);
        let destination = Destination { links: far.links, peer, paths: PeerPaths::found() };
        let session = Self::new(options.plan(destination)?)?;
        *session.far() = Some(listener);
        Ok(session)
    }

    fn far(&self) -> MutexGuard<'_, Option<FarListener>> {
        self.far.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The links as the user wrote them; none to a listener that lives no longer than this session.
    pub(crate) fn link_texts(&self) -> Vec<String> {
        if self.far().is_some() {
            return Vec::new();
        }
        self.links.named().iter().map(ToString::to_string).collect()
    }

    /// Where the other end was started, if this session did that.
    pub(crate) fn ssh_target(&self) -> Option<SshTarget> {
        self.far().as_ref().map(|far| far.target().clone())
    }

    /// Whether the peer is still to be paired with.
    pub(crate) fn pairs(&self) -> bool {
        matches!(*self.proof(), PeerProof::Invitation(_))
    }

    /// From now on the peer proves itself by `key`: its token is used up.
    pub(crate) fn pin(&self, key: PublicKey) {
        *self.proof() = PeerProof::Key(key);
    }

    fn proof(&self) -> MutexGuard<'_, PeerProof> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a bond and starts to dial its links.
    pub(crate) fn dial(&self) -> Result<DialledBond, Failure> {
        let config = self.config.clone();
        let bond = match &*self.proof() {
            PeerProof::Key(peer) => Bond::connect(&self.identity, *peer, config),
            PeerProof::Invitation(Invitation { token, listener }) => {
                Bond::connect_paired(&self.identity, Some(*listener), token.clone(), config)
            }
            PeerProof::Nothing => Bond::connect_to_anyone(&self.identity, config),
        };
        let bond = bond.map_err(Failure::configuration)?;
        self.links.dial(&bond).map_err(|error| {
            Failure::configuration(format!("the network interfaces of this host cannot be listed: {error}"))
        })?;
        let links = Arc::clone(&self.links);
        let learning = links
            .discovery()
            .map(|discovery| Learning(tokio::spawn(discovery::learn(bond.clone(), discovery))));
        Ok(DialledBond { bond, links, _learning: learning, first_link_timeout: self.first_link_timeout })
    }

    /// Waits until no link can ever come up again.
    pub(crate) async fn links_used_up(&self) -> Failure {
        let far_ended = self.far().as_ref().map(FarListener::ended);
        if let Some(far_ended) = far_ended {
            return far_ended.await;
        }
        self.media.used_up(&self.links.specs()).await;
        Failure::new(Exit::BondLost, "standard input has ended, and with it the only link")
    }

    /// Waits until what the links needed of this host is gone. To be called after the end of the bonds.
    pub(crate) async fn ended(&self) {
        let far = self.far().take();
        if let Some(far) = far {
            far.end().await;
        }
        self.media.ended().await;
    }

    /// Whether a link uses standard input and output.
    pub(crate) fn uses_stdio(&self) -> bool {
        self.links.specs().iter().any(LinkSpec::is_stdio)
    }
}

impl DialledBond {
    /// Waits for the first link, and names each link's fault when none comes up.
    pub(crate) async fn first_link(&self) -> Result<(), Failure> {
        let refused = async {
            let mut check = interval(FAULT_CHECK_INTERVAL);
            check.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !self.is_refused() {
                check.tick().await;
            }
        };
        let connected = timeout(self.first_link_timeout, self.bond.connected());
        tokio::select! {
            biased;
            connected = connected => match connected {
                Ok(Ok(())) => Ok(()),
                Ok(Err(reason)) => Err(ended(&reason)),
                Err(_) => Err(Failure::new(Exit::NoLink, self.faults())),
            },
            () = refused => Err(Failure::new(Exit::Refused, self.faults())),
        }
    }

    /// Closes the bond and tells the peer, without waiting for what is not delivered yet.
    pub(crate) async fn close(self) {
        close(&self.bond, close_code::DONE, "").await;
    }

    /// Whether every link got as far as the peer, and was refused. Of those that were found from one LINK all were tried,
    /// and one was refused: the others need not lead to the peer.
    fn is_refused(&self) -> bool {
        let dialled = self.links.dialled();
        let from = |link: &DialledLink| link.found.as_ref().map(|found| found.from.clone());
        let mut refused = Vec::new();
        let mut failed = Vec::new();
        for link in &dialled {
            match link.dialer.state().fault {
                Some(DialError::AddLink(error)) if error.is_refusal() => refused.push(from(link)),
                Some(_) if link.found.is_some() => failed.push(from(link)),
                _ => return false,
            }
        }
        !refused.is_empty()
            && failed.iter().all(|from| refused.contains(from))
            && self.links.faults().is_empty()
    }

    fn faults(&self) -> String {
        let fault = |DialledLink { spec: link, dialer, .. }: &DialledLink| match dialer.state().fault {
            Some(fault) => format!("{link}: {}", words(&fault)),
            None => format!("{link}: no answer"),
        };
        let not_found = self.links.faults().into_iter().map(|(link, why)| format!("{link}: {why}"));
        let faults: Vec<_> = self.links.dialled().iter().map(fault).chain(not_found).collect();
        format!("no link came up: {}", faults.join("; "))
    }
}

/// A fault without the link's name, which stands before it anyway.
fn words(fault: &DialError) -> String {
    match fault {
        DialError::Dial { fault, .. } => fault.clone(),
        DialError::AddLink(AddLinkError::Medium { fault, .. }) => fault.clone(),
        DialError::AddLink(AddLinkError::Handshake { error, .. }) => error.to_string(),
        other => other.to_string(),
    }
}

/// Closes a bond at once and tells the peer, as far as that is possible within a moment.
pub(crate) async fn close(bond: &Bond, code: u64, reason: &str) {
    // When the peer cannot be told it finds out by itself.
    let _ = timeout(CLOSE_TIMEOUT, bond.close_now(code, reason)).await;
}

/// The end of a bond as the end of a command.
pub(crate) fn ended(reason: &CloseReason) -> Failure {
    let exit = match reason {
        CloseReason::Refused(_) | CloseReason::Peer { code: close_code::NOT_ALLOWED, .. } => Exit::Refused,
        _ => Exit::BondLost,
    };
    Failure::new(exit, format!("the bond ended: {reason}"))
}
