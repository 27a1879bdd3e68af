//! One FunctionFS function: its descriptors, and what the kernel tells about the host through `ep0`.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bondwire_frame::Role;
use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, watch};

use super::caretaker::Caretaker;
use super::endpoints::{DeviceInlet, DeviceOutlet, Lease};
use super::{descriptors, endpoints, sys};
use crate::{INTERFACE_CLASS, UsbLink};

/// `struct usb_functionfs_event`: a SETUP packet, then the type.
const EVENT_BYTES: usize = 12;
const EVENT_TYPE_AT: usize = 8;
/// Events that are read at once: the kernel keeps four.
const EVENTS: usize = 4;

/// Types of linux/usb/functionfs.h. Suspend and resume say nothing about the link: a bus that sleeps is silent, which the
/// keep-alive notices.
const UNBIND: u8 = 1;
const ENABLE: u8 = 2;
const DISABLE: u8 = 3;
const SETUP: u8 = 4;
/// In the first byte of SETUP: the host wants to read.
const TO_HOST: u8 = 0x80;

/// A function that the kernel knows. Dropping it takes it off the bus.
pub(super) struct Function {
    folder: PathBuf,
    ep0: AsyncFd<File>,
    /// Whether a host has configured it, as far as was heard.
    enabled: watch::Sender<bool>,
    /// One session at a time has the endpoints.
    lease: Arc<Semaphore>,
    caretaker: Option<Arc<Caretaker>>,
}

impl Function {
    /// Describes the function to the kernel, in a folder where FunctionFS is mounted.
    pub(super) fn open(folder: &Path, interface_name: &str) -> io::Result<Self> {
        let mut ep0 = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(folder.join("ep0"))?;
        ep0.write_all(&descriptors::descriptors(INTERFACE_CLASS))?;
        ep0.write_all(&descriptors::strings(interface_name))?;
        Ok(Self {
            folder: folder.to_owned(),
            ep0: sys::watched_file(ep0)?,
            enabled: watch::Sender::new(false),
            lease: Arc::new(Semaphore::new(1)),
            caretaker: Caretaker::running(),
        })
    }

    /// Listens to the kernel for as long as it is polled.
    pub(super) async fn follow_events(&self) -> io::Result<Infallible> {
        loop {
            let mut events = [0; EVENTS * EVENT_BYTES];
            let mut guard = self.ep0.readable().await?;
            let read = match guard.try_io(|ep0| ep0.get_ref().read(&mut events)) {
                Ok(read) => read,
                Err(_would_block) => continue,
            };
            match read {
                Ok(bytes) => {
                    let (events, _) = events[..bytes].as_chunks::<EVENT_BYTES>();
                    events.iter().try_for_each(|event| self.handle_event(event))?;
                }
                // A control request was given up by the host before it was answered: EIDRM.
                Err(e) if e.raw_os_error() == Some(libc::EIDRM) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Events coalesce, and what one says may be over already: they set a level, and requests that fail say the rest.
    fn handle_event(&self, event: &[u8; EVENT_BYTES]) -> io::Result<()> {
        match event[EVENT_TYPE_AT] {
            ENABLE => drop(self.enabled.send_replace(true)),
            DISABLE | UNBIND => drop(self.enabled.send_replace(false)),
            SETUP => self.refuse(event[0]),
            _ => {}
        }
        Ok(())
    }

    /// This function has no control requests of its own: a step in the wrong direction makes the kernel stall the request.
    fn refuse(&self, request_type: u8) {
        let mut ep0 = self.ep0.get_ref();
        // The answer is always an error, as intended.
        let _ = if request_type & TO_HOST != 0 { ep0.read(&mut [0]) } else { ep0.write(&[0]) };
    }

    /// Waits for a host, and for the program on it. Fails when the host goes before that. One session at a time: the next
    /// begins when the last link was dropped. Cancel safe.
    pub(super) async fn accept(&self, name: &str) -> io::Result<UsbLink> {
        let (inlet, outlet) = self.endpoints().await?;
        UsbLink::open(name.to_owned(), Role::Acceptor, inlet, outlet).await
    }

    /// Waits for a host, and until nobody else has the endpoints. Cancel safe.
    pub(super) async fn endpoints(&self) -> io::Result<(DeviceInlet, DeviceOutlet)> {
        let mut enabled = self.enabled.subscribe();
        let permit = Arc::clone(&self.lease).acquire_owned().await.map_err(io::Error::other)?;
        enabled.wait_for(|enabled| *enabled).await.map_err(io::Error::other)?;
        let lease = Lease { _permit: permit, _caretaker: self.caretaker.clone() };
        endpoints::open(&self.folder, lease)
    }
}
