//! What is plugged in.

use std::fmt;
use std::io;
use std::time::Duration;

use nusb::{DeviceInfo, InterfaceInfo};

use super::CableFault;
use crate::{Hint, INTERFACE_CLASS, Speed};

/// Class of interfaces whose meaning is their vendor's.
const VENDOR_SPECIFIC: u8 = 0xff;

/// An interface of a plugged-in device that may be the other end of a link.
#[derive(Clone, Debug)]
pub struct Cable {
    /// Number of the vendor.
    pub vendor_id: u16,
    /// Number of the product.
    pub product_id: u16,
    /// Serial number, if the device has one.
    pub serial: Option<String>,
    /// What the device calls itself.
    pub product: Option<String>,
    /// Where it is plugged in: bus and ports on the way.
    pub port: String,
    /// Number of the interface.
    pub interface: u8,
    /// Speed, where the system tells it.
    pub speed: Option<Speed>,
    /// Whose peer is there.
    pub hint: Hint,
    /// Whether class, subclass and protocol are those of this protocol. Else only who names the device can mean it.
    pub has_our_class: bool,
    pub(super) device: Option<DeviceInfo>,
}

/// What a cable is known by when it is plugged in again: the serial number and the interface, or without one the place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CableId {
    vendor_product: (u16, u16),
    place: Place,
    interface: u8,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Place {
    Serial(String),
    Port(String),
}

impl Cable {
    fn new(device: &DeviceInfo, interface: &InterfaceInfo) -> Self {
        let ports: Vec<String> = device.port_chain().iter().map(u8::to_string).collect();
        Self {
            vendor_id: device.vendor_id(),
            product_id: device.product_id(),
            serial: device.serial_number().filter(|serial| !serial.is_empty()).map(str::to_owned),
            product: device.product_string().map(str::to_owned),
            port: format!("{}-{}", bus_name(device), ports.join(".")),
            interface: interface.interface_number(),
            speed: device.speed().map(speed),
            hint: Hint::read(interface.interface_string().unwrap_or_default()),
            has_our_class: class(interface) == INTERFACE_CLASS,
            device: Some(device.clone()),
        }
    }

    /// What it is known by.
    pub fn id(&self) -> CableId {
        let place = match &self.serial {
            Some(serial) => Place::Serial(serial.clone()),
            None => Place::Port(self.port.clone()),
        };
        CableId { vendor_product: (self.vendor_id, self.product_id), place, interface: self.interface }
    }

    /// The driver or program that has the interface, or what else keeps this user from it.
    pub async fn fault(&self) -> Option<CableFault> {
        super::dial::claim(self, Duration::ZERO).await.err()
    }

    /// The device file, where there is one.
    pub(super) fn device_file(&self) -> Option<String> {
        #[cfg(target_os = "linux")]
        return self
            .device
            .as_ref()
            .map(|device| format!("/dev/bus/usb/{:03}/{:03}", device.busnum(), device.device_address()));
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// The kernel driver that has the interface.
    pub fn driver(&self) -> Option<String> {
        #[cfg(target_os = "linux")]
        {
            let driver = std::fs::read_link(self.sysfs_interface()?.join("driver")).ok()?;
            Some(driver.file_name()?.to_string_lossy().into_owned())
        }
        #[cfg(not(target_os = "linux"))]
        self.device.as_ref().and(None)
    }

    /// The interface's name in sysfs: `1-2:1.0`.
    pub(super) fn interface_name(&self) -> Option<String> {
        #[cfg(target_os = "linux")]
        return Some(self.sysfs_interface()?.file_name()?.to_string_lossy().into_owned());
        #[cfg(not(target_os = "linux"))]
        None
    }

    #[cfg(target_os = "linux")]
    fn sysfs_interface(&self) -> Option<std::path::PathBuf> {
        let device = self.device.as_ref()?.sysfs_path();
        let mut interfaces = std::fs::read_dir(device).ok()?.flatten().map(|entry| entry.path());
        // The active configuration is the only one whose interfaces are there.
        let ours = format!(".{}", self.interface);
        interfaces
            .find(|path| path.to_string_lossy().ends_with(&ours) && path.join("bInterfaceNumber").exists())
    }
}

/// The numbers that tell what an interface is.
fn class(interface: &InterfaceInfo) -> [u8; 3] {
    [interface.class(), interface.subclass(), interface.protocol()]
}

fn bus_name(device: &DeviceInfo) -> String {
    #[cfg(target_os = "linux")]
    return device.busnum().to_string();
    #[cfg(not(target_os = "linux"))]
    device.bus_id().to_owned()
}

fn speed(speed: nusb::Speed) -> Speed {
    match speed {
        nusb::Speed::Low => Speed::Low,
        nusb::Speed::Full => Speed::Full,
        nusb::Speed::High => Speed::High,
        // Those there may be later are faster.
        _ => Speed::Super,
    }
}

impl fmt::Display for CableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vendor, product) = self.vendor_product;
        write!(f, "{vendor:04x}:{product:04x}")?;
        match &self.place {
            Place::Serial(serial) => write!(f, ",serial={serial}")?,
            Place::Port(port) => write!(f, ",port={port}")?,
        }
        if self.interface > 0 {
            write!(f, " interface {}", self.interface)?;
        }
        Ok(())
    }
}

/// Every interface of a vendor's own class that is plugged in, ours first.
///
/// # Errors
/// If the system cannot list its USB devices at all.
pub async fn cables() -> io::Result<Vec<Cable>> {
    let mut cables: Vec<Cable> = nusb::list_devices().await?.flat_map(|device| of_device(&device)).collect();
    cables.sort_by(|a, b| {
        (!a.has_our_class, &a.port, a.interface).cmp(&(!b.has_our_class, &b.port, b.interface))
    });
    Ok(cables)
}

/// The interfaces of one device: ours if it has some, else those of its vendor.
fn of_device(device: &DeviceInfo) -> Vec<Cable> {
    let (ours, others): (Vec<_>, Vec<_>) = device
        .interfaces()
        .filter(|interface| interface.class() == VENDOR_SPECIFIC)
        .partition(|interface| class(interface) == INTERFACE_CLASS);
    let chosen = if ours.is_empty() { others } else { ours };
    chosen.into_iter().map(|interface| Cable::new(device, interface)).collect()
}
