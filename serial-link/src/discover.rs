//! Which serial ports there are, from sysfs: nothing is opened, as that would reset some boards.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::PortError;
use crate::console;

/// Where the kernel and udev keep what they know.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// `/sys/class/tty`
    pub(crate) tty: PathBuf,
    /// `/dev`
    pub(crate) dev: PathBuf,
    /// `/proc`
    pub(crate) proc: PathBuf,
    /// `/run/udev/data`
    pub(crate) udev: PathBuf,
    /// `/etc/group`
    pub(crate) group: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            tty: "/sys/class/tty".into(),
            dev: "/dev".into(),
            proc: "/proc".into(),
            udev: "/run/udev/data".into(),
            group: "/etc/group".into(),
        }
    }
}

/// A serial port.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Port {
    /// Its device file.
    pub path: PathBuf,
    /// Its name below `/dev/serial/by-id`, which stays the same when it is plugged in elsewhere.
    pub by_id: Option<String>,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// What it is part of, if that is a USB device.
    pub usb: Option<UsbDevice>,
    /// Why it cannot be used as it is; `None` if it can.
    pub fault: Option<String>,
    /// What is worth knowing although it can be used.
    pub notes: Vec<String>,
}

/// A USB device that has a serial port.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UsbDevice {
    /// Vendor, 16 bits.
    pub vendor_id: u16,
    /// Product, 16 bits.
    pub product_id: u16,
    /// What it calls its maker.
    pub manufacturer: Option<String>,
    /// What it calls itself.
    pub product: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
}

/// All serial ports of this machine, by name.
pub fn ports() -> Vec<Port> {
    ports_in(&Places::default())
}

pub(crate) fn ports_in(places: &Places) -> Vec<Port> {
    let Ok(entries) = fs::read_dir(&places.tty) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_by_key(|name| {
        (name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(), name.len(), name.clone())
    });
    names.iter().filter_map(|name| port(name, places)).collect()
}

fn port(name: &str, places: &Places) -> Option<Port> {
    let folder = places.tty.join(name);
    // Virtual terminals have no device behind them.
    let device = fs::canonicalize(folder.join("device")).ok()?;
    // A place for a UART where none is: type 0, PORT_UNKNOWN in linux/serial.h.
    if read(&folder, "type").is_some_and(|kind| kind == "0") {
        return None;
    }
    let path = places.dev.join(name);
    let driver = ["driver", "../driver"].into_iter().find_map(|link| {
        let driver = fs::canonicalize(device.join(link)).ok()?;
        Some(driver.file_name()?.to_string_lossy().into_owned())
    });
    let mut port = Port { by_id: by_id(&path, places), driver, usb: usb(&device), path, ..Port::default() };
    port.fault = fault(&port.path, places);
    port.notes = notes(name, &folder, places);
    Some(port)
}

fn read(folder: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(folder.join(file)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.chars().filter(|c| !c.is_control()).collect())
}

fn usb(device: &Path) -> Option<UsbDevice> {
    let folder = device.ancestors().find(|folder| folder.join("idVendor").is_file())?;
    let number = |file| u16::from_str_radix(&read(folder, file)?, 16).ok();
    Some(UsbDevice {
        vendor_id: number("idVendor")?,
        product_id: number("idProduct")?,
        manufacturer: read(folder, "manufacturer"),
        product: read(folder, "product"),
        serial: read(folder, "serial"),
    })
}

fn by_id(path: &Path, places: &Places) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let entries = fs::read_dir(places.dev.join("serial/by-id")).ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let leads_here = fs::canonicalize(entry.path()).is_ok_and(|target| target == path);
        leads_here.then(|| entry.file_name().into_string().ok()).flatten()
    })
}

fn fault(path: &Path, places: &Places) -> Option<String> {
    if !path.exists() {
        return Some("no device file".to_owned());
    }
    if access(path, Access::READ_OK | Access::WRITE_OK).is_err() {
        return Some(format!("no permission; {}", permission_advice(path, &places.group)));
    }
    let holders = console::holders(path, &places.proc);
    if let Some(getty) = holders.iter().find(|holder| holder.is_getty()) {
        return Some(format!("a login prompt runs on it: {}; getty=stop stops it", getty.text()));
    }
    holders.first().map(|holder| format!("in use by {}", holder.text()))
}

/// What would give this user the port.
pub(crate) fn permission_advice(path: &Path, groups: &Path) -> String {
    let Ok(metadata) = fs::metadata(path) else { return "it cannot even be looked at".to_owned() };
    let mode = metadata.mode();
    let group = group_name(metadata.gid(), groups);
    if mode & 0o060 == 0o060 && metadata.gid() != 0 {
        format!("it belongs to group {group}: sudo usermod -aG {group} $USER, and log in again")
    } else {
        format!(
            "its mode is {:03o} and it belongs to group {group}: only its owner or root may use it",
            mode & 0o777
        )
    }
}

fn group_name(gid: u32, groups: &Path) -> String {
    let text = fs::read_to_string(groups).unwrap_or_default();
    let named = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| gid.to_string())
}

fn notes(name: &str, folder: &Path, places: &Places) -> Vec<String> {
    let mut notes = Vec::new();
    if console::is_kernel_console(name, &places.tty.join("console/active")) {
        notes.push("kernel messages go to it; they damage packets now and then".to_owned());
    }
    let udev = read(folder, "dev")
        .and_then(|number| fs::read_to_string(places.udev.join(format!("c{number}"))).ok());
    if udev
        .is_some_and(|data| data.contains("E:ID_MM_CANDIDATE=1") && !data.contains("E:ID_MM_DEVICE_IGNORE=1"))
    {
        notes.push("ModemManager may try it when it is plugged in".to_owned());
    }
    notes
}

