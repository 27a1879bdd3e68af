//! Takes the links of all cables that lead to this machine as a device.

use std::io;
use std::path::Path;

use bondwire::link::Acceptor;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::address::GadgetAddress;
use super::endpoints::{DeviceInlet, DeviceOutlet};
use super::function::Function;
use super::gadget::{Gadget, GadgetConfig};
use super::{GadgetError, controllers};
use crate::limits::{ACCEPT_QUEUE, SERVE_RETRY};
use crate::{Hint, UsbLink};

/// Serves USB device controllers: hosts that claim their interface get a link. Needs Linux with FunctionFS.
///
/// The gadgets that it sets up go when it is dropped.
#[derive(Debug)]
pub struct GadgetAcceptor {
    name: String,
    served: Vec<String>,
    links: mpsc::Receiver<io::Result<UsbLink>>,
    /// One task for each function; they end with this value.
    _servers: JoinSet<()>,
    /// Not with the tasks, which may end later than this value: no gadget is left when it is gone.
    _gadgets: Vec<Gadget>,
}

impl GadgetAcceptor {
    /// Sets up a gadget on each controller that `address` names, and serves it from now on. `hint` tells hosts whose peer
    /// is here. Needs a tokio runtime.
    pub fn start(address: &GadgetAddress, hint: Hint) -> Result<Self, GadgetError> {
        let (sender, links) = mpsc::channel(ACCEPT_QUEUE);
        let (mut servers, mut served, mut gadgets) = (JoinSet::new(), Vec::new(), Vec::new());
        for (server, gadget) in Self::servers(address, &hint)? {
            served.push(server.name.clone());
            gadgets.extend(gadget);
            servers.spawn(server.run(sender.clone()));
        }
        let name = format!("gadget {address}").trim().to_owned();
        Ok(Self { name, served, links, _servers: servers, _gadgets: gadgets })
    }

    fn servers(address: &GadgetAddress, hint: &Hint) -> Result<Vec<(Server, Option<Gadget>)>, GadgetError> {
        let interface_name = hint.interface_name();
        if let Some(folder) = &address.functionfs {
            return Ok(vec![(Server::on_folder(folder, &interface_name)?, None)]);
        }
        let chosen = controllers::choose(address.controller.as_deref())?;
        let serve = |controller: String| {
            let config = GadgetConfig {
                controller,
                with: address.with.clone(),
                serial: address.serial.clone(),
                max_speed: address.max_speed,
                owner: None,
            };
            let gadget = Gadget::create(&config)?;
            let function = describe(gadget.mount_point(), &interface_name)?;
            gadget.bind()?;
            Ok((Server { name: config.controller, function }, Some(gadget)))
        };
        let (good, bad): (Vec<_>, Vec<_>) = chosen.into_iter().map(serve).partition(Result::is_ok);
        // With every free controller meant, one that does not work is no reason to leave the others.
        for fault in bad.iter().filter_map(|server| server.as_ref().err()) {
            tracing::warn!(target: "bondwire", "gadget: {fault}");
        }
        match bad.into_iter().flat_map(Result::err).next() {
            Some(fault) if good.is_empty() => Err(fault),
            _ => Ok(good.into_iter().flatten().collect()),
        }
    }

    /// The controllers that are served, or the folder.
    pub fn served(&self) -> &[String] {
        &self.served
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
            // The servers never end by themselves.
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
        let first = GadgetAcceptor::servers(address, &hint)?.into_iter().next();
        let (server, gadget) = first.ok_or(GadgetError::NoController)?;
        Ok(Self { function: server.function, _gadget: gadget })
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
struct Server {
    name: String,
    function: Function,
}

impl Server {
    fn on_folder(folder: &Path, interface_name: &str) -> Result<Self, GadgetError> {
        Ok(Self { name: folder.display().to_string(), function: describe(folder, interface_name)? })
    }

    /// Serves hosts one after another, for ever.
    async fn run(self, links: mpsc::Sender<io::Result<UsbLink>>) {
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
