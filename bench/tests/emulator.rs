//! The emulator does what its shapes say. Needs root and `/dev/net/tun`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says loudly if skipped"
)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bondwire_bench::emulator::{self, Direction, Gate, Shape};
use bondwire_bench::namespace;
use bondwire_bench::network::{Network, address};
use bondwire_bench::traffic::{Transport, client, clock, server};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process};

const PORT: u16 = 9000;

/// Payload that makes an IP packet of 1500 bytes: without 20 bytes of IP header and 8 of UDP.
const FULL_PAYLOAD_BYTES: usize = 1472;

/// Lets the caller run alone among the tests that measure, or says loudly why it cannot run at all, and fails
/// if it must.
fn turn() -> Option<File> {
    if let Err(error) = emulator::is_available() {
        println!("SKIPPED (needs root and /dev/net/tun): {error}");
        let required = std::env::var_os("BONDWIRE_REQUIRE_ROOT_TESTS").is_some_and(|value| value == "1");
        assert!(!required, "BONDWIRE_REQUIRE_ROOT_TESTS=1, but: {error}");
        return None;
    }
    // Tests may run in several processes at once, so the turn is a lock on a file.
    let lock = File::create(std::env::temp_dir().join("bondwire-bench-tests.lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    Some(lock)
}

fn network(shapes: &[Shape]) -> Network {
    Network::emulated(shapes, None).unwrap()
}

/// Two UDP sockets, one at each end of the first link.
fn udp_pair(network: &Network) -> (UdpSocket, UdpSocket) {
    let bind = |far| move || -> Result<UdpSocket> { Ok(UdpSocket::bind((address(0, far), PORT))?) };
    let near = network.near.run(bind(false)).unwrap();
    let far = network.far.run(bind(true)).unwrap();
    near.connect((address(0, true), PORT)).unwrap();
    far.connect((address(0, false), PORT)).unwrap();
    far.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    near.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    (near, far)
}

/// Sends stamped packets of `payload_bytes`, one each `interval`, and returns their one-way times.
fn one_way_times(network: &Network, count: u32, payload_bytes: usize, interval: Duration) -> Vec<Duration> {
    let (near, far) = udp_pair(network);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut payload = vec![0; payload_bytes];
            for _ in 0..count {
                payload[..8].copy_from_slice(&clock::now_ns().to_le_bytes());
                near.send(&payload).unwrap();
                std::thread::sleep(interval);
            }
        });
        let mut times = Vec::new();
        let mut payload = vec![0; 2048];
        // Ends when nothing has come for the socket's read timeout.
        while let Ok(length) = far.recv(&mut payload) {
            assert_eq!(length, payload_bytes);
            let sent_ns = u64::from_le_bytes(payload[..8].try_into().unwrap());
            times.push(Duration::from_nanos(clock::now_ns() - sent_ns));
        }
        times
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Floods the first link with more than it carries. The rate at which it carried IP packets, in bits in a
/// second: the median of several windows, because a busy test machine may starve the sender for a moment.
fn flooded_rate(network: &Network, rate_bits_per_second: u64) -> f64 {
    const WINDOWS: usize = 5;
    const WINDOW: Duration = Duration::from_millis(400);
    let (near, far) = udp_pair(network);
    let done = AtomicBool::new(false);
    let flood = || {
        let payload = [0; FULL_PAYLOAD_BYTES];
        // Twice the rate, in small bursts so that the processor is not all spent on it.
        let packets_per_second = rate_bits_per_second as f64 * 2.0 / 8.0 / 1500.0;
        let since = Instant::now();
        let mut sent = 0.0;
        while !done.load(Ordering::Relaxed) {
            while sent < since.elapsed().as_secs_f64() * packets_per_second {
                // Refused while the device's own queue is full; the next burst comes soon enough.
                let _ = near.send(&payload);
                sent += 1.0;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let carried_bytes = || network.emulator.counters(0, Direction::Forth).passed_bytes;
    let mut rates = std::thread::scope(|scope| {
        scope.spawn(flood);
        std::thread::sleep(WINDOW);
        let measure = |_| {
            let (start, before_bytes) = (Instant::now(), carried_bytes());
            std::thread::sleep(WINDOW);
            (carried_bytes() - before_bytes) as f64 * 8.0 / start.elapsed().as_secs_f64()
        };
        let rates = [(); WINDOWS].map(measure);
        done.store(true, Ordering::Relaxed);
        rates
    });
    drop(far);
    rates.sort_by(f64::total_cmp);
    rates[WINDOWS / 2]
}

fn assert_rate(network: &Network, rate_mbit: u64) {
    let measured = flooded_rate(network, rate_mbit * 1_000_000) / 1e6;
    let wanted = rate_mbit as f64;
    assert!((measured / wanted - 1.0).abs() < 0.03, "{measured:.2} Mbit/s, want {wanted} ± 3 %");
}

#[test]
fn the_rate_is_kept_within_three_percent_and_changes_while_running() {
    let Some(_turn) = turn() else { return };
    let shape = |rate_mbit| Shape::new(rate_mbit, Duration::from_millis(1)).with_queue_kib(1024);
    let network = network(&[shape(100)]);
    assert_rate(&network, 100);
    network.emulator.set_shape(0, Direction::Forth, shape(20));
    assert_rate(&network, 20);
}

#[test]
fn four_full_links_are_carried_at_once() {
    let Some(_turn) = turn() else { return };
    let network = network(&[Shape::new(100, Duration::from_millis(5)); 4]);
    start_server(&network);
    let window = Duration::from_secs(3);
    let measure = |index| {
        let target = SocketAddr::from((address(index, true), PORT));
        let work = move || client::send_bulk(target, Transport::Plain, window);
        network.near.run(work).unwrap().mbytes_per_second(Duration::from_secs(1), window) * 8.0
    };
    let rates: Vec<f64> = std::thread::scope(|scope| {
        let measure = &measure;
        let threads: Vec<_> = (0..4).map(|index| scope.spawn(move || measure(index))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // 1448 of a packet's 1500 bytes are data: 96.5 Mbit/s.
    assert!(rates.iter().all(|rate| (93.0..98.0).contains(rate)), "{rates:?} Mbit/s, want about 96.5 each");
}

#[test]
fn the_delay_is_kept() {
    let Some(_turn) = turn() else { return };
    let network = network(&[Shape::new(100, Duration::from_millis(20))]);
    let time = median(one_way_times(&network, 100, 100, Duration::from_millis(2)));
    let wanted = Duration::from_millis(20)..Duration::from_micros(20_800);
    assert!(wanted.contains(&time), "{time:?} one way, want 20 ms");
}

#[test]
fn jitter_spreads_the_delay() {
    let Some(_turn) = turn() else { return };
    let shape = Shape { jitter: Duration::from_millis(10), ..Shape::new(100, Duration::from_millis(5)) };
    let network = network(&[shape]);
    let mut times = one_way_times(&network, 200, 100, Duration::from_millis(20));
    times.sort();
    assert_eq!(times.len(), 200);
    // 5 to 15 ms evenly. A busy test machine delays some, and makes none early.
    let (early, late) = (times[10], times[190]);
    assert!(times[0] > Duration::from_millis(5), "{:?}", times[0]);
    assert!(late - early > Duration::from_millis(6), "{early:?} to {late:?}");
}

#[test]
fn loss_is_the_share_asked_for() {
    let Some(_turn) = turn() else { return };
    let network = network(&[Shape::new(100, Duration::from_millis(1)).with_loss(0.1)]);
    let arrived = one_way_times(&network, 4000, 100, Duration::from_micros(100)).len();
    // Within four standard deviations.
    assert!((3524..3676).contains(&arrived), "{arrived} of 4000 arrived, want about 3600");
}

#[test]
fn a_blackhole_acts_on_its_direction_only() {
    let Some(_turn) = turn() else { return };
    let network = network(&[Shape::new(100, Duration::from_millis(1))]);
    let (near, far) = udp_pair(&network);
    let mut buffer = [0; 16];
    let mut check = |forth: bool, back: bool| {
        near.send(b"forth").unwrap();
        far.send(b"back").unwrap();
        assert_eq!(far.recv(&mut buffer).is_ok(), forth);
        assert_eq!(near.recv(&mut buffer).is_ok(), back);
    };
    check(true, true);
    network.emulator.set_gate(0, Direction::Forth, Gate::Blackhole);
    check(false, true);
    network.emulator.set_gates(0, Gate::Blackhole);
    check(false, false);
    network.emulator.set_gate(0, Direction::Forth, Gate::Open);
    check(true, false);
    network.emulator.set_gates(0, Gate::Open);
    check(true, true);
}

#[test]
fn an_interface_goes_down_and_comes_back() {
    let Some(_turn) = turn() else { return };
    let network = network(&[Shape::new(100, Duration::from_millis(1))]);
    let (near, far) = udp_pair(&network);
    network.set_interface(0, false).unwrap();
    assert!(near.send(b"x").is_err(), "there must be no route while the interface is down");
    network.set_interface(0, true).unwrap();
    near.send(b"x").unwrap();
    assert_eq!(far.recv(&mut [0; 16]).unwrap(), 1);
}

#[test]
fn a_reset_ends_both_ends_of_a_connection_and_refuses_new_ones() {
    let Some(_turn) = turn() else { return };
    let network = network(&[Shape::new(100, Duration::from_millis(1))]);
    let target = SocketAddr::from((address(0, true), PORT));
    let listener = network.far.run(|| Ok(TcpListener::bind(target)?)).unwrap();
    let connect = || network.near.run(|| Ok(TcpStream::connect_timeout(&target, Duration::from_secs(2))?));
    let mut near = connect().unwrap();
    let (mut far, _) = listener.accept().unwrap();
    network.emulator.set_gates(0, Gate::Reset);
    for stream in [&mut near, &mut far] {
        use std::io::{ErrorKind, Read, Write};
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert!(connect().is_err(), "a new connection must be refused");
    network.emulator.set_gates(0, Gate::Open);
    connect().unwrap();
}

fn exists(namespace: &str) -> bool {
    std::path::Path::new("/run/netns").join(namespace).exists()
}

#[test]
fn a_namespace_goes_with_its_owner() {
    let Some(_turn) = turn() else { return };
    let network = network(&[Shape::default()]);
    let names = [network.near.name().to_owned(), network.far.name().to_owned()];
    assert!(names.iter().all(|name| exists(name)));
    drop(network);
    assert!(!names.iter().any(|name| exists(name)));
}

/// Sends a signal to a program that holds two namespaces, and waits for its end. Their names.
fn namespaces_after(signal: Signal) -> Vec<String> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_bondwire-bench"))
        .args(["emulate", "rate=10mbit"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines().take(2).map(Result::unwrap);
    // `near: ip netns exec NAME …`
    let names: Vec<String> = lines.map(|line| line.split_whitespace().nth(4).unwrap().to_owned()).collect();
    assert!(names.len() == 2 && names.iter().all(|name| exists(name)), "{names:?}");
    kill_process(Pid::from_child(&program), signal).unwrap();
    program.wait().unwrap();
    names
}

#[test]
fn an_interrupted_program_removes_its_namespaces() {
    let Some(_turn) = turn() else { return };
    for signal in [Signal::INT, Signal::TERM] {
        assert!(!namespaces_after(signal).iter().any(|name| exists(name)), "{signal:?}");
    }
}

#[test]
fn a_later_run_removes_what_a_killed_one_left() {
    let Some(_turn) = turn() else { return };
    let mine = network(&[Shape::default()]);
    let names = namespaces_after(Signal::KILL);
    assert!(names.iter().all(|name| exists(name)), "nothing was left to remove");
    namespace::remove_leftovers();
    assert!(!names.iter().any(|name| exists(name)));
    assert!(exists(mine.near.name()), "what is in use must stay");
}

/// Starts the measuring server at the far end; it goes with the test's process.
fn start_server(network: &Network) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    network
        .far
        .run(|| {
            // A thread made here starts in the far namespace, and outlives this closure.
            std::thread::spawn(move || {
                ready.send(()).unwrap();
                server::serve(SocketAddr::from(([0, 0, 0, 0], PORT)), Transport::Plain)
            });
            Ok(())
        })
        .unwrap();
    is_ready.recv().unwrap();
    // Between the message and the listening socket there is a moment.
    let target = SocketAddr::from((address(0, true), PORT));
    let answers = || client::wait_until_answering(target, Duration::from_secs(5));
    network.near.run(answers).unwrap();
}
