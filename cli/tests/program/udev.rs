//! `bondwire udev`: what it writes, replaces and removes, and what udev and systemd make of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::tools::{able, run};
use crate::user::{Ended, User};

/// The rules as they were before they had a version.
const RULES_OF_VERSION_1: &str = r#"# Lets the user at this machine's screen open Bondwire devices, known by the class of their interface (ff, 01, 02).
# Install it in /etc/udev/rules.d; the number is below 73, where logind hands devices out.
ACTION=="remove", GOTO="bondwire_end"
SUBSYSTEM!="usb", GOTO="bondwire_end"
ENV{DEVTYPE}=="usb_device", ENV{ID_USB_INTERFACES}=="*:ff0102:*", TAG+="uaccess"
LABEL="bondwire_end"
"#;
const RULES: &str = "etc/udev/rules.d/70-bondwire.rules";
const SERIAL_RULES: &str = "etc/udev/rules.d/69-bondwire-serial.rules";
const SERVICE: &str = "etc/systemd/system/bondwire.service";

/// An image of a machine, and whoever installs there.
struct Image {
    user: User,
    root: TempDir,
}

impl Image {
    fn new() -> Self {
        Self { user: User::new(), root: TempDir::new().unwrap() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn udev(&self, arguments: &[&str]) -> Ended {
        let root = self.root.path().to_str().unwrap();
        self.user.run(&[&["udev"], arguments, &["--root", root]].concat())
    }

    /// What stands there, by path.
    fn files(&self) -> Vec<(PathBuf, String)> {
        fn walk(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                } else {
                    files.push((path.clone(), fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let mut files = Vec::new();
        walk(self.root.path(), &mut files);
        files.sort();
        files
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }
}

#[test]
fn what_is_installed_is_installed_once_and_removed_as_a_whole() {
    let image = Image::new();
    let said = image.udev(&["install"]).assert_code(0).stdout;
    let files = image.files();
    assert_eq!(said.lines().filter(|line| line.starts_with("installed ")).count(), 6, "{said}");
    assert_eq!(files.len(), 6);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert!(files.iter().all(|(path, _)| mode(path) == 0o644));
    assert!(image.read(SERVICE).contains("\nExecStart=/usr/bin/bondwire up /etc/bondwire/bondwire.toml\n"));
    let said = image.udev(&["install"]).assert_code(0).stdout;
    assert_eq!(said.lines().filter(|line| line.ends_with(" is up to date")).count(), 6, "{said}");
    assert_eq!(image.files(), files);
    let printed = image.udev(&["print"]).assert_code(0).stdout;
    for (path, text) in &files {
        assert!(printed.contains(&format!("==> {} <==\n{text}", path.display())), "{}", path.display());
    }
    // Somebody else's, beside them.
    fs::write(image.at("etc/udev/rules.d/99-other.rules"), "").unwrap();
    let said = image.udev(&["uninstall"]).assert_code(0).stdout;
    assert_eq!(said.lines().filter(|line| line.starts_with("removed ")).count(), 6, "{said}");
    assert_eq!(image.files(), [(image.at("etc/udev/rules.d/99-other.rules"), String::new())]);
    assert_eq!(image.udev(&["uninstall"]).assert_code(0).stdout, "nothing is installed\n");
}

#[test]
fn an_older_file_is_replaced_and_a_changed_or_newer_one_is_not() {
    let image = Image::new();
    fs::create_dir_all(image.at("etc/udev/rules.d")).unwrap();
    fs::write(image.at(RULES), RULES_OF_VERSION_1).unwrap();
    let said = image.udev(&["install"]).assert_code(0).stdout;
    assert!(
        said.contains(&format!("replaced {}, which was of version 1\n", image.at(RULES).display())),
        "{said}"
    );
    let ours = image.read(SERVICE);

    for changed in [ours.replace("WatchdogSec=30", "WatchdogSec=60"), String::new()] {
        fs::write(image.at(SERVICE), &changed).unwrap();
        fs::write(image.at(RULES), RULES_OF_VERSION_1).unwrap();
        for command in ["install", "uninstall"] {
            let ended = image.udev(&[command]).assert_code(3);
            let line = ended.error_line();
            assert!(
                line.contains("bondwire.service: changed since it was installed") && line.contains("--force"),
                "{line}"
            );
        }
        assert_eq!(
            (image.read(SERVICE), image.read(RULES)),
            (changed, RULES_OF_VERSION_1.to_owned()),
            "all or nothing"
        );
    }
    let said = image.udev(&["install", "--force"]).assert_code(0).stdout;
    assert!(said.contains("overwrote ") && image.read(SERVICE) == ours, "{said}");

    // A unit that is masked is a link to /dev/null.
    fs::remove_file(image.at(SERVICE)).unwrap();
    symlink("/dev/null", image.at(SERVICE)).unwrap();
    image.udev(&["install"]).assert_code(3);
    image.udev(&["install", "--force"]).assert_code(0);
    assert_eq!(image.read(SERVICE), ours);
}

#[test]
fn beside_a_package_only_serial_numbers_are_written() {
    let image = Image::new();
    // From before the package was there.
    image.udev(&["install", "--serial", "A1"]).assert_code(0);
    let packaged = image.at("usr/lib/systemd/system/bondwire.service");
    fs::create_dir_all(packaged.parent().unwrap()).unwrap();
    fs::write(&packaged, "[Service]\n").unwrap();
    // What somebody wants otherwise than the package has it stays.
    fs::write(image.at(SERVICE), "[Service]\nExecStart=/opt/bondwire\n").unwrap();
    let said = image.udev(&["install", "--serial", "B2"]).assert_code(0).stdout;
    assert!(said.ends_with("\nrules and units are the package's\n"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("removed ")).count(), 5, "{said}");
    let serial_rules = image.read(SERIAL_RULES);
    assert!(serial_rules.contains("\"A1\"") && serial_rules.contains("\"B2\""), "{serial_rules}");
    let left = |image: &Image| image.files().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(left(&image), [image.at(SERVICE), image.at(SERIAL_RULES), packaged.clone()]);

    let said = image.udev(&["uninstall"]).assert_code(0).stdout;
    assert!(said.contains("the package's; remove that"), "{said}");
    assert_eq!(left(&image), [image.at(SERVICE), packaged]);
    assert_eq!(image.udev(&["uninstall"]).assert_code(0).stdout.lines().count(), 1);
}

#[test]
fn ports_are_opted_in_by_their_serial_numbers_and_stay_so() {
    let image = Image::new();
    image.udev(&["install", "--serial", "FT4X9Z1B"]).assert_code(0);
    image.udev(&["install", "--serial", "7"]).assert_code(0);
    image.udev(&["install"]).assert_code(0);
    let rules = image.read(SERIAL_RULES);
    for number in ["FT4X9Z1B", "7"] {
        assert!(
            rules.contains(&format!("ENV{{ID_SERIAL_SHORT}}==\"{number}\", ENV{{BONDWIRE_ATTACH}}=\"1\"\n")),
            "{rules}"
        );
    }
    image.udev(&["install", "--forget-serial", "7"]).assert_code(0);
    assert!(!image.read(SERIAL_RULES).contains("\"7\""));
    image.udev(&["install", "--forget-serial", "7"]).assert_code(2);
    let said = image.udev(&["install", "--forget-serial", "FT4X9Z1B"]).assert_code(0).stdout;
    assert!(said.contains("removed ") && !image.at(SERIAL_RULES).exists(), "{said}");
    let ended = image.udev(&["install", "--serial", "A*"]).assert_code(2);
    assert!(ended.error_line().contains("is no serial number"), "{}", ended.stderr);
}

#[test]
fn units_run_a_program_that_the_service_sees() {
    let image = Image::new();
    image.udev(&["install", "--program", "/usr/local/bin/bondwire"]).assert_code(0);
    for unit in ["bondwire.service", "bondwire-attach@.service", "bondwire-gadget.service"] {
        let text = image.read(&format!("etc/systemd/system/{unit}"));
        assert!(
            text.contains("\nExecStart=/usr/local/bin/bondwire ") && !text.contains("/usr/bin/bondwire"),
            "{text}"
        );
    }
    // The same version with another program is no change by hand.
    let said = image.udev(&["install"]).assert_code(0).stdout;
    assert!(said.contains("replaced ") && image.read(SERVICE).contains("=/usr/bin/bondwire up"), "{said}");
    for (program, code) in
        [("/home/me/bondwire", 3), ("/tmp/bondwire", 3), ("bondwire", 2), ("/opt/a b", 2), ("/opt/%i", 2)]
    {
        image.udev(&["install", "--program", program]).assert_code(code);
    }
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    if !able(&["systemd-analyze"], false) {
        return;
    }
    let image = Image::new();
    // It has to be there.
    image.udev(&["install", "--program", "/bin/true"]).assert_code(0);
    let units = image.at("etc/systemd/system");
    fs::copy(units.join("bondwire-attach@.service"), units.join("bondwire-attach@ttyUSB0.service")).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for unit in ["bondwire.service", "bondwire-attach@ttyUSB0.service", "bondwire-gadget.service"] {
        verify.arg(units.join(unit));
    }
    let output = run(&mut verify);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A machine with one USB device that is a cable and one serial adapter, as sysfs has them.
fn devices(root: &Path) {
    let write = |path: &str, text: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for (port, class, serial) in [("1-2", [0xff, 1, 2], "7"), ("1-3", [0xff, 0, 0], "FT4X9Z1B")] {
        let device = format!("sys/devices/usb1/{port}");
        let number = &port[2..];
        let uevent = format!(
            "MAJOR=189\nMINOR={number}\nDEVNAME=bus/usb/001/00{number}\nDEVTYPE=usb_device\nBUSNUM=001\n"
        );
        write(&format!("{device}/uevent"), uevent.as_bytes());
        for (name, value) in [
            ("busnum", "1"),
            ("devpath", number),
            ("idVendor", "1d6b"),
            ("idProduct", "0104"),
            ("bcdDevice", "0000"),
            ("bDeviceClass", "00"),
            ("serial", serial),
        ] {
            write(&format!("{device}/{name}"), format!("{value}\n").as_bytes());
        }
        // Device, configuration, interface and two endpoints, as USB 2.0, 9.6, has them.
        let mut descriptors =
            b"\x12\x01\x00\x02\x00\x00\x00\x40\x6b\x1d\x04\x01\x00\x00\x00\x00\x00\x01".to_vec();
        descriptors.extend(b"\x09\x02\x20\x00\x01\x01\x00\x80\x32\x09\x04\x00\x00\x02");
        descriptors.extend(class);
        descriptors.extend(b"\x00\x07\x05\x81\x02\x00\x02\x00\x07\x05\x01\x02\x00\x02\x00");
        write(&format!("{device}/descriptors"), &descriptors);
        link(root, &device, "sys/bus/usb");
    }
    let interface = "sys/devices/usb1/1-3/1-3:1.0";
    write(&format!("{interface}/uevent"), b"DEVTYPE=usb_interface\n");
    for (name, value) in [
        ("bInterfaceNumber", "00"),
        ("bInterfaceClass", "ff"),
        ("bInterfaceSubClass", "00"),
        ("bInterfaceProtocol", "00"),
    ] {
        write(&format!("{interface}/{name}"), value.as_bytes());
    }
    link(root, interface, "sys/bus/usb");
    write(&format!("{interface}/ttyUSB0/uevent"), b"\n");
    link(root, &format!("{interface}/ttyUSB0"), "sys/bus/usb-serial");
    write(&format!("{interface}/ttyUSB0/tty/ttyUSB0/uevent"), b"MAJOR=188\nMINOR=0\nDEVNAME=ttyUSB0\n");
    link(root, &format!("{interface}/ttyUSB0/tty/ttyUSB0"), "sys/class/tty");
}

/// Says what a device is part of. The link has to be a relative one, and lead somewhere.
fn link(root: &Path, device: &str, subsystem: &str) {
    fs::create_dir_all(root.join(subsystem)).unwrap();
    let up = "../".repeat(device.split('/').count() - 1);
    let target = format!("{up}{}", subsystem.strip_prefix("sys/").unwrap());
    symlink(target, root.join(device).join("subsystem")).unwrap();
}

/// What udev makes of a device below `image`, with the rules that are installed there and those of this host. It sees the image in
/// the place of sysfs, and none of what it does is seen outside.
fn judged(image: &Image, device: &str) -> String {
    let script = "set -e
        mount -t tmpfs none /run && mkdir -p /run/udev/rules.d && cp \"$1\"/etc/udev/rules.d/*.rules /run/udev/rules.d
        mount --bind \"$1/group\" /etc/group
        mount --bind \"$1/sys\" /sys
        mount -t tmpfs none /dev && touch /dev/null
        SYSTEMD_DEVICE_VERIFY_SYSFS=0 udevadm test --action=add \"/sys/devices/usb1/$2\" 2>&1";
    fs::write(image.at("group"), "root:x:0:\nbondwire:x:990:\n").unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(image.root.path()).arg(device);
    String::from_utf8_lossy(&run(&mut unshare).stdout).into_owned()
}

#[test]
fn udev_hands_over_cables_and_opted_in_ports_and_leaves_others_alone() {
    if !able(&["udevadm", "unshare", "mount"], true) {
        return;
    }
    let image = Image::new();
    devices(image.root.path());
    image.udev(&["install"]).assert_code(0);
    let has = |told: &str, line: &str| told.lines().any(|known| known == line);
    let told = judged(&image, "1-2");
    for line in [
        "ID_MM_DEVICE_IGNORE=1",
        "SYSTEMD_ALIAS=/sys/subsystem/bondwire/1/2",
        "SYSTEMD_WANTS=bondwire-attach@1-2.service",
    ] {
        assert!(has(&told, line), "{line}: {told}");
    }
    let tags = told.lines().find(|line| line.starts_with("TAGS=")).unwrap_or_default();
    assert!(tags.contains(":uaccess:") && tags.contains(":systemd:"), "{told}");
    assert!(told.contains("GROUP 990") && told.contains("MODE 0664"), "{told}");
    // What udev says of a file by itself is a fault in it.
    let is_fault = |line: &&str| line.starts_with("/run/udev/rules.d/");
    assert_eq!(told.lines().find(is_fault), None);

    let port = "1-3/1-3:1.0/ttyUSB0/tty/ttyUSB0";
    for device in ["1-3", port] {
        let told = judged(&image, device);
        assert!(!told.contains("bondwire-attach") && !told.contains("ID_MM_"), "{told}");
    }
    image.udev(&["install", "--serial", "FT4X9Z1B"]).assert_code(0);
    let told = judged(&image, port);
    for line in [
        "ID_MM_PORT_IGNORE=1",
        "SYSTEMD_ALIAS=/sys/subsystem/bondwire/ttyUSB0",
        "SYSTEMD_WANTS=bondwire-attach@ttyUSB0.service",
    ] {
        assert!(has(&told, line), "{line}: {told}");
    }
    assert_eq!(told.lines().find(is_fault), None);
    assert!(!judged(&image, "1-3").contains("bondwire-attach"), "only its port");
}

#[test]
fn udevadm_finds_no_fault_in_the_rules() {
    if !able(&["udevadm"], false) {
        return;
    }
    let version = String::from_utf8(run(Command::new("udevadm").arg("--version")).stdout).unwrap();
    if version.trim().parse::<u32>().is_ok_and(|version| version < 254) {
        println!("SKIPPED: `udevadm verify` is of systemd 254, and this is {}", version.trim());
        return;
    }
    let image = Image::new();
    image.udev(&["install", "--serial", "FT4X9Z1B"]).assert_code(0);
    let rules = [image.at(RULES), image.at(SERIAL_RULES)];
    run(Command::new("udevadm").args(["verify", "--resolve-names=never"]).args(rules));
}

/// Programs of the system that only write down how they were called.
fn fake_programs(folder: &Path, log: &Path) {
    for program in ["systemctl", "systemd-sysusers", "systemd-tmpfiles", "udevadm"] {
        let path = folder.join(program);
        fs::write(&path, format!("#!/bin/sh\necho {program} \"$@\" >> {}\n", log.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn the_running_system_is_told() {
    if !able(&["unshare", "mount"], true) {
        return;
    }
    let (user, folder) = (User::new(), TempDir::new().unwrap());
    let log = folder.path().join("log");
    fake_programs(folder.path(), &log);
    let script = "set -e
        mkdir -p /etc/udev /etc/systemd /etc/sysusers.d /etc/tmpfiles.d
        for folder in /run /etc/udev /etc/systemd /etc/sysusers.d /etc/tmpfiles.d; do mount -t tmpfs none $folder; done
        mkdir -p /run/systemd/system /run/udev && touch /run/udev/control
        PATH=$1:$PATH
        \"$2\" udev install --program /usr/bin/bondwire
        ls /etc/systemd/system >> \"$1/log\"
        \"$2\" udev uninstall
        ls /etc/systemd/system >> \"$1/log\"
        \"$2\" udev uninstall";
    let mut unshare = user.command(Path::new("unshare"));
    unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(folder.path()).arg(crate::user::PROGRAM);
    let said = String::from_utf8(run(&mut unshare).stdout).unwrap();
    assert!(said.contains("installed /etc/udev/rules.d/70-bondwire.rules\n"), "{said}");
    assert!(said.ends_with("nothing is installed\n"), "{said}");
    let expected = [
        "systemd-sysusers bondwire.conf",
        "systemd-tmpfiles --create bondwire.conf",
        "systemctl daemon-reload",
        "udevadm control --reload",
        "udevadm trigger --action=change --subsystem-match=usb --subsystem-match=tty",
        "bondwire-attach@.service",
        "bondwire-gadget.service",
        "bondwire.service",
        "systemctl stop bondwire-attach@*.service",
        "systemctl disable --quiet --now bondwire.service bondwire-gadget.service",
        "systemctl daemon-reload",
        "udevadm control --reload",
    ];
    assert_eq!(fs::read_to_string(&log).unwrap().lines().collect::<Vec<_>>(), expected);
}
