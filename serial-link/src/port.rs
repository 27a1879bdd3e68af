//! The port itself: opening, settings, locks.

#[allow(unsafe_code, reason = "three system calls of terminals that no library wraps")]
mod ioctl;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::termios::{QueueSelector, isatty, tcflush};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_serial::{FlowControl, SerialPort as _, SerialPortBuilderExt as _, SerialStream};

use crate::console::{self, StoppedGetty};
use crate::discover::{self, Places};
use crate::{PortError, SerialAddress};

/// A byte port that a link can run on.
pub(crate) trait Port: Send + 'static {
    /// As `AsyncRead` has it; zero bytes mean that the port is gone.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// As `AsyncWrite` has it.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Changes the rate at once.
    fn set_baud(&mut self, baud: u32) -> io::Result<()>;
    /// Bytes that the driver has and the line has not, as far as the driver says.
    fn queued_bytes(&self) -> usize;
    /// Drops what the driver has: closing would wait for it, half a minute if need be.
    fn discard_output(&mut self);
}

/// A terminal of the system, locked for this process.
#[derive(Debug)]
pub(crate) struct TtyPort {
    stream: SerialStream,
    /// Whether the driver has a rate to set at all.
    has_baud: bool,
    /// Dropped after the stream.
    _getty: Option<StoppedGetty>,
}

/// What was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) port: TtyPort,
    /// Whether the line has the pace of its baud rate. A USB device that talks CDC ACM need not have a line at all.
    pub(crate) paced: bool,
}

/// Opens the port that `address` names. Blocks for a moment.
pub(crate) fn open(address: &SerialAddress) -> Result<Opened, PortError> {
    let places = Places::default();
    let path = discover::resolve(&address.port, &places)?;
    let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The device's end of a USB serial cable: the kernel's drivers/usb/gadget/function/u_serial.c says 9600 whatever it is asked.
    let is_gadget = name.starts_with("ttyGS");
    check(&path, &places)?;
    let getty = clear_getty(address, &path, &real, &places)?;
    probe(&path, &places)?;
    let baud = address.start_baud();
    let builder = tokio_serial::new(path.to_string_lossy(), baud).flow_control(if address.rtscts {
        FlowControl::Hardware
    } else {
        FlowControl::None
    });
    let stream =
        builder.dtr_on_open(true).open_native_async().map_err(|error| refused(&path, baud, error))?;
    let mut port = TtyPort { stream, has_baud: !is_gadget, _getty: getty };
    port.verify_baud(baud).map_err(|_| PortError::Baud { path: path.clone(), baud })?;
    if address.low_latency {
        // Pseudo-terminals and some drivers have no such flag, and need none.
        let _ = ioctl::set_low_latency(port.descriptor());
    }
    let _ = tcflush(port.descriptor(), QueueSelector::IOFlush);
    if console::is_kernel_console(&name, &places.tty.join("console/active")) {
        tracing::warn!(target: "bondwire", "kernel messages go to {}: they damage packets now and then; `dmesg -n 1` stops most", path.display());
    }
    Ok(Opened { port, paced: !is_gadget && !name.starts_with("ttyACM") })
}

/// Whether the port is there at all, and is one.
fn check(path: &Path, places: &Places) -> Result<(), PortError> {
    let options = OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new().read(true).write(true).custom_flags(options.bits() as i32).open(path);
    match file {
        Ok(file) if isatty(&file) => Ok(()),
        Ok(_) => Err(PortError::NotATerminal(path.to_owned())),
        Err(error) => Err(open_fault(path, error, places)),
    }
}

fn open_fault(path: &Path, error: io::Error, places: &Places) -> PortError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => PortError::NotFound(path),
        io::ErrorKind::PermissionDenied => {
            let advice = discover::permission_advice(&path, &places.group);
            PortError::Permission { path, advice }
        }
        // EBUSY is the answer to TIOCEXCL of another program.
        io::ErrorKind::ResourceBusy => busy(&path, places),
        io::ErrorKind::IsADirectory => PortError::NotATerminal(path),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            PortError::NotFound(path)
        }
        _ => PortError::Io { path, error },
    }
}

fn busy(path: &Path, places: &Places) -> PortError {
    let holder = console::holders(path, &places.proc).first().map(console::Holder::text);
    PortError::Busy { path: path.to_owned(), holder }
}

/// Stops a login prompt on the port if that was asked for, and refuses the port if not.
fn clear_getty(
    address: &SerialAddress,
    path: &Path,
    real: &Path,
    places: &Places,
) -> Result<Option<StoppedGetty>, PortError> {
    let holders = console::holders(path, &places.proc);
    let Some(getty) = holders.iter().find(|holder| holder.is_getty()) else { return Ok(None) };
    let unit = real.strip_prefix("/dev").unwrap_or(real).to_string_lossy().replace('/', "-");
    if address.stop_getty {
        return StoppedGetty::stop(&unit, "systemctl").map(Some);
    }
    Err(PortError::Getty { path: path.to_owned(), holder: getty.text(), unit })
}

/// Whether nobody has the port locked. The lock is let go of again: the port is locked when it is opened for good. Looked at
/// first, as that takes the mark of exclusive use away from whoever set it, if it fails.
fn probe(path: &Path, places: &Places) -> Result<(), PortError> {
    let options = OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new().read(true).write(true).custom_flags(options.bits() as i32).open(path);
    let file = file.map_err(|error| open_fault(path, error, places))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(busy(path, places)),
        Err(error) => Err(PortError::Io { path: path.to_owned(), error: error.into() }),
    }
}

fn refused(path: &Path, baud: u32, error: tokio_serial::Error) -> PortError {
    let path: PathBuf = path.to_owned();
    match error.kind() {
        tokio_serial::ErrorKind::InvalidInput => PortError::Baud { path, baud },
        tokio_serial::ErrorKind::NoDevice => busy(&path, &Places::default()),
        _ => PortError::Io { path, error: error.into() },
    }
}

impl TtyPort {
    fn descriptor(&self) -> BorrowedFd<'_> {
        ioctl::descriptor(&self.stream)
    }

    /// Whether the driver took the rate. Many take the nearest that they can do, and say so.
    fn verify_baud(&mut self, baud: u32) -> io::Result<()> {
        if !self.has_baud {
            return Ok(());
        }
        let actual = self.stream.baud_rate()?;
        let off = u64::from(actual.abs_diff(baud));
        // 2 %: half of what two UARTs can be apart.
        if off * 50 > u64::from(baud) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the port took {actual} baud")));
        }
        Ok(())
    }
}

impl AsFd for TtyPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}

impl Port for TtyPort {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        read.map(|result| result.map(|()| buffer.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<()> {
        let before = self.stream.baud_rate()?;
        self.stream.set_baud_rate(baud)?;
        self.verify_baud(baud).inspect_err(|_| {
            let _ = self.stream.set_baud_rate(before);
        })
    }

    fn queued_bytes(&self) -> usize {
        ioctl::queued_bytes(self.descriptor()).unwrap_or(0)
    }

    fn discard_output(&mut self) {
        let _ = tcflush(self.descriptor(), QueueSelector::OFlush);
    }
}
