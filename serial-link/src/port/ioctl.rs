//! System calls of terminals. Each is small, and is all that its caller knows of it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use tokio_serial::SerialStream;

/// The descriptor of a port, for as long as the port is borrowed.
pub(super) fn descriptor(stream: &SerialStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns the descriptor, keeps it open while it lives, and is borrowed for the lifetime of the result.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use linux::{queued_bytes, set_low_latency};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) use other::{queued_bytes, set_low_latency};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::ffi::{c_int, c_uint, c_ulong, c_ushort, c_void};

    use rustix::ioctl::{Getter, Opcode, Setter, ioctl};

    use super::{BorrowedFd, io};

    // Their numbers differ between architectures.
    const TIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;
    const TIOCGSERIAL: Opcode = libc::TIOCGSERIAL as Opcode;
    const TIOCSSERIAL: Opcode = libc::TIOCSSERIAL as Opcode;
    /// Of linux/tty_flags.h.
    const ASYNC_LOW_LATENCY: c_int = 1 << 13;

    /// `struct serial_struct` of linux/serial.h.
    #[repr(C)]
    struct SerialStruct {
        kind: c_int,
        line: c_int,
        port: c_uint,
        irq: c_int,
        flags: c_int,
        xmit_fifo_size: c_int,
        custom_divisor: c_int,
        baud_base: c_int,
        close_delay: c_ushort,
        io_type: u8,
        reserved_char: u8,
        hub6: c_int,
        closing_wait: c_ushort,
        closing_wait2: c_ushort,
        iomem_base: *mut c_void,
        iomem_reg_shift: c_ushort,
        port_high: c_uint,
        iomap_base: c_ulong,
    }

    pub(in crate::port) fn queued_bytes(port: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: TIOCOUTQ writes one int through its argument and does nothing else (ioctl_tty(2)).
        let queued = unsafe { ioctl(port, Getter::<TIOCOUTQ, c_int>::new()) }?;
        Ok(usize::try_from(queued).unwrap_or(0))
    }

    /// Has the driver hand over what arrives at once, and an FTDI chip wait one millisecond for more instead of sixteen.
    pub(in crate::port) fn set_low_latency(port: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: TIOCGSERIAL fills one serial_struct, whose layout above is that of the kernel's interface.
        let mut settings = unsafe { ioctl(port, Getter::<TIOCGSERIAL, SerialStruct>::new()) }?;
        settings.flags |= ASYNC_LOW_LATENCY;
        // SAFETY: TIOCSSERIAL reads one serial_struct; what the kernel gave goes back with one flag more.
        unsafe { ioctl(port, Setter::<TIOCSSERIAL, SerialStruct>::new(settings)) }?;
        Ok(())
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod other {
    use super::{BorrowedFd, io};

    pub(in crate::port) fn queued_bytes(_port: BorrowedFd<'_>) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::port) fn set_low_latency(_port: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
