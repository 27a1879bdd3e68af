use std::io;
use std::sync::Arc;
use std::time::Duration;

use bondwire::link::{Acceptor, Dialer};
use bondwire_frame::Role;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::driver::Handle;
use crate::limits::{DIAL_TIMEOUT, LINGER, LOOK_INTERVAL};
use crate::{PortError, SerialAddress, SerialLink, port};

/// One port, opened again and again, never twice at once.
#[derive(Debug)]
struct Opener {
    address: SerialAddress,
    role: Role,
    /// The port as it was opened last.
    last: Option<watch::Receiver<bool>>,
}

impl Opener {
    fn new(address: SerialAddress, role: Role) -> Self {
        Self { address, role, last: None }
    }

    fn name(&self) -> String {
        format!("serial {}", self.address)
    }

    /// Waits until this program has closed the port.
    async fn free(&mut self) {
        if let Some(released) = &mut self.last {
            // An error means that the task is gone, and the port with it.
            let _ = released.wait_for(|released| *released).await;
        }
        self.last = None;
    }

    /// Opens the port and starts its task. The name is looked up each time: a device that was plugged in again may have
    /// another path.
    async fn open(&mut self) -> Result<Arc<Handle>, PortError> {
        let address = self.address.clone();
        // Opening can block, as when the driver resets the device.
        let opened = tokio::task::spawn_blocking(move || port::open(&address)).await;
        let opened = opened.map_err(|error| PortError::Io {
            path: self.address.port.clone().into(),
            error: io::Error::other(error),
        })??;
        let handle = Handle::start(opened.port, &self.address, self.role, opened.paced);
        self.last = Some(handle.released());
        Ok(Arc::new(handle))
    }
}

/// Dials over one serial port: says HELLO until the other end answers, and climbs to the fastest rate that both ends and the
/// cable carry.
#[derive(Debug)]
pub struct SerialDialer(Opener);

impl SerialDialer {
    /// A dialer for the port that `address` names.
    pub fn new(address: SerialAddress) -> Self {
        Self(Opener::new(address, Role::Dialer))
    }

    async fn connect(&mut self) -> io::Result<SerialLink> {
        // The task of the last link may still be telling the other end.
        if timeout(2 * LINGER, self.0.free()).await.is_err() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the last link on this port has not ended yet",
            ));
        }
        let handle = self.0.open().await?;
        handle.ready().await?;
        Ok(SerialLink::new(handle, self.0.name()))
    }
}

impl Dialer for SerialDialer {
    type Link = SerialLink;

    fn name(&self) -> String {
        self.0.name()
    }

    fn patience(&self) -> Duration {
        DIAL_TIMEOUT
    }

    async fn dial(&mut self) -> io::Result<SerialLink> {
        timeout(DIAL_TIMEOUT, self.connect()).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no link within {DIAL_TIMEOUT:?}")))
        })
    }
}

/// Takes links on one serial port, one after the other. It is silent until the other end says HELLO.
#[derive(Debug)]
pub struct SerialAcceptor {
    opener: Opener,
    /// The port that waits for the other end.
    waiting: Option<Arc<Handle>>,
    /// The user was told that the port is gone.
    is_missing: bool,
}

impl SerialAcceptor {
    /// Opens the port that `address` names. Later it may go and come back, also under another path if `address` has its by-id
    /// name or serial number.
    pub async fn bind(address: &SerialAddress) -> Result<Self, PortError> {
        let mut opener = Opener::new(address.clone(), Role::Acceptor);
        let waiting = Some(opener.open().await?);
        Ok(Self { opener, waiting, is_missing: false })
    }

    /// The same for a port that may not be there yet: it is opened once it is. Needs a Tokio runtime only from then on.
    #[must_use]
    pub fn when_there(address: &SerialAddress) -> Self {
        Self { opener: Opener::new(address.clone(), Role::Acceptor), waiting: None, is_missing: false }
    }

    /// The port, opened again if it was lost.
    async fn waiting(&mut self) -> io::Result<&Arc<Handle>> {
        while self.waiting.is_none() {
            self.opener.free().await;
            match self.opener.open().await {
                Ok(handle) => {
                    self.is_missing = false;
                    self.waiting = Some(handle);
                }
                Err(error @ (PortError::NotFound(_) | PortError::UnknownName(_))) => {
                    if !std::mem::replace(&mut self.is_missing, true) {
                        tracing::warn!(target: "bondwire", "{error}; waiting for it");
                    }
                    sleep(LOOK_INTERVAL).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.waiting.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Acceptor for SerialAcceptor {
    type Link = SerialLink;

    fn name(&self) -> String {
        self.opener.name()
    }

    async fn accept(&mut self) -> io::Result<SerialLink> {
        loop {
            let outcome = self.waiting().await?.ready().await;
            let handle = self.waiting.take();
            match (outcome, handle) {
                (Ok(()), Some(handle)) => return Ok(SerialLink::new(handle, self.opener.name())),
                // The port goes away as cables do; `waiting` looks for it.
                (Err(error), _) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(target: "bondwire", "{}: {error}", self.opener.name());
                    sleep(LOOK_INTERVAL).await;
                }
                (Err(error), _) => return Err(error),
                (Ok(()), None) => {}
            }
        }
    }
}
