//! System calls for FunctionFS that no crate wraps: Linux AIO, and the question for an endpoint's packet size.
//!
//! AIO, and not io_uring, because its requests on these files can be cancelled; and not threads, because a thread that
//! waits in `read` cannot be.

#![allow(
    unsafe_code,
    reason = "system calls, and memory that the kernel reads and writes while a request is under way"
)]

use std::ffi::c_long;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::task::{Context, Poll, ready};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::unix::AsyncFd;

use super::caretaker;

/// linux/aio_abi.h.
const OPCODE_READ: u16 = 0;
const OPCODE_WRITE: u16 = 1;
const FLAG_EVENTFD: u32 = 1;

#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    /// Key and flags, whose order depends on the byte order; both are 0.
    key_and_flags: [u32; 2],
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    request: u64,
    result: i64,
    result2: i64,
}

const _: () = assert!(size_of::<Request>() == 64 && size_of::<Event>() == 32);

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Read,
    Write,
}

/// Memory for one request. While one is under way the memory is the kernel's.
struct Slot {
    memory: NonNull<[u8]>,
    state: SlotState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Free,
    UnderWay,
    Done(i64),
}

/// Requests on one endpoint file. Each has a slot; slots are used one after another, so that results are taken in the order
/// of the requests even where the kernel completes them in another.
pub(super) struct Requests {
    context: libc::c_ulong,
    /// Given back after the context's end, so that nobody misses it.
    _registered: caretaker::Registered,
    completed: AsyncFd<OwnedFd>,
    slots: Vec<Slot>,
    /// The oldest request, and how many there are.
    first: usize,
    count: usize,
    file: OwnedFd,
    operation: Operation,
}

// SAFETY: the memory of the slots belongs to this value alone (or to the kernel); `NonNull` only hides that.
unsafe impl Send for Requests {}

impl Requests {
    /// For `depth` requests of at most `bytes` each on `file`, which must be open without blocking. Needs a tokio runtime.
    pub(super) fn new(file: OwnedFd, operation: Operation, depth: usize, bytes: usize) -> io::Result<Self> {
        let completed = watched(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the pointer is to a context id of 0, as io_setup(2) asks.
        check(unsafe { libc::syscall(libc::SYS_io_setup, depth as c_long, &raw mut context) })?;
        let slots = (0..depth).map(|_| Slot {
            memory: NonNull::from(Box::leak(vec![0; bytes].into_boxed_slice())),
            state: SlotState::Free,
        });
        let _registered = caretaker::register(context as usize);
        Ok(Self {
            context,
            _registered,
            completed,
            slots: slots.collect(),
            first: 0,
            count: 0,
            file,
            operation,
        })
    }

    pub(super) fn depth(&self) -> usize {
        self.slots.len()
    }

    /// Requests begun whose results have not been taken.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The memory of the next request; none while all of it is in use.
    pub(super) fn next_buffer(&mut self) -> Option<&mut [u8]> {
        let at = self.next_slot()?;
        // SAFETY: a free slot's memory is this value's alone, and it is borrowed as long as the slice.
        Some(unsafe { self.slots[at].memory.as_mut() })
    }

    fn next_slot(&self) -> Option<usize> {
        (self.count < self.slots.len()).then(|| (self.first + self.count) % self.slots.len())
    }

    /// Begins the next request, with the first `bytes` of its memory.
    pub(super) fn submit(&mut self, bytes: usize) -> io::Result<()> {
        let at = self.next_slot().ok_or(io::ErrorKind::WouldBlock)?;
        let slot = &mut self.slots[at];
        debug_assert!(slot.state == SlotState::Free && bytes <= slot.memory.len());
        let mut request = Request {
            data: at as u64,
            opcode: if self.operation == Operation::Read { OPCODE_READ } else { OPCODE_WRITE },
            file: self.file.as_raw_fd() as u32,
            buffer: slot.memory.as_ptr().cast::<u8>().addr() as u64,
            bytes: bytes.min(slot.memory.len()) as u64,
            flags: FLAG_EVENTFD,
            eventfd: self.completed.as_raw_fd() as u32,
            ..Request::default()
        };
        // The kernel gets the address as a number.
        slot.memory.as_ptr().cast::<u8>().expose_provenance();
        let mut list = [&raw mut request];
        // SAFETY: the list and the request live until the call returns, by when the kernel has copied them. The memory is
        // the slot's own, is not touched before the request's event has come, and is freed only after io_destroy.
        check(unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1 as c_long, list.as_mut_ptr()) })?;
        slot.state = SlotState::UnderWay;
        self.count += 1;
        Ok(())
    }

    /// Waits for the oldest request and takes its result: the bytes that it moved. Pending also if there is none.
    pub(super) fn poll_oldest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.count == 0 {
            return Poll::Pending;
        }
        let at = self.first;
        loop {
            if let SlotState::Done(result) = self.slots[at].state {
                self.slots[at].state = SlotState::Free;
                (self.first, self.count) = ((self.first + 1) % self.slots.len(), self.count - 1);
                return Poll::Ready(match usize::try_from(result) {
                    Ok(bytes) => Ok(bytes),
                    Err(_) => Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO))),
                });
            }
            let mut guard = ready!(self.completed.poll_read_ready(cx))?;
            match rustix::io::read(guard.get_inner(), &mut [0; 8]) {
                // What is counted there may be more than what is taken here, so the events are fetched in any case.
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(e) => return Poll::Ready(Err(e.into())),
            }
            drop(guard);
            self.fetch_events()?;
        }
    }

    /// The memory of the request whose result was taken last.
    pub(super) fn last_buffer(&self) -> &[u8] {
        let at = (self.first + self.slots.len() - 1) % self.slots.len();
        if self.slots[at].state != SlotState::Free {
            return &[];
        }
        // SAFETY: as in `next_buffer`.
        unsafe { self.slots[at].memory.as_ref() }
    }

    fn fetch_events(&mut self) -> io::Result<()> {
        loop {
            let mut events = [Event::default(); 16];
            let mut no_time = [0 as c_long; 2];
            // SAFETY: room for as many events as are asked for; the time is a `timespec` of two longs.
            let count = check(unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    0 as c_long,
                    events.len() as c_long,
                    events.as_mut_ptr(),
                    no_time.as_mut_ptr(),
                )
            })?;
            for event in &events[..count] {
                if let Some(slot) = usize::try_from(event.data).ok().and_then(|at| self.slots.get_mut(at)) {
                    slot.state = SlotState::Done(event.result);
                }
            }
            if count < events.len() {
                return Ok(());
            }
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // SAFETY: the context is this value's. The call cancels what is under way and waits until the kernel is done with
        // it, so the memory is free afterwards.
        let destroyed = unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
        if destroyed != 0 {
            // Rather lost than written to by the kernel after somebody else got it.
            return;
        }
        for slot in &self.slots {
            // SAFETY: it came from `Box::leak`, and nobody else has it.
            drop(unsafe { Box::from_raw(slot.memory.as_ptr()) });
        }
    }
}

