//! The service: the bonds of a configuration file in one process, which follows the file without dropping what it need not.

mod bonds;
mod listener;
mod manager;
mod sleep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bondwire::Identity;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout_at};

use self::bonds::{OpenForward, RunningBond};
use self::listener::RunningListener;
use self::manager::Manager;
use self::sleep::Sleep;
use crate::access::Always;
use crate::config::{Config, ConnectConfig};
use crate::control::{Control, ControlOption};
use crate::failure::Failure;
use crate::forward::address::Address;
use crate::forward::drain::Drain;
use crate::keys;
use crate::observers::Observers;
use crate::peers::PeerName;
use crate::signals::{Interrupt, Reloads};
use crate::tun::Tunnel;

/// How often the service looks after itself.
const TICK: Duration = Duration::from_secs(1);
/// Time in which peers get the last bytes and hear of the end, in addition to that of the connections.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// A service at work.
pub(crate) struct Service {
    path: PathBuf,
    config: Config,
    identity: Identity,
    control: Control,
    observers: Observers,
    manager: Manager,
    drain: Drain,
    listener: Option<RunningListener>,
    bonds: BTreeMap<PeerName, RunningBond>,
}

impl Service {
    /// Opens all that the file at `path` names, under the name `control` if one is given. Links come up later.
    pub(crate) async fn start(
        path: PathBuf,
        control: Option<String>,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let config = Config::load(&path)?;
        let identity = config.identity()?;
        let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = control.or_else(|| config.control.clone()).unwrap_or_else(stem);
        let observers = config.observers.open().await?;
        let control = Control::open(&ControlOption::named(name), None, "up", interrupt.stop()).await?;
        let observers = observers.start(control.program());
        tracing::info!("public key of this host: {}", keys::public_key_text(&identity.public_key()));
        let mut service = Self {
            path,
            config,
            identity,
            control,
            observers,
            manager: Manager::from_environment(),
            drain: Drain::default(),
            listener: None,
            bonds: BTreeMap::new(),
        };
        match service.open_all().await {
            Ok(()) => Ok(service),
            Err(failure) => {
                service.end(Duration::ZERO).await;
                Err(failure)
            }
        }
    }

    async fn open_all(&mut self) -> Result<(), Failure> {
        if let Some(listen) = &self.config.listen {
            if listen.grants.always == Always::Anyone {
                tracing::warn!("accept-any-peer: whoever reaches a link is let in");
            }
            let plan = listen.plan(self.identity.clone(), self.config.peers_file.clone())?;
            let program = self.control.program();
            self.listener = Some(RunningListener::start(plan, program, &self.drain).await?);
        }
        // Before any link: none must leave by one.
        let mut tunnels = BTreeMap::new();
        for (name, config) in &self.config.connect {
            tunnels.insert(name, config.tun.clone().map(Tunnel::open).transpose()?);
        }
        for (name, config) in &self.config.connect {
            let ends = bonds::open_ends(&config.forwards).await?;
            let (within, tunnel) = ((self.control.program(), &self.drain), tunnels.remove(name).flatten());
            let mut bond = RunningBond::start(name, config, &self.identity, within, tunnel)?;
            bond.forward(ends);
            self.bonds.insert(name.clone(), bond);
        }
        Ok(())
    }

    /// Runs until it is told to end, and drains then.
    pub(crate) async fn run(mut self, mut interrupt: Interrupt, mut reloads: Reloads) {
        let mut tick = self.ticks();
        let mut sleep = Sleep::new(tick.period());
        let status = self.status();
        self.manager.ready(&status);
        loop {
            tokio::select! {
                biased;
                _ = interrupt.wait() => break,
                () = reloads.next() => self.reload().await,
                _ = tick.tick() => self.look_after_itself(&mut sleep),
            }
        }
        self.manager.stopping();
        self.drain(&mut tick).await;
        self.end(FAREWELL_TIMEOUT).await;
    }

