//! Cables that join the running service by themselves, under systemd and udevd as a machine has them: `cargo xtask vm`.
//!
//! Both ends are services of the one guest: `bondwire`, as it is installed, and `board` at the cables' far ends, the same unit
//! with folders of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]
// What these tests print is shown when one fails, and tells how far it came.
#![allow(clippy::print_stdout)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bondwire_vm::report::PACKAGE_FILE;
use bondwire_vm::{Gadget, Load, Speed, guest, wait_for};
use serde_json::{Value, json};

/// Where the guest has it: the path of the build is the host's.
const PROGRAM: &str = "/usr/bin/bondwire";
/// The controller of the cable that carries the link.
const CONTROLLER: &str = "dummy_udc.0";
const GADGETS: &str = "/sys/kernel/config/usb_gadget";
/// The service's control socket.
const SOCKET: &str = "/run/bondwire-service/bondwire/bondwire.sock";
/// Time in which a plugged-in cable is to carry data.
const ATTACH_LIMIT: Duration = Duration::from_secs(2);
/// How often the cable is plugged in and pulled, in the standard set and by `--long`.
const TIMES: usize = 10;
const MANY_TIMES: usize = 50;
/// How long an event may take here. Emulation is slow, and the host may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause after each 16 KiB of the load: it is more than the TCP link alone may carry, and little for the emulated
/// processors.
const PAUSE: Duration = Duration::from_millis(50);
/// The most that the TCP link carries.
const CAP: &str = "1Mbit";
/// A cable that has sent so many bytes is in use.
const USED: u64 = 50_000;
/// Where the connection goes in, and where it comes out at the far end.
const INLET: &str = "127.0.0.1:8080";
const OUTLET: &str = "127.0.0.1:9090";
/// The service's unit, from which the board's is made: of the package, or installed without it.
const UNITS: [&str; 2] = ["/usr/lib/systemd/system/bondwire.service", "/etc/systemd/system/bondwire.service"];
const BOARD_UNIT: &str = "/etc/systemd/system/board.service";
/// What the administrator says of the gadget.
const DROP_INS: &str = "/etc/systemd/system/bondwire-gadget.service.d";
/// What the guest has by itself.
const OF_THE_GUEST: [&str; 3] = [PACKAGE_FILE, "bondwire-vm", "/target/"];

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    println!("{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

#[track_caller]
fn good(command: &mut Command) -> String {
    let output = run(command);
    if !output.status.success() {
        run(Command::new("journalctl").args(["--no-pager", "--lines=100"]));
    }
    assert!(output.status.success(), "{command:?}: {output:?}");
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn bondwire(arguments: &[&str]) -> String {
    good(Command::new(PROGRAM).args(arguments))
}

#[track_caller]
fn systemctl(arguments: &[&str]) -> String {
    good(Command::new("systemctl").args(arguments))
}

/// Number and group of the service's user.
fn service_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("bondwire:")).expect("the service's user");
    let fields: Vec<_> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

/// The public key of the service whose state is in this folder of `/var/lib`; makes one.
fn key(folder: &str) -> String {
    let (user, group) = service_user();
    let path = format!("/var/lib/{folder}/bondwire");
    let path = if folder.is_empty() { "/var/lib/bondwire".to_owned() } else { path };
    fs::create_dir_all(&path).unwrap();
    chown(&path, Some(user), Some(group)).unwrap();
    let as_user = |command: &str| {
        let mut bondwire = Command::new(PROGRAM);
        let home = format!("/var/lib/{folder}");
        bondwire.arg(command).env("XDG_CONFIG_HOME", &home).env("HOME", &home).uid(user).gid(group);
        bondwire
    };
    // It may be there already.
    run(&mut as_user("keygen"));
    good(&mut as_user("pubkey")).trim().to_owned()
}

/// A connection to the service's control socket.
fn control(request: &Value) -> BufReader<UnixStream> {
    let mut socket = wait_for("the service", || UnixStream::connect(SOCKET).ok()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(socket, "{request}").unwrap();
    let mut socket = BufReader::new(socket);
    line(&mut socket);
    socket
}

fn line(socket: &mut impl BufRead) -> Value {
    let mut line = String::new();
    socket.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_default()
}

/// How many bytes each link of the service's bond has sent, by its name.
fn links() -> Vec<(String, u64)> {
    let status = line(&mut control(&json!({ "command": "status" })));
    let links = status["result"]["bonds"][0]["links"].as_array().cloned().unwrap_or_default();
    let row =
        |link: &Value| (link["link"].as_str().unwrap().to_owned(), link["sent_bytes"].as_u64().unwrap());
    links.iter().map(row).collect()
}

/// The messages of the running service, from its start on.
struct Messages(BufReader<UnixStream>);

impl Messages {
    fn follow() -> Self {
        Self(control(&json!({ "command": "events", "after": 0 })))
    }

    /// Waits for a message that says this of something.
    #[track_caller]
    fn wait_for(&mut self, of: &str, what: &str) -> String {
        loop {
            let event = line(&mut self.0);
            assert!(!event.is_null(), "the service ended, or was silent: {of} {what}");
            // Its answer is no message.
            let Some(message) = event["event"]["message"].as_str() else { continue };
            println!("    {message}");
            if message.contains(of) && message.contains(what) {
                return message.to_owned();
            }
        }
    }
}

/// Bytes through the bond, until somebody ends it.
fn start_load() -> Load {
    let listener = TcpListener::bind(OUTLET).unwrap();
    let connection = wait_for("the forward", || TcpStream::connect(INLET).ok()).unwrap();
    Load::start(connection, listener, PAUSE).unwrap()
}

/// The guest with both services installed and enabled, as an administrator does it.
struct Machine;

/// Where the files of a machine come from.
#[derive(Clone, Copy)]
enum Files<'a> {
    /// The Debian package.
    Package,
    /// `bondwire udev install` with these options.
    Program(&'a [&'a str]),
}

