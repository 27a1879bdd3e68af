//! The connecting ends of a service, and their forwards.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bondwire::Identity;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::config::ConnectConfig;
use crate::connecting::{Connecting, Naming, REOPEN_PAUSE};
use crate::control::program::Program;
use crate::failure::Failure;
use crate::forward::address::Address;
use crate::forward::drain::Drain;
use crate::forward::spec::ForwardOption;
use crate::forward::table::{Forwards, LocalEnd};
use crate::keys;
use crate::link_table::LinkTable;
use crate::peers::PeerName;
use crate::session::{DialledBond, Session};
use crate::tun::Tunnel;

/// Longest pause before a new bond is opened when each ends as soon as it is.
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A bond that lived for so long has not ended as soon as it was opened.
const LIVED: Duration = Duration::from_secs(10);

/// A connecting end in a task of its own.
pub(super) struct RunningBond {
    config: ConnectConfig,
    links: Arc<LinkTable>,
    forwards: Arc<Forwards>,
    /// The forwards of the file, and their numbers.
    open: Vec<(ForwardOption, u64)>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

enum Order {
    /// Leads another way from now on.
    Replace(Arc<Session>),
    /// Ends the bond when the peer has everything, or after so much time.
    End(Duration),
}

/// A forward, and what is open for it on this host.
pub(super) enum OpenForward {
    Local(ForwardOption, Box<LocalEnd>),
    /// Opens at the peer.
    Remote(ForwardOption),
    /// Opens when another one has closed.
    Late(ForwardOption),
}

impl OpenForward {
    async fn open(option: ForwardOption) -> Result<Self, Failure> {
        let end = match &option {
            ForwardOption::Local(forward) => LocalEnd::forward(forward.clone()).await?,
            ForwardOption::Socks(forward) => LocalEnd::socks(forward).await?,
            ForwardOption::Remote(_) => return Ok(Self::Remote(option)),
        };
        Ok(Self::Local(option, Box::new(end)))
    }
}

/// Opens the local ends of `forwards`.
pub(super) async fn open_ends(forwards: &[ForwardOption]) -> Result<Vec<OpenForward>, Failure> {
    open_ends_after(forwards, &[]).await
}

/// The same while others listen on `closing`, which will be free later.
pub(super) async fn open_ends_after(
    forwards: &[ForwardOption],
    closing: &[Address],
) -> Result<Vec<OpenForward>, Failure> {
    let mut ends = Vec::new();
    for option in forwards {
        let waits = option.bind().is_some_and(|bind| closing.iter().any(|closing| closing.meets(&bind)));
        ends.push(match waits {
            true => OpenForward::Late(option.clone()),
            false => OpenForward::open(option.clone()).await?,
        });
    }
    Ok(ends)
}

/// Opens what had to wait.
pub(super) async fn open_late(name: &PeerName, forwards: Vec<OpenForward>) -> Vec<OpenForward> {
    let mut open = Vec::new();
    for forward in forwards {
        match forward {
            OpenForward::Late(option) => match OpenForward::open(option).await {
                Ok(end) => open.push(end),
                Err(failure) => tracing::error!("{name}: {failure}; reload to try again"),
            },
            forward => open.push(forward),
        }
    }
    open
}

impl RunningBond {
    pub(super) fn start(
        name: &PeerName,
        config: &ConnectConfig,
        identity: &Identity,
        (program, drain): (&Arc<Program>, &Drain),
        tunnel: Option<Arc<Tunnel>>,
    ) -> Result<Self, Failure> {
        let session = Arc::new(Session::new(config.plan(identity.clone())?)?);
        let links = Arc::clone(&session.links);
        links.set_attach(config.attach.clone());
        let about: Arc<str> = format!("{name}: ").into();
        if config.way.peer.is_none() {
            tracing::warn!("{about}accept-any-peer: anyone on the path can be the peer");
        }
        let naming = Naming { peer: Arc::new(OnceLock::from(name.to_string())), about: Arc::clone(&about) };
        let mut connecting = Connecting::start(session, Arc::clone(program), naming, drain.clone())?;
        if let Some(tunnel) = &tunnel {
            program.show_tunnel(Some(tunnel));
            connecting.carry_packets(tunnel, None);
        }
        let forwards = Arc::clone(connecting.forwards());
        let (orders, given) = mpsc::channel(1);
        let task = tokio::spawn(keep(connecting, about, given));
        Ok(Self { config: config.clone(), links, forwards, open: Vec::new(), orders, task })
    }

