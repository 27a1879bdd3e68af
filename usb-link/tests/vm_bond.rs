//! Bonds over USB cables, with the kernel's own host and device stacks: `cargo xtask vm`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]
// What these tests print is shown when one fails, and tells how far it came.
#![allow(clippy::print_stdout)]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bondwire::{Bond, BondConfig, Class, Identity, LinkState, ListenConfig, Listener, Suite};
use bondwire_usb::Hint;
use bondwire_usb::device::GadgetAcceptor;
use bondwire_usb::host::{CableWatch, UsbDialer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// Longest wait for anything: emulation on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn serve() -> GadgetAcceptor {
    GadgetAcceptor::start(&"".parse().unwrap(), Hint::NONE).unwrap()
}

/// Both ends of a bond over `count` cables.
struct Ends {
    listener: Listener,
    near: Bond,
    far: Bond,
}

impl Ends {
    async fn over(count: usize) -> Self {
        let (here, there) = [(); 2].map(|()| Identity::generate().unwrap()).into();
        let listener = Listener::new(&there, ListenConfig::allow([here.public_key()])).unwrap();
        listener.add_acceptor(serve());
        let near = Bond::connect(&here, there.public_key(), BondConfig::default()).unwrap();
        dial_all(&near, count).await;
        let far = timeout(PATIENCE, listener.accept()).await.unwrap();
        let ends = Self { listener, near, far };
        ends.links_are(count).await;
        ends
    }

    /// Waits until so many links carry data.
    async fn links_are(&self, count: usize) {
        let active = |bond: &Bond| bond.links().iter().filter(|link| link.state == LinkState::Active).count();
        let wait = async {
            while active(&self.near) != count || active(&self.far) != count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{:?}", self.near.links()));
    }

    /// Moves `len` bytes both ways and checks each.
    async fn exchange(&self, len: u64) {
        let mut near = self.near.open_stream(Class::Bulk).await.unwrap();
        let answer = async {
            let mut far = self.far.accept_stream().await.unwrap();
            let (mut recv, mut send) = tokio::io::split(&mut far);
            tokio::join!(expect_pattern(&mut recv, len), send_pattern(&mut send, len));
        };
        let (mut recv, mut send) = tokio::io::split(&mut near);
        tokio::join!(answer, expect_pattern(&mut recv, len), send_pattern(&mut send, len));
    }
}

/// Dials `count` cables, as they are plugged in. The guest has other devices, too.
async fn dial_all(bond: &Bond, count: usize) {
    let mut watch = CableWatch::new();
    let mut found = watch.list().await.unwrap();
    let mut dialled = 0;
    loop {
        for cable in found.iter().filter(|cable| cable.has_our_class) {
            bond.add_dialer(UsbDialer::new(cable.id()));
            dialled += 1;
        }
        if dialled >= count {
            return;
        }
        found = timeout(PATIENCE, watch.plugged_in()).await.unwrap();
    }
}

fn byte_at(position: u64) -> u8 {
    ((position.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 56) as u8
}

async fn send_pattern(stream: &mut (impl AsyncWrite + Unpin), len: u64) {
    let mut position = 0;
    while position < len {
        let end = len.min(position + 60_000);
        let piece: Vec<u8> = (position..end).map(byte_at).collect();
        stream.write_all(&piece).await.unwrap();
        position = end;
    }
    stream.shutdown().await.unwrap();
}

async fn expect_pattern(stream: &mut (impl AsyncRead + Unpin), len: u64) {
    let (mut position, mut buffer) = (0, vec![0; 100_000]);
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        for byte in &buffer[..read] {
            assert_eq!(*byte, byte_at(position), "byte {position}");
            position += 1;
        }
    }
    assert_eq!(position, len);
}

/// Pulls a cable, or plugs it in.
fn plug(cable: usize, is_in: bool) {
    let controller = format!("dummy_udc.{cable}");
    let attribute = format!("/sys/kernel/config/usb_gadget/bondwire.{controller}/UDC");
    fs::write(attribute, if is_in { &controller } else { "\n" }).unwrap();
}

/// What a process must not collect.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    gadgets: usize,
}

fn held() -> Held {
    let count = |folder| fs::read_dir(folder).unwrap().count();
    Held {
        descriptors: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
        gadgets: count("/sys/kernel/config/usb_gadget"),
    }
}

