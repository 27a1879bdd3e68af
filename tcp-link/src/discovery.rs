//! Links that are found by themselves.

mod dialer;
mod paths;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bondwire::{Bond, DialerHandle, LinkPolicy};
use tokio::io::AsyncRead;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::advertisement::{self, AdvertisedInterface, Intake, LearnError};
use crate::filter::{AddressFilter, NetworkFilter};
use crate::interfaces::{Interface, InterfaceWatch, Routes};
use crate::limits::{
    ADVERTISEMENT_INTERVAL, DISCOVERED_LINKS_MAX, GIVEN_ADDRESSES_MAX, LINKS_PER_PATH_MAX, LOOKUP_INTERVAL,
};
use crate::{DEFAULT_PORT, TcpAddress, dial};
use dialer::{PathDialer, PathState};
use paths::{GivenHost, PeerInterface, Rules, peer_interfaces, plan};

pub(crate) use paths::is_link_local;
pub use paths::{Path, Route};

/// What a [`Discovery`] may use.
#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// Interfaces and addresses of this host that may be used; also for the first link.
    pub filter: AddressFilter,
    /// Addresses of the peer that may be dialled.
    pub peer_networks: NetworkFilter,
    /// Links over each path, at most [`LINKS_PER_PATH_MAX`].
    pub links_per_path: u8,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { filter: AddressFilter::default(), peer_networks: NetworkFilter::default(), links_per_path: 1 }
    }
}

/// An address of the peer that is known from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenAddress {
    /// Where the peer listens. Its congestion control holds for all links that come of it; its interface and its source
    /// are not looked at, the filter chooses these.
    pub address: TcpAddress,
    /// Policy of the links that come of it.
    pub policy: LinkPolicy,
    /// Keep-alive interval of these links, see [`DialerHandle::set_keep_alive`].
    pub keep_alive: Option<Duration>,
}

impl From<TcpAddress> for GivenAddress {
    fn from(address: TcpAddress) -> Self {
        Self { address, policy: LinkPolicy::default(), keep_alive: None }
    }
}

/// A link that was found.
#[derive(Clone, Debug)]
pub struct DiscoveredLink {
    /// Where it leads.
    pub path: Path,
    /// The way that it takes, or would try first.
    pub route: Route,
    /// What keeps it up.
    pub dialer: DialerHandle,
}

/// Keeps a link up over each useful path to the peer of a bond: each pair of an interface here and an interface there
/// between which a route leads. It starts with the given addresses, learns the others from the peer
/// ([`learn`](Self::learn)), and follows interfaces and addresses at both ends as they come and go. Dropping it ends its
/// links.
///
/// What counts as a path: IPv4 and IPv6 between the same two interfaces are one, unless
/// [`Families::Both`](crate::Families::Both) is asked for. Loopback leads to loopback only, link-local addresses only over
/// the interface that they name. On Linux a pair without a route is left out. Interfaces that are down, and those of
/// containers and virtual machines, are left out; see [`InterfaceFilter`](crate::InterfaceFilter).
///
/// A link leaves by its interface: on Linux its socket is bound to it (kernels before 5.7 want root for that; without a
/// filter the source address alone has to do there). On other systems the source address decides.
///
/// ```no_run
/// # async fn example(bond: bondwire::Bond, accepted: bondwire::Bond) -> Result<(), Box<dyn std::error::Error>> {
/// use bondwire::Class;
/// use bondwire_tcp::{AddressFilter, Discovery, DiscoveryConfig, Listening, TcpAddress, advertise};
///
/// // At the end that dials: one address is known.
/// let config = DiscoveryConfig {
///     filter: AddressFilter { interfaces: "eth*,wlan0".parse()?, ..AddressFilter::default() },
///     ..DiscoveryConfig::default()
/// };
/// let known: TcpAddress = "router.example:7700".parse()?;
/// let discovery = Discovery::start(&bond, vec![known.into()], config)?;
/// bond.connected().await?;
/// let mut stream = bond.open_stream_with(Class::Bulk, 128, "addresses").await?;
/// let learning = discovery.learn(&mut stream); // until the bond ends
///
/// // At the end that listens: tells its other addresses on that stream.
/// let stream = accepted.accept_stream().await?;
/// let listening = [Listening { address: "[::]:7700".parse()?, interface: None }];
/// let everywhere = AddressFilter::default();
/// let telling = advertise(stream, &listening, &everywhere);
/// # let _ = tokio::join!(learning, telling);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Discovery {
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    config: DiscoveryConfig,
    state: Mutex<State>,
    intake: Mutex<Intake>,
    advertised: watch::Sender<Vec<AdvertisedInterface>>,
    /// A given address was removed, or its host was looked up.
    given_changed: Notify,
    /// A given address was added.
    given_added: Notify,
}

