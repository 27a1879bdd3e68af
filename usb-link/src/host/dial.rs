//! Keeps a link to one cable.

use std::io;
use std::time::Duration;

use bondwire::link::Dialer;
use bondwire_frame::Role;
use nusb::descriptors::TransferType;
use nusb::transfer::{
    Bulk, BulkOrInterrupt, ControlIn, ControlType, Direction, EndpointDirection, In, Out, Recipient,
};
use nusb::{Endpoint, ErrorKind, Interface};
use tokio::time::{Instant, sleep};

use super::cable::{Cable, CableId};
use super::endpoints::{self, HostInlet, HostOutlet};
use super::watch::CableWatch;
use super::{CableFault, UsbAddress, fault};
use crate::UsbLink;
use crate::limits::{DIAL_PATIENCE, RELEASE_PATIENCE, RELEASE_RETRY, STATUS_TIMEOUT};

/// Standard request of USB 2.0, 9.4.5.
const GET_STATUS: u8 = 0;
/// In the answer of an endpoint: it refuses transfers.
const HALTED: u8 = 1;

/// Dials one cable again and again: opens the device, claims its interface, and finds the program on it.
#[derive(Debug)]
pub struct UsbDialer {
    wanted: Wanted,
    name: String,
    /// Hears when something is plugged in, from before the first list on.
    watch: Option<CableWatch>,
    /// Whether there may be a link of this dialer.
    has_dialled: bool,
    /// Cables to be tried after all others, the last one last: those that failed, or worse than the one that worked.
    failed: Vec<CableId>,
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
        Self {
            name: format!("usb {cable}"),
            wanted: Wanted::Cable(cable),
            watch: None,
            has_dialled: false,
            failed: Vec::new(),
        }
    }

    /// For one link over the first cable of those that are meant. [`CableLinks`](super::CableLinks) makes one over each of them.
    pub fn any_of(address: UsbAddress) -> Self {
        let name = format!("usb {address}").trim().to_owned();
        Self { name, wanted: Wanted::AnyOf(address), watch: None, has_dialled: false, failed: Vec::new() }
    }

    /// A link over the first of these cables that can be had. One that only looks like the other end does not keep it from
    /// the others, even if the dial ends while it is being tried.
    async fn connect(&mut self, plugged_in: Vec<Cable>) -> io::Result<UsbLink> {
        let mut meant: Vec<Cable> = plugged_in.into_iter().filter(|cable| self.wanted.is(cable)).collect();
        self.failed.retain(|failed| meant.iter().any(|cable| cable.id() == *failed));
        meant.sort_by_key(|cable| self.failed.iter().position(|failed| *failed == cable.id()));
        // This dialer's last link may not have ended yet.
        let patience = if self.has_dialled { RELEASE_PATIENCE } else { Duration::ZERO };
        self.has_dialled = true;
        let mut faults = Vec::new();
        for cable in &meant {
            let id = cable.id();
            self.failed.retain(|failed| *failed != id);
            self.failed.push(id.clone());
            match open(cable, patience).await {
                Ok(link) => {
                    self.failed = meant.iter().map(Cable::id).filter(|other| *other != id).collect();
                    return Ok(link);
                }
                Err(e) => faults.push((id, e)),
            }
        }
        Err(match self.wanted {
            Wanted::Cable(_) => faults.pop().map_or_else(|| CableFault::Gone.into(), |(_, fault)| fault),
            Wanted::AnyOf(_) => all_of(&faults),
        })
    }
}

/// The endpoints of a cable without a link over them, for who puts something between ([`UsbLink::open`] makes a link of what is
/// left) or speaks another protocol. Those of the last link over this cable may take a moment to become free.
///
/// Fails with a [`CableFault`]. Needs a tokio runtime.
pub async fn endpoints(cable: &Cable) -> io::Result<(HostInlet, HostOutlet)> {
    open_endpoints(cable, RELEASE_PATIENCE).await
}

async fn open_endpoints(cable: &Cable, patience: Duration) -> io::Result<(HostInlet, HostOutlet)> {
    let (to_host, from_host) = claim(cable, patience).await?;
    endpoints::start(to_host, from_host)
}

/// One link over one cable.
async fn open(cable: &Cable, patience: Duration) -> io::Result<UsbLink> {
    let (inlet, outlet) = open_endpoints(cable, patience).await?;
    UsbLink::open(format!("usb {}", cable.id()), Role::Dialer, inlet, outlet).await
}

/// The faults of several cables as one, each with the cable's name.
fn all_of(faults: &[(CableId, io::Error)]) -> io::Error {
    let Some((_, first)) = faults.first() else { return CableFault::Gone.into() };
    let texts: Vec<_> = faults.iter().map(|(cable, fault)| format!("{cable}: {fault}")).collect();
    io::Error::new(first.kind(), texts.join("; "))
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

/// Opens the device and claims the interface with its endpoints. One that is in use may become free within `patience`.
pub(super) async fn claim(
    cable: &Cable,
    patience: Duration,
) -> Result<(Endpoint<Bulk, In>, Endpoint<Bulk, Out>), CableFault> {
    let device = cable.device.as_ref().ok_or(CableFault::Gone)?;
    let explained = |error: nusb::Error| fault::explained(cable, &error);
    let device = device.open().await.map_err(explained)?;
    let deadline = Instant::now() + patience;
    let interface = loop {
        match device.claim_interface(cable.interface).await {
            Err(e) if e.kind() == ErrorKind::Busy && Instant::now() < deadline => sleep(RELEASE_RETRY).await,
            result => break result.map_err(explained)?,
        }
    };
    let (to_host, from_host) = find_endpoints(&interface)?;
    let mut to_host = interface.endpoint(to_host).map_err(explained)?;
    let mut from_host = interface.endpoint(from_host).map_err(explained)?;
    let_go_on(&interface, &mut to_host).await;
    let_go_on(&interface, &mut from_host).await;
    Ok((to_host, from_host))
}

/// An endpoint that a failure of the device has stalled stays so until the host says otherwise. Others are left alone: that
/// would reset them, which some devices do not survive in the middle of their transfers.
async fn let_go_on<E: BulkOrInterrupt, D: EndpointDirection>(
    interface: &Interface,
    endpoint: &mut Endpoint<E, D>,
) {
    let question = ControlIn {
        control_type: ControlType::Standard,
        recipient: Recipient::Endpoint,
        request: GET_STATUS,
        value: 0,
        index: endpoint.endpoint_address().into(),
        length: 2,
    };
    // What does not work here shows in the transfers that follow.
    let status = interface.control_in(question, STATUS_TIMEOUT).await.unwrap_or_default();
    if status.first().is_some_and(|status| status & HALTED != 0) {
        let _ = endpoint.clear_halt().await;
    }
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
