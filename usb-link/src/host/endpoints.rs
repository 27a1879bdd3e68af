//! Transfers of the host, through nusb.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use nusb::Endpoint;
use nusb::transfer::{Buffer, Bulk, Completion, In, Out, TransferError};

use crate::Speed;
use crate::limits::{TRANSFER_MAX_BYTES, TRANSFERS_MIN};
use crate::transfers::{Inlet, Outlet};

/// Linux' error for "no memory": usbfs has 16 MiB for all programs together.
const OUT_OF_MEMORY: u32 = 12;

/// What the host receives.
#[derive(Debug)]
pub struct HostInlet {
    endpoint: Endpoint<Bulk, In>,
    read_bytes: usize,
    /// The transfer that the link looks at.
    current: Option<Buffer>,
}

/// What the host sends.
#[derive(Debug)]
pub struct HostOutlet {
    endpoint: Endpoint<Bulk, Out>,
    free: VecDeque<Buffer>,
    depth: usize,
    /// The next transfer is put together here: what is sent from cannot be written at any place.
    next: Vec<u8>,
}

/// Makes both ready; reads are under way when it returns.
pub(super) fn start(
    to_host: Endpoint<Bulk, In>,
    from_host: Endpoint<Bulk, Out>,
) -> io::Result<(HostInlet, HostOutlet)> {
    let shape = Speed::of_packets(from_host.max_packet_size()).shape();
    // The device may send transfers as long as the reads are, and learns their length from HELLO.
    let packet_bytes = to_host.max_packet_size();
    let read_bytes = shape
        .transfer_bytes
        .next_multiple_of(packet_bytes)
        .min(TRANSFER_MAX_BYTES / packet_bytes * packet_bytes);
    let mut inlet = HostInlet { endpoint: to_host, read_bytes, current: None };
    let reads = buffers(shape.transfers, |_| inlet.endpoint.allocate(read_bytes));
    let writes = buffers(shape.transfers, |_| from_host.allocate(shape.transfer_bytes));
    for read in reads {
        inlet.endpoint.submit(read);
    }
    let outlet = HostOutlet {
        endpoint: from_host,
        depth: writes.len(),
        free: writes.into(),
        next: vec![0; shape.transfer_bytes],
    };
    Ok((inlet, outlet))
}

/// So many buffers, or as many as the kernel has memory for. Without any of the kernel's own (an old kernel, or another
/// system) plain memory serves.
fn buffers(count: usize, allocate: impl Fn(usize) -> Buffer) -> Vec<Buffer> {
    let mut buffers: Vec<Buffer> = Vec::with_capacity(count);
    for index in 0..count {
        let buffer = allocate(index);
        let ran_out = !buffer.is_zero_copy() && buffers.iter().any(Buffer::is_zero_copy);
        if ran_out && buffers.len() >= TRANSFERS_MIN {
            tracing::debug!(target: "bondwire", "usb: {index} buffers and no more");
            break;
        }
        buffers.push(buffer);
    }
    buffers
}

impl Inlet for HostInlet {
    fn read_bytes(&self) -> usize {
        self.read_bytes
    }

    fn poll_transfer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let bytes = loop {
            if self.endpoint.pending() == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::OutOfMemory)));
            }
            let Completion { buffer, actual_len, status } = ready!(self.endpoint.poll_next_complete(cx));
            match status {
                Ok(()) => {
                    self.current = Some(buffer);
                    break actual_len;
                }
                // One read less; those that are under way have their memory.
                Err(TransferError::Unknown(OUT_OF_MEMORY)) => {}
                Err(e) => return Poll::Ready(Err(explained(e))),
            }
        };
        let buffer = self.current.as_deref().unwrap_or_default();
        Poll::Ready(Ok(&buffer[..bytes.min(buffer.len())]))
    }

    fn release(&mut self) -> io::Result<()> {
        if let Some(buffer) = self.current.take() {
            self.endpoint.submit(buffer);
        }
        Ok(())
    }
}

impl Outlet for HostOutlet {
    fn packet_bytes(&self) -> usize {
        self.endpoint.max_packet_size()
    }

    fn buffer(&mut self) -> Option<&mut [u8]> {
        (!self.free.is_empty()).then_some(&mut self.next)
    }

    fn submit(&mut self, len: usize) -> io::Result<()> {
        let mut buffer = self.free.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        buffer.clear();
        buffer.extend_from_slice(&self.next[..len]);
        self.endpoint.submit(buffer);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.endpoint.pending()
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.endpoint.pending() == 0 {
            return Poll::Pending;
        }
        let Completion { buffer, status, .. } = ready!(self.endpoint.poll_next_complete(cx));
        match status {
            Ok(()) => self.free.push_back(buffer),
            // The transfer is lost, as a link may lose packets. It goes on with fewer of them.
            Err(TransferError::Unknown(OUT_OF_MEMORY)) if self.depth > 1 => self.depth -= 1,
            Err(e) => return Poll::Ready(Err(explained(e))),
        }
        Poll::Ready(Ok(()))
    }
}

/// Systems say in different ways that a cable is out: `Fault` or `Disconnected` on Linux, `Stall` on Windows.
fn explained(error: TransferError) -> io::Error {
    match error {
        TransferError::Stall if cfg!(not(windows)) => io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the device refuses transfers (its endpoint is stalled): its program has failed, or is none of Bondwire's; \
             start Bondwire on it anew",
        ),
        TransferError::Disconnected | TransferError::Fault | TransferError::Stall => io::Error::new(
            io::ErrorKind::ConnectionAborted,
            format!("the cable is out, or the device has stopped ({error})"),
        ),
        TransferError::Unknown(OUT_OF_MEMORY) => io::Error::new(
            io::ErrorKind::OutOfMemory,
            "the kernel has no memory for more USB transfers; raise /sys/module/usbcore/parameters/usbfs_memory_mb",
        ),
        error => error.into(),
    }
}
