//! `bondwire connect`

use std::time::Duration;

use bondwire::error::CloseReason;
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::failure::Failure;
use crate::forward::local::OpenForward;
use crate::forward::spec::LocalForward;
use crate::options::PeerOptions;
use crate::service::close_code;
use crate::session::{self, DialledBond, Session};
use crate::signals::Interrupt;
use crate::{events, keys};

/// Pause before a new bond takes the place of one that the peer ended, so that two ends never chase each other.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// Arguments of `bondwire connect`.
#[derive(Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    peer: PeerOptions,
    /// Forward a local port: [bind:]port:host:port[,class=interactive|bulk|redundant]; repeatable
    #[arg(short = 'L', value_name = "FORWARD")]
    local: Vec<LocalForward>,
}

impl Connect {
    pub(crate) async fn run(self, mut interrupt: Interrupt) -> Result<(), Failure> {
        let session = Session::new(self.peer)?;
        let mut forwards = Vec::new();
        for forward in self.local {
            forwards.push(OpenForward::bind(forward).await?);
        }
        let mut dialled = session.dial()?;
        let (current, bond) = watch::channel(dialled.bond.clone());
        let mut tasks = JoinSet::new();
        log_events(&mut tasks, &dialled);
        interrupt.or(dialled.first_link()).await?;
        if let Some(peer) = dialled.bond.peer() {
            tracing::info!("connected to {}", keys::public_key_text(&peer));
        }
        for forward in forwards {
            tasks.spawn(forward.run(bond.clone()));
        }
        loop {
            match interrupt.or(async { Ok(dialled.bond.closed().await) }).await {
                Ok(reason) if may_come_back(&reason) => {
                    tracing::warn!("opening a new bond, the last one ended: {reason}");
                    sleep(REOPEN_PAUSE).await;
                    dialled = session.dial()?;
                    log_events(&mut tasks, &dialled);
                    current.send_replace(dialled.bond.clone());
                }
                Ok(reason) => return Err(session::ended(&reason)),
                Err(interrupted) => {
                    dialled.close().await;
                    return Err(interrupted);
                }
            }
        }
    }
}

/// Whether the peer ended only what it knew of the bond, so that a new bond can take its place.
fn may_come_back(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::PeerRestarted => true,
        CloseReason::Peer { code, .. } => *code == close_code::LISTENER_ENDS,
        _ => false,
    }
}

fn log_events(tasks: &mut JoinSet<()>, dialled: &DialledBond) {
    let bond = dialled.bond.clone();
    tasks.spawn(async move { events::log(&bond, "").await });
}
