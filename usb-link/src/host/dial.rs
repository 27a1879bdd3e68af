//! Keeps a link to one cable.

use std::io;
use std::time::Duration;

use bondwire::link::Dialer;
use bondwire_frame::Role;
use nusb::descriptors::TransferType;
use nusb::transfer::{Bulk, Direction, In, Out};
use nusb::{Endpoint, ErrorKind, Interface};

use super::cable::{Cable, CableFault, CableId};
use super::watch::CableWatch;
use super::{UsbAddress, endpoints};
use crate::UsbLink;
use crate::limits::DIAL_PATIENCE;

/// Dials one cable again and again: opens the device, claims its interface, and finds the program on it.
#[derive(Debug)]
pub struct UsbDialer {
    wanted: Wanted,
    name: String,
    /// Hears when something is plugged in, from before the first list on.
    watch: Option<CableWatch>,
}

#[derive(Debug)]
enum Wanted {
    /// This cable, wherever it is plugged in.
    Cable(CableId),
    /// The first that can be had of those that are meant.
    AnyOf(UsbAddress),
}

impl Wanted {
    fn is(&self, cable: &Cable) -> bool {
        match self {
            Self::Cable(id) => cable.id() == *id,
            Self::AnyOf(address) => address.matches(cable),
        }
    }
}

impl UsbDialer {
    /// For one cable, also when it is plugged in again, and elsewhere if it has a serial number.
    pub fn new(cable: CableId) -> Self {
        Self { name: format!("usb {cable}"), wanted: Wanted::Cable(cable), watch: None }
    }

    /// For one link over the first cable of those that are meant. [`CableLinks`](super::CableLinks) makes one over each of them.
    pub fn any_of(address: UsbAddress) -> Self {
        let name = format!("usb {address}").trim().to_owned();
        Self { name, wanted: Wanted::AnyOf(address), watch: None }
    }

    /// A link over the first of these cables that can be had.
    async fn connect(&self, plugged_in: Vec<Cable>) -> io::Result<UsbLink> {
        let mut fault = CableFault::Gone;
        for cable in plugged_in.into_iter().filter(|cable| self.wanted.is(cable)) {
            match claim(&cable).await {
                Ok((to_host, from_host)) => {
                    let name = format!("usb {}", cable.id());
                    let (inlet, outlet) = endpoints::start(to_host, from_host)?;
                    return UsbLink::open(name, Role::Dialer, inlet, outlet).await;
                }
                Err(e) => fault = e,
            }
        }
        Err(fault.into())
    }
}

impl Dialer for UsbDialer {
    type Link = UsbLink;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn patience(&self) -> Duration {
        DIAL_PATIENCE
    }

    /// Fails with a [`CableFault`], or with what the frame layer says of the other end.
    async fn dial(&mut self) -> io::Result<UsbLink> {
        let plugged_in = self.watch.get_or_insert_default().list().await?;
        self.connect(plugged_in).await
    }

    /// When a cable that is wanted is plugged in.
    async fn worth_dialling(&mut self) {
        let watch = self.watch.get_or_insert_default();
        loop {
            let new = watch.plugged_in().await;
            let is_wanted = |cable: &Cable| self.wanted.is(cable);
            if new.iter().any(is_wanted) {
                return;
            }
        }
    }
}

/// Opens the device and claims the interface with its endpoints.
pub(super) async fn claim(cable: &Cable) -> Result<(Endpoint<Bulk, In>, Endpoint<Bulk, Out>), CableFault> {
    let device = cable.device.as_ref().ok_or(CableFault::Gone)?;
    let explained = |error: nusb::Error| match error.kind() {
        ErrorKind::Disconnected => CableFault::Gone,
        ErrorKind::PermissionDenied => CableFault::Permission(
            cable.device_file().unwrap_or_else(|| format!("the device at {}", cable.port)),
        ),
        ErrorKind::Busy => CableFault::InUse(cable.driver()),
        _ => CableFault::Other(error.to_string()),
    };
    let device = device.open().await.map_err(explained)?;
    let interface = device.claim_interface(cable.interface).await.map_err(explained)?;
    let (to_host, from_host) = find_endpoints(&interface)?;
    Ok((interface.endpoint(to_host).map_err(explained)?, interface.endpoint(from_host).map_err(explained)?))
}

/// The addresses of the first bulk endpoint each way.
fn find_endpoints(interface: &Interface) -> Result<(u8, u8), CableFault> {
    let descriptor = interface.descriptor().ok_or(CableFault::NoEndpoint("at all"))?;
    let find = |direction| {
        descriptor
            .endpoints()
            .find(|endpoint| {
                endpoint.transfer_type() == TransferType::Bulk && endpoint.direction() == direction
            })
            .filter(|endpoint| endpoint.max_packet_size() > 0)
            .map(|endpoint| endpoint.address())
    };
    Ok((
        find(Direction::In).ok_or(CableFault::NoEndpoint("towards the host"))?,
        find(Direction::Out).ok_or(CableFault::NoEndpoint("towards the device"))?,
    ))
}