/// A number that looks random, and is the same in each run.
fn dice(round: u64) -> u64 {
    (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

fn replugging(cycles: u64) {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(4, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let ends = Ends::over(4).await;
        ends.exchange(200_000).await;
        let before = held();
        let over = Arc::new(AtomicBool::new(false));
        let moving = async {
            let mut moved = 0;
            while !over.load(Ordering::Relaxed) {
                ends.exchange(300_000).await;
                moved += 2 * 300_000;
            }
            println!("{moved} bytes, each right");
        };
        let pulling = async {
            for cycle in 0..cycles {
                let cable = (dice(cycle) % 4) as usize;
                sleep(Duration::from_millis(dice(cycle) % 500)).await;
                plug(cable, false);
                sleep(Duration::from_millis(dice(cycle + 1000) % 500)).await;
                plug(cable, true);
                let plugged_in = Instant::now();
                let mut watch = CableWatch::new();
                while watch.list().await.unwrap().len() < 4 {
                    sleep(Duration::from_millis(10)).await;
                }
                let there = plugged_in.elapsed();
                ends.links_are(4).await;
                println!(
                    "{cycle}: the device is there after {there:?}, its link after {:?}",
                    plugged_in.elapsed()
                );
            }
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(moving, pulling);
        assert_eq!(ends.far.links().len(), 4);
        // Those of the last link that ended may be under way still.
        let settled = async {
            while held() != before {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = timeout(PATIENCE, settled).await;
        assert_eq!(held(), before);
        drop(ends.listener);
    });
}

#[test]
fn four_cables_are_pulled_and_plugged_in_under_load() {
    replugging(20);
}

#[test]
#[ignore = "takes long"]
fn four_cables_are_pulled_and_plugged_in_200_times() {
    replugging(200);
}

#[test]
fn usb_and_tcp_carry_one_stream() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(1, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let ends = Ends::over(1).await;
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let description = || bondwire::link::LinkDescription {
            over_ip: true,
            ..bondwire::link::LinkDescription::new("tcp", "tcp test", 16_000)
        };
        let accept = async {
            let (stream, _) = tcp.accept().await.unwrap();
            ends.listener.add_link(bondwire::link::StreamLink::new(stream, description()));
        };
        let dial = async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            ends.near.add_link(bondwire::link::StreamLink::new(stream, description())).await.unwrap();
        };
        tokio::join!(accept, dial);
        ends.links_are(2).await;
        let pull = async {
            sleep(Duration::from_millis(300)).await;
            plug(0, false);
        };
        tokio::join!(ends.exchange(2_000_000), pull);
        plug(0, true);
        ends.links_are(2).await;
        ends.exchange(100_000).await;
    });
}

/// What tells this program that it is a child, and which: its key and the peer's, as hexadecimal.
const CHILD_KEYS: &str = "BONDWIRE_TEST_CHILD_KEYS";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    }
    bytes
}

