//! Services at the accepting end: the label of a stream names one, and the acceptor's first byte answers.
//!
//! PROTOCOL.md, "Applications", has the labels and the answers.

use std::sync::Arc;
use std::time::Duration;

use bondwire::error::CloseReason;
use bondwire::{BondStream, PublicKey, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::access::Access;
use crate::discovery::{ADDRESSES_LABEL, NOT_TOLD, Told};
use crate::failure::one_line;
use crate::forward::address::{Address, AddressRole};
use crate::forward::carrier::Carrier;
use crate::forward::{outlet, remote};
use crate::pairing::PAIR_LABEL;
use crate::peers::Remembered;
use crate::permissions::Permissions;
use crate::speed::acceptor::SpeedService;
use crate::tun::{TUN_LABEL, Tunnel};
use crate::{keys, pairing};

/// Label of a speed test's streams.
pub(crate) const SPEED_LABEL: &str = "speed";
/// Before the address that the acceptor is to listen on.
pub(crate) const LISTEN_LABEL_PREFIX: &str = "listen:";
/// Before the number of the stream that asked to listen, where a connection came in.
pub(crate) const RETURN_LABEL_PREFIX: &str = "return:";
/// Longest explanation of a refusal, in bytes.
const REFUSAL_MAX_BYTES: u64 = 512;

/// Time for connections to hand on what has arrived, when the other end has ended the bond: it does so once this host has all,
/// and the connections' targets may not have it yet.
const HAND_ON_TIMEOUT: Duration = Duration::from_secs(1);

/// Codes of RESET_STREAM and STOP_SENDING.
pub(crate) mod code {
    /// Nothing is wrong, the data is just not wanted any more.
    pub(crate) const DONE: u64 = 0;
    /// The connection behind the stream was reset.
    pub(crate) const CONNECTION_RESET: u64 = 1;
}

/// Codes of CLOSE; the engine keeps those below 0x100 for itself.
pub(crate) mod close_code {
    /// The program has done its work.
    pub(crate) const DONE: u64 = 0x100;
    /// The listener ends, and may come back: open a new bond.
    pub(crate) const LISTENER_ENDS: u64 = 0x101;
    /// The peer may come in no longer.
    pub(crate) const NOT_ALLOWED: u64 = 0x102;
}

/// The acceptor's answer to a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Accepted = 0,
    /// A rule of this host forbids it.
    NotPermitted = 1,
    /// The target said no.
    TargetRefused = 2,
    /// The target did not answer, or has no address.
    TargetUnreachable = 3,
    /// The label names nothing that this end knows.
    UnknownService = 4,
    /// What followed the label makes no sense.
    BadRequest = 5,
}

/// A refusal, as the one who asked sees it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("refused by the peer: {why}")]
    Refused { status: u8, why: String },
    #[error("no answer: {0}")]
    Lost(#[from] std::io::Error),
}

/// Tells the other end that its label is accepted.
pub(crate) async fn accept(writer: &mut SendStream) -> std::io::Result<()> {
    writer.write_all(&[Status::Accepted as u8]).await
}

/// Tells the other end why its label is refused, and finishes the stream.
pub(crate) async fn refuse(mut writer: SendStream, status: Status, why: &str) {
    let mut answer = vec![status as u8];
    answer.extend_from_slice(why.as_bytes());
    // When the stream is gone, nobody waits for the answer.
    let _ = writer.write_all(&answer).await;
    let _ = writer.shutdown().await;
}

/// Waits for the acceptor's answer.
pub(crate) async fn answer(reader: &mut RecvStream) -> Result<(), Refusal> {
    let status = reader.read_u8().await?;
    if status == Status::Accepted as u8 {
        return Ok(());
    }
    let mut why = Vec::new();
    reader.take(REFUSAL_MAX_BYTES).read_to_end(&mut why).await?;
    Err(Refusal::Refused { status, why: one_line(&String::from_utf8_lossy(&why)) })
}

