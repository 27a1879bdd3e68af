//! A device that is plugged in: what it is called, and what it is.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bondwire::PublicKey;
use bondwire_usb::Hint;
use bondwire_usb::host::{Cable, cables};
use tokio::time::{Instant, sleep};

use super::Lead;
use super::limits::{INTERFACES_LOOK_INTERVAL, INTERFACES_PATIENCE, PORTS_IN_A_ROW_MAX};
use crate::medium::Medium;

/// A device, as udev and people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    /// A USB device, by the place where it is plugged in: `1-2.3`.
    Usb(String),
    /// A serial port, by its device file.
    Port(PathBuf),
}

/// Why a text names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error(
        "{0:?} is no device; name a USB device by its port, as 1-2.3, or a serial port by its file, as /dev/ttyUSB0; \
         `bondwire devices` lists them"
    )]
    Form(String),
    #[error("{0}: name a USB device by its port, as 1-2.3; `bondwire devices` shows it")]
    UsbFile(String),
}

/// Why a device cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error("{0} is not plugged in, or not any more; there is nothing to attach")]
    Gone(Device),
    #[error("USB devices cannot be listed: {0}")]
    List(io::Error),
    #[error("the USB device at {0} has no interface for links; `bondwire devices` lists those that have")]
    NoInterface(String),
    #[error("{} is no serial port; `bondwire devices` lists those that are", .0.display())]
    NoPort(PathBuf),
    #[error("{path}: {1}", path = .0.display())]
    File(PathBuf, io::Error),
}

/// A device, and what was found there.
pub(crate) struct Found {
    pub(crate) device: Device,
    kind: FoundKind,
}

enum FoundKind {
    /// The interfaces that may be links.
    Usb(Vec<Cable>),
    /// Its device file, without links on the way.
    Port(PathBuf),
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || DeviceError::Form(text.to_owned());
        // A comma would end the LINK's address.
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',') {
            return Err(form());
        }
        let name = text.rsplit('/').next().unwrap_or(text);
        if name.is_empty() || name.starts_with('.') {
            return Err(form());
        }
        // As udev has it in DEVPATH, and systemd in the names of its device units.
        let is_in_sysfs = text.starts_with("/sys/") || text.starts_with("/devices/");
        match text.contains('/') {
            false if is_usb_port(name) => Ok(Self::Usb(name.to_owned())),
            true if is_in_sysfs && is_usb_port(name) => Ok(Self::Usb(name.to_owned())),
            true if text.starts_with("/dev/bus/usb/") => Err(DeviceError::UsbFile(text.to_owned())),
            true if text.starts_with('/') && !is_in_sysfs => Ok(Self::Port(PathBuf::from(text))),
            true if !is_in_sysfs => Err(form()),
            _ => Ok(Self::Port(Path::new("/dev").join(name))),
        }
    }
}

/// Bus, then the port of each hub on the way, as the kernel writes it.
fn is_usb_port(text: &str) -> bool {
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u8>().is_ok();
    text.split_once('-').is_some_and(|(bus, ports)| {
        is_number(bus) && ports.split('.').count() <= PORTS_IN_A_ROW_MAX && ports.split('.').all(is_number)
    })
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usb(port) => f.write_str(port),
            Self::Port(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Device {
    /// Whether it is plugged in.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Usb(port) => Path::new("/sys/bus/usb/devices").join(port).exists(),
            Self::Port(path) => path.exists(),
        }
    }
}

impl Found {
    /// Looks what there is. Nothing is opened: that would reset some boards.
    pub(crate) async fn look(device: &Device) -> Result<Self, LookError> {
        let kind = match device {
            Device::Usb(port) => FoundKind::Usb(interfaces(device, port).await?),
            Device::Port(path) => FoundKind::Port(port_file(device, path)?),
        };
        Ok(Self { device: device.clone(), kind })
    }

    /// Whether a LINK means this device.
    pub(crate) fn is_over(&self, medium: &Medium) -> bool {
        match (&self.kind, medium) {
            (FoundKind::Usb(cables), Medium::Usb(address)) => {
                cables.iter().any(|cable| address.matches(cable))
            }
            #[cfg(unix)]
            (FoundKind::Port(path), Medium::Serial(address)) => {
                let means = |port: PathBuf| port.canonicalize().is_ok_and(|port| port == *path);
                address.path().is_ok_and(means)
            }
            _ => false,
        }
    }

    /// Whether it is one of those that `pattern` lets in. Of serial ports `*` means all: which ones are offered at all says
    /// udev.
    pub(crate) fn is_meant_by(&self, pattern: &Medium) -> bool {
        #[cfg(unix)]
        if let (FoundKind::Port(_), Medium::Serial(address)) = (&self.kind, pattern)
            && address.port == "*"
        {
            return true;
        }
        self.is_over(pattern)
    }

    /// Where it leads, for a bond with this peer.
    pub(crate) fn lead(&self, peer: Option<PublicKey>) -> Lead {
        let FoundKind::Usb(cables) = &self.kind else { return Lead::Unknown };
        let leads = cables.iter().map(|cable| lead(&cable.hint, peer));
        leads.max().unwrap_or(Lead::Unknown)
    }

    /// The LINK over it, with the options of the pattern that lets it in.
    pub(crate) fn link(&self, pattern: Option<&str>) -> String {
        let options = pattern.into_iter().flat_map(|pattern| pattern.split(',').skip(1));
        let address = match &self.kind {
            FoundKind::Usb(cables) => {
                let numbers = cables.first().map_or((0, 0), |cable| (cable.vendor_id, cable.product_id));
                format!("usb:{:04x}:{:04x},port={}", numbers.0, numbers.1, self.device)
            }
            FoundKind::Port(_) => format!("serial:{}", self.device),
        };
        let is_new = |option: &&str| !option.starts_with("port=");
        [address.as_str()].into_iter().chain(options.filter(is_new)).collect::<Vec<_>>().join(",")
    }
}

