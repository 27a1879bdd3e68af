//! The far side of every measurement: one port, and the first line of a connection says what is wanted.
//!
//! | first line | what happens |
//! |---|---|
//! | `GET /BYTES HTTP/1.1` | a file of so many pseudo-random bytes (RFC 9110, with byte ranges) |
//! | `SINK MILLISECONDS` | counts what comes for so long after the first byte, then answers with a [`Series`] |
//! | `PUT BYTES SEED` | takes so many bytes, checks each one, answers `OK` or `WRONG` |
//! | `SIP BYTES SEED RATE` | the same, but takes no more than `RATE` bytes in a second, in bursts with pauses between |
//! | `PACED` | notes when each block of a paced stream comes; on its end answers with the [`Arrival`]s |
//! | `ECHO` | sends everything back at once |

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::pattern::{self, Content};
use super::{Arrival, PACED_BLOCK_BYTES, Series, Transport, clock};

/// Which pseudo-random stream the files of the HTTP server are made of.
pub const FILE_SEED: u64 = 0x0b0a_d21e;

/// The answer to a `PUT` whose every byte was right.
pub const INTACT: &[u8] = b"OK\n";

const BLOCK_BYTES: usize = 128 << 10;
/// What a slow reader takes in one go: more than the buffers on its way hold, so that each pause fills them all.
const SIP_BURST_BYTES: u64 = 300_000_000;

const BACKLOG: i32 = 1024;
const REQUEST_LINE_BYTES_MAX: u64 = 4096;
const HEADER_LINES_MAX: usize = 100;

/// Serves until the process ends.
///
/// # Errors
/// If the address cannot be listened on.
pub fn serve(address: SocketAddr, transport: Transport) -> Result<()> {
    let socket = transport.socket()?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into()).with_context(|| format!("cannot bind {address}"))?;
    socket.listen(BACKLOG)?;
    for stream in TcpListener::from(socket).incoming() {
        // A client that has gone, or a failed measurement, shows at the client; the others are served on.
        let Ok(stream) = stream else { continue };
        let thread = std::thread::Builder::new().spawn(move || answer(&stream));
        thread.context("cannot start a thread")?;
    }
    Ok(())
}

fn answer(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(BLOCK_BYTES, stream);
    let request = read_line(&mut reader)?;
    let words: Vec<&str> = request.split_whitespace().collect();
    match *words {
        ["GET", path, _] => send_file(&mut reader, stream, path),
        ["SINK", milliseconds] => count(&mut reader, stream, Duration::from_millis(milliseconds.parse()?)),
        ["PUT", bytes, seed] => check(&mut reader, stream, bytes.parse()?, seed.parse()?),
        ["SIP", bytes, seed, rate] => {
            let mut reader = Sipping::new(&mut reader, rate.parse()?);
            check(&mut reader, stream, bytes.parse()?, seed.parse()?)
        }
        ["PACED"] => note_arrivals(&mut reader, stream),
        ["ECHO"] => echo(&mut reader, stream),
        _ => bail!("unknown request {request:?}"),
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    reader.take(REQUEST_LINE_BYTES_MAX).read_line(&mut line)?;
    ensure!(line.ends_with('\n'), "the request's line has no end");
    Ok(line.trim_end().into())
}

fn send_file(reader: &mut impl BufRead, mut stream: &TcpStream, path: &str) -> Result<()> {
    let size: u64 = path.trim_start_matches('/').parse().context("the path must be a number of bytes")?;
    let mut range = None;
    for _ in 0..HEADER_LINES_MAX {
        let line = read_line(reader)?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = Some(parse_range(value, size)?);
        }
    }
    let (start, end) = range.unwrap_or((0, size));
    let status = if range.is_some() {
        format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{size}", end.saturating_sub(1))
    } else {
        "200 OK".into()
    };
    let length = end - start;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Type: application/octet-stream\r\n\
         Accept-Ranges: bytes\r\nConnection: close\r\n\r\n"
    )?;
    let mut writer = BufWriter::with_capacity(BLOCK_BYTES, stream);
    io::copy(&mut Content::range(FILE_SEED, start, end), &mut writer)?;
    writer.flush()?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// `first-last` or `first-`, both from 0, as the half-open range of bytes to send.
fn parse_range(value: &str, size: u64) -> Result<(u64, u64)> {
    let (first, last) = value.split_once('-').context("a range has a dash")?;
    let first: u64 = first.parse()?;
    let end = if last.is_empty() { size } else { last.parse::<u64>()?.saturating_add(1).min(size) };
    ensure!(first <= end, "a range runs forward");
    Ok((first, end))
}

fn count(reader: &mut impl Read, mut stream: &TcpStream, window: Duration) -> Result<()> {
    let mut series = Series::default();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let length = reader.read(&mut block)?;
        let now_ns = clock::now_ns();
        if length == 0 || (!series.buckets.is_empty() && series.since_start(now_ns) > window) {
            break;
        }
        series.add(now_ns, length as u64);
    }
    let mut report = serde_json::to_vec(&series)?;
    report.push(b'\n');
    stream.write_all(&report)?;
    // The sender may still be writing. Closing now would reset the connection and could take the report with it.
    io::copy(reader, &mut io::sink())?;
    Ok(())
}

fn check(reader: &mut impl Read, mut stream: &TcpStream, size: u64, seed: u64) -> Result<()> {
    let (mut block, mut expected) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let mut position = 0;
    let mut intact = true;
    while position < size {
        let wanted = usize::try_from(size - position).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let length = reader.read(&mut block[..wanted])?;
        ensure!(length > 0, "the data ended after {position} of {size} bytes");
        pattern::fill(seed, position, &mut expected[..length]);
        intact &= block[..length] == expected[..length];
        position += length as u64;
    }
    stream.write_all(if intact { INTACT } else { b"WRONG\n" })?;
    Ok(())
}

/// Reads as fast as it can until it is a burst ahead of its rate, then pauses for as long as that burst lasts.
struct Sipping<R> {
    inner: R,
    rate_bytes_per_second: f64,
    start: Instant,
    taken: u64,
    burst_end: u64,
}

impl<R> Sipping<R> {
    fn new(inner: R, rate_bytes_per_second: f64) -> Self {
        Self { inner, rate_bytes_per_second, start: Instant::now(), taken: 0, burst_end: SIP_BURST_BYTES }
    }
}

impl<R: Read> Read for Sipping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken >= self.burst_end {
            self.burst_end += SIP_BURST_BYTES;
            let due = Duration::from_secs_f64(self.taken as f64 / self.rate_bytes_per_second);
            std::thread::sleep(due.saturating_sub(self.start.elapsed()));
        }
        let length = self.inner.read(buffer)?;
        self.taken += length as u64;
        Ok(length)
    }
}

fn note_arrivals(reader: &mut impl Read, mut stream: &TcpStream) -> Result<()> {
    let mut arrivals = Vec::new();
    let mut block = [0; PACED_BLOCK_BYTES];
    while reader.read_exact(&mut block).is_ok() {
        let arrived_ns = clock::now_ns();
        let scheduled_ns = u64::from_le_bytes(block[..8].try_into()?);
        arrivals.push(Arrival { scheduled_ns, arrived_ns });
    }
    stream.write_all(&serde_json::to_vec(&arrivals)?)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

fn echo(reader: &mut impl BufRead, mut stream: &TcpStream) -> Result<()> {
    loop {
        let length = {
            let bytes = reader.fill_buf()?;
            stream.write_all(bytes)?;
            bytes.len()
        };
        if length == 0 {
            return Ok(());
        }
        reader.consume(length);
    }
}
