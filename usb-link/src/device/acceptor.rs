//! Takes the links of all cables that lead to this machine as a device.

use std::io;
use std::path::Path;

use bondwire::link::Acceptor;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::address::GadgetAddress;
use super::endpoints::{DeviceInlet, DeviceOutlet};
use super::follow::{Follower, Gadgets};
use super::function::Function;
use super::gadget::{Gadget, GadgetConfig};
use super::{GadgetError, controllers};
use crate::limits::{ACCEPT_QUEUE, SERVE_RETRY};
use crate::{Hint, UsbLink};

/// Serves USB device controllers: hosts that claim their interface get a link. Needs Linux with FunctionFS.
///
/// A controller that goes away is served again when it is back. With every free controller meant, one that appears later is
/// served, too; one that somebody else used at the start is left alone for good.
///
/// The gadgets that it sets up go when it is dropped.
#[derive(Debug)]
pub struct GadgetAcceptor {
    name: String,
    served: Vec<String>,
    links: mpsc::Receiver<io::Result<UsbLink>>,
    /// What serves; it ends with this value.
    _task: JoinSet<()>,
    /// Not with the task, which may end later than this value: no gadget is left when it is gone.
    gadgets: Gadgets,
}

impl GadgetAcceptor {
    /// Sets up a gadget on each controller that `address` names, and serves it from now on. `hint` tells hosts whose peer
    /// is here. Needs a tokio runtime.
    ///
    /// # Errors
    /// None of them can be served.
    pub fn start(address: &GadgetAddress, hint: Hint) -> Result<Self, GadgetError> {
        Self::start_so(address, &hint, Err)
    }

    /// The same, but waits for a controller that is not there yet.
    ///
    /// # Errors
    /// There are controllers, and none of them can be served.
    pub fn start_when_there(address: &GadgetAddress, hint: Hint) -> Result<Self, GadgetError> {
        Self::start_so(address, &hint, |fault| match fault {
            GadgetError::NoController | GadgetError::UnknownController { .. } => {
                tracing::warn!(target: "bondwire", "gadget: {fault}; waiting for it");
                Ok(())
            }
            fault => Err(fault),
        })
    }

    fn start_so(
        address: &GadgetAddress,
        hint: &Hint,
        without: impl Fn(GadgetError) -> Result<(), GadgetError>,
    ) -> Result<Self, GadgetError> {
        let (sender, links) = mpsc::channel(ACCEPT_QUEUE);
        let name = format!("gadget {address}").trim().to_owned();
        let (mut task, gadgets) = (JoinSet::new(), Gadgets::new());
        let interface_name = hint.interface_name();
        let served = if let Some(folder) = &address.functionfs {
            let server = Server::on_folder(folder, &interface_name)?;
            let served = vec![server.name.clone()];
            task.spawn(server.run(sender));
            served
        } else {
            let mut follower = Follower::new(address.clone(), interface_name, sender, gadgets.clone());
            follower.start().or_else(without)?;
            let served = follower.served();
            task.spawn(follower.run());
            served
        };
        Ok(Self { name, served, links, _task: task, gadgets })
    }

    /// The controllers that were served at the start, or the folder.
    pub fn served(&self) -> &[String] {
        &self.served
    }
}

impl Drop for GadgetAcceptor {
    fn drop(&mut self) {
        self.gadgets.end();
    }
}

impl Acceptor for GadgetAcceptor {
    type Link = UsbLink;

    fn name(&self) -> String {
        self.name.clone()
    }

    async fn accept(&mut self) -> io::Result<UsbLink> {
        match self.links.recv().await {
            Some(link) => link,
            // What serves never ends by itself, unless it was one function and that was taken away.
            None => std::future::pending().await,
        }
    }
}

/// A controller's function without links over it, for who puts something between
/// ([`UsbLink::open`] makes a link of what is left) or speaks another protocol. Needs Linux with FunctionFS.
///
/// The gadget that it sets up goes when it is dropped.
pub struct GadgetEndpoints {
    function: Function,
    _gadget: Option<Gadget>,
}

