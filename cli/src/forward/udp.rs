//! UDP over a bond: each client address is a flow, a stream's life long, and its datagrams are those of the bond.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bondwire::{Class, RecvStream, SendStream};
use bytes::Bytes;
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::address::HostPort;
use super::carrier::{self, Carrier};
use super::flows::{Flow, FlowTasks, Waiting};
use super::inlet::Route;
use crate::service::{self, Status};

/// Time after the last datagram, either way, when a flow ends. RFC 4787 section 4.3 asks for two minutes at least.
const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// Time for which a refused flow stays, so that a client that repeats itself does not fill the log.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Pause after a socket's error.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// Longest UDP datagram, in bytes.
pub(crate) const DATAGRAM_MAX_BYTES: usize = 64 << 10;

/// The side of a flow that is on this host.
pub(crate) trait LocalEnd {
    /// Waits for a datagram from the program. Cancel safe. An error ends the flow.
    async fn receive(&mut self) -> io::Result<Bytes>;
    /// Hands a datagram to the program, as far as there is a way.
    async fn send(&mut self, data: &[u8]);
}

/// A program that sends to a socket of ours.
pub(crate) struct Client {
    pub(crate) queue: mpsc::Receiver<Waiting>,
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) address: SocketAddr,
    /// What stands before each datagram that goes to it.
    pub(crate) header: Bytes,
}

impl LocalEnd for Client {
    async fn receive(&mut self) -> io::Result<Bytes> {
        // The queue ends with the forward.
        self.queue.recv().await.map(|waiting| waiting.data).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn send(&mut self, data: &[u8]) {
        let sent = if self.header.is_empty() {
            self.socket.send_to(data, self.address).await
        } else {
            self.socket.send_to(&[&self.header, data].concat(), self.address).await
        };
        if let Err(error) = sent {
            tracing::debug!("datagram to {}: {error}", self.address);
        }
    }
}

/// A target that a socket of ours is connected to.
struct Connected {
    socket: UdpSocket,
    buffer: Vec<u8>,
}

impl LocalEnd for Connected {
    async fn receive(&mut self) -> io::Result<Bytes> {
        loop {
            match self.socket.recv(&mut self.buffer).await {
                Ok(length) => return Ok(Bytes::copy_from_slice(&self.buffer[..length])),
                // Nobody listens there now; a server may come back.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    tracing::debug!("datagram refused by {:?}", self.socket.peer_addr());
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn send(&mut self, data: &[u8]) {
        if let Err(error) = self.socket.send(data).await {
            tracing::debug!("datagram to {:?}: {error}", self.socket.peer_addr());
        }
    }
}

/// Opens a flow for `client` over whichever bond there is, and carries it to its end. `about` names its target.
pub(crate) async fn open(
    mut client: Client,
    mut carrier: watch::Receiver<Carrier>,
    label: Arc<str>,
    about: Arc<str>,
) {
    let Some(carrier) = carrier::current(&mut carrier).await else {
        return;
    };
    if let Err(why) = open_on(&carrier, &mut client, &label).await {
        tracing::warn!("forward to {about}: {why}");
        sleep(REFUSED_PAUSE).await;
    }
}

async fn open_on(carrier: &Carrier, client: &mut Client, label: &str) -> Result<(), String> {
    let stream = carrier.open(Class::Interactive, label).await.map_err(|error| error.to_string())?;
    let (mut reader, writer) = stream.split();
    // Before the answer: datagrams may overtake it.
    let mut flow = carrier.flows.open(writer.id()).ok_or(TOO_MANY_FLOWS)?;
    // Datagrams before the answer would find no flow at the other end.
    service::answer(&mut reader).await.map_err(|error| error.to_string())?;
    pump(carrier, &mut flow, &mut reader, client).await;
    drop(writer);
    Ok(())
}

const TOO_MANY_FLOWS: &str = "too many UDP flows at once";

/// Serves a flow that the peer opened, and carries it to its end.
pub(crate) async fn serve(
    target: &HostPort,
    carrier: &Carrier,
    mut reader: RecvStream,
    mut writer: SendStream,
) {
    let flow = carrier.flows.open(writer.id());
    let socket = connect(target).await;
    let (mut flow, socket) = match (flow, socket) {
        (Some(flow), Ok(socket)) => (flow, socket),
        (None, _) => return service::refuse(writer, Status::TargetUnreachable, TOO_MANY_FLOWS).await,
        (_, Err(error)) => {
            tracing::info!("forward to udp/{target}: {error}");
            let why = format!("udp/{target} cannot be reached: {error}");
            return service::refuse(writer, Status::TargetUnreachable, &why).await;
        }
    };
    if service::accept(&mut writer).await.is_err() {
        return;
    }
    let mut local = Connected { socket, buffer: vec![0; DATAGRAM_MAX_BYTES] };
    pump(carrier, &mut flow, &mut reader, &mut local).await;
}

/// A socket that hears from the first address of `target` alone.
async fn connect(target: &HostPort) -> io::Result<UdpSocket> {
    let mut fault = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((target.host.as_str(), target.port)).await? {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let connected = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await.map(|()| socket)
        };
        match connected.await {
            Ok(socket) => return Ok(socket),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

/// Carries datagrams both ways until the peer ends the stream, or nothing has come for long.
async fn pump(carrier: &Carrier, flow: &mut Flow, reader: &mut RecvStream, local: &mut impl LocalEnd) {
    let mut last = Instant::now();
    loop {
        tokio::select! {
            // Nothing follows the answer: whatever comes is the end.
            _ = reader.read_chunk(1) => return,
            waiting = flow.incoming.recv() => match waiting {
                Some(waiting) => local.send(&waiting.data).await,
                None => return,
            },
            data = local.receive() => match data {
                Ok(data) => if let Err(error) = carrier.bond.send_datagram(flow.id, data) {
                    return tracing::debug!("{error}");
                },
                Err(error) => return tracing::debug!("UDP flow: {error}"),
            },
            () = sleep_until(last + IDLE_TIMEOUT) => return,
        }
        last = Instant::now();
    }
}

/// Makes every client address of `socket` a flow, for ever.
pub(crate) async fn take(socket: Arc<UdpSocket>, route: Route) {
    let mut flows = FlowTasks::new();
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        let (length, address) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!("no datagram taken for {}: {error}", route.about);
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let taken = flows.deliver(&address, Bytes::copy_from_slice(&buffer[..length]), |queue| {
            let client = Client { queue, socket: Arc::clone(&socket), address, header: Bytes::new() };
            open(client, route.carrier.clone(), Arc::clone(&route.label), Arc::clone(&route.about))
        });
        if !taken {
            tracing::debug!("datagram of {address} dropped: {TOO_MANY_FLOWS}");
        }
    }
}
