//! `-R`: the peer listens, and what comes in there comes back through the bond.
//!
//! The asking end opens a stream that names the address to listen on; the forward lives as long as that stream. For each
//! connection, or client address of UDP, the peer opens a stream that names the asking one. So the peer reaches what was
//! asked for, and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bondwire::{BondStream, RecvStream, SendStream, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::address::{Address, HostPort};
use super::carrier::{self, Carrier, Return};
use super::inlet::{Inlet, Route};
use super::spec::Forward;
use crate::failure::{Exit, Failure};
use crate::service::{self, LISTEN_LABEL_PREFIX, RETURN_LABEL_PREFIX, Refusal, Status};
use crate::session;

/// Pause before the peer is asked again for an address that it could not open.
const ASK_PAUSE: Duration = Duration::from_secs(2);

/// Time for which an address that is in use is tried again.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(1);
const IN_USE_INTERVAL: Duration = Duration::from_millis(20);

/// A forward that the peer has agreed to.
pub(crate) struct Asked {
    forward: Forward,
    reader: RecvStream,
    _writer: SendStream,
    _target: Return,
}

/// Why the peer does not listen.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Open(#[from] bondwire::error::OpenStreamError),
    #[error("no answer: {0}")]
    Lost(#[from] io::Error),
}

impl Asked {
    /// Asks the peer to listen.
    pub(crate) async fn first(forward: Forward, carrier: &Carrier) -> Result<Self, Failure> {
        let bind = forward.bind.clone();
        Self::ask(forward, carrier).await.map_err(|error| match carrier.bond.close_reason() {
            Some(reason) => session::ended(&reason),
            None => Failure::new(Exit::Refused, format!("-R {bind}: {error}")),
        })
    }

    async fn ask(forward: Forward, carrier: &Carrier) -> Result<Self, AskError> {
        let label = format!("{LISTEN_LABEL_PREFIX}{}", forward.bind.label());
        let (mut reader, writer) = carrier.open(forward.class, &label).await?.split();
        // Before the answer: connections may overtake it.
        let target = carrier.returns.insert(writer.id(), forward.target.clone());
        service::answer(&mut reader).await?;
        let port = reader.read_u16().await?;
        tracing::info!("the peer forwards {} to {}", with_port(&forward.bind, port), forward.target);
        Ok(Self { forward, reader, _writer: writer, _target: target })
    }

    /// Keeps the forward up, over one bond after the other.
    pub(crate) async fn keep(self, mut bonds: watch::Receiver<Carrier>) {
        let mut asked = self;
        loop {
            // Nothing follows the answer: whatever comes is the end.
            let _ = asked.reader.read_u8().await;
            let forward = asked.forward.clone();
            drop(asked);
            asked = match Self::again(forward, &mut bonds).await {
                Some(again) => again,
                None => return,
            };
        }
    }

    async fn again(forward: Forward, bonds: &mut watch::Receiver<Carrier>) -> Option<Self> {
        let mut said = String::new();
        loop {
            let carrier = carrier::current(bonds).await?;
            match Self::ask(forward.clone(), &carrier).await {
                Ok(asked) => return Some(asked),
                Err(error) => {
                    let why = format!("-R {}: {error}; asking again", forward.bind);
                    if why != said {
                        tracing::warn!("{why}");
                        said = why;
                    }
                }
            }
            sleep(ASK_PAUSE).await;
        }
    }
}

/// Asks the peer to listen until it does, and keeps the forward up then.
pub(crate) async fn keep_asking(forward: Forward, mut bonds: watch::Receiver<Carrier>) {
    if let Some(asked) = Asked::again(forward, &mut bonds).await {
        asked.keep(bonds).await;
    }
}

/// `bind` with the port that was opened.
fn with_port(bind: &Address, port: u16) -> Address {
    let at = |address: &HostPort| HostPort { host: address.host.clone(), port };
    match bind {
        Address::Tcp(address) => Address::Tcp(at(address)),
        Address::Udp(address) => Address::Udp(at(address)),
        Address::Unix(path) => Address::Unix(path.clone()),
    }
}

/// Listens on `bind` for the peer, until it has enough or its bond ends.
pub(crate) async fn serve(bind: &Address, carrier: &Carrier, stream: BondStream) {
    let class = stream.class();
    let (mut reader, mut writer) = stream.split();
    let inlet = match open(bind).await {
        Ok(inlet) => inlet,
        Err(error) => {
            tracing::warn!("cannot listen on {bind} for a peer: {error}");
            let why = format!("the peer cannot listen on {bind}: {error}");
            return service::refuse(writer, Status::TargetRefused, &why).await;
        }
    };
    for address in inlet.addresses() {
        tracing::info!("forwarding {address} to a peer");
    }
    let answered = async {
        service::accept(&mut writer).await?;
        writer.write_u16(inlet.port()).await
    };
    if answered.await.is_err() {
        return;
    }
    let _goodbye = Goodbye(bind);
    let route = Route {
        carrier: watch::channel(carrier.clone()).1,
        drain: carrier.drain.clone(),
        label: Arc::from(format!("{RETURN_LABEL_PREFIX}{}", writer.id())),
        class,
        about: Arc::from(format!("the peer's end of {bind}")),
    };
    // Nothing follows the label: whatever comes is the end.
    let end = async { drop(reader.read_u8().await) };
    inlet.run(route, end).await;
}

/// Opens `bind`. A peer that has died and comes back replaces its bond; what that held may take a moment to close.
async fn open(bind: &Address) -> io::Result<Inlet> {
    let deadline = Instant::now() + IN_USE_TIMEOUT;
    loop {
        match Inlet::bind(bind).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                sleep(IN_USE_INTERVAL).await;
            }
            bound => return bound,
        }
    }
}

/// Says when a forward has ended, in whichever way.
struct Goodbye<'a>(&'a Address);

impl Drop for Goodbye<'_> {
    fn drop(&mut self) {
        tracing::info!("no longer forwarding {}", self.0);
    }
}

/// The stream that asked for a forward, from the label of one that came in there.
pub(crate) fn asked_by(rest_of_label: &str) -> Option<StreamId> {
    rest_of_label.parse().ok().map(StreamId)
}
