//! Bulk transfers with nothing around them: the measure of everything else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use anyhow::{Context, Result};
use bondwire_frame::crc::Crc32c;
use bondwire_usb::transfers::{Inlet, Outlet};
use nusb::transfer::{Buffer, Bulk, In, Out};
use nusb::{Endpoint, ErrorKind};
use tokio::time::{Instant, sleep};

use crate::cables::{End, PATIENCE, serial};

/// How often to look whether the interface is free.
const RETRY: Duration = Duration::from_millis(20);

/// What is done to the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    Nothing,
    /// A CRC-32C at both ends, as every link has it that is to notice damage.
    Checksum,
}

impl Touch {
    fn touch(self, bytes: &[u8]) {
        if self == Self::Checksum {
            black_box(Crc32c::new().with(bytes).value());
        }
    }
}

/// Sends transfers of full length, as many at once as there is memory for.
pub(crate) async fn send(mut outlet: impl Outlet, touch: Touch) -> Result<Infallible> {
    loop {
        while let Some(buffer) = outlet.buffer() {
            touch.touch(buffer);
            let len = buffer.len();
            outlet.submit(len)?;
        }
        poll_fn(|cx| outlet.poll_finished(cx)).await?;
    }
}

/// Counts what comes.
pub(crate) async fn receive(
    mut inlet: impl Inlet,
    touch: Touch,
    received: Arc<AtomicU64>,
) -> Result<Infallible> {
    loop {
        let take = |bytes: &[u8]| {
            touch.touch(bytes);
            bytes.len()
        };
        let bytes = poll_fn(|cx| inlet.poll_transfer(cx).map(|transfer| transfer.map(take))).await?;
        received.fetch_add(bytes as u64, Ordering::Relaxed);
        inlet.release()?;
    }
}

/// The host's endpoints with nothing but nusb: what is sent is never written to, what comes is never looked at.
pub(crate) struct BareInlet {
    endpoint: Endpoint<Bulk, In>,
    read_bytes: usize,
    current: Option<Buffer>,
}

/// See [`BareInlet`].
pub(crate) struct BareOutlet {
    endpoint: Endpoint<Bulk, Out>,
    free: VecDeque<Buffer>,
    depth: usize,
}

/// Opens those of a cable: transfers of so many bytes, and so many each way.
pub(crate) async fn bare(cable: usize, bytes: usize, depth: usize) -> Result<End<BareInlet, BareOutlet>> {
    let serial = serial(cable);
    let mut devices = nusb::list_devices().await?;
    let device = devices.find(|device| device.serial_number() == Some(&serial));
    let device = device.context("the cable is out")?.open().await?;
    // The last ones that had it may need a moment to end.
    let deadline = Instant::now() + PATIENCE;
    let interface = loop {
        match device.claim_interface(0).await {
            Err(e) if e.kind() == ErrorKind::Busy && Instant::now() < deadline => sleep(RETRY).await,
            claimed => break claimed?,
        }
    };
    let mut to_host = interface.endpoint::<Bulk, In>(0x81)?;
    let from_host = interface.endpoint::<Bulk, Out>(0x02)?;
    for _ in 0..depth {
        let buffer = to_host.allocate(bytes);
        to_host.submit(buffer);
    }
    let free = (0..depth).map(|_| {
        let mut buffer = from_host.allocate(bytes);
        buffer.extend_fill(bytes, 0);
        buffer
    });
    let outlet = BareOutlet { free: free.collect(), depth, endpoint: from_host };
    Ok(End { inlet: BareInlet { endpoint: to_host, read_bytes: bytes, current: None }, outlet })
}

impl Inlet for BareInlet {
    fn read_bytes(&self) -> usize {
        self.read_bytes
    }

    fn poll_transfer(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<&[u8]>> {
        let completion = ready!(self.endpoint.poll_next_complete(cx));
        completion.status?;
        let buffer = self.current.insert(completion.buffer);
        Poll::Ready(Ok(&buffer[..completion.actual_len]))
    }

    fn release(&mut self) -> io::Result<()> {
        self.current.take().into_iter().for_each(|buffer| self.endpoint.submit(buffer));
        Ok(())
    }
}

impl Outlet for BareOutlet {
    fn packet_bytes(&self) -> usize {
        self.endpoint.max_packet_size()
    }

    fn buffer(&mut self) -> Option<&mut [u8]> {
        self.free.front_mut().map(|buffer| &mut buffer[..])
    }

    fn submit(&mut self, _len: usize) -> io::Result<()> {
        self.endpoint.submit(self.free.pop_front().ok_or(io::ErrorKind::WouldBlock)?);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.endpoint.pending()
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn poll_finished(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let completion = ready!(self.endpoint.poll_next_complete(cx));
        completion.status?;
        self.free.push_back(completion.buffer);
        Poll::Ready(Ok(()))
    }
}
