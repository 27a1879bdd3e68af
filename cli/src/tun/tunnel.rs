//! The interface at work: its packets over the bond of the moment, and back.

use std::hash::RandomState;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bondwire::error::OpenStreamError;
use bondwire::{Bond, BondStream, Class, PublicKey, RecvStream, SendStream};
use bondwire_tcp::OffLimits;
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::TunSpec;
use super::hello::{Hello, TUN_LABEL};
use super::icmp;
use super::limits::{HELLO_TIMEOUT, READ_AT_ONCE, RETRY_PAUSE, TAKEN_AT_ONCE};
use super::packet::Headers;
use super::system::Device;
use crate::control::status::TunStatus;
use crate::failure::Failure;
use crate::forward::carrier::{self, Carrier};
use crate::service::{self, Refusal, Status};

/// Before everything else: it is asked for once, and packets wait for it.
const PRIORITY: u8 = 0;

/// An interface, for as long as it lives.
pub(crate) struct Tunnel {
    inner: Arc<Inner>,
    reader: JoinHandle<()>,
}

struct Inner {
    spec: TunSpec,
    device: Device,
    carried: watch::Sender<Option<Carried>>,
    counters: Counters,
    hasher: RandomState,
    /// No link of this program leaves by it.
    _off_limits: OffLimits,
}

/// Where packets go.
#[derive(Clone)]
struct Carried {
    number: u64,
    bond: Bond,
    peer: Option<PublicKey>,
    theirs: Hello,
    /// Largest packet that both ends like.
    mtu: u16,
}