/// What one end of a bond offers to the other.
#[derive(Default)]
pub(crate) struct Services {
    /// Who may do what here; without it nobody may do anything.
    pub(crate) access: Option<Arc<Access>>,
    pub(crate) peer: Option<PublicKey>,
    /// Whether the peer came with a pairing token, and is to be written down.
    pub(crate) pairs: bool,
    /// Whether speed tests are answered.
    pub(crate) speed: bool,
    /// What the peer is told of the addresses of this host.
    pub(crate) told: Option<Arc<Told>>,
    /// Carries IP packets of the peer.
    pub(crate) tunnel: Option<Arc<Tunnel>>,
}

/// Serves the streams and datagrams of one bond until it ends.
pub(crate) async fn serve(carrier: &Carrier, services: Services) {
    tokio::join!(carrier.flows.run(&carrier.bond), serve_streams(carrier, services));
}

async fn serve_streams(carrier: &Carrier, services: Services) {
    let mut streams = JoinSet::new();
    let served = Arc::new(Served { carrier: carrier.clone(), services, speed: SpeedService::default() });
    let reason = loop {
        let stream = match carrier.bond.accept_stream().await {
            Ok(stream) => stream,
            Err(reason) => break reason,
        };
        let served = Arc::clone(&served);
        streams.spawn(async move { served.stream(stream).await });
        while streams.try_join_next().is_some() {}
    };
    if !matches!(reason, CloseReason::Local { .. }) {
        let all = async { while streams.join_next().await.is_some() {} };
        let _idle = timeout(HAND_ON_TIMEOUT, all).await;
    }
    // Waits, so that sockets which were opened for the peer are removed before the program ends.
    streams.shutdown().await;
}

/// What the peer reads when it asks for something of a program that is about to end.
const ENDS: (Status, &str) =
    (Status::TargetUnreachable, "this host is about to end the bond; try again soon");

/// A bond and what is served on it.
struct Served {
    carrier: Carrier,
    services: Services,
    speed: SpeedService,
}

impl Served {
    async fn stream(&self, stream: BondStream) {
        let label = stream.label().to_owned();
        if self.carrier.drain.has_begun() {
            let (status, why) = ENDS;
            return refuse_stream(stream, status, why).await;
        }
        if label == SPEED_LABEL && self.services.speed {
            return match self.permissions().may_test_speed() {
                Ok(()) => self.speed.serve(stream).await,
                Err(why) => {
                    tracing::warn!("refused a speed test: {why}");
                    refuse_stream(stream, Status::NotPermitted, &why).await;
                }
            };
        }
        if label == PAIR_LABEL {
            return self.pair(stream).await;
        }
        if label == ADDRESSES_LABEL {
            return self.tell_addresses(stream).await;
        }
        if label == TUN_LABEL {
            return self.tun(stream).await;
        }
        if let Some(address) = label.strip_prefix(LISTEN_LABEL_PREFIX) {
            return match Address::from_label(address, AddressRole::Bind) {
                Some(bind) => self.listen(bind, stream).await,
                None => unknown(stream).await,
            };
        }
        if let Some(asked_by) = label.strip_prefix(RETURN_LABEL_PREFIX) {
            return self.returned(asked_by, stream).await;
        }
        match Address::from_label(&label, AddressRole::Target) {
            Some(target) => self.open(target, stream).await,
            None => unknown(stream).await,
        }
    }

    /// The peer wants to reach `target` through this host.
    async fn open(&self, target: Result<Address, impl ToString>, stream: BondStream) {
        let target = match target {
            Ok(target) => target,
            Err(error) => return refuse_stream(stream, Status::BadRequest, &error.to_string()).await,
        };
        if let Err(denied) = self.permissions().may_open(&target) {
            tracing::warn!("refused a forward to {target}: no {} allows it", denied.rule());
            return refuse_stream(stream, Status::NotPermitted, &denied.to_string()).await;
        }
        outlet::serve(&target, &self.carrier, stream).await;
    }

