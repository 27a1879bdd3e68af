//! A terminal as the UART of a device.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

pub(crate) struct Tty(File);

/// What the system said.
#[derive(Debug)]
pub(crate) struct Fault(#[allow(dead_code, reason = "for messages")] io::Error);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Fault {}

impl embedded_io::Error for Fault {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl Tty {
    pub(crate) fn open(path: &Path, baud: u32) -> io::Result<Self> {
        let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits() as i32).open(path)?;
        let mut termios = tcgetattr(&file)?;
        termios.make_raw();
        termios.set_speed(baud)?;
        tcsetattr(&file, OptionalActions::Now, &termios)?;
        Ok(Self(file))
    }

    fn is_ready(&self, what: PollFlags) -> Result<bool, Fault> {
        let mut polled = [PollFd::new(&self.0, what)];
        poll(&mut polled, Some(&rustix::event::Timespec::default())).map_err(|error| Fault(error.into()))?;
        Ok(polled[0].revents().contains(what))
    }
}

impl ErrorType for Tty {
    type Error = Fault;
}

impl Read for Tty {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.0.read(buffer).map_err(Fault)
    }
}

impl ReadReady for Tty {
    fn read_ready(&mut self) -> Result<bool, Fault> {
        self.is_ready(PollFlags::IN)
    }
}

impl Write for Tty {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        // As much as the FIFO of a UART takes.
        self.0.write(&bytes[..bytes.len().min(16)]).map_err(Fault)
    }

    fn flush(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

impl WriteReady for Tty {
    fn write_ready(&mut self) -> Result<bool, Fault> {
        self.is_ready(PollFlags::OUT)
    }
}
