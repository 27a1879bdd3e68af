use std::io;
use std::sync::{Arc, Weak};

use bondwire::link::{
    CountingMedium, LinkDescription, MediumCounters, PacketBatch, PacketLink, PacketReader, PacketWriter,
};
use bytes::BytesMut;

use crate::driver::Handle;
use crate::endpoint::LineCounters;

/// Bits on the line for each byte: 8N1.
const BITS_PER_BYTE: u64 = 10;

/// A serial port as a link of a bond: established, and at the rate that both ends have climbed to.
/// [`SerialDialer`](crate::SerialDialer) and [`SerialAcceptor`](crate::SerialAcceptor) make them.
#[derive(Debug)]
pub struct SerialLink {
    handle: Arc<Handle>,
    name: String,
}

impl SerialLink {
    pub(crate) fn new(handle: Arc<Handle>, name: String) -> Self {
        Self { handle, name }
    }

    /// Rate of the port at the moment, in bits per second. It changes while the link is in use.
    pub fn baud(&self) -> u32 {
        self.handle.rate_and_mtu().0
    }

    /// What was seen of the line so far.
    pub fn counters(&self) -> LineCounters {
        self.handle.line_counters()
    }
}

impl PacketLink for SerialLink {
    type Reader = SerialReader;
    type Writer = SerialWriter;

    fn describe(&self) -> LinkDescription {
        let (rate, mtu_bytes) = self.handle.rate_and_mtu();
        LinkDescription {
            rate_hint: Some(u64::from(rate) / BITS_PER_BYTE),
            ..LinkDescription::new("serial", self.name.clone(), mtu_bytes)
        }
    }

    fn split(self) -> (SerialReader, SerialWriter) {
        (
            SerialReader { handle: Arc::clone(&self.handle), authenticated: false },
            SerialWriter { handle: self.handle },
        )
    }
}

impl CountingMedium for Handle {
    fn counters(&self) -> MediumCounters {
        let LineCounters { frames, resyncs } = self.line_counters();
        MediumCounters {
            damaged_frames: frames.checksum_errors + resyncs,
            credit_stalls: frames.credit_stalls,
        }
    }
}

/// The receiving half of a [`SerialLink`].
#[derive(Debug)]
pub struct SerialReader {
    handle: Arc<Handle>,
    authenticated: bool,
}

impl PacketReader for SerialReader {
    async fn receive(&mut self, out: &mut Vec<BytesMut>) -> io::Result<()> {
        self.handle.receive(out, !self.authenticated).await
    }

    fn medium(&self) -> Option<Weak<dyn CountingMedium>> {
        let handle: Arc<dyn CountingMedium> = self.handle.clone();
        Some(Arc::downgrade(&handle))
    }

    fn authenticated(&mut self) {
        self.authenticated = true;
    }
}

/// The sending half of a [`SerialLink`].
#[derive(Debug)]
pub struct SerialWriter {
    handle: Arc<Handle>,
}

impl PacketWriter for SerialWriter {
    /// One packet at a time: even a fast line takes milliseconds for one.
    fn batch_bytes(&self) -> usize {
        1
    }

    /// Waits until what is queued in the port lasts for a few milliseconds only, and the other end has room.
    async fn ready(&mut self) -> io::Result<()> {
        self.handle.room().await
    }

    async fn send(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        for packet in batch.packets() {
            self.handle.send(packet).await?;
        }
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.handle.close();
        Ok(())
    }
}