#[derive(Debug)]
struct State {
    bond: Bond,
    given: Vec<Given>,
    running: Vec<Running>,
    /// Paths that are not wanted.
    removed: Vec<Path>,
}

/// A given address, and what became of it.
#[derive(Clone, Debug)]
struct Given {
    what: GivenAddress,
    /// The addresses of its host, or why it has none.
    found: Result<Vec<SocketAddr>, String>,
    is_removed: bool,
}

impl From<GivenAddress> for Given {
    fn from(what: GivenAddress) -> Self {
        Self { what, found: Ok(Vec::new()), is_removed: false }
    }
}

/// A link that is kept up.
#[derive(Debug)]
struct Running {
    path: Path,
    state: Arc<PathState>,
    dialer: DialerHandle,
}

impl Running {
    /// The route of its link, if that is up.
    fn connected(&self) -> Option<Route> {
        self.dialer.state().link.and_then(|_| self.state.connected())
    }
}

impl Discovery {
    /// Starts to find links for `bond`. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// The system does not tell its interfaces.
    pub fn start(bond: &Bond, given: Vec<GivenAddress>, config: DiscoveryConfig) -> io::Result<Self> {
        let interfaces = InterfaceWatch::start()?;
        let mut intake = Intake::new(DEFAULT_PORT, Instant::now());
        given.iter().for_each(|given| intake.permit(given.address.port));
        let state = State {
            bond: bond.clone(),
            given: given.into_iter().map(Given::from).collect(),
            running: Vec::new(),
            removed: Vec::new(),
        };
        let inner = Arc::new(Inner {
            config,
            state: Mutex::new(state),
            intake: Mutex::new(intake),
            advertised: watch::Sender::default(),
            given_changed: Notify::new(),
            given_added: Notify::new(),
        });
        Ok(Self { task: tokio::spawn(follow(Arc::clone(&inner), interfaces)), inner })
    }

    /// Takes one more address of the peer; answers its place among those that were given.
    pub fn add(&self, given: GivenAddress) -> usize {
        self.inner.intake().permit(given.address.port);
        let mut state = self.inner.lock();
        state.given.push(given.into());
        self.inner.given_added.notify_one();
        state.given.len() - 1
    }

    /// Policy and keep-alive interval of links that will come of a given address.
    pub fn wishes(&self, place: usize) -> Option<(LinkPolicy, Option<Duration>)> {
        self.inner.lock().given.get(place).map(|given| (given.what.policy, given.what.keep_alive))
    }

    /// Sets these. Links that are there already keep what their dialers were set to.
    pub fn set_wishes(&self, place: usize, policy: LinkPolicy, keep_alive: Option<Duration>) {
        if let Some(given) = self.inner.lock().given.get_mut(place) {
            (given.what.policy, given.what.keep_alive) = (policy, keep_alive);
        }
    }

    /// Ends all links that come of a given address, and makes none any more. Its place is not given to another.
    pub fn remove(&self, place: usize) {
        let mut state = self.inner.lock();
        if let Some(given) = state.given.get_mut(place) {
            given.is_removed = true;
        }
        for running in state.running.extract_if(.., |running| running.path.given == place) {
            running.dialer.stop();
        }
        self.inner.given_changed.notify_one();
    }

    /// Goes on for another bond to the same peer, after the last one has ended. What is known of the paths stays.
    pub fn set_bond(&self, bond: &Bond) {
        let mut state = self.inner.lock();
        state.bond = bond.clone();
        for running in &mut state.running {
            let (policy, keep_alive) = (running.dialer.policy(), running.dialer.keep_alive());
            running.dialer.stop();
            running.dialer = self.inner.dial(bond, &running.path, &running.state);
            running.dialer.set_policy(policy);
            running.dialer.set_keep_alive(keep_alive);
        }
    }