impl Files<'_> {
    fn install(self) {
        match self {
            Self::Package => drop(good(Command::new("dpkg").args(["--install", PACKAGE_FILE]))),
            Self::Program(options) => {
                // The program alone.
                good(Command::new("dpkg-deb").args(["--extract", PACKAGE_FILE, "/tmp/package"]));
                fs::copy("/tmp/package/usr/bin/bondwire", PROGRAM).unwrap();
                fs::remove_dir_all("/tmp/package").unwrap();
                bondwire(&[&["udev", "install"], options].concat());
            }
        }
    }
}

impl Machine {
    /// The board takes these links beside TCP.
    fn set_up(files: Files<'_>, board_links: &str) -> Self {
        files.install();
        let machine = Self;
        fs::create_dir_all("/var/lib/board").unwrap();
        let (own, board) = (key(""), key("board"));
        fs::write(
            "/etc/bondwire/bondwire.toml",
            format!(
                "[connect.board]\npeer = \"{board}\"\nlinks = [\"tcp:127.0.0.1:7700,cap={CAP}\"]\n\
                 attach = [\"usb:\", \"serial:*\"]\nforwards = [\"-L {INLET}:{OUTLET}\"]\n"
            ),
        )
        .unwrap();
        fs::write(
            "/etc/bondwire/board.toml",
            format!(
                "[listen]\nlinks = [\"tcp:127.0.0.1:7700\", {board_links}]\nallow = [\"{own}\"]\npermit-open = [\"{OUTLET}\"]\n"
            ),
        )
        .unwrap();
        let unit = UNITS.iter().find_map(|unit| fs::read_to_string(unit).ok()).unwrap();
        let unit = unit.replace("/bondwire.toml", "/board.toml").replace("=/var/lib\n", "=/var/lib/board\n");
        let unit = unit.replace("StateDirectory=bondwire\n", "StateDirectory=board/bondwire\n");
        fs::write(BOARD_UNIT, unit.replace("bondwire-service", "board")).unwrap();
        fs::create_dir_all(DROP_INS).unwrap();
        fs::write(
            format!("{DROP_INS}/cable.conf"),
            format!("[Service]\nExecStart=\nExecStart={PROGRAM} gadget up --user bondwire {CONTROLLER}\n"),
        )
        .unwrap();
        systemctl(&["daemon-reload"]);
        systemctl(&["enable", "bondwire-gadget", "board", "bondwire"]);
        machine
    }

    /// Nothing of the program outlasts its removal but its user.
    fn nothing_is_left() {
        let of_us = "find / -xdev -path /tmp -prune -o -name '*bondwire*' -print; \
                     ls -d /sys/kernel/config/usb_gadget/bondwire*; true";
        let left = good(Command::new("sh").args(["-c", of_us]));
        let left: Vec<_> =
            left.lines().filter(|path| !OF_THE_GUEST.iter().any(|own| path.contains(own))).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(
            !good(Command::new("systemctl").args(["list-units", "--plain", "--no-legend"]))
                .contains("bondwire-attach@")
        );
    }

    fn start() {
        systemctl(&["start", "board", "bondwire"]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            run(Command::new("journalctl").args(["--no-pager", "--lines=200"]));
        }
        run(Command::new("systemctl").args(["disable", "--now", "board"]));
        if run(Command::new("dpkg").args(["--status", "bondwire"])).status.success() {
            run(Command::new("dpkg").args(["--purge", "bondwire"]));
        } else {
            run(Command::new(PROGRAM).args(["udev", "uninstall"]));
            run(Command::new("rm").args(["-r", PROGRAM, "/var/lib/bondwire"]));
        }
        run(Command::new("rm").args(["-r", "/etc/bondwire", "/var/lib/board", BOARD_UNIT, DROP_INS]));
        if !thread::panicking() {
            Self::nothing_is_left();
        }
    }
}

/// Makes the board's port a device's again, or no longer.
fn role(is_device: bool) {
    let what = if is_device { "bind" } else { "unbind" };
    fs::write(format!("/sys/bus/platform/drivers/dummy_udc/{what}"), CONTROLLER).unwrap();
}

