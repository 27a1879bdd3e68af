//! The running command behind a control socket: its bonds, and what can be done to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use bondwire::{Bond, LinkId, LinkSnapshot, LinkState, PublicKey};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::history::History;
use super::protocol::{Command, CommandError, LinkChange, Select, SpeedTest};
use super::report;
use super::status::{self, BondStatus, RecordingStatus, Status, TunStatus};
use crate::forward::table::Forwards;
use crate::link_spec::LinkSpec;
use crate::link_table::{DialledLink, LinkTable};
use crate::logging;
use crate::signals::Stop;
use crate::tun::Tunnel;
use crate::{attach, keys, speed};

/// Time between the two looks at the counters that a status takes.
const SAMPLE_TIME: Duration = Duration::from_millis(200);
/// Stands for all links.
const ALL: &str = "all";

/// A running command.
pub(crate) struct Program {
    name: String,
    command: &'static str,
    started: Instant,
    bonds: Mutex<Bonds>,
    /// Held while a device is handed over or taken back: one at a time.
    attaching: Mutex<()>,
    /// The LINKs of its listening end.
    listened_on: Mutex<Vec<LinkSpec>>,
    stop: Stop,
    /// How its recording does, once there is one.
    recording: OnceLock<RecordingLook>,
    /// The interfaces whose packets it carries.
    tunnels: Mutex<Vec<Weak<Tunnel>>>,
}

/// Looks how a recording does.
type RecordingLook = Box<dyn Fn() -> RecordingStatus + Send + Sync>;

/// A look at the counters of all links, to compare a later one with.
pub(crate) struct Look {
    at: Instant,
    links: BTreeMap<u64, Vec<LinkSnapshot>>,
}

#[derive(Default)]
struct Bonds {
    last_number: u64,
    running: BTreeMap<u64, Arc<RunningBond>>,
}

/// Looks up what the peer of a bond is called at the moment, if it has a name.
pub(crate) type PeerNaming = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// One of its bonds.
pub(crate) struct RunningBond {
    bond: Bond,
    peer_name: PeerNaming,
    started: Instant,
    /// At the end that connects.
    dialling: Option<Dialling>,
}

/// What only the end that connects has.
#[derive(Clone)]
pub(crate) struct Dialling {
    pub(crate) links: Arc<LinkTable>,
    pub(crate) forwards: Arc<Forwards>,
}

/// Keeps a bond in the list of a [`Program`].
pub(crate) struct Registered {
    program: Arc<Program>,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.program.bonds().running.remove(&self.number);
    }
}

