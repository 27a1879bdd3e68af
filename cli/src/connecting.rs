//! The connecting end at work: one bond after the other to the same peer, and the forwards over them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bondwire::Bond;
use bondwire::error::CloseReason;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::control::program::{Dialling, Program, Registered};
use crate::events;
use crate::failure::Failure;
use crate::forward::carrier::Carrier;
use crate::forward::drain::Drain;
use crate::forward::table::Forwards;
use crate::quota::Quotas;
use crate::service::{self, Services, close_code};
use crate::session::{self, DialledBond, Session};
use crate::tun::{Opened, Tunnel};

/// Pause before a new bond takes the place of one that the peer ended, so that two ends never chase each other.
pub(crate) const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// What a connecting end is called.
#[derive(Clone, Default)]
pub(crate) struct Naming {
    /// What the peer is called, once that is known.
    pub(crate) peer: Arc<OnceLock<String>>,
    /// Stands before its lines in the log; may be empty.
    pub(crate) about: Arc<str>,
}

/// A connecting end at work.
pub(crate) struct Connecting {
    session: Arc<Session>,
    program: Arc<Program>,
    naming: Naming,
    drain: Drain,
    dialled: DialledBond,
    registered: Registered,
    forwards: Arc<Forwards>,
    current: watch::Sender<Carrier>,
    quotas: JoinHandle<()>,
    tasks: JoinSet<()>,
}

impl Connecting {
    /// Dials the first bond. No forward is open yet.
    pub(crate) fn start(
        session: Arc<Session>,
        program: Arc<Program>,
        naming: Naming,
        drain: Drain,
    ) -> Result<Self, Failure> {
        let dialled = session.dial()?;
        let mut tasks = JoinSet::new();
        let carrier = serve(&mut tasks, &dialled, &naming.about, &drain);
        let (current, bonds) = watch::channel(carrier);
        let quotas = watch_quotas(&session, &current);
        let forwards = Arc::new(Forwards::new(bonds, drain.clone()));
        let registered = register(&program, &dialled, &session, &forwards, &naming);
        Ok(Self { session, program, naming, drain, dialled, registered, forwards, current, quotas, tasks })
    }

    /// What is forwarded over the bond, whichever that is.
    pub(crate) fn forwards(&self) -> &Arc<Forwards> {
        &self.forwards
    }

    /// Carries the packets of an interface over the bond, whichever that is.
    pub(crate) fn carry_packets(&mut self, tunnel: &Arc<Tunnel>, opened: Option<Opened>) {
        let (tunnel, about) = (Arc::clone(tunnel), Arc::clone(&self.naming.about));
        self.tasks.spawn(tunnel.follow(self.current.subscribe(), opened, about));
    }

    /// The bond of the moment.
    pub(crate) fn dialled(&self) -> &DialledBond {
        &self.dialled
    }

    /// Waits for the end of the bond. Cancel safe.
    pub(crate) async fn closed(&self) -> CloseReason {
        self.dialled.bond.closed().await
    }

    /// Puts a new bond in the place of the last one.
    pub(crate) fn reopen(&mut self) -> Result<(), Failure> {
        self.dialled = self.session.dial()?;
        self.registered = register(&self.program, &self.dialled, &self.session, &self.forwards, &self.naming);
        self.current.send_replace(serve(&mut self.tasks, &self.dialled, &self.naming.about, &self.drain));
        Ok(())
    }

    /// Leads to another peer, or in another way, from now on: ends the bond, and opens one of `session`. The forwards stay
    /// open.
    pub(crate) async fn replace(&mut self, session: Arc<Session>) -> Result<(), Failure> {
        session::close(&self.dialled.bond, close_code::DONE, "").await;
        self.end_quotas().await;
        let before = std::mem::replace(&mut self.session, session);
        before.ended().await;
        self.quotas = watch_quotas(&self.session, &self.current);
        self.reopen()
    }

    async fn end_quotas(&mut self) {
        self.quotas.abort();
        // It was aborted, and has written down what it had counted.
        let _ = (&mut self.quotas).await;
    }

    /// Ends the bond at once, and waits until ports and sockets are free.
    pub(crate) async fn end(self) {
        session::close(&self.dialled.bond, close_code::DONE, "").await;
        self.shutdown().await;
    }

    /// Ends the bond when the peer has all that was written, or when `patience` is over.
    pub(crate) async fn finish(self, patience: Duration) {
        // What is not delivered by then is lost.
        let _ = timeout(patience, self.dialled.bond.close(close_code::DONE, "")).await;
        self.end().await;
    }

    async fn shutdown(mut self) {
        self.end_quotas().await;
        // Waits, so that Unix sockets are removed before the program ends.
        self.forwards.shutdown().await;
        self.tasks.shutdown().await;
        drop(self.registered);
        self.session.ended().await;
    }
}

fn watch_quotas(session: &Arc<Session>, current: &watch::Sender<Carrier>) -> JoinHandle<()> {
    let mut quotas = Quotas::of(&session.links);
    let bonds = current.subscribe();
    let bond = move || -> Bond { bonds.borrow().bond.clone() };
    tokio::spawn(async move { quotas.watch(bond).await })
}

fn register(
    program: &Arc<Program>,
    dialled: &DialledBond,
    session: &Session,
    forwards: &Arc<Forwards>,
    naming: &Naming,
) -> Registered {
    let dialling = Dialling { links: Arc::clone(&session.links), forwards: Arc::clone(forwards) };
    let name = Arc::clone(&naming.peer);
    program.register(dialled.bond.clone(), Box::new(move || name.get().cloned()), Some(dialling))
}

/// Serves what the peer may ask of this end, and logs what happens to the links.
pub(crate) fn serve(
    tasks: &mut JoinSet<()>,
    dialled: &DialledBond,
    about: &Arc<str>,
    drain: &Drain,
) -> Carrier {
    let carrier = Carrier::new(dialled.bond.clone(), drain.clone());
    let (served, about) = (carrier.clone(), Arc::clone(about));
    tasks.spawn(async move {
        tokio::join!(events::log(&served.bond, &about), service::serve(&served, Services::default()));
    });
    // Those of bonds that have ended.
    while tasks.try_join_next().is_some() {}
    carrier
}
