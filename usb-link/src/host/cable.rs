//! What is plugged in.

use std::fmt;
use std::io;

use nusb::{DeviceInfo, InterfaceInfo};

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
        super::dial::claim(self).await.err()
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
            let device = self.device.as_ref()?.sysfs_path();
            let interfaces = std::fs::read_dir(device).ok()?.flatten().map(|entry| entry.path());
            // The active configuration is the only one whose interfaces are there.
            let ours = interfaces
                .filter(|path| path.to_string_lossy().ends_with(&format!(".{}", self.interface)))
                .find(|path| path.join("bInterfaceNumber").exists())?;
            let driver = std::fs::read_link(ours.join("driver")).ok()?;
            Some(driver.file_name()?.to_string_lossy().into_owned())
        }
        #[cfg(not(target_os = "linux"))]
        self.device.as_ref().and(None)
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

/// Why a cable that is there cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CableFault {
    /// Not plugged in.
    #[error("not plugged in")]
    Gone,
    /// The user may not open the device.
    #[error(
        "no permission to open {0}: install the udev rule 70-bondwire.rules (then plug the cable in again), \
         or add this user to the group that owns the file"
    )]
    Permission(String),
    /// A driver or program has the interface.
    #[error("the interface is in use by {}", .0.as_deref().map_or_else(|| "another program".to_owned(), user))]
    InUse(Option<String>),
    /// The interface has no pair of bulk endpoints.
    #[error("the interface has no bulk endpoint {0}: this is no Bondwire device")]
    NoEndpoint(&'static str),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

fn user(driver: &str) -> String {
    match driver {
        // This is how the kernel calls programs.
        "usbfs" => "another program; `bondwire status` shows whether it is a running bond".to_owned(),
        driver => format!("the kernel driver `{driver}`; unbind it, or give the device another class"),
    }
}

impl From<CableFault> for io::Error {
    fn from(fault: CableFault) -> Self {
        let kind = match &fault {
            CableFault::Gone => io::ErrorKind::NotFound,
            CableFault::Permission(_) => io::ErrorKind::PermissionDenied,
            CableFault::InUse(_) => io::ErrorKind::ResourceBusy,
            CableFault::NoEndpoint(_) => io::ErrorKind::InvalidData,
            CableFault::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, fault)
    }
}