/// A file whose readiness the runtime watches. It must not block.
fn watched(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has one descriptor, open as long as it lives, and the `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register(file) }?)
}

/// The same for a [`File`].
pub(super) fn watched_file(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: as above.
    Ok(unsafe { AsyncFd::register(file) }?)
}

fn check(result: c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The packet size of an endpoint at the present speed, in bytes. Fails with `WouldBlock` while no host has configured the
/// device.
pub(super) fn packet_bytes(endpoint: impl AsFd) -> io::Result<usize> {
    fn ask(endpoint: BorrowedFd<'_>) -> io::Result<usize> {
        /// FUNCTIONFS_ENDPOINT_DESC: `_IOR('g', 130, struct usb_endpoint_descriptor)`, which has 9 bytes.
        const ENDPOINT_DESCRIPTOR: u32 = (2 << 30) | (9 << 16) | ((b'g' as u32) << 8) | 130;
        let mut descriptor = [0_u8; 9];
        // SAFETY: the kernel writes 9 bytes into the 9 that are there.
        let result = unsafe {
            libc::ioctl(endpoint.as_raw_fd(), ENDPOINT_DESCRIPTOR as _, ptr::from_mut(&mut descriptor))
        };
        check(result.into())?;
        // Bits 11 and 12 have another meaning, for other endpoints than bulk.
        Ok(usize::from(u16::from_le_bytes([descriptor[4], descriptor[5]]) & 0x7ff))
    }
    ask(endpoint.as_fd())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Seek, Write};

    use super::*;

    async fn result(requests: &mut Requests) -> io::Result<usize> {
        poll_fn(|cx| requests.poll_oldest(cx)).await
    }

    #[tokio::test]
    async fn requests_write_and_read_in_order() {
        let mut file = tempfile::tempfile().unwrap();
        let mut writes = Requests::new(file.try_clone().unwrap().into(), Operation::Write, 4, 8).unwrap();
        // At offset 0, each: the last one stays.
        for round in 0..10_u8 {
            while writes.next_buffer().is_none() {
                assert_eq!(result(&mut writes).await.unwrap(), 5);
            }
            writes.next_buffer().unwrap()[..5].fill(round);
            writes.submit(5).unwrap();
        }
        while writes.count() > 0 {
            assert_eq!(result(&mut writes).await.unwrap(), 5);
        }
        let mut text = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut text).unwrap();
        assert_eq!(text, [9; 5]);

        let mut reads = Requests::new(file.into(), Operation::Read, 2, 16).unwrap();
        assert_eq!(reads.depth(), 2);
        for _ in 0..20 {
            reads.submit(16).unwrap();
            reads.submit(3).unwrap();
            assert!(reads.next_buffer().is_none());
            assert!(reads.submit(1).is_err(), "all slots are in use");
            assert_eq!(result(&mut reads).await.unwrap(), 5);
            assert_eq!(reads.last_buffer()[..5], [9; 5]);
            assert_eq!(result(&mut reads).await.unwrap(), 3);
        }
    }

    #[tokio::test]
    async fn a_request_that_fails_says_so() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"text").unwrap();
        let read_only = File::open(file.path()).unwrap();
        let mut writes = Requests::new(read_only.into(), Operation::Write, 1, 8).unwrap();
        // The kernel refuses it at once or completes it with the error.
        let error = match writes.submit(4) {
            Ok(()) => result(&mut writes).await.unwrap_err(),
            Err(e) => e,
        };
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn other_files_have_no_packet_size() {
        let file = tempfile::tempfile().unwrap();
        assert!(packet_bytes(&file).is_err());
    }
}
