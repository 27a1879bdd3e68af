//! `-D`: a SOCKS5 server (RFC 1928) whose connections and datagrams leave from the peer. Names are looked up there.

mod associate;
mod protocol;

use std::time::Duration;

use bondwire::Class;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::address::Address;
use super::carrier::{self, Carrier};
use super::carry::{Answer, carry};
use super::connection::Connection;
use super::drain::Drain;
use super::inlet::Inlet;
use super::spec::SocksForward;
use crate::failure::Failure;
use crate::service::{self, Refusal, Status};
use protocol::{Command, Reply};

/// Time in which a client must say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A SOCKS server with its ports open.
pub(crate) struct SocksInlet {
    inlet: Inlet,
    class: Class,
}

impl SocksInlet {
    pub(crate) async fn bind(forward: &SocksForward) -> Result<Self, Failure> {
        let inlet = Inlet::bind(&Address::Tcp(forward.bind.clone())).await.map_err(|error| {
            Failure::configuration(format!("cannot listen on {} for -D: {error}", forward.bind))
        })?;
        for address in inlet.addresses() {
            tracing::info!("SOCKS server on {address}");
        }
        Ok(Self { inlet, class: forward.class })
    }

    /// Serves clients until `end`; takes no more when it is time to drain.
    pub(crate) async fn run(
        self,
        carrier: watch::Receiver<Carrier>,
        drain: Drain,
        end: impl Future<Output = ()>,
    ) {
        let class = self.class;
        let serve = move |connection| {
            let carrier = carrier.clone();
            async move {
                if let Connection::Tcp(tcp) = connection {
                    serve_client(tcp, class, carrier).await;
                }
            }
        };
        self.inlet.serve("-D", &drain, serve, end).await;
    }
}

async fn serve_client(mut client: TcpStream, class: Class, mut carrier: watch::Receiver<Carrier>) {
    let asked = timeout(REQUEST_TIMEOUT, protocol::negotiate(&mut client)).await;
    let command = match asked.unwrap_or(Err(protocol::Error::Stalled)) {
        Ok(command) => command,
        Err(error) => {
            match client.peer_addr() {
                Ok(from) => tracing::warn!("SOCKS client {from}: {error}"),
                Err(_) => tracing::debug!("SOCKS client: {error}"),
            }
            return say(client, &error.farewell()).await;
        }
    };
    let Some(carrier_now) = carrier::current(&mut carrier).await else {
        return;
    };
    match command {
        Command::Connect(target) => connect(client, &target, class, &carrier_now).await,
        Command::Associate => associate::serve(client, carrier).await,
    }
}

/// Sends the last words to a client. What it still sends is not read, so the words are for those who listen first.
async fn say(mut client: TcpStream, words: &[u8]) {
    // A client that is gone hears nothing.
    let _ = client.write_all(words).await;
    let _ = client.shutdown().await;
}

async fn connect(mut client: TcpStream, target: &Address, class: Class, carrier: &Carrier) {
    let stream = match carrier.open(class, &target.label()).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!("SOCKS to {target}: {error}");
            return say(client, &Reply::Failure.encode()).await;
        }
    };
    let (mut reader, writer) = stream.split();
    if let Err(refusal) = service::answer(&mut reader).await {
        tracing::warn!("SOCKS to {target}: {refusal}");
        return say(client, &reply_to(&refusal).encode()).await;
    }
    if client.write_all(&Reply::Succeeded.encode()).await.is_err() {
        return;
    }
    if let Err(error) = carry(client.into(), reader, writer, Answer::Given).await {
        tracing::warn!("SOCKS to {target}: {error}");
    }
}

/// What a refusal is called in SOCKS.
fn reply_to(refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::Refused { status, .. } => match *status {
            status if status == Status::NotPermitted as u8 => Reply::NotAllowed,
            status if status == Status::TargetRefused as u8 => Reply::ConnectionRefused,
            status if status == Status::TargetUnreachable as u8 => Reply::HostUnreachable,
            _ => Reply::Failure,
        },
        Refusal::Lost(_) => Reply::Failure,
    }
}