fn lead(hint: &Hint, peer: Option<PublicKey>) -> Lead {
    match peer {
        None => Lead::Unknown,
        Some(peer) if *hint == Hint::of_key(&peer) => Lead::ToPeer,
        Some(peer) if hint.may_be(&peer) => Lead::Unknown,
        Some(_) => Lead::Elsewhere,
    }
}

/// The interfaces of a USB device that may be links, ours if it has some.
async fn interfaces(device: &Device, port: &str) -> Result<Vec<Cable>, LookError> {
    let deadline = Instant::now() + INTERFACES_PATIENCE;
    loop {
        // Without a bus there is nothing to list either.
        let listed = match cables().await {
            Err(_) if !device.is_there() => return Err(LookError::Gone(device.clone())),
            listed => listed.map_err(LookError::List)?,
        };
        let (ours, others): (Vec<_>, Vec<_>) =
            listed.into_iter().filter(|cable| cable.port == port).partition(|cable| cable.has_our_class);
        let is_late = Instant::now() >= deadline;
        match (ours.is_empty(), others.is_empty()) {
            (false, _) => return Ok(ours),
            // Firmware with numbers of its own: only a pattern that names it lets it in.
            (true, false) => return Ok(others),
            _ if !device.is_there() => return Err(LookError::Gone(device.clone())),
            _ if is_late => return Err(LookError::NoInterface(port.to_owned())),
            _ => sleep(INTERFACES_LOOK_INTERVAL).await,
        }
    }
}

/// The device file of a serial port, as far as that shows without opening it.
fn port_file(device: &Device, path: &Path) -> Result<PathBuf, LookError> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => LookError::Gone(device.clone()),
        _ => LookError::File(path.to_owned(), error),
    };
    let file = path.canonicalize().map_err(missing)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if !file.metadata().map_err(missing)?.file_type().is_char_device() {
            return Err(LookError::NoPort(path.to_owned()));
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use bondwire::Identity;

    use super::*;

    #[test]
    fn devices_are_named_as_udev_systemd_and_people_do() {
        let usb = |port: &str| Ok(Device::Usb(port.to_owned()));
        let port = |path: &str| Ok(Device::Port(PathBuf::from(path)));
        let good = [
            ("1-2", usb("1-2")),
            ("12-1.2.3.4.5.6.7", usb("12-1.2.3.4.5.6.7")),
            ("/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2.3", usb("1-2.3")),
            ("/sys/bus/usb/devices/1-2.3", usb("1-2.3")),
            ("ttyUSB0", port("/dev/ttyUSB0")),
            ("/dev/ttyACM1", port("/dev/ttyACM1")),
            ("/dev/pts/7", port("/dev/pts/7")),
            ("/dev/serial/by-id/usb-FTDI_A-if00", port("/dev/serial/by-id/usb-FTDI_A-if00")),
            ("/devices/usb1/1-2/1-2:1.0/ttyUSB0/tty/ttyUSB0", port("/dev/ttyUSB0")),
        ];
        for (text, device) in good {
            assert_eq!(text.parse(), device, "{text}");
        }
        for text in ["", "/", "/dev/", "tty USB0", "a,b", "serial/x", "/dev/..", "/sys/", "\x1b[31m"] {
            assert_eq!(text.parse::<Device>(), Err(DeviceError::Form(text.to_owned())), "{text}");
        }
        let message = "/dev/bus/usb/001/002".parse::<Device>().unwrap_err().to_string();
        assert!(message.contains("as 1-2.3"), "{message}");
        assert_eq!("1-2.3.4.5.6.7.8.9".parse(), port("/dev/1-2.3.4.5.6.7.8.9"), "so deep is no USB");
    }

    #[test]
    fn a_hint_tells_where_a_cable_leads() {
        let key = || Identity::generate().unwrap().public_key();
        let (peer, other) = (key(), key());
        assert_eq!(lead(&Hint::of_key(&peer), Some(peer)), Lead::ToPeer);
        assert_eq!(lead(&Hint::of_key(&peer), Some(other)), Lead::Elsewhere);
        assert_eq!(lead(&Hint::NONE, Some(peer)), Lead::Unknown);
        assert_eq!(lead(&Hint::of_key(&peer), None), Lead::Unknown);
    }

    #[tokio::test]
    async fn what_is_gone_or_no_port_is_told_apart() {
        let look = async |text: &str| Found::look(&text.parse().unwrap()).await.err().unwrap();
        for gone in ["/dev/ttyNONESUCH7", "250-1.2"] {
            assert!(matches!(look(gone).await, LookError::Gone(_)), "{gone}");
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(matches!(look(file).await, LookError::NoPort(_)));
    }

    #[test]
    fn a_link_has_the_options_of_its_pattern() {
        let device: Device = "/dev/ttyUSB0".parse().unwrap();
        let found = Found { kind: FoundKind::Port("/dev/ttyUSB0".into()), device };
        assert_eq!(found.link(None), "serial:/dev/ttyUSB0");
        let link = found.link(Some("serial:*,baud=921600,policy=backup"));
        assert_eq!(link, "serial:/dev/ttyUSB0,baud=921600,policy=backup");
        let found = Found { kind: FoundKind::Usb(Vec::new()), device: Device::Usb("1-2".into()) };
        let link = found.link(Some("usb:1d6b:0104,port=1-2,serial=7,tier=1"));
        assert_eq!(link, "usb:0000:0000,port=1-2,serial=7,tier=1");
    }
}
