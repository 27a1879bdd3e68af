//! The guest itself: cables and gadgets by the kernel's own means, udev, the serial adapter. These hold what tests of
//! links take for granted.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use bondwire_vm::{Gadget, Guest, Speed, guest, wait_for};

/// Everything that udev says about USB, line by line.
struct Monitor {
    udevadm: Child,
    lines: Receiver<String>,
}

impl Monitor {
    fn start() -> Self {
        let mut command = Command::new("udevadm");
        command.args(["monitor", "--udev", "--subsystem-match=usb"]).stdout(Stdio::piped());
        let mut udevadm = command.spawn().unwrap();
        let output = BufReader::new(udevadm.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let monitor = Self { udevadm, lines };
        // It says so once it listens.
        monitor.expect("the event which udev sends");
        monitor
    }

    fn expect(&self, text: &str) {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60));
            if line.unwrap_or_else(|_| panic!("udev said nothing of {text:?}")).contains(text) {
                return;
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.udevadm.kill().unwrap();
        self.udevadm.wait().unwrap();
    }
}

/// The folder in sysfs of the device with this product name.
fn device(product: &str) -> Option<PathBuf> {
    let mut devices = fs::read_dir("/sys/bus/usb/devices").ok()?.flatten().map(|entry| entry.path());
    devices.find(|device| attribute(device, "product").is_some_and(|name| name == product))
}

fn attribute(device: &Path, name: &str) -> Option<String> {
    fs::read_to_string(device.join(name)).ok().map(|text| text.trim().to_owned())
}

/// Opens a serial port with every byte as it is.
fn raw_port(path: &str) -> fs::File {
    let port = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut settings = rustix::termios::tcgetattr(&port).unwrap();
    settings.make_raw();
    rustix::termios::tcsetattr(&port, rustix::termios::OptionalActions::Now, &settings).unwrap();
    port
}

/// Sends bytes of every value from one port to the other.
fn carry(mut from: &fs::File, mut to: &fs::File) {
    let sent: Vec<u8> = (0..=255).cycle().take(4096).collect();
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).unwrap());
        let mut received = vec![0; sent.len()];
        to.read_exact(&mut received).unwrap();
        assert!(received == sent, "the bytes changed on their way");
    });
}

#[test]
fn a_cable_has_two_ends() {
    let Some(guest) = guest() else { return };
    let cables = guest.cables(2, Speed::High).unwrap();
    assert_eq!(cables.controllers().unwrap(), ["dummy_udc.0", "dummy_udc.1"]);
    drop(cables);
    assert!(!Path::new("/sys/module/dummy_hcd").exists());
}

fn a_gadget_is_seen(guest: &Guest, speed: Speed) {
    let cables = guest.cables(1, speed).unwrap();
    let udev = Monitor::start();
    let gadget = Gadget::new(guest, "seen", "BW1", &["SourceSink.0"]).unwrap();
    gadget.bind(&cables.controllers().unwrap()[0]).unwrap();
    let found = wait_for("the device", || device(Gadget::PRODUCT)).unwrap();
    let name = found.file_name().unwrap().to_string_lossy().into_owned();
    udev.expect(&format!("/{name} (usb)"));
    assert_eq!(attribute(&found, "speed").as_deref(), Some(speed.megabits()));
    // Both directions have an endpoint: the configuration was chosen.
    wait_for("the interface", || found.join(format!("{name}:1.0/ep_81")).exists().then_some(())).unwrap();
}

#[test]
fn a_gadget_is_seen_at_full_speed() {
    let Some(guest) = guest() else { return };
    a_gadget_is_seen(&guest, Speed::Full);
}

#[test]
fn a_gadget_is_seen_at_high_speed() {
    let Some(guest) = guest() else { return };
    a_gadget_is_seen(&guest, Speed::High);
}

#[test]
fn a_gadget_is_seen_at_super_speed() {
    let Some(guest) = guest() else { return };
    a_gadget_is_seen(&guest, Speed::Super);
}

#[test]
fn a_serial_cable_carries_bytes_until_it_is_pulled() {
    let Some(guest) = guest() else { return };
    let cables = guest.cables(1, Speed::High).unwrap();
    let gadget = Gadget::new(&guest, "serial", "BW1", &["acm.0"]).unwrap();
    gadget.bind(&cables.controllers().unwrap()[0]).unwrap();
    wait_for("the host's end", || Path::new("/dev/ttyACM0").exists().then_some(())).unwrap();
    let (near, far) = (raw_port("/dev/ttyACM0"), raw_port("/dev/ttyGS0"));
    carry(&near, &far);
    carry(&far, &near);
    let udev = Monitor::start();
    gadget.unbind().unwrap();
    udev.expect("remove");
    wait_for("the device to go", || device(Gadget::PRODUCT).is_none().then_some(())).unwrap();
    // The port that is open knows of its end, and its name goes with it.
    assert_eq!((&near).read(&mut [0]).unwrap(), 0);
    drop(near);
    wait_for("the port to go", || (!Path::new("/dev/ttyACM0").exists()).then_some(())).unwrap();
}

#[test]
fn a_serial_adapter_reaches_its_far_end() {
    let Some(guest) = guest() else { return };
    guest.load("ftdi_sio", &[]).unwrap();
    wait_for("the adapter", || Path::new("/dev/ttyUSB0").exists().then_some(())).unwrap();
    let (near, far) = (raw_port("/dev/ttyUSB0"), raw_port("/dev/ttyS2"));
    carry(&near, &far);
    carry(&far, &near);
}

#[test]
fn somebody_without_rights_is_there_to_be_refused() {
    if guest().is_none() {
        return;
    }
    let status =
        Command::new("su").args(["user", "-c", "cat /dev/kmsg"]).stderr(Stdio::null()).status().unwrap();
    assert!(!status.success());
    assert!(Command::new("su").args(["user", "-c", "true"]).status().unwrap().success());
}