    /// The peer wants this host to listen on `bind`.
    async fn listen(&self, bind: Result<Address, impl ToString>, stream: BondStream) {
        let bind = match bind {
            Ok(bind) => bind,
            Err(error) => return refuse_stream(stream, Status::BadRequest, &error.to_string()).await,
        };
        if let Err(denied) = self.permissions().may_listen(&bind) {
            tracing::warn!("refused to listen on {bind}: no {} allows it", denied.rule());
            return refuse_stream(stream, Status::NotPermitted, &denied.to_string()).await;
        }
        remote::serve(&bind, &self.carrier, stream).await;
    }

    /// The peer wants its interface connected to the one of this host.
    async fn tun(&self, stream: BondStream) {
        let Some(tunnel) = &self.services.tunnel else {
            let why = "this host has no interface for it; it needs --tun, too";
            return refuse_stream(stream, Status::NotPermitted, why).await;
        };
        match self.permissions().may_use_tun() {
            Ok(()) => tunnel.serve(stream, &self.carrier.bond, self.services.peer).await,
            Err(why) => {
                tracing::warn!("refused a tun: {why}");
                refuse_stream(stream, Status::NotPermitted, &why).await;
            }
        }
    }

    /// What the peer may do. Asked for each stream, so that a change of the peers file holds from the next one on.
    fn permissions(&self) -> Permissions {
        let Services { access, peer, .. } = &self.services;
        access.as_ref().map(|access| access.permissions(peer.as_ref())).unwrap_or_default()
    }

    /// The peer wants to know by which addresses it may come in.
    async fn tell_addresses(&self, stream: BondStream) {
        let Services { access, peer, told, .. } = &self.services;
        let Some(told) = told else {
            let (status, why) = NOT_TOLD;
            return refuse_stream(stream, status, why).await;
        };
        let acceptors = access.as_ref().and_then(|access| access.acceptors(peer.as_ref()));
        told.tell(acceptors.as_deref(), stream).await;
    }

    /// The peer tells its name and asks for this host's: writes the peer down.
    async fn pair(&self, stream: BondStream) {
        let Services { access: Some(access), peer: Some(key), pairs: true, .. } = &self.services else {
            let why = "this bond was not opened with a pairing token";
            return refuse_stream(stream, Status::NotPermitted, why).await;
        };
        let (mut reader, mut writer) = stream.split();
        let Ok(proposed) = pairing::receive_name(&mut reader).await else {
            return;
        };
        match access.remember(*key, proposed) {
            Ok(Remembered { name, new }) => {
                let again = if new { "" } else { " again" };
                tracing::info!("paired with {name}{again}: {}", keys::public_key_text(key));
                // When the stream is gone, the peer has to pair again, and keeps its name.
                if accept(&mut writer).await.is_ok() {
                    let _ = pairing::send_name(&mut writer, &pairing::own_name()).await;
                }
            }
            Err(error) => {
                tracing::error!("a pairing failed: {error}");
                let why = "it cannot be written down there; see the listener's log";
                refuse(writer, Status::BadRequest, why).await;
            }
        }
    }

    /// Something came in where this end had asked the peer to listen.
    async fn returned(&self, asked_by: &str, stream: BondStream) {
        match remote::asked_by(asked_by).and_then(|stream| self.carrier.returns.target(stream)) {
            Some(target) => outlet::serve(&target, &self.carrier, stream).await,
            None => refuse_stream(stream, Status::BadRequest, "nobody here asked for this forward").await,
        }
    }
}

async fn unknown(stream: BondStream) {
    let why = format!("no service {:?}; use the same version of bondwire at both ends", stream.label());
    refuse_stream(stream, Status::UnknownService, &why).await;
}

async fn refuse_stream(stream: BondStream, status: Status, why: &str) {
    // The reader stays until the answer is written: its end would tell the peer to stop.
    let (_reader, writer) = stream.split();
    refuse(writer, status, why).await;
}

