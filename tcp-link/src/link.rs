use std::io;
use std::net::SocketAddr;

use bondwire::limits::MTU_MAX_BYTES;
use bondwire::link::framing::{Deframer, LENGTH_BYTES, write_lengths};
use bondwire::link::{LinkDescription, PacketBatch, PacketLink, PacketReader, PacketWriter};
use bytes::BytesMut;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::options;
use crate::startup::Startup;

/// A TCP connection as a link of a bond. [`TcpDialer`](crate::TcpDialer) and [`TcpAcceptor`](crate::TcpAcceptor)
/// make them; [`from_stream`](Self::from_stream) takes a connection made in any other way.
#[derive(Debug)]
pub struct TcpLink {
    stream: TcpStream,
    name: String,
}

impl TcpLink {
    /// A link over `stream`, whose socket options it sets: no delay, little unsent data in the kernel, and an end
    /// after half a minute without any answer.
    pub fn from_stream(stream: TcpStream) -> io::Result<Self> {
        let name = format!("tcp {}", canonical(stream.peer_addr()?));
        Self::with_name(stream, name)
    }

    pub(crate) fn with_name(stream: TcpStream, name: String) -> io::Result<Self> {
        options::set_link_options(&stream)?;
        Ok(Self { stream, name })
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

/// An IPv4 address that came in over a dual-stack socket, as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl PacketLink for TcpLink {
    type Reader = TcpReader;
    type Writer = TcpWriter;

    fn describe(&self) -> LinkDescription {
        LinkDescription {
            reliable: true,
            over_ip: true,
            ..LinkDescription::new("tcp", self.name.clone(), MTU_MAX_BYTES)
        }
    }

    fn split(self) -> (TcpReader, TcpWriter) {
        let (reader, writer) = self.stream.into_split();
        (
            TcpReader { stream: reader, deframer: Deframer::new() },
            TcpWriter { startup: Startup::of(writer.as_ref()), stream: writer },
        )
    }
}

/// The receiving half of a [`TcpLink`].
#[derive(Debug)]
pub struct TcpReader {
    stream: OwnedReadHalf,
    deframer: Deframer,
}

impl PacketReader for TcpReader {
    async fn receive(&mut self, out: &mut Vec<BytesMut>) -> io::Result<()> {
        while !self.deframer.packets(out)? {
            match self.stream.try_read_buf(self.deframer.read_buffer()) {
                Ok(0) => return Err(self.deframer.end()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.deframer.rest();
                    self.stream.readable().await?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn authenticated(&mut self) {
        self.deframer.authenticated();
    }
}

/// The sending half of a [`TcpLink`].
#[derive(Debug)]
pub struct TcpWriter {
    stream: OwnedWriteHalf,
    startup: Startup,
}

impl PacketWriter for TcpWriter {
    fn headroom_bytes(&self) -> usize {
        LENGTH_BYTES
    }

    /// Waits until less than half of `TCP_NOTSENT_LOWAT` is unsent in the kernel.
    async fn ready(&mut self) -> io::Result<()> {
        loop {
            self.stream.writable().await?;
            // The runtime remembers "writable" until a write says otherwise; the low-water mark needs a fresh look.
            let looked = self.stream.as_ref().try_io(Interest::WRITABLE, || {
                if options::is_writable_now(self.stream.as_ref())? {
                    Ok(())
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            });
            match looked {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    async fn send(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        write_lengths(batch)?;
        let mut rest = batch.as_bytes();
        while !rest.is_empty() {
            match self.stream.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn rate_found(&mut self, bytes_per_second: Option<u64>) {
        self.startup.rate_found(self.stream.as_ref(), bytes_per_second);
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}
