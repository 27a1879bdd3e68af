//! The two bulk endpoints of a function, as long as one session uses them.
//!
//! Each session opens the endpoint files anew. Closing them cancels what was under way, so nothing of one session waits in
//! the kernel for the next.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::OFlags;
use tokio::sync::OwnedSemaphorePermit;

use super::caretaker::Caretaker;
use super::sys::{Operation, Requests, packet_bytes};
use crate::Speed;
use crate::limits::TRANSFERS_MIN;
use crate::transfers::{Inlet, Outlet};

/// Files of the endpoints in a FunctionFS folder: numbered in the order of the descriptors.
const IN_FILE: &str = "ep1";
const OUT_FILE: &str = "ep2";

/// What the device receives.
pub struct DeviceInlet {
    requests: Requests,
    read_bytes: usize,
    _lease: Arc<Lease>,
}

/// What the device sends.
pub struct DeviceOutlet {
    requests: Requests,
    packet_bytes: usize,
    _lease: Arc<Lease>,
}

/// What a session holds, until both of its halves are dropped.
pub(super) struct Lease {
    /// One session at a time has the endpoints.
    pub(super) _permit: OwnedSemaphorePermit,
    /// Ends the requests should this program be killed.
    pub(super) _caretaker: Option<Arc<Caretaker>>,
}

/// Opens both endpoints of the function in `folder`; reads are under way when it returns.
pub(super) fn open(folder: &Path, lease: Lease) -> io::Result<(DeviceInlet, DeviceOutlet)> {
    // While the function is disabled, requests on these files must fail and not wait in the system call.
    let open = |name| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(folder.join(name))
    };
    let (to_host, from_host) = (open(IN_FILE)?, open(OUT_FILE)?);
    let packet_bytes = packet_bytes(&to_host)?;
    let shape = Speed::of_packets(packet_bytes).shape();
    let requests = |file: std::fs::File, operation| {
        Requests::new(file.into(), operation, shape.transfers, shape.transfer_bytes)
    };
    let lease = Arc::new(lease);
    let mut inlet = DeviceInlet {
        requests: requests(from_host, Operation::Read)?,
        read_bytes: shape.transfer_bytes,
        _lease: lease.clone(),
    };
    while inlet.requests.next_buffer().is_some() {
        inlet.submit()?;
    }
    Ok((inlet, DeviceOutlet { requests: requests(to_host, Operation::Write)?, packet_bytes, _lease: lease }))
}

impl DeviceInlet {
    /// Reads into the next memory. With less kernel memory than hoped for it goes on with fewer reads.
    fn submit(&mut self) -> io::Result<()> {
        match self.requests.submit(self.read_bytes) {
            Err(e) if is_out_of_memory(&e) && self.requests.count() >= TRANSFERS_MIN => Ok(()),
            result => result.map_err(explained),
        }
    }
}

impl Inlet for DeviceInlet {
    fn read_bytes(&self) -> usize {
        self.read_bytes
    }

    fn poll_transfer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let bytes = loop {
            match ready!(self.requests.poll_oldest(cx)) {
                Ok(bytes) => break bytes,
                Err(e) if is_out_of_memory(&e) && self.requests.count() >= TRANSFERS_MIN => {}
                Err(e) => return Poll::Ready(Err(explained(e))),
            }
        };
        Poll::Ready(Ok(&self.requests.last_buffer()[..bytes]))
    }

    fn release(&mut self) -> io::Result<()> {
        self.submit()
    }
}

impl Outlet for DeviceOutlet {
    fn packet_bytes(&self) -> usize {
        self.packet_bytes
    }

    fn buffer(&mut self) -> Option<&mut [u8]> {
        self.requests.next_buffer()
    }

    fn submit(&mut self, len: usize) -> io::Result<()> {
        self.requests.submit(len).map_err(explained)
    }

    fn in_flight(&self) -> usize {
        self.requests.count()
    }

    fn depth(&self) -> usize {
        self.requests.depth()
    }

    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.requests.poll_oldest(cx)) {
            Ok(_) => Poll::Ready(Ok(())),
            // The transfer is lost, as a link may lose packets; the next finds memory again.
            Err(e) if is_out_of_memory(&e) => Poll::Ready(Ok(())),
            Err(e) => Poll::Ready(Err(explained(e))),
        }
    }
}

fn is_out_of_memory(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOMEM)
}

/// What an error of a request means. Every one but those for want of memory ends the link.
fn explained(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ESHUTDOWN | libc::EAGAIN | libc::ENODEV | libc::ECONNRESET) => io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the host is gone: the cable is out, or it chose another configuration",
        ),
        _ => error,
    }
}
