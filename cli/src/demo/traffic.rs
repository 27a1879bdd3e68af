//! The demo's data: written and read as any program would, and verified to the last byte.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::speed::pattern::Pattern;

/// Bytes written or read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Why the traffic of one direction ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrafficError {
    #[error("WRONG DATA at byte {0}")]
    WrongData(u64),
    #[error("{received} of {sent} bytes arrived")]
    WrongLength { sent: u64, received: u64 },
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Writes test data until `deadline`, then finishes. Returns how much it was.
pub(crate) async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    seed: u64,
    deadline: Instant,
) -> io::Result<u64> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut offset = 0;
    while Instant::now() < deadline {
        buffer.clear();
        pattern.append(offset, BUFFER_BYTES, &mut buffer);
        writer.write_all(&buffer).await?;
        offset += BUFFER_BYTES as u64;
    }
    writer.shutdown().await?;
    Ok(offset)
}

/// Reads test data to its end and compares every byte. Returns how much it was.
pub(crate) async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    seed: u64,
    arrivals: &Arrivals,
) -> Result<u64, TrafficError> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = 0;
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            return Ok(offset);
        }
        pattern.check(offset, &buffer[..length]).map_err(TrafficError::WrongData)?;
        offset += length as u64;
        arrivals.record(Instant::now(), length as u64);
    }
}

/// What arrived in one direction, phase by phase.
#[derive(Debug)]
pub(crate) struct Arrivals(Mutex<Counts>);

#[derive(Debug, Clone, Copy)]
struct Counts {
    bytes: u64,
    last: Instant,
    longest_pause: Duration,
}

impl Arrivals {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(Counts { bytes: 0, last: now, longest_pause: Duration::ZERO }))
    }

    fn record(&self, now: Instant, bytes: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.longest_pause = counts.longest_pause.max(now.saturating_duration_since(counts.last));
        counts.last = now;
        counts.bytes += bytes;
    }

    /// Bytes and longest pause since the last call; a pause that still lasts counts as far as it goes.
    pub(crate) fn take(&self, now: Instant) -> (u64, Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = counts.longest_pause.max(now.saturating_duration_since(counts.last));
        let bytes = std::mem::take(&mut counts.bytes);
        counts.longest_pause = Duration::ZERO;
        (bytes, pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn data_arrives_verified_and_counted() {
        let (mut near, mut far) = tokio::io::duplex(10_000);
        let start = Instant::now();
        let arrivals = Arrivals::new(start);
        let deadline = start + Duration::from_millis(20);
        let (sent, received) = tokio::join!(send(&mut near, 1, deadline), receive(&mut far, 1, &arrivals));
        let (sent, received) = (sent.unwrap(), received.unwrap());
        assert!(sent > 0 && sent == received);
        assert_eq!(arrivals.take(Instant::now()).0, received);
        assert_eq!(arrivals.take(Instant::now()).0, 0);
    }

    #[tokio::test]
    async fn a_wrong_byte_is_found() {
        let mut data = Vec::new();
        Pattern::new(1).append(0, 10_000, &mut data);
        data[5_000] ^= 1;
        let arrivals = Arrivals::new(Instant::now());
        let error = receive(&mut data.as_slice(), 1, &arrivals).await.unwrap_err();
        assert!(matches!(error, TrafficError::WrongData(5_000)), "{error}");
    }
}