/// The device file that `port` names: a path, a by-id name, or the serial number of a USB device.
pub(crate) fn resolve(port: &str, places: &Places) -> Result<PathBuf, PortError> {
    if port.contains('/') {
        return Ok(PathBuf::from(port));
    }
    let by_id = places.dev.join("serial/by-id").join(port);
    if by_id.exists() {
        return Ok(by_id);
    }
    let direct = places.dev.join(port);
    if direct.exists() {
        return Ok(direct);
    }
    let has_serial =
        |candidate: &Port| candidate.usb.as_ref().is_some_and(|usb| usb.serial.as_deref() == Some(port));
    let mut found: Vec<_> =
        ports_in(places).into_iter().filter(has_serial).map(|candidate| candidate.path).collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        (None, _) => Err(PortError::UnknownName(port.to_owned())),
        (Some(last), false) => {
            found.push(last);
            let paths = found.iter().map(|path| path.display().to_string()).collect();
            Err(PortError::Ambiguous { name: port.to_owned(), paths })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with two FTDI ports, an ACM device, one real UART and one that is not there.
    fn machine() -> (tempfile::TempDir, Places) {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let write = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        };
        for (device, serial) in [("1-1", "A50285BI"), ("1-2", "SECOND")] {
            let usb = format!("sys/devices/usb1/{device}");
            write(&format!("{usb}/idVendor"), "0403\n");
            write(&format!("{usb}/idProduct"), "6001\n");
            write(&format!("{usb}/manufacturer"), "FTDI\n");
            write(&format!("{usb}/product"), "FT232R\x07 USB UART\n");
            write(&format!("{usb}/serial"), &format!("{serial}\n"));
        }
        write("sys/bus/drivers/ftdi_sio/bind", "");
        write("proc/1/stat", "1 (init) S 0 1 1 0 -1 0");
        for (name, usb) in [("ttyUSB0", "1-1"), ("ttyUSB10", "1-2"), ("ttyUSB2", "1-2")] {
            let device = format!("sys/devices/usb1/{usb}/{usb}:1.0/{name}");
            write(&format!("{device}/port_number"), "0");
            symlink(at("sys/bus/drivers/ftdi_sio"), at(&format!("{device}/driver"))).unwrap();
            write(&format!("sys/class/tty/{name}/dev"), "188:0\n");
            symlink(at(&device), at(&format!("sys/class/tty/{name}/device"))).unwrap();
            write(&format!("dev/{name}"), "");
        }
        for (name, kind) in [("ttyS0", "4"), ("ttyS1", "0")] {
            write("sys/devices/serial8250/x", "");
            write(&format!("sys/class/tty/{name}/type"), kind);
            symlink(at("sys/devices/serial8250"), at(&format!("sys/class/tty/{name}/device"))).unwrap();
            write(&format!("dev/{name}"), "");
        }
        write("sys/class/tty/tty1/dev", "4:1");
        write("sys/class/tty/console/active", "ttyS0\n");
        write("run/c188:0", "E:ID_MM_CANDIDATE=1\n");
        write("etc/group", "root:x:0:\ndialout:x:20:me\n");
        fs::create_dir_all(at("dev/serial/by-id")).unwrap();
        symlink(at("dev/ttyUSB0"), at("dev/serial/by-id/usb-FTDI_A50285BI-if00")).unwrap();
        let places = Places {
            tty: at("sys/class/tty"),
            dev: at("dev"),
            proc: at("proc"),
            udev: at("run"),
            group: at("etc/group"),
        };
        (root, places)
    }

    #[test]
    fn ports_are_listed_with_what_is_known_of_them() {
        let (_root, places) = machine();
        let ports = ports_in(&places);
        let names: Vec<_> =
            ports.iter().map(|port| port.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["ttyS0", "ttyUSB0", "ttyUSB2", "ttyUSB10"]);
        let ftdi = &ports[1];
        assert_eq!(ftdi.by_id.as_deref(), Some("usb-FTDI_A50285BI-if00"));
        assert_eq!(ftdi.driver.as_deref(), Some("ftdi_sio"));
        let usb = ftdi.usb.as_ref().unwrap();
        assert_eq!((usb.vendor_id, usb.product_id), (0x0403, 0x6001));
        assert_eq!(
            usb.product.as_deref(),
            Some("FT232R USB UART"),
            "no control character reaches a terminal"
        );
        assert_eq!(ftdi.fault, None);
        assert!(ftdi.notes[0].contains("ModemManager"), "{:?}", ftdi.notes);
        assert!(ports[0].notes[0].contains("kernel messages"), "{:?}", ports[0].notes);
    }

    #[test]
    fn names_and_serial_numbers_find_their_port() {
        let (_root, places) = machine();
        let found = |name: &str| resolve(name, &places).map(|path| fs::canonicalize(path).unwrap());
        let usb0 = fs::canonicalize(places.dev.join("ttyUSB0")).unwrap();
        for name in ["usb-FTDI_A50285BI-if00", "A50285BI", "ttyUSB0"] {
            assert_eq!(found(name).unwrap(), usb0, "{name}");
        }
        let error = resolve("SECOND", &places).unwrap_err().to_string();
        assert!(error.contains("ttyUSB2") && error.contains("ttyUSB10"), "{error}");
        let error = resolve("nonesuch", &places).unwrap_err().to_string();
        assert!(error.contains("bondwire devices"), "{error}");
    }

    #[test]
    fn a_machine_without_sysfs_has_no_ports() {
        let places = Places { tty: "/nonexistent".into(), ..Places::default() };
        assert_eq!(ports_in(&places), []);
    }
}