impl GadgetEndpoints {
    /// Sets up a gadget on the first controller that `address` names. Needs a tokio runtime.
    pub fn start(address: &GadgetAddress, hint: Hint) -> Result<Self, GadgetError> {
        let interface_name = hint.interface_name();
        if let Some(folder) = &address.functionfs {
            return Ok(Self { function: describe(folder, &interface_name)?, _gadget: None });
        }
        let chosen = controllers::choose(address.controller.as_deref())?;
        let first = chosen.first().ok_or(GadgetError::NoController)?;
        let (server, gadget) = Server::on_controller(address, &interface_name, first)?;
        Ok(Self { function: server.function, _gadget: Some(gadget) })
    }

    /// Waits for a host that has configured the device, and until the last endpoints were dropped. Cancel safe.
    pub async fn open(&self) -> io::Result<(DeviceInlet, DeviceOutlet)> {
        tokio::select! {
            over = self.function.follow_events() => match over? {},
            opened = self.function.endpoints() => opened,
        }
    }
}

/// One function.
pub(super) struct Server {
    name: String,
    function: Function,
}

impl Server {
    fn on_folder(folder: &Path, interface_name: &str) -> Result<Self, GadgetError> {
        Ok(Self { name: folder.display().to_string(), function: describe(folder, interface_name)? })
    }

    /// The function of a gadget that is set up on this controller.
    pub(super) fn on_controller(
        address: &GadgetAddress,
        interface_name: &str,
        controller: &str,
    ) -> Result<(Self, Gadget), GadgetError> {
        let gadget = Gadget::create(&GadgetConfig {
            controller: controller.to_owned(),
            with: address.with.clone(),
            serial: address.serial.clone(),
            max_speed: address.max_speed,
            owner: None,
        })?;
        let function = describe(gadget.mount_point(), interface_name)?;
        gadget.bind()?;
        Ok((Self { name: controller.to_owned(), function }, gadget))
    }

    /// Serves hosts one after another, until the function is taken away.
    pub(super) async fn run(self, links: mpsc::Sender<io::Result<UsbLink>>) {
        let name = format!("usb {}", self.name);
        let events = async {
            match self.function.follow_events().await {
                Ok(never) => match never {},
                Err(e) => e,
            }
        };
        let accepting = async {
            loop {
                match self.function.accept(&name).await {
                    Ok(link) => {
                        if links.send(Ok(link)).await.is_err() {
                            return;
                        }
                    }
                    Err(e) => self.report(&links, &name, e).await,
                }
            }
        };
        // Without events there is nothing to serve any more: the function was taken away.
        let over = tokio::select! {
            over = events => over,
            () = accepting => return,
        };
        let over = io::Error::new(over.kind(), format!("{name}: the function is gone: {over}"));
        let _ = links.send(Err(over)).await;
    }

    /// Tells what kept a host from getting a link, unless that is the ordinary coming and going of cables.
    async fn report(&self, links: &mpsc::Sender<io::Result<UsbLink>>, name: &str, error: io::Error) {
        tracing::debug!(target: "bondwire", "{name}: {error}");
        let is_ordinary = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut
                | io::ErrorKind::WouldBlock
        );
        if is_ordinary {
            // A host that is leaving: the level follows within a moment.
            return sleep(SERVE_RETRY / 50).await;
        }
        let _ = links.send(Err(io::Error::new(error.kind(), format!("{name}: {error}")))).await;
        sleep(SERVE_RETRY).await;
    }
}

fn describe(folder: &Path, interface_name: &str) -> Result<Function, GadgetError> {
    Function::open(folder, interface_name).map_err(|e| {
        let what = match (e.kind(), e.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => {
                "FunctionFS is not mounted there: there is no file `ep0`".to_owned()
            }
            (io::ErrorKind::PermissionDenied, _) => {
                return GadgetError::Permission(format!("cannot open {}/ep0", folder.display()));
            }
            (_, Some(libc::EBUSY | libc::ESRCH | libc::EINVAL | libc::EBADFD | libc::EL2HLT)) => {
                format!("another program serves this function already ({e})")
            }
            _ => format!("cannot describe the function: {e}"),
        };
        GadgetError::Folder { folder: folder.to_owned(), what }
    })
}
