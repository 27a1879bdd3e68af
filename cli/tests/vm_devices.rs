//! What `bondwire devices` and `connect` say of USB devices and controllers that cannot be used: `cargo xtask vm`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]
// What these tests print is shown when one fails, and tells how far it came.
#![allow(clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use bondwire_vm::{Guest, Speed, guest, wait_for};
use serde_json::Value;

/// Where the guest has it: the path of the build is the host's.
const PROGRAM: &str = "/usr/bin/bondwire";
const GADGET: &str = "/sys/kernel/config/usb_gadget/other";
/// What a user without rights has.
const USER: u32 = 1000;

/// The program as root or as another user, each with a configuration folder of its own.
fn bondwire(user: u32, arguments: &[&str]) -> Command {
    let home = format!("/tmp/home.{user}");
    fs::create_dir_all(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(user), Some(user)).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env("HOME", &home).env("XDG_RUNTIME_DIR", &home).uid(user).gid(user);
    command.env_remove("XDG_CONFIG_HOME").stdin(Stdio::null());
    command
}

fn run(user: u32, arguments: &[&str]) -> Output {
    let output = bondwire(user, arguments).output().unwrap();
    println!("{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `devices` tells this user.
fn devices(user: u32) -> String {
    let output = run(user, &["devices"]);
    assert!(output.status.success());
    text(&output.stdout)
}

/// The one of our devices, in the object of `--json`.
fn device(user: u32) -> Option<Value> {
    let report: Value = serde_json::from_slice(&run(user, &["devices", "--json"]).stdout).unwrap();
    let devices = report["usb_devices"].as_array().unwrap();
    devices.iter().find(|device| device["is_bondwire"] == true).cloned()
}

/// A public key of a new identity.
fn key(user: u32) -> String {
    // It may be there already.
    let _ = run(user, &["keygen"]);
    text(&run(user, &["pubkey"]).stdout).trim().to_owned()
}

/// A gadget of somebody else's, on this controller until it is dropped.
struct Other;

impl Other {
    fn on(guest: &Guest, controller: &str) -> Self {
        guest.load("libcomposite", &[]).unwrap();
        let folder = Path::new(GADGET);
        fs::create_dir(folder).unwrap();
        let other = Self;
        fs::create_dir(folder.join("configs/c.1")).unwrap();
        fs::create_dir(folder.join("functions/SourceSink.0")).unwrap();
        symlink(folder.join("functions/SourceSink.0"), folder.join("configs/c.1/SourceSink.0")).unwrap();
        fs::write(folder.join("UDC"), controller).unwrap();
        other
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let folder = Path::new(GADGET);
        let _ = fs::write(folder.join("UDC"), "\n");
        let _ = fs::remove_file(folder.join("configs/c.1/SourceSink.0"));
        let _ = fs::remove_dir(folder.join("configs/c.1"));
        let _ = fs::remove_dir(folder.join("functions/SourceSink.0"));
        let _ = fs::remove_dir(folder);
    }
}

/// A program that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that it takes its gadget away.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_in_the_way_is_told_with_what_to_do() {
    let Some(guest) = guest() else { return };
    let told = devices(USER);
    assert!(told.starts_with("no USB device with Bondwire's interface\n"), "{told}");
    assert!(
        told.contains("no USB device controller: this machine can only be the host of a cable\n"),
        "{told}"
    );

    let _cables = guest.cables(2, Speed::High).unwrap();
    let other = Other::on(&guest, "dummy_udc.0");
    let told = devices(0);
    assert!(
        told.contains(
            "    not usable: controller dummy_udc.0 is bound to gadget `other` (/sys/kernel/config/usb_gadget/other); \
             free it with `echo > /sys/kernel/config/usb_gadget/other/UDC`"
        ),
        "{told}"
    );
    assert!(
        told.contains("gadget dummy_udc.1      up to high-speed\n    usable\n    gadget:dummy_udc.1\n"),
        "{told}"
    );
    let refused = run(0, &["listen", "gadget:dummy_udc.0", "--allow", &key(USER)]);
    let line = text(&refused.stderr);
    assert!(!refused.status.success() && line.contains("is bound to gadget `other`"), "{line}");

    // Somebody serves the other controller, and the device that this makes is not for everybody.
    let (peer, own) = (key(0), key(USER));
    let listening = Running(bondwire(0, &["listen", "gadget:dummy_udc.1", "--allow", &own]).spawn().unwrap());
    let found = wait_for("the device", || device(0)).unwrap();
    assert_eq!((&found["usable"], &found["fault"]), (&Value::Bool(true), &Value::Null));
    assert!(devices(0).contains("in use by Bondwire: configured"));
    guest.settle().unwrap();
    let told = devices(USER);
    let no_permission = "no permission to open /dev/bus/usb/";
    assert!(told.contains(&format!("    not usable: {no_permission}")), "{told}");
    assert!(
        told.contains(
            "install the udev rule with `sudo bondwire udev install`, then plug the cable in again"
        ),
        "{told}"
    );
    let ended = run(USER, &["connect", "usb:", "--peer", &peer, "--timeout", "3"]);
    let line = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(4), "{line}");
    let link = found["link"].as_str().unwrap();
    assert!(line.contains(&format!("no link came up: {link}: {no_permission}")), "{line}");

    let greedy = guest.greedy_driver("1d6b 0104").unwrap();
    let fault = |user| device(user).and_then(|device| device["fault"].as_str().map(str::to_owned));
    let told = wait_for("the driver", || fault(0).filter(|fault| fault.contains("kernel driver"))).unwrap();
    let port = found["port"].as_str().unwrap();
    assert_eq!(
        told,
        format!(
            "the interface belongs to the kernel driver `usbserial_generic`; free it with \
             `echo {port}:1.0 > /sys/bus/usb/drivers/usbserial_generic/unbind` as root"
        )
    );
    drop((greedy, listening, other));
}
