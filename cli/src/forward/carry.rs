//! One connection over one stream: both directions, half-close, back-pressure, and resets as resets.

use std::future::poll_fn;
use std::io;
use std::pin::pin;

use bondwire::{RecvStream, SendStream};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::Connection;
use crate::service::{self, Refusal, code};

/// Bytes read from a connection at once.
const READ_BYTES: usize = 128 << 10;
/// Bytes handed to a connection at once.
const CHUNK_MAX_BYTES: usize = 1 << 20;
/// Below this, copying into the engine's buffer is cheaper than handing over a buffer of its own.
const COPY_MAX_BYTES: usize = 8 << 10;

/// Why a forwarded connection ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CarryError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Broken(#[from] io::Error),
}

/// What the stream's first byte is, from the peer's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This end opened the stream: the peer's answer comes before its data.
    Awaited,
    /// This end accepted the stream and has answered, or has taken the peer's answer already.
    Given,
}

/// Carries `connection` over the stream until both directions have ended. On an error, and when it is dropped before,
/// both sides are reset: a cut must not look like an end.
pub(crate) async fn carry(
    mut connection: Connection,
    reader: RecvStream,
    writer: SendStream,
    answer: Answer,
) -> Result<(), CarryError> {
    connection.end_by_reset();
    let ended = match &mut connection {
        Connection::Tcp(tcp) => {
            let (read, write) = tcp.split();
            carry_halves(read, write, reader, writer, answer).await
        }
        #[cfg(unix)]
        Connection::Unix(unix) => {
            let (read, write) = unix.split();
            carry_halves(read, write, reader, writer, answer).await
        }
    };
    if ended.is_ok() {
        connection.end_well();
    }
    ended
}

/// The halves of a stream, which are reset unless both have ended well.
struct Halves {
    reader: RecvStream,
    writer: SendStream,
    ended_well: bool,
}

impl Drop for Halves {
    fn drop(&mut self) {
        if !self.ended_well {
            self.writer.reset(code::CONNECTION_RESET);
            self.reader.stop(code::CONNECTION_RESET);
        }
    }
}

/// Carries what `read` gives over the stream, and what the stream gives to `write`, until both have ended. On an error,
/// and when it is dropped before, the stream is reset.
pub(crate) async fn carry_halves(
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
    reader: RecvStream,
    writer: SendStream,
    answer: Answer,
) -> Result<(), CarryError> {
    let mut halves = Halves { reader, writer, ended_well: false };
    let Halves { reader, writer, .. } = &mut halves;
    tokio::try_join!(async { into_stream(read, writer).await.map_err(CarryError::from) }, async {
        if answer == Answer::Awaited {
            service::answer(reader).await?;
        }
        Ok(from_stream(reader, write).await?)
    },)?;
    halves.ended_well = true;
    Ok(())
}

async fn into_stream(mut from: impl AsyncRead + Unpin, writer: &mut SendStream) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        match read(&mut from, &mut buffer).await? {
            0 => return writer.shutdown().await,
            length if length <= COPY_MAX_BYTES => {
                writer.write_all(&buffer).await?;
                buffer.clear();
            }
            _ => writer.write_chunk(&mut buffer.split().freeze()).await?,
        }
    }
}

/// Appends to `buffer` what there is to read. While there is nothing it holds no memory: of a thousand connections most
/// are idle.
async fn read(from: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| {
        buffer.reserve(READ_BYTES);
        let read = pin!(from.read_buf(buffer)).poll(cx);
        if read.is_pending() {
            *buffer = BytesMut::new();
        }
        read
    })
    .await
}

async fn from_stream(reader: &mut RecvStream, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some(chunk) = reader.read_chunk(CHUNK_MAX_BYTES).await? {
        to.write_all(&chunk).await?;
        to.flush().await?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_idle_connection_holds_no_read_buffer() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let mut buffer = BytesMut::new();
        {
            let mut reading = pin!(read(&mut far, &mut buffer));
            let polled = poll_fn(|cx| std::task::Poll::Ready(reading.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
        }
        assert_eq!(buffer.capacity(), 0);
        near.write_all(b"some").await.unwrap();
        assert_eq!(read(&mut far, &mut buffer).await.unwrap(), 4);
        assert_eq!(buffer, "some");
        drop(near);
        assert_eq!(read(&mut far, &mut buffer).await.unwrap(), 0);
    }
}
