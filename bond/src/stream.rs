use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bondwire_core::connection::Connection;
use bondwire_core::id::{Class, StreamId};
use bondwire_core::streams;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::bond::Handle;
use crate::error::{ReadError, WriteError};
use crate::limits::{COPY_MIN_BYTES, READ_AHEAD_BYTES, WRITE_BYTES_MAX};

/// A reliable, ordered stream of bytes, both ways: `AsyncRead + AsyncWrite`.
///
/// - What is written is on its way at once; nobody needs to flush, and `poll_flush` does nothing.
/// - `shutdown` finishes this end's direction; the other stays open.
/// - Dropping it finishes what was written (all of it will be delivered) and tells the peer that nothing more will be
///   read.
/// - All waiting methods are cancel safe: a dropped call has taken or given nothing that it did not say.
///
/// [`split`](Self::split) makes two halves for two tasks.
#[derive(Debug)]
pub struct BondStream {
    send: SendStream,
    recv: RecvStream,
}

/// The writing half of a [`BondStream`]. Dropping it finishes the stream.
#[derive(Debug)]
pub struct SendStream {
    info: Arc<Info>,
}

/// The reading half of a [`BondStream`]. Dropping it tells the peer that nothing more will be read.
#[derive(Debug)]
pub struct RecvStream {
    info: Arc<Info>,
    /// Taken from the engine ahead of the reader.
    ahead: Bytes,
    ended: bool,
}

#[derive(Debug)]
struct Info {
    bond: Handle,
    id: StreamId,
    class: Class,
    priority: u8,
    label: String,
}

/// Code with which a dropped reader stops its stream.
const DROPPED: u64 = 0;

impl BondStream {
    pub(crate) fn new(bond: Handle, id: StreamId, class: Class, priority: u8, label: String) -> Self {
        let info = Arc::new(Info { bond, id, class, priority, label });
        Self {
            send: SendStream { info: info.clone() },
            recv: RecvStream { info, ahead: Bytes::new(), ended: false },
        }
    }

    /// The stream's number in the bond, the same at both ends.
    pub fn id(&self) -> StreamId {
        self.send.info.id
    }

    /// How its bytes choose among links.
    pub fn class(&self) -> Class {
        self.send.info.class
    }

    /// Its priority within the class; lower goes first.
    pub fn priority(&self) -> u8 {
        self.send.info.priority
    }

    /// What its opener called it.
    pub fn label(&self) -> &str {
        &self.send.info.label
    }

    /// The two halves, for two tasks.
    pub fn split(self) -> (RecvStream, SendStream) {
        (self.recv, self.send)
    }

    /// [`SendStream::write_chunk`].
    pub async fn write_chunk(&mut self, chunk: &mut Bytes) -> Result<(), WriteError> {
        self.send.write_chunk(chunk).await
    }

    /// [`RecvStream::read_chunk`].
    pub async fn read_chunk(&mut self, max_bytes: usize) -> Result<Option<Bytes>, ReadError> {
        self.recv.read_chunk(max_bytes).await
    }

    /// [`SendStream::finish`].
    pub fn finish(&mut self) {
        self.send.finish();
    }

    /// [`SendStream::reset`].
    pub fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    /// [`RecvStream::stop`].
    pub fn stop(&mut self, code: u64) {
        self.recv.stop(code);
    }
}

impl SendStream {
    /// The stream's number in the bond.
    pub fn id(&self) -> StreamId {
        self.info.id
    }

    /// Writes all of `chunk` without copying it, and waits while the send buffer is full. Cancel safe: a dropped call
    /// leaves in `chunk` what was not taken.
    ///
    /// # Errors
    /// As for any write; see [`WriteError`].
    pub async fn write_chunk(&mut self, chunk: &mut Bytes) -> Result<(), WriteError> {
        while !chunk.is_empty() {
            poll_fn(|cx| self.poll_engine(cx, |connection, id| connection.write_chunk(id, chunk))).await?;
        }
        Ok(())
    }

    /// Says that nothing more will be written. All of what was written will be delivered. Does not wait.
    pub fn finish(&mut self) {
        let id = self.info.id;
        // Already finished, reset, or over: then there is nothing left to finish.
        let _ = self.info.bond.with(|state, _| state.connection.finish(id));
    }

