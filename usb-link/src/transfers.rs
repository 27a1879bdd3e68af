//! What a link needs of a pair of bulk endpoints, whatever is behind them: [`UsbLink::open`](crate::UsbLink::open) makes a link of
//! any. This crate has them through nusb and FunctionFS; others can be added, as for a system's own USB library.

use std::io;
use std::task::{Context, Poll};

/// Sends transfers.
pub trait Outlet: Send + 'static {
    /// Packet size of the endpoint, in bytes.
    fn packet_bytes(&self) -> usize;

    /// Memory for the next transfer; none while all of it is under way.
    fn buffer(&mut self) -> Option<&mut [u8]>;

    /// Sends the first `len` bytes of that memory, behind what is under way. Fails when the link is over.
    fn submit(&mut self, len: usize) -> io::Result<()>;

    /// Transfers under way.
    fn in_flight(&self) -> usize;

    /// Transfers that can be under way.
    fn depth(&self) -> usize;

    /// Takes a transfer that has ended off those under way. Fails when the link is over. Pending also if none is under way;
    /// then the waker hears nothing.
    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Receives transfers. All its reads are under way from the beginning.
pub trait Inlet: Send + 'static {
    /// Length of its reads, in bytes.
    fn read_bytes(&self) -> usize;

    /// The next transfer, in the order in which they were sent. [`release`](Self::release) must follow before the next
    /// call. Fails when the link is over.
    fn poll_transfer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>>;

    /// The transfer was taken: its memory is read into again.
    fn release(&mut self) -> io::Result<()>;
}