    /// Takes the peer's addresses from a stream that the peer feeds with [`advertise`](crate::advertise), until it ends. The
    /// peer cannot make this host dial more than [`limits`](crate::limits) allow: so many links, new addresses at a bounded
    /// rate, no address of this host itself, and no port but those of the given addresses and [`DEFAULT_PORT`].
    ///
    /// # Errors
    /// The stream has ended, or is no list of addresses. Links that were found stay.
    pub async fn learn(&self, mut reader: impl AsyncRead + Unpin) -> Result<(), LearnError> {
        let take = |told: &[_]| {
            let (taken, wait) = self.inner.intake().take(told, Instant::now());
            self.inner.advertised.send_if_modified(|known| {
                let changed = *known != taken;
                *known = taken;
                changed
            });
            wait
        };
        let mut told = advertisement::read(&mut reader).await?;
        loop {
            let mut next = std::pin::pin!(advertisement::read(&mut reader));
            let mut wait = take(&told);
            sleep(ADVERTISEMENT_INTERVAL).await;
            told = loop {
                match wait {
                    // Some addresses wait for their turn.
                    Some(time) => match timeout(time, &mut next).await {
                        Ok(read) => break read?,
                        Err(_) => wait = take(&told),
                    },
                    None => break next.await?,
                }
            };
        }
    }

    /// The links that were found.
    pub fn links(&self) -> Vec<DiscoveredLink> {
        let found = |running: &Running| {
            let route = running.connected().or_else(|| running.path.routes.first().copied())?;
            Some(DiscoveredLink { path: running.path.clone(), route, dialer: running.dialer.clone() })
        };
        self.inner.lock().running.iter().filter_map(found).collect()
    }

    /// Ends the link over a path, and makes none over it any more.
    pub fn remove_path(&self, path: &Path) {
        let mut state = self.inner.lock();
        for running in state.running.extract_if(.., |running| running.path == *path) {
            running.dialer.stop();
        }
        // No more paths are found than that, so none is forgotten while it is still there.
        if state.removed.len() >= DISCOVERED_LINKS_MAX {
            state.removed.remove(0);
        }
        state.removed.push(path.clone());
    }

    /// Why no link comes of a given address: its place in the list, and what is wrong.
    pub fn faults(&self) -> Vec<(usize, String)> {
        let state = self.inner.lock();
        let is_default = self.inner.config.filter.is_default()
            && self.inner.config.peer_networks == NetworkFilter::default();
        let fault = |(place, given): (usize, &Given)| match &given.found {
            _ if given.is_removed || state.running.iter().any(|running| running.path.given == place) => None,
            Err(error) => Some((place, error.clone())),
            Ok(addresses) if addresses.is_empty() => None,
            Ok(_) if is_default => Some((place, "no network interface has a route there".to_owned())),
            Ok(_) => {
                Some((place, "no network interface that the filters allow has a route there".to_owned()))
            }
        };
        state.given.iter().enumerate().filter_map(fault).collect()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.task.abort();
        self.inner.lock().running.drain(..).for_each(|running| running.dialer.stop());
    }
}