    /// Gives the stream up: what was not delivered yet is dropped, and the peer's read fails with `code`.
    pub fn reset(&mut self, code: u64) {
        let id = self.info.id;
        // Over already: then there is nothing to give up.
        let _ = self.info.bond.with(|state, _| state.connection.reset(id, code));
    }

    /// Takes what the engine takes now; waits if that is nothing.
    fn poll_engine(
        &self,
        cx: &Context<'_>,
        write: impl FnOnce(&mut Connection, StreamId) -> Result<usize, streams::WriteError>,
    ) -> Poll<Result<usize, WriteError>> {
        let id = self.info.id;
        self.info.bond.with(|state, _| {
            if let Some(reason) = state.closed_reason() {
                return Poll::Ready(Err(WriteError::BondEnded(reason)));
            }
            match write(&mut state.connection, id) {
                Ok(taken) => Poll::Ready(Ok(taken)),
                Err(streams::WriteError::Blocked(_)) => {
                    state.waiters.wait_writable(id, cx);
                    Poll::Pending
                }
                Err(streams::WriteError::Stopped { code, .. }) => Poll::Ready(Err(WriteError::Stopped(code))),
                Err(_) => Poll::Ready(Err(WriteError::Finished)),
            }
        })
    }
}

impl RecvStream {
    /// The stream's number in the bond.
    pub fn id(&self) -> StreamId {
        self.info.id
    }

    /// Waits for bytes and answers up to `max_bytes` of them without a copy; `None` at the end of the stream. Cancel
    /// safe.
    ///
    /// # Errors
    /// The stream ended before its end; see [`ReadError`].
    pub async fn read_chunk(&mut self, max_bytes: usize) -> Result<Option<Bytes>, ReadError> {
        if self.ahead.is_empty() {
            return poll_fn(|cx| self.poll_engine(cx, max_bytes)).await;
        }
        let len = max_bytes.min(self.ahead.len());
        Ok(Some(self.ahead.split_to(len)))
    }

    /// Tells the peer that nothing more will be read: its writes fail with `code`.
    pub fn stop(&mut self, code: u64) {
        self.ahead = Bytes::new();
        if !self.ended {
            self.ended = true;
            let id = self.info.id;
            let _ = self.info.bond.with(|state, _| state.connection.stop_sending(id, code));
        }
    }

    fn poll_engine(&mut self, cx: &Context<'_>, max_bytes: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let id = self.info.id;
        let read = self.info.bond.with(|state, _| match state.connection.read_chunk(id, max_bytes) {
            Ok(chunk) => Poll::Ready(Ok(chunk)),
            Err(streams::ReadError::Reset { code, .. }) => Poll::Ready(Err(ReadError::Reset(code))),
            Err(streams::ReadError::Blocked(_)) => match state.closed_reason() {
                Some(reason) => Poll::Ready(Err(ReadError::BondEnded(reason))),
                None => {
                    state.waiters.wait_readable(id, cx);
                    Poll::Pending
                }
            },
            Err(_) => Poll::Ready(Err(match state.closed_reason() {
                Some(reason) => ReadError::BondEnded(reason),
                None => ReadError::Stopped,
            })),
        });
        if let Poll::Ready(Ok(None)) = read {
            self.ended = true;
        }
        read
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let buf = &buf[..buf.len().min(WRITE_BYTES_MAX)];
        if buf.len() >= COPY_MIN_BYTES {
            let mut chunk = self.info.bond.shared().copies.copy(buf);
            return self
                .poll_engine(cx, |connection, id| connection.write_chunk(id, &mut chunk))
                .map_err(io::Error::from);
        }
        self.poll_engine(cx, |connection, id| connection.write(id, buf)).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.ahead.is_empty() {
            let wanted = buf.remaining().max(READ_AHEAD_BYTES);
            match ready!(self.poll_engine(cx, wanted))? {
                Some(chunk) => self.ahead = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = buf.remaining().min(self.ahead.len());
        buf.put_slice(&self.ahead[..len]);
        self.ahead.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BondStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}

impl AsyncRead for BondStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let id = self.info.id;
        self.info.bond.with(|state, _| {
            // Fails if the half has ended in another way, which is just as well.
            let _ = state.connection.finish(id);
            state.waiters.forget_writer(id);
        });
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let (id, ended) = (self.info.id, self.ended);
        self.info.bond.with(|state, _| {
            if !ended {
                let _ = state.connection.stop_sending(id, DROPPED);
            }
            state.waiters.forget_reader(id);
        });
    }
}