    fn ticks(&self) -> Interval {
        let mut tick = interval(self.manager.watchdog().map_or(TICK, |watchdog| TICK.min(watchdog / 2)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick
    }

    /// Tells the service manager how things stand, and the links if much may have changed unnoticed. That it comes here is
    /// the sign of life: every bond was asked.
    fn look_after_itself(&mut self, sleep: &mut Sleep) {
        if let Some(slept) = sleep.noticed() {
            tracing::info!(
                "this host or program stood still for {:.1} s; probing all links",
                slept.as_secs_f64()
            );
            self.bonds.values().for_each(RunningBond::hurry);
        }
        let status = self.status();
        self.manager.alive(&status);
    }

    fn status(&self) -> String {
        self.control.program().summary()
    }

    /// Lets connections end by themselves for a while.
    async fn drain(&mut self, tick: &mut Interval) {
        self.drain.begin();
        let (carried, patience) = (self.drain.carried(), self.config.drain);
        if carried > 0 {
            tracing::info!("{carried} connections have {} s to end by themselves", patience.as_secs());
        }
        let deadline = Instant::now() + patience;
        let drained = async {
            loop {
                tokio::select! {
                    () = self.drain.done() => return,
                    _ = tick.tick() => self.manager.alive("ending"),
                }
            }
        };
        if timeout_at(deadline, drained).await.is_err() {
            tracing::warn!("{} connections are cut: their time is over", self.drain.carried());
        }
    }

    /// Ends all bonds, each when its peer has everything or after `patience`, and waits until ports and sockets are free.
    async fn end(self, patience: Duration) {
        let mut ends = JoinSet::new();
        for bond in self.bonds.into_values() {
            ends.spawn(bond.end(patience));
        }
        if let Some(listener) = self.listener {
            ends.spawn(listener.end(patience));
        }
        ends.join_all().await;
        self.observers.end().await;
        self.control.close().await;
    }

    /// Follows the file. If it cannot be followed, everything stays as it was.
    async fn reload(&mut self) {
        self.manager.reloading();
        match self.follow_file().await {
            Ok(()) => tracing::info!("{} is read again", self.path.display()),
            Err(failure) => tracing::error!("everything stays as it was: {failure}"),
        }
        let status = self.status();
        self.manager.ready(&status);
    }

    /// First all that can fail, then all that cannot.
    async fn follow_file(&mut self) -> Result<(), Failure> {
        let new = Config::load(&self.path)?;
        self.check_lasting(&new)?;
        let mut changes = Vec::new();
        for (name, config) in &new.connect {
            changes.push(self.prepare(name, config, &new).await?);
        }
        self.follow_listen(&new).await?;
        let gone: Vec<_> =
            self.bonds.keys().filter(|name| !new.connect.contains_key(name)).cloned().collect();
        let gone = gone.iter().filter_map(|name| self.bonds.remove(name));
        let ends: JoinSet<_> = gone.map(|bond| bond.end(FAREWELL_TIMEOUT)).collect();
        ends.join_all().await;
        // All that closes, before anything opens in its place.
        for Change { name, forwards, .. } in &changes {
            if let Some(bond) = self.bonds.get_mut(name) {
                bond.close_forwards(&forwards.removed).await;
            }
        }
        for change in changes {
            self.follow_connect(change).await;
        }
        self.config = new;
        Ok(())
    }

    /// What would take all bonds down, or cannot be changed while the process runs.
    fn check_lasting(&self, new: &Config) -> Result<(), Failure> {
        let restart = |what: &str| {
            let message =
                format!("{}: {what} cannot change while the service runs; restart it", self.path.display());
            Err(Failure::configuration(message))
        };
        if new.identity()?.public_key() != self.identity.public_key() {
            return restart("the key");
        }
        if new.control != self.config.control {
            return restart("control");
        }
        if new.observers != self.config.observers {
            return restart("record or metrics");
        }
        let is_other = |(name, config): (&PeerName, &ConnectConfig)| {
            self.config.connect.get(name).is_some_and(|old| old.tun != config.tun)
        };
        if new.connect.iter().any(is_other) {
            return restart("tun of a bond");
        }
        match (&self.config.listen, &new.listen) {
            (Some(old), Some(new)) if old.tun != new.tun => restart("tun of [listen]"),
            (Some(old), Some(new)) if !old.is_compatible(new) => {
                restart("cipher or accept-any-peer of [listen]")
            }
            (Some(_), Some(_)) if new.peers_file.path() != self.config.peers_file.path() => restart("peers"),
            _ => Ok(()),
        }
    }
}

/// What is to be done for one bond.
struct Change {
    name: PeerName,
    config: ConnectConfig,
    forwards: ForwardChange,
    /// Of a new bond.
    tunnel: Option<Arc<Tunnel>>,
}

/// What is to be done for its forwards.
struct ForwardChange {
    removed: Vec<u64>,
    /// Open already, as far as nothing else has to be closed for them.
    added: Vec<OpenForward>,
}

impl Service {
    async fn prepare(
        &self,
        name: &PeerName,
        config: &ConnectConfig,
        new: &Config,
    ) -> Result<Change, Failure> {
        let running = self.bonds.get(name);
        let open = running.map(RunningBond::open_forwards).unwrap_or_default();
        let added: Vec<_> = config
            .forwards
            .iter()
            .filter(|forward| !open.iter().any(|(known, _)| known == *forward))
            .cloned()
            .collect();
        let removed = open.iter().filter(|(known, _)| !config.forwards.contains(known));
        // Checks what the session says of itself, too.
        config.plan(self.identity.clone())?;
        let closing: Vec<_> = self.closing(new).collect();
        let tun = config.tun.clone().filter(|_| running.is_none());
        Ok(Change {
            name: name.clone(),
            config: config.clone(),
            forwards: ForwardChange {
                removed: removed.map(|(_, number)| *number).collect(),
                added: bonds::open_ends_after(&added, &closing).await?,
            },
            tunnel: tun.map(Tunnel::open).transpose()?,
        })
    }

    /// Where this host listens now, and no longer with `new`.
    fn closing(&self, new: &Config) -> impl Iterator<Item = Address> {
        self.bonds.iter().flat_map(move |(name, bond)| {
            let stays = new.connect.get(name).map(|config| config.forwards.clone()).unwrap_or_default();
            let goes = bond.open_forwards().into_iter().filter(move |(forward, _)| !stays.contains(forward));
            goes.filter_map(|(forward, _)| forward.bind())
        })
    }

    async fn follow_listen(&mut self, new: &Config) -> Result<(), Failure> {
        match (&self.listener, &new.listen) {
            (Some(listener), Some(listen)) if self.config.listen.as_ref() != Some(listen) => {
                listener.change(listen.clone()).await
            }
            (None, Some(listen)) => {
                let plan = listen.plan(self.identity.clone(), new.peers_file.clone())?;
                let started = RunningListener::start(plan, self.control.program(), &self.drain).await?;
                self.listener = Some(started);
                Ok(())
            }
            (Some(_), None) => {
                if let Some(listener) = self.listener.take() {
                    listener.end(FAREWELL_TIMEOUT).await;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn follow_connect(&mut self, change: Change) {
        let Change { name, config, forwards, tunnel } = change;
        let within = (self.control.program(), &self.drain);
        let followed = match self.bonds.get_mut(&name) {
            Some(bond) => bond.follow(&config, &self.identity).await,
            None => RunningBond::start(&name, &config, &self.identity, within, tunnel).map(|bond| {
                self.bonds.insert(name.clone(), bond);
            }),
        };
        if let Err(failure) = followed {
            tracing::error!("{name}: {failure}");
        }
        if let Some(bond) = self.bonds.get_mut(&name) {
            bond.forward(bonds::open_late(&name, forwards.added).await);
        }
    }
}
