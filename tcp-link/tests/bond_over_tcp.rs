//! Bonds over real sockets on the loopback interface.
#![allow(clippy::unwrap_used)]

use std::net::Shutdown;
use std::time::Duration;

use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener, Suite};
use bondwire_tcp::{TcpAcceptor, TcpAddress, TcpDialer, TcpLink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

struct Hosts {
    listener: Listener,
    bond: Bond,
    port: u16,
}

impl Hosts {
    async fn new(suites: Vec<Suite>) -> Self {
        let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let config = BondConfig { suites, plaintext_over_ip: true, ..BondConfig::default() };
        let listen = ListenConfig { bond: config.clone(), ..ListenConfig::allow([here.public_key()]) };
        let listener = Listener::new(&there, listen).unwrap();
        let acceptor = TcpAcceptor::bind(&TcpAddress::new("127.0.0.1", 0)).await.unwrap();
        let port = acceptor.local_addr().unwrap().port();
        listener.add_acceptor(acceptor);
        let bond = Bond::connect(&here, there.public_key(), config).unwrap();
        Self { listener, bond, port }
    }

    fn dialer(&self) -> TcpDialer {
        TcpDialer::new(TcpAddress::new("127.0.0.1", self.port))
    }

    /// Adds a link and gives the means to cut it.
    async fn add_link(&self) -> socket2::Socket {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let cut = socket2::SockRef::from(&stream).try_clone().unwrap();
        self.bond.add_link(TcpLink::from_stream(stream).unwrap()).await.unwrap();
        cut
    }
}

/// Bytes that follow from their place: one long pseudo-random block, looked at from a place that moves on.
struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: usize = 1_000_003;

    fn new() -> Self {
        let mut state = 1u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let period: Vec<u8> = std::iter::repeat_with(next).take(Self::PERIOD).collect();
        // Any stretch of a mebibyte can be looked at without wrapping.
        Self(period.iter().copied().cycle().take(Self::PERIOD + (1 << 20)).collect())
    }

    fn at(&self, position: usize, len: usize) -> &[u8] {
        let start = position % Self::PERIOD;
        &self.0[start..start + len]
    }
}

async fn move_verified(from: &Bond, to: &Bond, len: usize) {
    let pattern = Pattern::new();
    let mut near = from.open_stream(Class::Bulk).await.unwrap();
    let send = async {
        for position in (0..len).step_by(1 << 18) {
            near.write_all(pattern.at(position, (len - position).min(1 << 18))).await.unwrap();
        }
        near.shutdown().await.unwrap();
    };
    let receive = async {
        let mut far = to.accept_stream().await.unwrap();
        let mut position = 0;
        while let Some(chunk) = far.read_chunk(1 << 20).await.unwrap() {
            assert!(chunk == pattern.at(position, chunk.len()), "wrong bytes at {position}");
            position += chunk.len();
        }
        assert_eq!(position, len);
    };
    tokio::join!(send, receive);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_over_two_links_in_every_suite() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305, Suite::None] {
        let hosts = Hosts::new(vec![suite]).await;
        hosts.add_link().await;
        hosts.add_link().await;
        let accepted = hosts.listener.accept().await;
        let len = if cfg!(debug_assertions) { 10_000_000 } else { 100_000_000 };
        move_verified(&hosts.bond, &accepted, len).await;
        hosts.bond.close(0x100, "").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_four_are_cut_and_added_under_load() {
    let hosts = Hosts::new(bondwire::crypto::preferred_suites()).await;
    let mut cuts = Vec::new();
    for _ in 0..4 {
        cuts.push(hosts.add_link().await);
    }
    let accepted = hosts.listener.accept().await;
    let len = if cfg!(debug_assertions) { 20_000_000 } else { 100_000_000 };
    let cut_and_add = async {
        for cut in cuts.drain(..3) {
            sleep(Duration::from_millis(20)).await;
            cut.shutdown(Shutdown::Both).unwrap();
            hosts.add_link().await;
        }
    };
    tokio::join!(move_verified(&hosts.bond, &accepted, len), cut_and_add);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialer_comes_back_after_its_link_was_cut() {
    let hosts = Hosts::new(bondwire::crypto::preferred_suites()).await;
    let handle = hosts.bond.add_dialer(hosts.dialer());
    hosts.bond.connected().await.unwrap();
    let accepted = hosts.listener.accept().await;
    let patience = Duration::from_secs(60);
    let linked = handle.wait_for(|state| state.link.is_some());
    let first = timeout(patience, linked).await.unwrap().link.unwrap();
    // As if the peer's program had cut it: the medium goes, the bond stays.
    accepted.link(first).close().unwrap();
    let replaced = handle.wait_for(|state| state.link.is_some_and(|link| link != first));
    let second = timeout(patience, replaced).await.unwrap().link.unwrap();
    assert!(second > first);
    move_verified(&accepted, &hosts.bond, 1_000_000).await;
    assert!(hosts.bond.links().iter().any(|link| link.name == format!("tcp 127.0.0.1:{}", hosts.port)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_on_the_port_harm_nobody() {
    let hosts = Hosts::new(bondwire::crypto::preferred_suites()).await;
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    let long = [0x7f; 100_000];
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01\0", &long, b"\0\x01\x81", b"\x01\0"]
    {
        let mut stranger = TcpStream::connect(("127.0.0.1", hosts.port)).await.unwrap();
        // It may be turned away while it still writes.
        let _ = stranger.write_all(junk).await;
        move_verified(&hosts.bond, &accepted, 100_000).await;
        let _ = stranger.shutdown().await;
        let _ = timeout(Duration::from_secs(15), stranger.read_to_end(&mut Vec::new())).await.unwrap();
    }
    assert_eq!(hosts.listener.bonds(), 1);
}

/// The test below runs its second half in a process of its own, whose limit of descriptors it lowers.
const CHILD: &str = "BONDWIRE_TEST_FEW_DESCRIPTORS";

#[cfg(target_os = "linux")]
#[test]
fn without_descriptors_bonds_go_on_and_links_come_back() {
    if std::env::var_os(CHILD).is_some() {
        return few_descriptors();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "without_descriptors_bonds_go_on_and_links_come_back", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(target_os = "linux")]
fn few_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let hosts = Hosts::new(bondwire::crypto::preferred_suites()).await;
        hosts.add_link().await;
        let accepted = hosts.listener.accept().await;
        // The clients share this process, so both ends of an idle connection count; sockets that wait to be accepted
        // use the kernel's backlog.
        setrlimit(Resource::Nofile, Rlimit { current: Some(40), maximum: Some(40) }).unwrap();
        let mut idle = Vec::new();
        while let Ok(stream) = TcpStream::connect(("127.0.0.1", hosts.port)).await {
            idle.push(stream);
            assert!(idle.len() < 100);
        }
        sleep(Duration::from_millis(200)).await;
        move_verified(&hosts.bond, &accepted, 1_000_000).await;
        drop(idle);
        timeout(Duration::from_secs(30), async {
            let dialer = hosts.dialer();
            loop {
                if let Ok(link) = dialer.connect().await
                    && hosts.bond.add_link(link).await.is_ok()
                {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(accepted.links().len(), 2);
        move_verified(&accepted, &hosts.bond, 1_000_000).await;
    });
}
