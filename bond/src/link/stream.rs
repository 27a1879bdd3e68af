use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::framing::{Deframer, LENGTH_BYTES, write_lengths};
use super::{LinkDescription, PacketBatch, PacketLink, PacketReader, PacketWriter};

/// A link over anything that is `AsyncRead + AsyncWrite`: a pipe to a child process, a Unix socket, a TLS session, an
/// SSH channel. Packets travel with a 16-bit length in front ([`framing`](super::framing)).
///
/// ```
/// use bondwire::link::{LinkDescription, PacketLink, StreamLink};
/// let (here, _there) = tokio::io::duplex(64 * 1024);
/// let link = StreamLink::new(here, LinkDescription::new("pipe", "pipe to the test", 16 * 1024));
/// assert_eq!(link.describe().kind, "pipe");
/// ```
#[derive(Debug)]
pub struct StreamLink<S> {
    stream: S,
    description: LinkDescription,
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> StreamLink<S> {
    /// A link over `stream`, described by `description`.
    pub fn new(stream: S, description: LinkDescription) -> Self {
        Self { stream, description }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> PacketLink for StreamLink<S> {
    type Reader = StreamReader<S>;
    type Writer = StreamWriter<S>;

    fn describe(&self) -> LinkDescription {
        self.description.clone()
    }

    fn split(self) -> (Self::Reader, Self::Writer) {
        let (reader, writer) = tokio::io::split(self.stream);
        (StreamReader { stream: reader, deframer: Deframer::new() }, StreamWriter { stream: writer })
    }
}

/// The receiving half of a [`StreamLink`].
#[derive(Debug)]
pub struct StreamReader<S> {
    stream: ReadHalf<S>,
    deframer: Deframer,
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> PacketReader for StreamReader<S> {
    async fn receive(&mut self, out: &mut Vec<BytesMut>) -> io::Result<()> {
        while !self.deframer.packets(out)? {
            if self.stream.read_buf(self.deframer.read_buffer()).await? == 0 {
                return Err(self.deframer.end());
            }
        }
        Ok(())
    }

    fn authenticated(&mut self) {
        self.deframer.authenticated();
    }
}

/// The sending half of a [`StreamLink`].
#[derive(Debug)]
pub struct StreamWriter<S> {
    stream: WriteHalf<S>,
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> PacketWriter for StreamWriter<S> {
    fn headroom_bytes(&self) -> usize {
        LENGTH_BYTES
    }

    /// `AsyncWrite` has no way to ask for room, so this asks for everything sent so far to be flushed.
    async fn ready(&mut self) -> io::Result<()> {
        Flush(&mut self.stream).await
    }

    async fn send(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        write_lengths(batch)?;
        self.stream.write_all(batch.as_bytes()).await?;
        self.stream.flush().await
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

/// A flush that can be dropped and begun again.
struct Flush<'a, S>(&'a mut WriteHalf<S>);

impl<S: AsyncWrite> Future for Flush<'_, S> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }
}
