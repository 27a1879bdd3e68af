//! What keeps this machine from being the device of a cable: `cargo xtask vm`. Each has one line that says what to do, and doing
//! that helps.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]
// What these tests print is shown when one fails, and tells how far it came.
#![allow(clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bondwire_usb::Hint;
use bondwire_usb::device::GadgetAcceptor;
use bondwire_vm::{Guest, Speed};

const GADGETS: &str = "/sys/kernel/config/usb_gadget";
const MODULES: &str = "/lib/modules";

/// Serves these controllers; answers which, or why not. Served for a moment only.
fn attempt(address: &str) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _in = runtime.enter();
    let started = GadgetAcceptor::start(&address.parse().unwrap(), Hint::NONE);
    let result = started.map(|acceptor| acceptor.served().to_vec()).map_err(|e| e.to_string());
    println!("{address:?}: {result:?}");
    result
}

fn fault(address: &str) -> String {
    attempt(address).unwrap_err()
}

/// Runs what a message advises. Commands are not left to the guest's shell, which has simpler ones of its own.
fn follow(advice: &str) {
    let mut command = match advice.split_once(' ') {
        Some((program, arguments)) if program != "echo" => {
            let mut command = Command::new(program);
            command.args(arguments.split(' '));
            command
        }
        _ => {
            let mut command = Command::new("sh");
            command.args(["-c", advice]);
            command
        }
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{advice}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A gadget of somebody else's, on this controller until it is dropped.
struct Other;

impl Other {
    fn on(guest: &Guest, controller: &str) -> Self {
        guest.load("libcomposite", &[]).unwrap();
        let folder = Path::new(GADGETS).join("other");
        fs::create_dir(&folder).unwrap();
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
        let folder = Path::new(GADGETS).join("other");
        let _ = fs::write(folder.join("UDC"), "\n");
        let _ = fs::remove_file(folder.join("configs/c.1/SourceSink.0"));
        let _ = fs::remove_dir(folder.join("configs/c.1"));
        let _ = fs::remove_dir(folder.join("functions/SourceSink.0"));
        let _ = fs::remove_dir(folder);
    }
}

#[test]
fn a_controller_that_somebody_has_is_left_alone_and_the_others_serve() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(2, Speed::High).unwrap();
    let other = Other::on(&guest, "dummy_udc.0");
    let message = fault("dummy_udc.0");
    assert!(
        message.starts_with(
            "controller dummy_udc.0 is bound to gadget `other` (/sys/kernel/config/usb_gadget/other); \
             free it with `echo > /sys/kernel/config/usb_gadget/other/UDC`"
        ),
        "{message}"
    );
    assert_eq!(attempt("").unwrap(), ["dummy_udc.1"]);
    follow("echo > /sys/kernel/config/usb_gadget/other/UDC");
    assert_eq!(attempt("").unwrap(), ["dummy_udc.0", "dummy_udc.1"]);
    drop(other);

    // A driver of the old kind, which takes the first controller that is free.
    guest.load("g_serial", &[]).unwrap();
    let message = fault("dummy_udc.0");
    assert_eq!(
        message,
        "controller dummy_udc.0 is used by the driver `g_serial`; unload it first: `modprobe -r g_serial`"
    );
    assert_eq!(attempt("").unwrap(), ["dummy_udc.1"]);
    let other = Other::on(&guest, "dummy_udc.1");
    let message = fault("");
    assert!(
        message.starts_with("every USB device controller is in use: controller dummy_udc.0 is used by"),
        "{message}"
    );
    assert!(message.contains("; controller dummy_udc.1 is bound to gadget `other`"), "{message}");
    follow("modprobe -r g_serial");
    assert_eq!(attempt("").unwrap(), ["dummy_udc.0"]);
    drop(other);
    let message = fault("fe980000.usb");
    assert_eq!(
        message,
        "there is no USB device controller `fe980000.usb`; there are dummy_udc.0, dummy_udc.1"
    );
}

/// Unloads a module, and those that need it before.
fn unload(module: &str) {
    let holders = fs::read_dir(format!("/sys/module/{module}/holders")).into_iter().flatten().flatten();
    for holder in holders {
        unload(&holder.file_name().to_string_lossy());
    }
    if Path::new("/sys/module").join(module).exists() {
        follow(&format!("rmmod {module}"));
    }
}

/// The kernel's modules, out of its reach until this is dropped.
struct Hidden;

impl Hidden {
    fn new() -> Self {
        fs::rename(MODULES, "/lib/hidden").unwrap();
        Self
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        fs::rename("/lib/hidden", MODULES).unwrap();
    }
}

fn told_to_user() -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_serves", "--nocapture"]).env(CHILD, "1").stdin(Stdio::null());
    let output = command.uid(1000).gid(1000).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What tells this program that it is a child.
const CHILD: &str = "BONDWIRE_TEST_CHILD";

/// As a user: serves a controller.
#[test]
fn child_serves() {
    if std::env::var_os(CHILD).is_some() {
        let _ = attempt("");
    }
}

#[test]
fn what_the_kernel_lacks_is_named_and_the_advice_helps() {
    let Some(guest) = bondwire_vm::guest() else { return };
    assert!(fault("").starts_with("this machine has no USB device controller (nothing in /sys/class/udc)"));
    let cables = guest.cables(1, Speed::High).unwrap();
    unload("libcomposite");

    // Root's program mounts and loads what it needs by itself; nobody else can.
    follow("umount /sys/kernel/config");
    let told = told_to_user();
    println!("{told}");
    assert!(told.contains("configfs is not mounted"), "{told}");
    assert!(
        told.contains("`modprobe configfs; mount -t configfs none /sys/kernel/config` as root"),
        "{told}"
    );
    assert_eq!(attempt("").unwrap(), ["dummy_udc.0"]);
    let told = told_to_user();
    println!("{told}");
    assert!(
        told.contains("no permission to set up a USB gadget (")
            && told.contains("bondwire gadget up --user USER"),
        "{told}"
    );

    unload("libcomposite");
    let hidden = Hidden::new();
    assert_eq!(
        fault(""),
        "the kernel has no USB gadgets (libcomposite is not loaded): `modprobe libcomposite` as root, or a kernel with \
         CONFIG_USB_CONFIGFS"
    );
    drop(hidden);
    follow("modprobe libcomposite");
    let hidden = Hidden::new();
    let message = fault("");
    assert!(
        message.starts_with("the kernel has no gadget function `ffs.bondwire.dummy_udc.0`: `modprobe usb_f_fs`, or a kernel with it"),
        "{message}"
    );
    let left: Vec<_> = fs::read_dir(GADGETS).unwrap().flatten().collect();
    assert!(left.is_empty(), "half a gadget was left behind: {left:?}");
    drop(hidden);
    follow("modprobe usb_f_fs");
    assert_eq!(attempt("").unwrap(), ["dummy_udc.0"]);
    // Nobody else's function is missing because of ours.
    let hidden = Hidden::new();
    let message = fault(",with=ecm");
    assert!(message.contains("no gadget function `ecm.dummy_udc.0`: `modprobe usb_f_ecm`"), "{message}");
    drop(hidden);
    drop(cables);
}