/// Plugs in the cable of the board, or pulls it. (`soft_connect` does not do: after it dummy_hcd answers no request.)
fn plug(gadget: &Path, is_in: bool) {
    fs::write(gadget.join("UDC"), if is_in { CONTROLLER } else { "\n" }).unwrap();
}

#[test]
fn a_cable_joins_the_running_bond_as_it_is_plugged_in_and_leaves_as_it_is_pulled() {
    cable_joins_and_leaves(TIMES);
}

#[test]
#[ignore = "takes minutes: cargo xtask vm --long"]
fn a_cable_joins_and_leaves_fifty_times() {
    cable_joins_and_leaves(MANY_TIMES);
}

/// Plugs the cable in and pulls it so often, under load.
fn cable_joins_and_leaves(times: usize) {
    let Some(guest) = guest() else { return };
    let machine = Machine::set_up(Files::Package, &format!("\"gadget:{CONTROLLER}\""));
    // The board has no controller yet. When one comes, that wants the gadget's unit, and the service waits for it.
    Machine::start();
    let mut messages = Messages::follow();
    messages.wait_for(" tcp ", ": up");
    let cables = guest.cables(1, Speed::High).unwrap();
    let gadget = Path::new(GADGETS).join(format!("bondwire.{CONTROLLER}"));
    messages.wait_for(" usb ", ": up");
    let load = start_load();
    let mut attached_after = Vec::new();
    for _ in 0..times {
        let carries = || links().iter().any(|(link, sent)| link.starts_with("usb") && *sent > USED);
        wait_for("data over the cable", || carries().then_some(())).unwrap();
        plug(&gadget, false);
        messages.wait_for(": detached", "");
        let links = links();
        assert!(links.len() == 1 && links[0].0.starts_with("tcp"), "{links:?}");
        let plugged_in = Instant::now();
        plug(&gadget, true);
        messages.wait_for(" usb ", ": up");
        attached_after.push(plugged_in.elapsed());
    }
    attached_after.sort();
    println!(
        "attached after {attached_after:?}; the aim is {ATTACH_LIMIT:?} on a machine that is not emulated"
    );

    println!("{} bytes arrived meanwhile, each right", load.end().unwrap());

    // The controller goes and comes back, as one of a dual-role port does; nobody types anything.
    let load = start_load();
    role(false);
    messages.wait_for(": detached", "");
    role(true);
    messages.wait_for(" usb ", ": up");
    assert!(load.end().unwrap() > 0);

    // A service that dies takes its cables up again.
    systemctl(&["kill", "--signal=KILL", "bondwire"]);
    messages.0.read_to_end(&mut Vec::new()).unwrap();
    Messages::follow().wait_for(" usb ", ": up");
    drop((machine, cables));
}

#[test]
fn a_serial_port_joins_if_its_number_was_let_in_and_no_other_one() {
    let Some(guest) = guest() else { return };
    let cables = guest.cables(2, Speed::High).unwrap();
    let wanted = Gadget::new(&guest, "wanted", "BW7", &["acm.0"]).unwrap();
    let other = Gadget::new(&guest, "other", "XY9", &["acm.1"]).unwrap();
    let machine = Machine::set_up(Files::Program(&["--serial", "BW7"]), "\"serial:/dev/ttyGS0\"");
    Machine::start();
    let mut messages = Messages::follow();
    messages.wait_for(" tcp ", ": up");
    // The other one first: by the time the wanted one is up, it has had its time.
    other.bind("dummy_udc.1").unwrap();
    wait_for("its port", || Path::new("/dev/ttyACM0").exists().then_some(())).unwrap();
    guest.settle().unwrap();
    let plugged_in = Instant::now();
    wanted.bind(CONTROLLER).unwrap();
    messages.wait_for(" serial ", ": up");
    println!("attached after {:?}", plugged_in.elapsed());
    let units = systemctl(&["list-units", "--all", "--plain", "--no-legend", "bondwire-attach@*"]);
    assert!(units.contains("@ttyACM1.service") && !units.contains("@ttyACM0.service"), "{units}");
    wanted.unbind().unwrap();
    messages.wait_for("ttyACM1: detached", "");
    drop((machine, wanted, other, cables));
}

#[test]
fn everything_comes_back_after_a_reboot() {
    let Some(guest) = guest() else { return };
    if guest.reboots() == 0 {
        // A controller that is there from boot on, as those of boards are.
        fs::create_dir_all("/etc/modules-load.d").unwrap();
        fs::create_dir_all("/etc/modprobe.d").unwrap();
        fs::write("/etc/modules-load.d/cable.conf", "dummy_hcd\n").unwrap();
        fs::write("/etc/modprobe.d/cable.conf", "options dummy_hcd num=1 is_high_speed=1\n").unwrap();
        std::mem::forget(Machine::set_up(Files::Package, &format!("\"gadget:{CONTROLLER}\"")));
        guest.reboot().unwrap();
    }
    // Nothing but looking on from here.
    let machine = Machine;
    Messages::follow().wait_for(" usb ", ": up");
    assert!(start_load().end().unwrap() > 0);
    fs::remove_file("/etc/modules-load.d/cable.conf").unwrap();
    drop(machine);
}
