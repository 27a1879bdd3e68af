//! The near side of every measurement. See [`super::server`] for what each one asks of the server.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::pattern::Content;
use super::server::INTACT;
use super::{Arrival, PACED_BLOCK_BYTES, Series, Transport, clock};

const BLOCK_BYTES: usize = 128 << 10;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Longer silence than any scenario makes on purpose: then the measurement has failed.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of one message of a ping-pong.
pub const PING_BYTES: usize = 64;

fn connect(address: SocketAddr, transport: Transport) -> Result<TcpStream> {
    let socket = transport.socket()?;
    socket
        .connect_timeout(&address.into(), CONNECT_LIMIT)
        .with_context(|| format!("cannot reach {address}"))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_LIMIT))?;
    stream.set_write_timeout(Some(SILENCE_LIMIT))?;
    Ok(stream)
}

/// Sends as fast as it can. What the server received in the first `window` after its first byte.
///
/// # Errors
/// If the connection fails.
pub fn send_bulk(address: SocketAddr, transport: Transport, window: Duration) -> Result<Series> {
    let stream = connect(address, transport)?;
    // What is still buffered at the end is thrown away, so that it does not disturb the next measurement.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(window + SILENCE_LIMIT))?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let block = vec![0x5a; BLOCK_BYTES];
            let mut writer = &stream;
            let _ = writeln!(writer, "SINK {}", window.as_millis());
            // Ends with an error at the latest when the connection is shut down below.
            while writer.write_all(&block).is_ok() {}
        });
        let mut line = String::new();
        let outcome = BufReader::new(&stream).read_line(&mut line);
        let _ = stream.shutdown(Shutdown::Both);
        outcome.context("no report from the server")?;
        serde_json::from_str(&line).context("the server's report makes no sense")
    })
}

/// Sends `size` pseudo-random bytes, which the server checks. The time from connecting to its answer.
///
/// # Errors
/// If the connection fails or a byte arrives changed.
pub fn send_checked(address: SocketAddr, size: u64, seed: u64) -> Result<Duration> {
    send_for_verdict(address, size, seed, &put(size, seed))
}

fn send_for_verdict(address: SocketAddr, size: u64, seed: u64, request: &str) -> Result<Duration> {
    let since = Instant::now();
    let mut stream = connect(address, Transport::Plain)?;
    writeln!(stream, "{request}")?;
    let mut content = Content::range(seed, 0, size);
    std::io::copy(&mut content, &mut BufWriter::with_capacity(BLOCK_BYTES, &stream))?;
    let mut verdict = String::new();
    BufReader::new(&stream).read_line(&mut verdict).context("no verdict from the server")?;
    ensure!(verdict.as_bytes() == INTACT, "the data arrived changed or in part: {verdict:?}");
    Ok(since.elapsed())
}

/// A connection on which the server expects `size` bytes of stream `seed`.
pub(super) fn announce_checked(address: SocketAddr, size: u64, seed: u64) -> Result<TcpStream> {
    let mut stream = connect(address, Transport::Plain)?;
    writeln!(stream, "{}", put(size, seed))?;
    Ok(stream)
}

fn put(size: u64, seed: u64) -> String {
    format!("PUT {size} {seed}")
}

/// Sends blocks at a steady `bits_per_second` for so long, and returns when each one was due and when it came.
///
/// A block's time counts from when it was due, also when the connection could not take it then.
///
/// # Errors
/// If the connection fails.
pub fn send_paced(
    address: SocketAddr,
    transport: Transport,
    bits_per_second: u64,
    length: Duration,
) -> Result<Vec<Arrival>> {
    let mut stream = connect(address, transport)?;
    stream.write_all(b"PACED\n")?;
    let interval_ns = PACED_BLOCK_BYTES as u64 * 8 * 1_000_000_000 / bits_per_second.max(1);
    let start_ns = clock::now_ns();
    let count = u64::try_from(length.as_nanos())? / interval_ns.max(1);
    let mut block = [0; PACED_BLOCK_BYTES];
    for index in 0..count {
        let scheduled_ns = start_ns + index * interval_ns;
        sleep(Duration::from_nanos(scheduled_ns.saturating_sub(clock::now_ns())));
        block[..8].copy_from_slice(&scheduled_ns.to_le_bytes());
        stream.write_all(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut report = Vec::new();
    stream.read_to_end(&mut report)?;
    serde_json::from_slice(&report).context("the server's report makes no sense")
}

/// Sends one small message at a time and waits for its echo, for so long. The round-trip times.
///
/// # Errors
/// If the connection fails.
pub fn ping(address: SocketAddr, length: Duration, pause: Duration) -> Result<Vec<Duration>> {
    let mut stream = connect(address, Transport::Plain)?;
    stream.write_all(b"ECHO\n")?;
    let (sent, mut received) = ([0x42; PING_BYTES], [0; PING_BYTES]);
    let mut times = Vec::new();
    let since = Instant::now();
    while since.elapsed() < length {
        let at = Instant::now();
        stream.write_all(&sent)?;
        stream.read_exact(&mut received)?;
        times.push(at.elapsed());
        sleep(pause);
    }
    Ok(times)
}

/// Opens `count` connections that carry nothing once each has echoed one byte.
///
/// # Errors
/// If one of them fails.
pub fn open_idle(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let open = |_| {
        let mut stream = connect(address, Transport::Plain)?;
        stream.write_all(b"ECHO\nx")?;
        stream.read_exact(&mut [0])?;
        Ok(stream)
    };
    (0..count).map(open).collect()
}

/// Sends `size` pseudo-random bytes to a reader that takes `bytes_per_second` in bursts, and checks them. How long
/// that took.
///
/// # Errors
/// If the connection fails or a byte arrives changed.
pub fn send_to_slow_reader(
    address: SocketAddr,
    size: u64,
    seed: u64,
    bytes_per_second: u64,
) -> Result<Duration> {
    send_for_verdict(address, size, seed, &format!("SIP {size} {seed} {bytes_per_second}"))
}

/// Whether the whole way to the server works: one small message there and back within `limit`.
#[must_use]
pub fn answers(address: SocketAddr, limit: Duration) -> bool {
    let attempt = || -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"ECHO\nx")?;
        stream.read_exact(&mut [0])?;
        Ok(())
    };
    attempt().is_ok()
}

/// Waits until the whole way to the server works. How long that took.
///
/// # Errors
/// If it does not within `limit`.
pub fn wait_until_answering(address: SocketAddr, limit: Duration) -> Result<Duration> {
    const ATTEMPT: Duration = Duration::from_secs(1);
    let since = Instant::now();
    while !answers(address, ATTEMPT) {
        ensure!(since.elapsed() < limit, "{address} does not answer within {limit:?}");
        sleep(Duration::from_millis(20));
    }
    Ok(since.elapsed())
}
