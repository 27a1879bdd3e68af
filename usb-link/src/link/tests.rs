//! The link over a cable in memory, which knows what a USB cable does: packets, transfers that end with a short one, and a
//! plug that is pulled.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use bondwire::conformance;
use bondwire::link::PacketWriter as _;

use super::*;

const PACKET_BYTES: usize = 512;

/// One direction of a cable.
#[derive(Default)]
struct Wire {
    /// Transfers that were sent and have not been read whole.
    sent: VecDeque<Vec<u8>>,
    pulled: bool,
    /// Nobody reads: transfers stay under way.
    reads_stopped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Transfers damaged on the way.
    damage_next: usize,
}

#[derive(Clone, Default)]
struct Cable(Arc<[Mutex<Wire>; 2]>);

impl Cable {
    fn pull(&self) {
        for wire in self.0.iter() {
            let mut wire = wire.lock().unwrap();
            wire.pulled = true;
            [wire.reader.take(), wire.writer.take()].into_iter().flatten().for_each(Waker::wake);
        }
    }

    fn end(&self, side: usize) -> (MemoryInlet, MemoryOutlet) {
        self.mortal_end(side, Arc::default())
    }

    /// An end whose program can be killed.
    fn mortal_end(&self, side: usize, killed: Arc<AtomicBool>) -> (MemoryInlet, MemoryOutlet) {
        let shape = Speed::High.shape();
        let (cable, memory) = (self.clone(), vec![0; shape.transfer_bytes]);
        let inlet = MemoryInlet {
            cable: cable.clone(),
            from: 1 - side,
            read: memory.clone(),
            killed: killed.clone(),
        };
        (inlet, MemoryOutlet { cable, to: side, buffer: memory, begun: 0, killed })
    }
}

struct MemoryOutlet {
    cable: Cable,
    to: usize,
    buffer: Vec<u8>,
    /// Transfers begun and not yet reported as ended.
    begun: usize,
    killed: Arc<AtomicBool>,
}

impl Outlet for MemoryOutlet {
    fn packet_bytes(&self) -> usize {
        PACKET_BYTES
    }

    fn buffer(&mut self) -> Option<&mut [u8]> {
        let is_free = self.begun < self.depth() && !self.killed.load(Ordering::Relaxed);
        is_free.then_some(&mut self.buffer[..])
    }