#[derive(Default)]
struct Counters {
    /// Bonds that carried packets.
    numbers: AtomicU64,
    sent_packets: AtomicU64,
    sent_bytes: AtomicU64,
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    dropped_no_bond: AtomicU64,
    dropped_too_big: AtomicU64,
    dropped_malformed: AtomicU64,
    dropped_forged: AtomicU64,
    dropped_by_host: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Why the two interfaces are not connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunError {
    #[error("tun {0}")]
    Refused(#[from] Refusal),
    #[error("tun: no stream: {0}")]
    NoStream(#[from] OpenStreamError),
    #[error("tun: the other end broke off: {0}")]
    Broken(#[from] io::Error),
    #[error("tun: the other end says nothing within {} s", HELLO_TIMEOUT.as_secs())]
    Silent,
    #[error("tun: both ends have the address {0}; give one of them another --addr")]
    SharedAddress(IpAddr),
}

/// A connection between two interfaces that can begin.
pub(crate) struct Opened {
    bond: Bond,
    theirs: Hello,
    reader: RecvStream,
    /// Its end would be the connection's.
    writer: SendStream,
}

impl Tunnel {
    /// Makes the interface.
    pub(crate) fn open(spec: TunSpec) -> Result<Arc<Self>, Failure> {
        let device = Device::open(&spec)?;
        let off_limits = OffLimits::new(spec.name.as_str());
        tracing::info!("made the interface {} with {}", spec.name, spec.addresses);
        let inner = Arc::new(Inner {
            spec,
            device,
            carried: watch::Sender::new(None),
            counters: Counters::default(),
            hasher: RandomState::new(),
            _off_limits: off_limits,
        });
        let reading = Arc::clone(&inner);
        let reader = tokio::spawn(async move {
            if let Err(error) = reading.read().await {
                tracing::error!(
                    "{}: the interface is gone: {error}; start this command again",
                    reading.spec.name
                );
            }
        });
        Ok(Arc::new(Self { inner, reader }))
    }

    pub(crate) fn status(&self) -> TunStatus {
        self.inner.status()
    }

    /// Asks the other end of a bond to connect the two interfaces.
    pub(crate) async fn ask(&self, bond: &Bond) -> Result<Opened, TunError> {
        let own = Hello::of(&self.inner.spec);
        let stream = bond.open_stream_with(Class::Interactive, PRIORITY, TUN_LABEL).await?;
        let (mut reader, mut writer) = stream.split();
        own.write(&mut writer).await?;
        service::answer(&mut reader).await?;
        let theirs =
            timeout(HELLO_TIMEOUT, Hello::read(&mut reader)).await.map_err(|_| TunError::Silent)??;
        match own.shared_with(&theirs) {
            Some(ip) => Err(TunError::SharedAddress(ip)),
            None => Ok(Opened { bond: bond.clone(), theirs, reader, writer }),
        }
    }

    /// Carries packets over the bond of the moment, whichever that is, beginning with a connection that was asked for.
    pub(crate) async fn follow(
        self: Arc<Self>,
        mut bonds: watch::Receiver<Carrier>,
        mut first: Option<Opened>,
        about: Arc<str>,
    ) {
        let mut last_fault = String::new();
        while let Some(carrier) = carrier::current(&mut bonds).await {
            let opened = match first.take() {
                Some(opened) => Ok(opened),
                None => self.ask(&carrier.bond).await,
            };
            match opened {
                Ok(opened) => {
                    last_fault.clear();
                    self.inner.run(opened, carrier.bond.peer(), &about).await;
                }
                // Said once, not every few seconds.
                Err(error) if carrier.bond.close_reason().is_none() && error.to_string() != last_fault => {
                    last_fault = error.to_string();
                    tracing::warn!("{about}{error}; trying again");
                }
                Err(_) => {}
            }
            if carrier.bond.close_reason().is_none() {
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// The other end asks to connect the two interfaces.
    pub(crate) async fn serve(&self, stream: BondStream, bond: &Bond, peer: Option<PublicKey>) {
        let own = Hello::of(&self.inner.spec);
        let (mut reader, mut writer) = stream.split();
        let theirs = match timeout(HELLO_TIMEOUT, Hello::read(&mut reader)).await {
            Ok(Ok(theirs)) => theirs,
            Ok(Err(error)) => return service::refuse(writer, Status::BadRequest, &error.to_string()).await,
            Err(_) => return service::refuse(writer, Status::BadRequest, "it says nothing").await,
        };
        if let Some(ip) = own.shared_with(&theirs) {
            let why = TunError::SharedAddress(ip).to_string();
            tracing::warn!("{why}");
            return service::refuse(writer, Status::BadRequest, &why).await;
        }
        if self.inner.is_taken_by_another(peer) {
            let why =
                format!("interface {} of this host carries packets of another peer", self.inner.spec.name);
            tracing::warn!("refused a tun: {why}");
            return service::refuse(writer, Status::NotPermitted, &why).await;
        }
        // When the stream is gone, so is the one who asked.
        if service::accept(&mut writer).await.is_ok() && own.write(&mut writer).await.is_ok() {
            let opened = Opened { bond: bond.clone(), theirs, reader, writer };
            self.inner.run(opened, peer, "").await;
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Inner {
    /// Whether the bond of another host carries packets now. A newer one of the same host takes the place of the last.
    fn is_taken_by_another(&self, peer: Option<PublicKey>) -> bool {
        let carried = self.carried.borrow();
        carried.as_ref().is_some_and(|carried| carried.peer != peer && carried.bond.close_reason().is_none())
    }

    /// Carries packets until the other end wants no more, the bond ends, or another one takes its place.
    async fn run(&self, opened: Opened, peer: Option<PublicKey>, about: &str) {
        let Opened { bond, theirs, mut reader, writer } = opened;
        let number = self.counters.numbers.fetch_add(1, Relaxed);
        let (name, mtu) = (&self.spec.name, self.spec.mtu.min(theirs.mtu));
        tracing::info!(
            "{about}{name} leads to {}, with packets of at most {mtu} bytes",
            theirs.addresses_text()
        );
        let mut changes = self.carried.subscribe();
        self.carried.send_replace(Some(Carried { number, bond: bond.clone(), peer, theirs, mtu }));
        let replaced = async {
            let is_mine =
                |carried: &Option<Carried>| carried.as_ref().is_some_and(|carried| carried.number == number);
            // It fails only with the interface.
            let _ = changes.wait_for(|carried| !is_mine(carried)).await;
        };
        let mut end = [0];
        tokio::select! {
            () = replaced => {}
            // Nothing comes there but the end.
            _ = reader.read(&mut end) => {}
            () = self.take(&bond) => {}
        }
        drop(writer);
        let ended = self
            .carried
            .send_if_modified(|carried| carried.take_if(|carried| carried.number == number).is_some());
        if ended {
            tracing::info!("{about}{name} leads nowhere at the moment");
        }
    }

    /// Reads packets of this host for as long as there is an interface.
    async fn read(&self) -> io::Result<()> {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            self.device.readable().await?;
            for _ in 0..READ_AT_ONCE {
                match self.device.try_recv(&mut buffer) {
                    Ok(len) => {
                        if let Some(answer) = self.outgoing(&mut buffer[..len]) {
                            // Without the answer the sender asks again.
                            let _ = self.device.send(&answer).await;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Nobody has set it up, or somebody has set it down: it may come back.
                    Err(error) if is_down(&error) => sleep(RETRY_PAUSE).await,
                    Err(error) => return Err(error),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// A packet that this host sends. The answer, if there is one, is for this host.
    fn outgoing(&self, packet: &mut [u8]) -> Option<Vec<u8>> {
        let counters = &self.counters;
        let carried = self.carried.borrow();
        let Some(carried) = &*carried else {
            count(&counters.dropped_no_bond);
            return None;
        };
        let Ok(headers) = Headers::of(packet) else {
            count(&counters.dropped_malformed);
            return None;
        };
        if packet.len() > carried.mtu.into()
            && let Some(answer) = icmp::too_big(&headers, packet, carried.mtu)
        {
            count(&counters.dropped_too_big);
            return Some(answer);
        }
        headers.clamp_segment_size(packet, carried.mtu);
        let flow = headers.flow(packet, &self.hasher);
        match carried.bond.send_ordered(flow, Bytes::copy_from_slice(packet)) {
            Ok(()) => {
                count(&counters.sent_packets);
                counters.sent_bytes.fetch_add(packet.len() as u64, Relaxed);
            }
            Err(_) => count(&counters.dropped_no_bond),
        }
        None
    }

    /// Hands packets of the bond to this host until the bond ends.
    async fn take(&self, bond: &Bond) {
        let mut packets = Vec::new();
        while bond.recv_ordered(TAKEN_AT_ONCE, &mut packets).await.is_ok() {
            for packet in packets.drain(..) {
                self.incoming(&packet).await;
            }
        }
    }

    async fn incoming(&self, packet: &[u8]) {
        let counters = &self.counters;
        let Ok(headers) = Headers::of(packet) else { return count(&counters.dropped_malformed) };
        let source = headers.source;
        if self.spec.addresses.contains(source) || source.is_loopback() || source.is_multicast() {
            return count(&counters.dropped_forged);
        }
        match self.device.send(packet).await {
            Ok(()) => {
                count(&counters.received_packets);
                counters.received_bytes.fetch_add(packet.len() as u64, Relaxed);
            }
            // It is down, or full.
            Err(_) => count(&counters.dropped_by_host),
        }
    }

    fn status(&self) -> TunStatus {
        let carried = self.carried.borrow().clone();
        let ordered = carried.as_ref().map(|carried| carried.bond.ordered_stats()).unwrap_or_default();
        let counters = &self.counters;
        TunStatus {
            name: self.spec.name.to_string(),
            addresses: self.spec.addresses.iter().map(ToString::to_string).collect(),
            mtu_bytes: carried.as_ref().map_or(self.spec.mtu, |carried| carried.mtu),
            leads_to: carried
                .iter()
                .flat_map(|carried| &carried.theirs.addresses)
                .map(ToString::to_string)
                .collect(),
            sent_packets: counters.sent_packets.load(Relaxed),
            sent_bytes: counters.sent_bytes.load(Relaxed),
            received_packets: counters.received_packets.load(Relaxed),
            received_bytes: counters.received_bytes.load(Relaxed),
            dropped_no_bond: counters.dropped_no_bond.load(Relaxed),
            dropped_too_big: counters.dropped_too_big.load(Relaxed),
            dropped_malformed: counters.dropped_malformed.load(Relaxed),
            dropped_forged: counters.dropped_forged.load(Relaxed),
            dropped_by_host: counters.dropped_by_host.load(Relaxed),
            dropped_queue_full: ordered.dropped_queue_full,
            dropped_too_old: ordered.dropped_too_old,
            held_packets: ordered.held,
            late_packets: ordered.late,
            missed_packets: ordered.missed,
        }
    }
}

/// Whether the interface is set down. `EIO` is what Linux says of one.
fn is_down(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}
