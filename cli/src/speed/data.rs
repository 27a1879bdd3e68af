//! Test data over a stream: written until the receiver has enough, and verified as it arrives.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bondwire::error::WriteError;
use bondwire::{RecvStream, SendStream};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout_at;

use super::meter::Meter;
use super::pattern::Pattern;
use super::protocol::Request;
use crate::service::code;

/// Bytes made and written at once: small enough to stay in the L2 cache.
const CHUNK_BYTES: usize = 128 << 10;
/// Bytes taken from a stream at once.
const CHUNK_MAX_BYTES: usize = 1 << 20;
/// Time beyond that of the test after which a sender gives up waiting to be stopped.
const SENDER_GRACE: Duration = Duration::from_secs(30);

/// One meter, shared by the streams of a test.
pub(crate) type SharedMeter = Mutex<Meter>;

/// The meter; a panic elsewhere leaves its counts as they are.
pub(crate) fn lock(meter: &SharedMeter) -> MutexGuard<'_, Meter> {
    meter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes test data until the receiver stops it, or until long after it should have.
pub(crate) async fn send(writer: &mut SendStream, request: &Request) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + request.omit + request.measure + SENDER_GRACE;
    let mut pattern = Pattern::new(request.seed);
    let mut offset = 0;
    // Fresh memory for each chunk would cost more in page faults than the copy out of this one.
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    loop {
        chunk.clear();
        pattern.append(offset, CHUNK_BYTES, &mut chunk);
        offset += CHUNK_BYTES as u64;
        match timeout_at(deadline, writer.write_all(&chunk)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if is_stop(&error) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return writer.shutdown().await,
        }
    }
}

/// Whether a write failed because the receiver wants no more.
fn is_stop(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(WriteError::Stopped(_)))
}

/// Reads test data until the window of `meter` ends, or the data does. Returns the position of the first wrong byte.
pub(crate) async fn receive(
    reader: &mut RecvStream,
    request: &Request,
    meter: &SharedMeter,
) -> io::Result<Option<u64>> {
    let mut pattern = Pattern::new(request.seed);
    let mut offset = 0;
    loop {
        let end = lock(meter).end();
        let read = reader.read_chunk(CHUNK_MAX_BYTES);
        let chunk = match end {
            Some(end) => match timeout_at(end.into(), read).await {
                Ok(chunk) => chunk?,
                Err(_) => break,
            },
            None => read.await?,
        };
        let Some(chunk) = chunk else {
            return Ok(None);
        };
        if let Err(wrong_at) = pattern.check(offset, &chunk) {
            return Ok(Some(wrong_at));
        }
        offset += chunk.len() as u64;
        lock(meter).record(Instant::now(), chunk.len() as u64);
    }
    reader.stop(code::DONE);
    Ok(None)
}
