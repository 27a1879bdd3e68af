//! One TCP connection over one stream: both directions, half-close, back-pressure, and resets as resets.

use std::io;

use bondwire::{RecvStream, SendStream};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::service::{self, Refusal, code};

/// Bytes read from a socket at once.
const READ_BYTES: usize = 128 << 10;
/// Bytes handed to a socket at once.
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
    /// This end accepted the stream and has answered.
    Given,
}

/// Carries `tcp` over the stream until both directions have ended. On an error both sides are reset.
pub(crate) async fn carry(
    mut tcp: TcpStream,
    mut reader: RecvStream,
    mut writer: SendStream,
    answer: Answer,
) -> Result<(), CarryError> {
    // Interactive programs suffer from Nagle's algorithm; an error means that the connection is gone.
    let _ = tcp.set_nodelay(true);
    let ended = {
        let (tcp_read, tcp_write) = tcp.split();
        tokio::try_join!(
            async { into_stream(tcp_read, &mut writer).await.map_err(CarryError::from) },
            async {
                if answer == Answer::Awaited {
                    service::answer(&mut reader).await?;
                }
                Ok(from_stream(&mut reader, tcp_write).await?)
            },
        )
    };
    if ended.is_err() {
        let _ = tcp.set_zero_linger();
        writer.reset(code::CONNECTION_RESET);
        reader.stop(code::CONNECTION_RESET);
    }
    ended.map(|((), ())| ())
}

async fn into_stream(mut tcp: ReadHalf<'_>, writer: &mut SendStream) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        match tcp.read_buf(&mut buffer).await? {
            0 => return writer.shutdown().await,
            length if length <= COPY_MAX_BYTES => {
                writer.write_all(&buffer).await?;
                buffer.clear();
            }
            _ => writer.write_chunk(&mut buffer.split().freeze()).await?,
        }
    }
}

async fn from_stream(reader: &mut RecvStream, mut tcp: WriteHalf<'_>) -> io::Result<()> {
    while let Some(chunk) = reader.read_chunk(CHUNK_MAX_BYTES).await? {
        tcp.write_all(&chunk).await?;
    }
    tcp.shutdown().await
}
