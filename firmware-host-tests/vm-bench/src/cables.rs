//! Cables of the guest, and what is at both ends of each.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use bondwire_usb::device::{DeviceInlet, DeviceOutlet, GadgetEndpoints};
use bondwire_usb::host::{Cable, HostInlet, HostOutlet, cables, endpoints};
use bondwire_usb::transfers::{Inlet, Outlet};
use bondwire_usb::{Hint, Role, UsbLink};
use bondwire_vm::Speed;

/// How often to look whether all cables are there.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for anything: emulation on a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Cables that are plugged in until this value goes.
pub(crate) struct Plugged {
    // In this order: a controller that is in use cannot go.
    gadgets: Vec<GadgetEndpoints>,
    cables: Vec<Cable>,
    _controllers: bondwire_vm::Cables,
}

/// The endpoints of one end.
pub(crate) struct End<I, O> {
    pub(crate) inlet: I,
    pub(crate) outlet: O,
}

pub(crate) type HostEnd = End<HostInlet, HostOutlet>;
pub(crate) type DeviceEnd = End<DeviceInlet, DeviceOutlet>;

/// The serial number of the device at a cable.
pub(crate) fn serial(cable: usize) -> String {
    format!("bench-{cable}")
}

impl Plugged {
    pub(crate) async fn plug(count: usize, speed: Speed) -> Result<Self> {
        let guest = bondwire_vm::guest().context("runs in the guest only: cargo xtask bench --vm")?;
        let controllers = guest.cables(count, speed)?;
        let mut gadgets = Vec::new();
        for cable in 0..count {
            let address = format!("dummy_udc.{cable},serial={}", serial(cable)).parse()?;
            gadgets.push(GadgetEndpoints::start(&address, Hint::NONE)?);
        }
        let all_there = async {
            loop {
                let mut found = cables().await?;
                found.retain(|cable| cable.has_our_class);
                if found.len() == count {
                    found.sort_by(|a, b| a.serial.cmp(&b.serial));
                    return io::Result::Ok(found);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let cables = tokio::time::timeout(PATIENCE, all_there).await.context("no cable was plugged in")??;
        Ok(Self { gadgets, cables, _controllers: controllers })
    }

    pub(crate) async fn host_end(&self, cable: usize) -> Result<HostEnd> {
        let (inlet, outlet) = endpoints(&self.cables[cable]).await?;
        Ok(End { inlet, outlet })
    }

    pub(crate) async fn device_end(&self, cable: usize) -> Result<DeviceEnd> {
        let (inlet, outlet) = self.gadgets[cable].open().await?;
        Ok(End { inlet, outlet })
    }

    /// The endpoints of both ends.
    pub(crate) async fn ends(&self, cable: usize) -> Result<(HostEnd, DeviceEnd)> {
        let both = async { tokio::try_join!(self.host_end(cable), self.device_end(cable)) };
        tokio::time::timeout(PATIENCE, both).await.context("the ends of a cable did not open")?
    }
}

/// Both ends of a link over these endpoints.
pub(crate) async fn link(
    host: End<impl Inlet, impl Outlet>,
    device: End<impl Inlet, impl Outlet>,
) -> Result<(UsbLink, UsbLink)> {
    let near = UsbLink::open("usb host".to_owned(), Role::Dialer, host.inlet, host.outlet);
    let far = UsbLink::open("usb device".to_owned(), Role::Acceptor, device.inlet, device.outlet);
    let both = async { tokio::try_join!(near, far) };
    Ok(tokio::time::timeout(PATIENCE, both).await.context("no link came up")??)
}