/// Makes links and ends them as interfaces and addresses come and go.
async fn follow(inner: Arc<Inner>, mut interfaces: InterfaceWatch) {
    let links = async {
        let mut advertised = inner.advertised.subscribe();
        loop {
            let told = advertised.borrow_and_update().clone();
            inner.arrange(&interfaces.now(), &told);
            tokio::select! {
                () = interfaces.changed() => {}
                // The sender lives in `inner`.
                _ = advertised.changed() => {}
                () = inner.given_changed.notified() => {}
            }
        }
    };
    // A name server that does not answer must not keep what else happens from being seen.
    let hosts = async {
        loop {
            inner.look_up().await;
            tokio::select! {
                () = inner.given_added.notified() => {}
                () = sleep(LOOKUP_INTERVAL) => {}
            }
        }
    };
    tokio::join!(links, hosts);
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_link(&self) -> bool {
        self.lock().running.iter().any(|running| running.dialer.state().link.is_some())
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up the given hosts: those without an address, and all while no link is up. Addresses that were found once
    /// stay when a name server does not answer.
    async fn look_up(&self) {
        let given = self.lock().given.clone();
        let has_link = self.has_link();
        let mut looking = JoinSet::new();
        for (place, Given { what, found, is_removed }) in given.into_iter().enumerate() {
            let is_known = found.is_ok_and(|addresses| !addresses.is_empty());
            let is_settled = is_removed || (is_known && has_link);
            if !is_settled {
                looking.spawn(async move { (place, look_up(&what.address).await) });
            }
        }
        while let Some(looked) = looking.join_next().await {
            // A look-up neither panics nor is it aborted while somebody waits for it.
            let Ok((place, found)) = looked else { continue };
            let mut state = self.lock();
            let known = &mut state.given[place].found;
            let stays = found.is_err() && known.as_ref().is_ok_and(|addresses| !addresses.is_empty());
            if !stays && *known != found {
                *known = found;
                self.given_changed.notify_one();
            }
        }
    }

    /// Makes the links that there should be, and ends those that there should not.
    fn arrange(&self, interfaces: &[Interface], advertised: &[AdvertisedInterface]) {
        let mut state = self.lock();
        let peer = self.peer_interfaces(&state, advertised);
        let routes = Routes::open();
        let rules = Rules {
            filter: &self.config.filter,
            peer_networks: &self.config.peer_networks,
            links_per_path: self.config.links_per_path.clamp(1, LINKS_PER_PATH_MAX),
            links_max: DISCOVERED_LINKS_MAX,
            leads: &|interface, source, target| routes.lead(interface, source, target),
        };
        let mut wanted = plan(interfaces, &peer, &rules);
        wanted.retain(|path| !state.removed.iter().any(|removed| path.continues(removed, None)));
        state.running.retain_mut(|running| {
            let connected = running.connected();
            let place = wanted.iter().position(|path| path.continues(&running.path, connected.as_ref()));
            let Some(place) = place else {
                tracing::info!(target: "bondwire", "{}: its interface, address or route is gone", running.dialer.name());
                running.dialer.stop();
                return false;
            };
            running.path = wanted.remove(place);
            running.state.set_routes(&running.path.routes);
            true
        });
        for path in wanted {
            let (bond, given) = (&state.bond, &state.given[path.given].what);
            let path_state = Arc::new(PathState::new(&path.routes, given.address.cc.clone()));
            let dialer = self.dial(bond, &path, &path_state);
            dialer.set_policy(given.policy);
            dialer.set_keep_alive(given.keep_alive);
            tracing::debug!(target: "bondwire", "{}: found a path to it", dialer.name());
            state.running.push(Running { path, state: path_state, dialer });
        }
    }

    fn peer_interfaces(&self, state: &State, advertised: &[AdvertisedInterface]) -> Vec<PeerInterface> {
        let host = |(place, given): (usize, &Given)| GivenHost {
            place,
            name: given.what.address.host.clone(),
            addresses: given.found.clone().unwrap_or_default(),
        };
        let remaining = state.given.iter().enumerate().filter(|(_, given)| !given.is_removed);
        peer_interfaces(&remaining.map(host).collect::<Vec<_>>(), advertised)
    }

    fn dial(&self, bond: &Bond, path: &Path, state: &Arc<PathState>) -> DialerHandle {
        let strict = !self.config.filter.is_default();
        bond.add_dialer(PathDialer::new(path, strict, Arc::clone(state)))
    }
}

async fn look_up(address: &TcpAddress) -> Result<Vec<SocketAddr>, String> {
    match timeout(LOOKUP_INTERVAL, dial::look_up(address)).await {
        Ok(Ok(mut addresses)) => {
            addresses.truncate(GIVEN_ADDRESSES_MAX);
            Ok(addresses)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("cannot look up host `{}`: no answer", address.host)),
    }
}

impl fmt::Display for DiscoveredLink {
    /// Its name, such as `tcp 10.0.0.2:7700,iface=eth0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&dialer::link_name(&self.path.interface, self.path.number, &self.route))
    }
}