    fn submit(&mut self, len: usize) -> io::Result<()> {
        assert!(
            len > 0 && !len.is_multiple_of(PACKET_BYTES),
            "nobody would know that this transfer has ended"
        );
        let mut wire = self.cable.0[self.to].lock().unwrap();
        let mut transfer = self.buffer[..len].to_vec();
        if wire.damage_next > 0 {
            wire.damage_next -= 1;
            transfer[len / 2] ^= 0x20;
        }
        wire.sent.push_back(transfer);
        self.begun += 1;
        if let Some(waker) = wire.reader.take() {
            waker.wake();
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.begun
    }

    fn depth(&self) -> usize {
        Speed::High.shape().transfers
    }

    fn poll_finished(&mut self, cx: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.cable.0[self.to].lock().unwrap();
        if wire.pulled {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "unplugged")));
        }
        if self.begun > wire.sent.len() {
            self.begun -= 1;
            return Poll::Ready(Ok(()));
        }
        if self.begun > 0 {
            wire.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for MemoryOutlet {
    fn drop(&mut self) {
        // What is under way is cancelled.
        if !self.killed.load(Ordering::Relaxed) {
            self.cable.0[self.to].lock().unwrap().sent.clear();
        }
    }
}

struct MemoryInlet {
    cable: Cable,
    from: usize,
    read: Vec<u8>,
    killed: Arc<AtomicBool>,
}

impl Inlet for MemoryInlet {
    fn read_bytes(&self) -> usize {
        self.read.len()
    }

    fn poll_transfer(&mut self, cx: &mut std::task::Context<'_>) -> Poll<io::Result<&[u8]>> {
        let mut wire = self.cable.0[self.from].lock().unwrap();
        if wire.pulled {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "unplugged")));
        }
        if self.killed.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let transfer = if wire.reads_stopped { None } else { wire.sent.pop_front() };
        let Some(transfer) = transfer else {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        assert!(transfer.len() <= self.read.len(), "longer than the read");
        if let Some(waker) = wire.writer.take() {
            waker.wake();
        }
        let len = transfer.len();
        self.read[..len].copy_from_slice(&transfer);
        Poll::Ready(Ok(&self.read[..len]))
    }

    fn release(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn pair() -> (UsbLink, UsbLink) {
    pair_over(&Cable::default()).await
}

async fn pair_over(cable: &Cable) -> (UsbLink, UsbLink) {
    pair_with(cable, cable.end(0)).await
}

async fn pair_with(cable: &Cable, host: (MemoryInlet, MemoryOutlet)) -> (UsbLink, UsbLink) {
    let device = cable.end(1);
    let (host, device) = tokio::join!(
        UsbLink::open("usb host".into(), Role::Dialer, host.0, host.1),
        UsbLink::open("usb device".into(), Role::Acceptor, device.0, device.1),
    );
    (host.unwrap(), device.unwrap())
}

#[tokio::test]
async fn usb_link_conforms() {
    conformance::check(pair).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usb_link_conforms_on_threads() {
    conformance::check(pair).await.unwrap();
}

#[tokio::test]
async fn a_link_says_what_it_is() {
    let (host, device) = pair().await;
    let description = host.describe();
    assert_eq!((description.kind, description.mtu_bytes), ("usb", 16 * 1024 - 12));
    assert!(description.reliable && !description.over_ip && description.rate_hint.is_some());
    assert_eq!(device.describe().mtu_bytes, description.mtu_bytes);
}

#[tokio::test]
async fn a_pulled_cable_ends_both_ends() {
    let cable = Cable::default();
    let (host, device) = pair_over(&cable).await;
    let ((mut reader_a, mut writer_a), (mut reader_b, _keep)) = (host.split(), device.split());
    cable.pull();
    for error in [
        reader_a.receive(&mut Vec::new()).await.unwrap_err(),
        reader_b.receive(&mut Vec::new()).await.unwrap_err(),
        writer_a.ready().await.unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "unplugged");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_program_at_the_other_end_is_noticed_within_two_seconds() {
    let cable = Cable::default();
    let (host, device) = pair_over(&cable).await;
    let (mut reader, _writer) = host.split();
    let begun = tokio::time::Instant::now();
    // It says nothing more, and nobody says so.
    cable.0[1].lock().unwrap().reads_stopped = true;
    let error = reader.receive(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("silence"), "{error}");
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(device);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_says_nothing_is_given_up() {
    let cable = Cable::default();
    let (inlet, outlet) = cable.end(0);
    let error = UsbLink::open("usb test".into(), Role::Dialer, inlet, outlet).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().starts_with("the device says nothing: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_speaks_something_else_is_told_from_one_that_says_nothing() {
    let cable = Cable::default();
    let (inlet, outlet) = cable.end(0);
    cable.0[1].lock().unwrap().sent.push_back(b"220 ready\r\n".to_vec());
    let error = UsbLink::open("usb test".into(), Role::Dialer, inlet, outlet).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().starts_with("the device does not speak Bondwire "), "{error}");
    assert!(error.to_string().contains("11 bytes"), "{error}");
}

/// A device that sends nonsense faster than anybody can take it.
struct Flood;

impl Inlet for Flood {
    fn read_bytes(&self) -> usize {
        Speed::High.shape().transfer_bytes
    }

    fn poll_transfer(&mut self, _: &mut std::task::Context<'_>) -> Poll<io::Result<&[u8]>> {
        Poll::Ready(Ok(&[0, 9, 2, 0, 0, 0, 0, 1, 2, 3, 4]))
    }

    fn release(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_nonsense_does_not_stop_the_clock() {
    let cable = Cable::default();
    let dialled = tokio::spawn(UsbLink::open("usb test".into(), Role::Dialer, Flood, cable.end(0).1));
    tokio::task::yield_now().await;
    tokio::time::advance(2 * HELLO_TIMEOUT).await;
    // Its task is always busy, so nothing is to be waited for.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(dialled.is_finished(), "it goes on for ever");
    let error = dialled.await.unwrap().unwrap_err();
    assert!(error.to_string().starts_with("the device does not speak Bondwire "), "{error}");
}

#[tokio::test]
async fn transfers_whose_lengths_do_not_add_up_are_counted() {
    let cable = Cable::default();
    let (host, device) = pair_over(&cable).await;
    let ((mut reader, _keep), (_keep_too, mut writer)) = (host.split(), device.split());
    cable.0[1].lock().unwrap().sent.push_back(vec![0xff, 0xff, 1]);
    let mut batch = PacketBatch::new(0);
    batch.push(b"behind");
    writer.send(&mut batch).await.unwrap();
    let mut packets = Vec::new();
    reader.receive(&mut packets).await.unwrap();
    assert_eq!(packets, [b"behind"[..].to_vec()]);
    assert_eq!(reader.link.counters().checksum_errors, 1);
    let medium = reader.medium().unwrap();
    assert_eq!(medium.upgrade().unwrap().counters().damaged_frames, 1);
    drop((reader, _keep));
    assert!(medium.upgrade().is_none(), "it does not keep the cable in use");
}

#[tokio::test]
async fn a_host_that_starts_anew_ends_the_old_session_and_hears_nothing_of_it() {
    let (cable, killed) = (Cable::default(), Arc::<AtomicBool>::default());
    let (old_host, device) = pair_with(&cable, cable.mortal_end(0, killed.clone())).await;
    let (mut old_reader, mut old_writer) = device.split();
    // The device has sent packets that the dead host's program never read.
    cable.0[1].lock().unwrap().reads_stopped = true;
    let mut batch = PacketBatch::new(0);
    batch.push(b"stale");
    old_writer.send(&mut batch).await.unwrap();
    // Its endpoints are gone, and nothing is said.
    killed.store(true, Ordering::Relaxed);
    cable.0[0].lock().unwrap().sent.clear();
    cable.0[1].lock().unwrap().reads_stopped = false;
    let (inlet, outlet) = cable.end(0);
    let dialled = tokio::spawn(UsbLink::open("usb again".into(), Role::Dialer, inlet, outlet));
    let error = old_reader.receive(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    drop((old_reader, old_writer));
    let (inlet, outlet) = cable.end(1);
    let device = UsbLink::open("usb device".into(), Role::Acceptor, inlet, outlet).await.unwrap();
    let (host, mut writer) = (dialled.await.unwrap().unwrap(), device.split().1);
    let mut batch = PacketBatch::new(0);
    batch.push(b"fresh");
    writer.send(&mut batch).await.unwrap();
    let (mut reader, _keep) = host.split();
    let mut packets = Vec::new();
    reader.receive(&mut packets).await.unwrap();
    assert_eq!(packets, [b"fresh"[..].to_vec()]);
    drop(old_host);
}

#[tokio::test]
async fn damage_costs_the_packets_it_hits_and_nothing_else() {
    let cable = Cable::default();
    let (host, device) = pair_over(&cable).await;
    let ((_keep, mut writer), (mut reader, _keep_too)) = (host.split(), device.split());
    for number in 0..10_u8 {
        if number == 4 {
            cable.0[0].lock().unwrap().damage_next = 1;
        }
        let mut batch = PacketBatch::new(0);
        batch.push(&[number; 1000]);
        writer.send(&mut batch).await.unwrap();
    }
    let mut packets = Vec::new();
    reader.authenticated();
    while packets.len() < 9 {
        reader.receive(&mut packets).await.unwrap();
    }
    let numbers: Vec<_> = packets.iter().map(|packet| packet[0]).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_stranger_sends_no_more_than_a_handshake() {
    let (host, device) = pair().await;
    let ((_keep, mut writer), (mut reader, _keep_too)) = (host.split(), device.split());
    let mut batch = PacketBatch::new(0);
    batch.push(&vec![1; HANDSHAKE_MESSAGE_MAX_BYTES + 1]);
    writer.send(&mut batch).await.unwrap();
    let error = reader.receive(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn a_packet_that_does_not_fit_is_refused() {
    let (host, _device) = pair().await;
    let mtu_bytes = host.describe().mtu_bytes;
    let mut batch = PacketBatch::new(0);
    batch.push(&vec![1; mtu_bytes + 1]);
    let (_keep, mut writer) = host.split();
    assert_eq!(writer.send(&mut batch).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}