/// Without encryption nothing but the frame layer stands between an old session's bytes and a new one.
fn plain() -> BondConfig {
    BondConfig { suites: vec![Suite::None], ..BondConfig::default() }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this program again as `test`, which finds its keys in the environment.
fn start_child(test: &str, own: &Identity, peer: &Identity) -> Killed {
    let keys = format!("{} {}", hex(&*own.to_bytes()), hex(&peer.public_key().0));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(CHILD_KEYS, keys)
        .stdin(Stdio::null())
        .spawn();
    Killed(child.unwrap())
}

fn child_keys() -> Option<(Identity, bondwire::PublicKey)> {
    let keys = std::env::var(CHILD_KEYS).ok()?;
    let (own, peer) = keys.split_once(' ').unwrap();
    Some((Identity::from_bytes(unhex(own)), bondwire::PublicKey(unhex(peer))))
}

/// The host's program, to be killed: sends and receives for ever.
#[test]
fn child_host() {
    let Some((own, peer)) = child_keys() else { return };
    runtime().block_on(async {
        let bond = Bond::connect(&own, peer, plain()).unwrap();
        bond.add_dialer(UsbDialer::any_of("".parse().unwrap()));
        loop {
            let mut stream = bond.open_stream(Class::Bulk).await.unwrap();
            let (mut recv, mut send) = tokio::io::split(&mut stream);
            tokio::join!(expect_pattern(&mut recv, 100_000), send_pattern(&mut send, 100_000));
        }
    });
}

/// The device's program, to be killed.
#[test]
fn child_device() {
    let Some((own, peer)) = child_keys() else { return };
    runtime().block_on(async {
        let config = ListenConfig { bond: plain(), ..ListenConfig::allow([peer]) };
        let listener = Listener::new(&own, config).unwrap();
        listener.add_acceptor(serve());
        loop {
            let bond = listener.accept().await;
            tokio::spawn(async move {
                while let Ok(mut stream) = bond.accept_stream().await {
                    let (mut recv, mut send) = tokio::io::split(&mut stream);
                    let _ = tokio::io::copy(&mut recv, &mut send).await;
                    let _ = send.shutdown().await;
                }
            });
        }
    });
}

/// Serves one bond: what comes must be the pattern, and goes back.
async fn serve_until_it_breaks(bond: Bond, verified: Arc<std::sync::atomic::AtomicU64>) {
    while let Ok(mut stream) = bond.accept_stream().await {
        let (mut position, mut buffer) = (0_u64, vec![0; 50_000]);
        loop {
            let Ok(read) = stream.read(&mut buffer).await else { return };
            if read == 0 {
                break;
            }
            for byte in &buffer[..read] {
                assert_eq!(*byte, byte_at(position), "a byte that nobody sent at {position}");
                position += 1;
            }
            verified.fetch_add(read as u64, Ordering::Relaxed);
            if stream.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
        if stream.shutdown().await.is_err() {
            return;
        }
    }
}

fn killing_hosts(times: u64) {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(1, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let (host, device) = [(); 2].map(|()| Identity::generate().unwrap()).into();
        let config = ListenConfig { bond: plain(), ..ListenConfig::allow([host.public_key()]) };
        let listener = Listener::new(&device, config).unwrap();
        listener.add_acceptor(serve());
        let verified = Arc::new(std::sync::atomic::AtomicU64::new(0));
        for round in 0..times {
            let child = start_child("child_host", &host, &device);
            let bond = timeout(PATIENCE, listener.accept()).await.unwrap();
            let before = verified.load(Ordering::Relaxed);
            let serving = tokio::spawn(serve_until_it_breaks(bond, verified.clone()));
            while verified.load(Ordering::Relaxed) < before + 20_000 {
                assert!(!serving.is_finished(), "{:?}", serving.await);
                sleep(Duration::from_millis(10)).await;
            }
            sleep(Duration::from_millis(dice(round) % 300)).await;
            drop(child);
            serving.abort();
            if let Err(e) = serving.await {
                assert!(e.is_cancelled(), "{e}");
            }
            println!("{round}: {} bytes so far, each right", verified.load(Ordering::Relaxed));
        }
    });
}

#[test]
fn a_host_that_is_killed_and_comes_back_sends_nothing_stale() {
    killing_hosts(5);
}

#[test]
#[ignore = "takes long"]
fn a_host_that_is_killed_50_times_sends_nothing_stale() {
    killing_hosts(50);
}

fn killing_devices(times: u64) {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(1, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let (host, device) = [(); 2].map(|()| Identity::generate().unwrap()).into();
        for round in 0..times {
            let child = start_child("child_device", &device, &host);
            let bond = Bond::connect(&host, device.public_key(), plain()).unwrap();
            bond.add_dialer(UsbDialer::any_of("".parse().unwrap()));
            let echo = async {
                let mut stream = bond.open_stream(Class::Bulk).await.unwrap();
                let (mut recv, mut send) = tokio::io::split(&mut stream);
                tokio::join!(expect_pattern(&mut recv, 50_000), send_pattern(&mut send, 50_000));
            };
            timeout(PATIENCE, echo).await.unwrap();
            // In the middle of the next.
            let mut stream = bond.open_stream(Class::Bulk).await.unwrap();
            let endless = async {
                for position in 0_u64.. {
                    if stream.write_all(&[byte_at(position); 1000]).await.is_err() {
                        break;
                    }
                }
            };
            let _ = timeout(Duration::from_millis(dice(round) % 300), endless).await;
            drop(child);
            drop(bond.close_now(0, ""));
            println!("{round}: killed");
        }
        assert_eq!(held().gadgets, 1, "what the last one left");
        drop(serve());
        assert_eq!(held().gadgets, 0, "and the next start cleans up");
    });
}

#[test]
fn a_device_that_is_killed_and_comes_back_serves_again() {
    killing_devices(5);
}

#[test]
#[ignore = "takes long"]
fn a_device_that_is_killed_50_times_serves_again() {
    killing_devices(50);
}