#[cfg(test)]
mod tests {
    use bondwire::link::memory;
    use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener};

    use super::*;
    use crate::forward::drain::Drain;

    /// The connecting and the listening end of a bond.
    async fn bond() -> (Bond, Bond) {
        let (near, far) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let listener = Listener::new(&far, ListenConfig::allow([near.public_key()])).unwrap();
        let connecting = Bond::connect(&near, far.public_key(), BondConfig::default()).unwrap();
        let (here, there) = memory::pair(1500, 64 << 10);
        listener.add_link(there);
        connecting.add_link(here).await.unwrap();
        (connecting, listener.accept().await)
    }

    async fn status(asker: &Bond, label: &str) -> u8 {
        let (mut reader, _writer) = asker.open_stream_with(Class::Bulk, 0, label).await.unwrap().split();
        match answer(&mut reader).await {
            Ok(()) => Status::Accepted as u8,
            Err(Refusal::Refused { status, .. }) => status,
            Err(Refusal::Lost(error)) => panic!("{label}: {error}"),
        }
    }

    #[tokio::test]
    async fn the_connecting_end_serves_what_it_asked_for_and_nothing_else() {
        let (connecting, listening) = bond().await;
        let carrier = Carrier::new(connecting, Drain::default());
        let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse_target(&target.local_addr().unwrap().to_string()).unwrap();
        let asked_by = bondwire::StreamId(4);
        let entry = carrier.returns.insert(asked_by, address.clone());
        let served = carrier.clone();
        tokio::spawn(async move { serve(&served, Services::default()).await });
        let cases = [
            ("return:4", Status::Accepted),
            ("return:5", Status::BadRequest),
            ("return:", Status::BadRequest),
            ("return:18446744073709551616", Status::BadRequest),
            ("tcp:127.0.0.1:1", Status::NotPermitted),
            ("udp:127.0.0.1:53", Status::NotPermitted),
            ("unix:/run/a.sock", Status::NotPermitted),
            ("listen:tcp:localhost:0", Status::NotPermitted),
            ("listen:unix:/run/a.sock", Status::NotPermitted),
            ("tcp:localhost", Status::BadRequest),
            ("listen:unix:a.sock", Status::BadRequest),
            ("listen:speed", Status::UnknownService),
            (PAIR_LABEL, Status::NotPermitted),
            (ADDRESSES_LABEL, Status::NotPermitted),
            (SPEED_LABEL, Status::UnknownService),
            (TUN_LABEL, Status::NotPermitted),
            ("", Status::UnknownService),
        ];
        for (label, expected) in cases {
            assert_eq!(status(&listening, label).await, expected as u8, "{label:?}");
        }
        drop(entry);
        assert_eq!(status(&listening, "return:4").await, Status::BadRequest as u8, "no longer asked for");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_arrived_before_the_end_of_the_bond_reaches_its_target() {
        let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse_target(&target.local_addr().unwrap().to_string()).unwrap();
        let (connecting, listening) = bond().await;
        let carrier = Carrier::new(connecting, Drain::default());
        let _entry = carrier.returns.insert(bondwire::StreamId(4), address);
        let serving = tokio::spawn(async move { serve(&carrier, Services::default()).await });
        let mut connections = Vec::new();
        for _ in 0..200 {
            let stream = listening.open_stream_with(Class::Bulk, 0, "return:4").await.unwrap();
            let (mut reader, writer) = stream.split();
            answer(&mut reader).await.unwrap();
            // The target has nothing to say: the bond may end as soon as its other end has all.
            let (mut connection, _) = target.accept().await.unwrap();
            connection.shutdown().await.unwrap();
            assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
            connections.push((reader, writer, connection));
        }
        for (_, writer, _) in &mut connections {
            writer.write_all(b"still here").await.unwrap();
            writer.shutdown().await.unwrap();
        }
        listening.close(close_code::DONE, "done").await;
        for (number, (_, _, mut connection)) in connections.into_iter().enumerate() {
            let mut heard = String::new();
            let read = connection.read_to_string(&mut heard).await;
            assert_eq!((read.ok(), heard.as_str()), (Some(10), "still here"), "connection {number}");
        }
        serving.await.unwrap();
    }
}
