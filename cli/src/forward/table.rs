//! The forwards of a running command, which come and go while it runs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::carrier::{self, Carrier};
use super::drain::Drain;
use super::inlet::{Inlet, Route};
use super::remote::{self, Asked};
use super::socks::SocksInlet;
use super::spec::{Forward, SocksForward};
use crate::control::protocol::{CommandError, ForwardKind};
use crate::control::status::ForwardStatus;
use crate::failure::Failure;

/// Forwards at once: far more than a person opens.
const FORWARDS_MAX: usize = 1024;

/// Forwards over whichever bond there is.
pub(crate) struct Forwards {
    bonds: watch::Receiver<Carrier>,
    drain: Drain,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    last_number: u64,
    forwards: Vec<OpenForward>,
}

/// One that is open.
struct OpenForward {
    status: ForwardStatus,
    /// Dropped, it ends the task.
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Waits until a forward is to end.
async fn ended(end: oneshot::Receiver<()>) {
    // Nothing is ever sent: it is over when the sender is gone.
    let _ = end.await;
}

/// The local end of a forward, open.
pub(crate) struct LocalEnd {
    text: String,
    inlet: LocalInlet,
}

enum LocalInlet {
    Forward(Forward, Inlet),
    Socks(SocksInlet),
}

impl LocalEnd {
    /// Opens the local end of a `-L`.
    pub(crate) async fn forward(forward: Forward) -> Result<Self, Failure> {
        let inlet = Inlet::bind(&forward.bind).await.map_err(|error| {
            Failure::configuration(format!("cannot listen on {} for -L: {error}", forward.bind))
        })?;
        for address in inlet.addresses() {
            tracing::info!("forwarding {address} to {}", forward.target);
        }
        let text = format!("-L {} to {}", inlet.addresses().join(" and "), forward.target);
        Ok(Self { text, inlet: LocalInlet::Forward(forward, inlet) })
    }

    /// Opens the local end of a `-D`.
    pub(crate) async fn socks(forward: &SocksForward) -> Result<Self, Failure> {
        let inlet = SocksInlet::bind(forward).await?;
        Ok(Self { text: format!("-D {}", forward.bind), inlet: LocalInlet::Socks(inlet) })
    }
}

impl Forwards {
    /// None yet. Those that will be go over the bond that `bonds` has.
    pub(crate) fn new(bonds: watch::Receiver<Carrier>, drain: Drain) -> Self {
        Self { bonds, drain, open: Mutex::default() }
    }

    /// Carries what comes in at a local end; answers the forward's number.
    pub(crate) fn start(&self, end: LocalEnd) -> u64 {
        let bonds = self.bonds.clone();
        match end.inlet {
            LocalInlet::Forward(forward, inlet) => {
                let route = Route {
                    carrier: bonds,
                    drain: self.drain.clone(),
                    label: forward.target.label().into(),
                    class: forward.class,
                    about: forward.target.to_string().into(),
                };
                self.keep(end.text, |end| tokio::spawn(inlet.run(route, ended(end))))
            }
            LocalInlet::Socks(inlet) => {
                self.keep(end.text, |end| tokio::spawn(inlet.run(bonds, self.drain.clone(), ended(end))))
            }
        }
    }

    /// Asks the peer to listen for a `-R`; answers the forward's number.
    pub(crate) async fn start_remote(&self, forward: Forward) -> Result<u64, Failure> {
        let mut bonds = self.bonds.clone();
        let Some(carrier) = carrier::current(&mut bonds).await else {
            return Err(Failure::interrupted());
        };
        let text = format!("-R {} to {}", forward.bind, forward.target);
        let asked = Asked::first(forward, &carrier).await?;
        Ok(self.keep(text, |end| until(end, asked.keep(bonds))))
    }

    /// Asks the peer to listen for a `-R` until it does; answers the forward's number at once.
    pub(crate) fn keep_asking(&self, forward: Forward) -> u64 {
        let text = format!("-R {} to {}", forward.bind, forward.target);
        self.keep(text, |end| until(end, remote::keep_asking(forward, self.bonds.clone())))
    }

    /// Opens a forward in the form of the option that `kind` names.
    pub(crate) async fn add(&self, kind: ForwardKind, text: &str) -> Result<u64, CommandError> {
        if self.lock().forwards.len() >= FORWARDS_MAX {
            return Err(CommandError::failed(format!("{FORWARDS_MAX} forwards are open; close some")));
        }
        let bad = |error| CommandError::bad(format!("{text}: {error}"));
        let added = match kind {
            ForwardKind::Local => {
                LocalEnd::forward(text.parse().map_err(bad)?).await.map(|end| self.start(end))
            }
            ForwardKind::Socks => {
                LocalEnd::socks(&text.parse().map_err(bad)?).await.map(|end| self.start(end))
            }
            ForwardKind::Remote => self.start_remote(text.parse().map_err(bad)?).await,
        };
        added.map_err(CommandError::failed)
    }

    /// Closes a forward and what it carries; false if there is none of that number.
    pub(crate) async fn remove(&self, number: u64) -> bool {
        let removed: Vec<_> =
            self.lock().forwards.extract_if(.., |forward| forward.status.number == number).collect();
        end(removed).await > 0
    }

    /// Closes all, and waits until their ports and sockets are free.
    pub(crate) async fn shutdown(&self) {
        let all = std::mem::take(&mut self.lock().forwards);
        end(all).await;
    }

    /// Those that are open.
    pub(crate) fn list(&self) -> Vec<ForwardStatus> {
        self.lock().forwards.iter().map(|forward| forward.status.clone()).collect()
    }

    fn keep(&self, forward: String, start: impl FnOnce(oneshot::Receiver<()>) -> JoinHandle<()>) -> u64 {
        let (end, ended) = oneshot::channel();
        let task = start(ended);
        let mut open = self.lock();
        open.last_number += 1;
        let number = open.last_number;
        open.forwards.push(OpenForward { status: ForwardStatus { number, forward }, end, task });
        number
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` until it is to end.
fn until(end: oneshot::Receiver<()>, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::select! {
            () = ended(end) => {}
            () = work => {}
        }
    })
}

/// Ends forwards and answers how many there were, once each has dropped what it held: ports are free then.
async fn end(forwards: Vec<OpenForward>) -> usize {
    let told = forwards.into_iter().map(|OpenForward { end, task, .. }| {
        drop(end);
        task
    });
    let tasks: Vec<_> = told.collect();
    let count = tasks.len();
    for task in tasks {
        // It has ended as it was told, or by itself.
        let _ = task.await;
    }
    count
}
