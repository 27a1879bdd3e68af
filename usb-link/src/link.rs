//! Packets over a pair of bulk endpoints: the frame layer, driven by one task for each link.
//!
//! The task alone waits for transfers; the two halves take packets from its state, and put packets into transfers
//! themselves. So a half that nobody calls keeps no keep-alive and no credit from the other end.

mod driver;
mod state;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Weak};
use std::task::Poll;

use bondwire::limits::{HANDSHAKE_MESSAGE_MAX_BYTES, MTU_MIN_BYTES};
use bondwire::link::{
    CountingMedium, LinkDescription, MediumCounters, PacketBatch, PacketLink, PacketReader, PacketWriter,
};
use bondwire_frame::{Config, Counters, Role, Session};
use bytes::BytesMut;
use ring::rand::{SecureRandom, SystemRandom};

use crate::Speed;
use crate::limits::{HELLO_TIMEOUT, KEEP_ALIVE};
use crate::transfers::{Inlet, Outlet};
use state::{Sending, Shared};

/// A cable as a link of a bond. Dropping it ends it at the other end, too.
#[derive(Debug)]
pub struct UsbLink {
    name: String,
    speed: Speed,
    mtu_bytes: usize,
    shared: Arc<dyn Sending>,
}

impl UsbLink {
    /// Opens a session over these endpoints and waits until the other end has answered. A dialer gives up by itself, an
    /// acceptor waits as long as it takes. Cancel safe: what is dropped half way leaves nothing behind.
    ///
    /// Fails with what the frame layer says of the other end, or with the endpoints' error. Needs a tokio runtime.
    pub async fn open(name: String, role: Role, inlet: impl Inlet, outlet: impl Outlet) -> io::Result<Self> {
        let speed = Speed::of_packets(outlet.packet_bytes());
        let shape = speed.shape();
        let config = Config {
            mtu_bytes: shape.mtu_bytes() as u16,
            receive_buffer_bytes: shape.receive_buffer_bytes,
            read_bytes: inlet.read_bytes() as u32,
            keep_alive: KEEP_ALIVE,
            hello_timeout: HELLO_TIMEOUT,
            ..Config::serial(role)
        };
        let shared = Shared::new(|now| Ok(Session::new(now, config, nonce()?)), outlet)?;
        let shared: Arc<dyn Sending> = driver::start(shared, inlet, name.clone());
        let mut link = Self { name, speed, mtu_bytes: 0, shared };
        link.mtu_bytes = poll_fn(|cx| link.shared.poll_established(cx)).await?;
        if link.mtu_bytes < MTU_MIN_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the other end reads transfers that are too short for a packet",
            ));
        }
        Ok(link)
    }

    /// Speed of the cable.
    pub fn speed(&self) -> Speed {
        self.speed
    }

    /// What the link has seen so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }
}

/// A session's number, different each time.
fn nonce() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other(bondwire::NoEntropy))?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Drop for UsbLink {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl PacketLink for UsbLink {
    type Reader = UsbReader;
    type Writer = UsbWriter;

    fn describe(&self) -> LinkDescription {
        LinkDescription {
            rate_hint: Some(self.speed.shape().rate_hint),
            reliable: true,
            ..LinkDescription::new("usb", self.name.clone(), self.mtu_bytes)
        }
    }

    fn split(self) -> (UsbReader, UsbWriter) {
        let halves = Arc::new(self);
        (UsbReader { link: halves.clone(), authenticated: false }, UsbWriter { link: halves })
    }
}

impl CountingMedium for UsbLink {
    fn counters(&self) -> MediumCounters {
        let Counters { checksum_errors, credit_stalls, .. } = self.shared.counters();
        MediumCounters { damaged_frames: checksum_errors, credit_stalls }
    }
}

/// The receiving half of a [`UsbLink`].
#[derive(Debug)]
pub struct UsbReader {
    link: Arc<UsbLink>,
    authenticated: bool,
}

impl PacketReader for UsbReader {
    async fn receive(&mut self, out: &mut Vec<BytesMut>) -> io::Result<()> {
        let packets_max = if self.authenticated { usize::MAX } else { 1 };
        let first = out.len();
        poll_fn(|cx| self.link.shared.poll_packets(cx, out, packets_max)).await?;
        let is_too_long = |packet: &BytesMut| packet.len() > HANDSHAKE_MESSAGE_MAX_BYTES;
        if !self.authenticated && out[first..].iter().any(is_too_long) {
            out.truncate(first);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the other end sends more than a handshake before it is authenticated",
            ));
        }
        Ok(())
    }

    fn medium(&self) -> Option<Weak<dyn CountingMedium>> {
        let link: Arc<dyn CountingMedium> = self.link.clone();
        Some(Arc::downgrade(&link))
    }

    fn authenticated(&mut self) {
        self.authenticated = true;
    }
}

/// The sending half of a [`UsbLink`].
#[derive(Debug)]
pub struct UsbWriter {
    link: Arc<UsbLink>,
}

impl PacketWriter for UsbWriter {
    /// Waits until the other end has room for a packet and less than half of the transfers are under way.
    async fn ready(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.link.shared.poll_ready(cx, self.link.mtu_bytes)).await
    }

    async fn send(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        let packets: Vec<&[u8]> = batch.packets().collect();
        let mut sent = 0;
        poll_fn(|cx| {
            sent += match self.link.shared.send(cx, &packets[sent..]) {
                Ok(count) => count,
                Err(e) => return Poll::Ready(Err(e)),
            };
            if sent == packets.len() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    /// Waits until everything has left, the last frame included, which tells the other end that nothing follows.
    async fn shutdown(&mut self) -> io::Result<()> {
        self.link.shared.close();
        poll_fn(|cx| self.link.shared.poll_done(cx)).await;
        Ok(())
    }
}