impl Program {
    pub(crate) fn new(name: String, command: &'static str, stop: Stop) -> Arc<Self> {
        Arc::new(Self {
            name,
            command,
            started: Instant::now(),
            bonds: Mutex::default(),
            attaching: Mutex::default(),
            listened_on: Mutex::default(),
            stop,
            recording: OnceLock::new(),
            tunnels: Mutex::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn command(&self) -> &'static str {
        self.command
    }

    pub(crate) fn history(&self) -> &'static History {
        logging::history()
    }

    /// Lists a bond, as long as the answer lives.
    pub(crate) fn register(
        self: &Arc<Self>,
        bond: Bond,
        peer_name: PeerNaming,
        dialling: Option<Dialling>,
    ) -> Registered {
        let mut bonds = self.bonds();
        bonds.last_number += 1;
        let number = bonds.last_number;
        bonds
            .running
            .insert(number, Arc::new(RunningBond { bond, peer_name, started: Instant::now(), dialling }));
        Registered { program: Arc::clone(self), number }
    }

    fn bonds(&self) -> MutexGuard<'_, Bonds> {
        self.bonds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps others from attaching and detaching while the answer lives.
    pub(crate) fn attaching(&self) -> MutexGuard<'_, ()> {
        self.attaching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The LINKs of its listening end.
    pub(crate) fn listened_on(&self) -> MutexGuard<'_, Vec<LinkSpec>> {
        self.listened_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bonds that dial, and their numbers.
    pub(crate) fn dialling(&self) -> Vec<(u64, Arc<RunningBond>)> {
        let mut running = self.running();
        running.retain(|(_, bond)| bond.dialling.is_some());
        running
    }

    /// How many bonds and links there are, in a few words.
    pub(crate) fn summary(&self) -> String {
        let bonds: Vec<_> = self.bonds().running.values().map(|running| running.bond.clone()).collect();
        let up = |bond: &Bond| bond.links().iter().filter(|link| link.state == LinkState::Active).count();
        let (links, count) = (bonds.iter().map(up).sum::<usize>(), bonds.len());
        let plural = |number| if number == 1 { "" } else { "s" };
        format!("{count} bond{}, {links} link{} up", plural(count), plural(links))
    }

    /// Carries out a command, other than one that goes on for ever.
    pub(crate) async fn execute(&self, command: Command) -> Result<Value, CommandError> {
        match command {
            Command::Status {} => Ok(json!(self.status().await)),
            Command::Events { .. } => Err(CommandError::bad("events do not end")),
            Command::LinkAdd { bond, link } => {
                let bond = self.select(bond)?;
                let spec = link.parse().map_err(|error| CommandError::bad(format!("{link}: {error}")))?;
                bond.dialling("links are added")?.links.add(spec).map_err(CommandError::failed)?;
                Ok(json!({}))
            }
            Command::LinkRemove(Select { bond, link }) => self.select(bond)?.remove_links(&link),
            Command::LinkSet(change) => self.select(change.bond)?.change_links(&change),
            Command::Attach { bond, device } => attach::attach(self, &device, bond).await,
            Command::Detach { device, if_gone } => attach::detach(self, &device, if_gone),
            Command::ForwardAdd { bond, kind, forward } => {
                let bond = self.select(bond)?;
                let forwards = &bond.dialling("forwards are opened")?.forwards;
                let number = forwards.add(kind, &forward).await?;
                Ok(json!({ "number": number }))
            }
            Command::ForwardRemove { bond, number } => {
                let bond = self.select(bond)?;
                if bond.dialling("forwards are closed")?.forwards.remove(number).await {
                    Ok(json!({}))
                } else {
                    Err(CommandError::not_found(format!(
                        "no forward {number}; `bondwire status` shows which there are"
                    )))
                }
            }
            Command::Log { level } => {
                logging::set_level(&level).map_err(CommandError::bad)?;
                Ok(json!({}))
            }
            Command::Report {} => Ok(report::report(&self.status().await, self.history())),
            Command::Speed(test) => self.speed(&test).await,
            Command::Stop {} => {
                self.stop.now();
                Ok(json!({}))
            }
        }
    }

    /// Has `look` tell the status how the recording of this command does.
    pub(crate) fn set_recording(&self, look: RecordingLook) {
        // A command has one recording.
        let _ = self.recording.set(look);
    }

    /// Shows an interface, if there is one, for as long as it lives.
    pub(crate) fn show_tunnel(&self, tunnel: Option<&Arc<Tunnel>>) {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        tunnels.retain(|tunnel| tunnel.strong_count() > 0);
        tunnels.extend(tunnel.map(Arc::downgrade));
    }

    fn tunnels(&self) -> Vec<TunStatus> {
        let tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        tunnels.iter().filter_map(Weak::upgrade).map(|tunnel| tunnel.status()).collect()
    }

    pub(crate) async fn status(&self) -> Status {
        let before = self.look();
        if !before.links.is_empty() {
            sleep(SAMPLE_TIME).await;
        }
        self.status_since(&before)
    }

    fn running(&self) -> Vec<(u64, Arc<RunningBond>)> {
        self.bonds().running.iter().map(|(number, bond)| (*number, Arc::clone(bond))).collect()
    }

    /// A look at the counters.
    pub(crate) fn look(&self) -> Look {
        let running = self.running();
        let links = running.iter().map(|(number, running)| (*number, running.bond.links())).collect();
        Look { at: Instant::now(), links }
    }

    /// How things stand, with the rates since an earlier look.
    pub(crate) fn status_since(&self, before: &Look) -> Status {
        let (running, elapsed) = (self.running(), before.at.elapsed());
        let status = |(number, running): &(u64, Arc<RunningBond>)| {
            let before = before.links.get(number).map(Vec::as_slice).unwrap_or_default();
            running.status(*number, before, elapsed)
        };
        Status {
            name: self.name.clone(),
            command: self.command.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            recording: self.recording.get().map(|look| look()),
            bonds: running.iter().map(status).collect(),
            tuns: self.tunnels(),
        }
    }

    /// The bond of that number, or the only one.
    fn select(&self, number: Option<u64>) -> Result<Arc<RunningBond>, CommandError> {
        let bonds = self.bonds();
        match number {
            Some(number) => bonds.running.get(&number).cloned().ok_or_else(|| {
                CommandError::not_found(format!("no bond {number}; `bondwire status` shows which there are"))
            }),
            None => match (bonds.running.values().next(), bonds.running.len()) {
                (Some(only), 1) => Ok(Arc::clone(only)),
                (Some(_), count) => {
                    Err(CommandError::bad(format!("there are {count} bonds; name one with --bond NUMBER")))
                }
                (None, _) => Err(CommandError::not_found("there is no bond at the moment")),
            },
        }
    }

    async fn speed(&self, test: &SpeedTest) -> Result<Value, CommandError> {
        let running = self.select(test.bond)?;
        let report = speed::run::over_running_bond(&running.bond, test).await?;
        Ok(report)
    }
}

impl RunningBond {
    /// The links that it dials, at the end that connects.
    pub(crate) fn links(&self) -> Option<&LinkTable> {
        self.dialling.as_ref().map(|dialling| &*dialling.links)
    }