    /// Carries what comes in at these ends.
    pub(super) fn forward(&mut self, ends: Vec<OpenForward>) {
        for end in ends {
            let (option, number) = match end {
                OpenForward::Local(option, end) => (option, self.forwards.start(*end)),
                OpenForward::Remote(ForwardOption::Remote(forward)) => {
                    let number = self.forwards.keep_asking(forward.clone());
                    (ForwardOption::Remote(forward), number)
                }
                OpenForward::Remote(_) | OpenForward::Late(_) => continue,
            };
            self.open.push((option, number));
        }
    }

    /// The forwards of the file that are open, and their numbers.
    pub(super) fn open_forwards(&self) -> Vec<(ForwardOption, u64)> {
        let listed = self.forwards.list();
        let is_open = |number: u64| listed.iter().any(|forward| forward.number == number);
        self.open.iter().filter(|(_, number)| is_open(*number)).cloned().collect()
    }

    pub(super) async fn close_forwards(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.forwards.remove(*number).await;
        }
        self.open = self.open_forwards();
    }

    /// Uses the links as `config` says; leads to another peer, or in another way, if it says that.
    pub(super) async fn follow(
        &mut self,
        config: &ConnectConfig,
        identity: &Identity,
    ) -> Result<(), Failure> {
        if self.config.way == config.way {
            self.links.follow(&self.config.links, &config.links);
        } else {
            let session = Arc::new(Session::new(config.plan(identity.clone())?)?);
            // udev says once that a cable is plugged in.
            session.links.take_over(&self.links);
            self.links = Arc::clone(&session.links);
            // When the task has ended, so has the process.
            let _ = self.orders.send(Order::Replace(session)).await;
        }
        self.links.set_attach(config.attach.clone());
        self.config = config.clone();
        Ok(())
    }

    /// Finds out at once how things stand with all links.
    pub(super) fn hurry(&self) {
        self.links.hurry();
    }

    /// Ends the bond when the peer has everything or after `patience`, and waits until all ports are free.
    pub(super) async fn end(self, patience: Duration) {
        // When the task has ended already, nothing is left to do.
        let _ = self.orders.send(Order::End(patience)).await;
        let _ = self.task.await;
    }
}

/// Keeps a bond up: opens a new one whenever one ends, whyever it did.
async fn keep(mut connecting: Connecting, about: Arc<str>, mut orders: mpsc::Receiver<Order>) {
    let (mut opened, mut announced, mut pause) = (Instant::now(), false, REOPEN_PAUSE);
    loop {
        let order = tokio::select! {
            biased;
            order = orders.recv() => order,
            () = announce(connecting.dialled(), &about), if !announced => {
                announced = true;
                continue;
            }
            reason = connecting.closed() => {
                tracing::warn!("{about}opening a new bond, the last one ended: {reason}");
                pause = if opened.elapsed() < LIVED { (pause * 2).min(REOPEN_PAUSE_MAX) } else { REOPEN_PAUSE };
                match timeout(pause, orders.recv()).await {
                    Ok(order) => order,
                    Err(_) => {
                        (opened, announced) = (Instant::now(), false);
                        if let Err(failure) = connecting.reopen() {
                            tracing::error!("{about}{failure}; trying again");
                        }
                        continue;
                    }
                }
            }
        };
        match order {
            Some(Order::Replace(session)) => {
                tracing::info!("{about}opening a new bond: it leads another way now");
                (opened, announced, pause) = (Instant::now(), false, REOPEN_PAUSE);
                if let Err(failure) = connecting.replace(session).await {
                    tracing::error!("{about}{failure}; trying again");
                }
            }
            Some(Order::End(patience)) => return connecting.finish(patience).await,
            None => return connecting.end().await,
        }
    }
}

/// Waits for the first link, and says what came of it.
async fn announce(dialled: &DialledBond, about: &str) {
    if let Err(failure) = dialled.first_link().await {
        if dialled.bond.close_reason().is_some() {
            // That is said where it ends.
            return;
        }
        tracing::warn!("{about}{failure}; trying on");
        if dialled.bond.connected().await.is_err() {
            return;
        }
    }
    if let Some(peer) = dialled.bond.peer() {
        tracing::info!("{about}connected to {}", keys::public_key_text(&peer));
    }
}