    pub(crate) fn peer(&self) -> Option<PublicKey> {
        self.bond.peer()
    }

    /// What it is called in messages, with its number in the status.
    pub(crate) fn name(&self, number: u64) -> String {
        (self.peer_name)().map_or_else(|| format!("bond {number}"), |name| format!("bond {number} ({name})"))
    }

    fn status(&self, number: u64, before: &[LinkSnapshot], elapsed: Duration) -> BondStatus {
        let dialled = self.dialled();
        let mut links = status::links(&self.bond, before, elapsed, &dialled);
        let faults = self.dialling.iter().flat_map(|dialling| dialling.links.faults());
        links.extend(faults.map(|(link, why)| status::not_found(&link, why)));
        let streams = self.bond.stream_stats();
        BondStatus {
            number,
            peer: self.bond.peer().map(|peer| keys::public_key_text(&peer)),
            peer_name: (self.peer_name)(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            send_mbytes_per_second: links.iter().map(|link| link.send_mbytes_per_second).sum(),
            receive_mbytes_per_second: links.iter().map(|link| link.receive_mbytes_per_second).sum(),
            links,
            streams_open: streams.open,
            send_buffered_bytes: streams.send_buffered_bytes,
            acked_bytes: self.bond.stats().acked_bytes,
            dropped_packets: self.bond.dropped_packets(),
            forwards: self.dialling.as_ref().map(|dialling| dialling.forwards.list()).unwrap_or_default(),
        }
    }

    fn dialled(&self) -> Vec<DialledLink> {
        self.dialling.as_ref().map(|dialling| dialling.links.dialled()).unwrap_or_default()
    }

    fn dialling(&self, what: &str) -> Result<&Dialling, CommandError> {
        self.dialling
            .as_ref()
            .ok_or_else(|| CommandError::not_here(format!("{what} at the end that connects; run this there")))
    }

    fn remove_links(&self, link: &str) -> Result<Value, CommandError> {
        let dialling = self.dialling("links are removed")?;
        let matching = self.matching(link)?;
        let dialled: Vec<_> = matching.iter().filter_map(|target| target.dialer.as_ref()).collect();
        if dialled.is_empty() {
            return Err(CommandError::failed(format!("{link} is not dialled here")));
        }
        for DialledLink { spec, found, .. } in &dialled {
            match found {
                // The LINK itself is named: nothing is to be found from it any more.
                Some(found) if link == ALL || found.from == link => dialling.links.remove(&found.from),
                Some(found) => dialling.links.remove_found(found),
                None => dialling.links.remove(spec),
            }
        }
        Ok(json!({ "links": dialled.len() }))
    }

    fn change_links(&self, change: &LinkChange) -> Result<Value, CommandError> {
        let keep_alive = change.keep_alive()?;
        let matching = self.matching(&change.link)?;
        if let Some(dialling) = &self.dialling {
            let is_named = |link: &str| change.link == ALL || change.link == link;
            dialling.links.change_yet_to_find(is_named, |policy| change.apply(policy), keep_alive)?;
        }
        for target in &matching {
            match &target.dialer {
                Some(DialledLink { dialer, .. }) => {
                    dialer.set_policy(change.apply(dialer.policy())?);
                    if let Some(keep_alive) = keep_alive {
                        dialer.set_keep_alive(keep_alive);
                    }
                }
                None => target.change_in(&self.bond, change, keep_alive)?,
            }
        }
        Ok(json!({ "links": matching.len() }))
    }

    /// The links that `link` names: by number, by name, by the LINK that is dialled, or all.
    fn matching(&self, link: &str) -> Result<Vec<Target>, CommandError> {
        let mut dialled = self.dialled();
        let mut targets: Vec<Target> = Vec::new();
        for snapshot in self.bond.links() {
            let place = dialled.iter().position(|link| link.dialer.state().link == Some(snapshot.id));
            let dialer = place.map(|place| dialled.swap_remove(place));
            targets.push(Target { id: Some(snapshot.id), name: snapshot.name, dialer });
        }
        targets.extend(dialled.into_iter().map(|link| Target {
            id: None,
            name: link.dialer.name().to_owned(),
            dialer: Some(link),
        }));
        targets.retain(|target| target.is_named(link));
        if targets.is_empty() {
            return Err(CommandError::not_found(format!(
                "no link {link}; `bondwire status` shows which there are"
            )));
        }
        Ok(targets)
    }
}

/// A link that a command names, in the bond or on its way there.
struct Target {
    id: Option<LinkId>,
    name: String,
    dialer: Option<DialledLink>,
}

impl Target {
    fn is_named(&self, link: &str) -> bool {
        let spec = self.dialer.as_ref().map(|link| link.spec.as_str());
        let from = self.dialer.as_ref().and_then(|link| link.found.as_ref()).map(|found| found.from.as_str());
        link == ALL
            || from == Some(link)
            || self.id.is_some_and(|id| id.to_string() == link)
            || self.name == link
            || spec == Some(link)
            || spec.and_then(|spec| spec.split(',').next()) == Some(link)
    }

    /// Changes a link that the other end dials: the change ends with it.
    fn change_in(
        &self,
        bond: &Bond,
        change: &LinkChange,
        keep_alive: Option<Option<Duration>>,
    ) -> Result<(), CommandError> {
        let link = self.id.map(|id| bond.link(id));
        let Some((link, now)) = link.and_then(|link| Some((link, link.snapshot()?))) else { return Ok(()) };
        let changed = link.set_policy(change.apply(now.policy)?).and_then(|()| match keep_alive {
            Some(keep_alive) => link.set_keep_alive(keep_alive),
            None => Ok(()),
        });
        changed.map_err(|error| CommandError::not_found(error.to_string()))
    }
}
