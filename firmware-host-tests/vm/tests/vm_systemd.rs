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
use bondwire_vm::{Cables, Gadget, Guest, Load, Speed, guest, wait_for};
use serde_json::{Value, json};

/// Where the guest has it: the path of the build is the host's.
const PROGRAM: &str = "/usr/bin/bondwire";
/// The controller of the cable that carries the link.
const CONTROLLER: &str = "dummy_udc.0";
/// What the host's buses have.
const DEVICES: &str = "/sys/bus/usb/devices";
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

/// A connection to the service's control socket, once a service is there to answer: a connection that a dying one still took
/// is reset.
fn control(request: &Value) -> BufReader<UnixStream> {
    let greeted = || {
        let mut socket = UnixStream::connect(SOCKET).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(socket, "{request}").ok()?;
        let mut socket = BufReader::new(socket);
        let greeting_bytes = socket.read_line(&mut String::new()).ok()?;
        (greeting_bytes > 0).then_some(socket)
    };
    wait_for("the service", greeted).unwrap()
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
        // Once reached, it stays active until the next boot, and the next machine is to reach it anew.
        run(Command::new("systemctl").args(["stop", "usb-gadget.target"]));
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

/// The machine with a cable in the bond, beside TCP. The far end is a gadget of the board.
struct Joined {
    machine: Machine,
    messages: Messages,
    cables: Cables,
    cable: Cable,
}

impl Joined {
    fn set_up(guest: &Guest) -> Self {
        let machine = Machine::set_up(Files::Package, &format!("\"gadget:{CONTROLLER}\""));
        // The board has no controller yet. When one comes, that wants the gadget's unit, and the service waits for it.
        Machine::start();
        let mut messages = Messages::follow();
        messages.wait_for(" tcp ", ": up");
        let cables = guest.cables(1, Speed::High).unwrap();
        messages.wait_for(" usb ", ": up");
        Self { machine, messages, cables, cable: Cable::find() }
    }

    /// Pulls the cable and plugs it in so often, under load.
    fn come_and_go(&mut self, times: usize) {
        let load = start_load();
        let mut attached_after = Vec::new();
        for _ in 0..times {
            self.cable.wait_until("is used", |cable| cable.is_at(Moment::Used));
            self.cable.plug(false);
            self.messages.wait_for(": detached", "");
            let links = links();
            assert!(links.len() == 1 && links[0].0.starts_with("tcp"), "{links:?}");
            let plugged_in = Instant::now();
            self.cable.plug(true);
            self.messages.wait_for(" usb ", ": up");
            attached_after.push(plugged_in.elapsed());
        }
        attached_after.sort();
        println!(
            "attached after {attached_after:?}; the aim is {ATTACH_LIMIT:?} on a machine that is not emulated"
        );
        println!("{} bytes arrived meanwhile, each right", load.end().unwrap());
    }

    /// The controller goes and comes back, as one of a dual-role port does; nobody types anything.
    fn change_role(&mut self) {
        let load = start_load();
        self.cables.role(0, false).unwrap();
        self.messages.wait_for(": detached", "");
        self.cables.role(0, true).unwrap();
        self.messages.wait_for(" usb ", ": up");
        assert!(load.end().unwrap() > 0);
    }

    /// A service that dies takes its cables up again.
    fn kill_service(&mut self) {
        systemctl(&["kill", "--signal=KILL", "bondwire"]);
        self.messages.0.read_to_end(&mut Vec::new()).unwrap();
        self.messages = Messages::follow();
        self.messages.wait_for(" usb ", ": up");
    }

    /// Pulls the cable at a moment of its attachment, under load; nothing of it stays, and it joins when it is plugged in
    /// again.
    fn pull_when(&self, moment: Moment) {
        println!("pulled when {moment:?}");
        let cable = &self.cable;
        cable.plug(false);
        cable.wait_until("is gone", Cable::is_gone);
        let load = start_load();
        cable.plug(true);
        cable.wait_until("has come so far", |cable| cable.is_at(moment));
        cable.plug(false);
        cable.wait_until("is gone", Cable::is_gone);
        assert_eq!(cable.attachment("Result"), "success");
        cable.plug(true);
        cable.wait_until("is used", |cable| cable.is_at(Moment::Used));
        println!("{} bytes arrived meanwhile, each right", load.end().unwrap());
    }

    fn end(self) {
        // The gadget goes first, else its controller could not.
        drop((self.machine, self.cables));
    }
}

/// How far a cable that is plugged in has come.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Plugged,
    OnTheBus,
    BeingAttached,
    Attached,
    Used,
}

impl Moment {
    const ALL: [Self; 5] = [Self::Plugged, Self::OnTheBus, Self::BeingAttached, Self::Attached, Self::Used];
}

/// The cable, by the name of its port at the host: `3-1`.
struct Cable(String);

impl Cable {
    /// The one that is plugged in.
    fn find() -> Self {
        let is_ours = |path: &Path| {
            fs::read_to_string(path.join("manufacturer")).is_ok_and(|name| name.trim() == "Bondwire")
        };
        let mut devices = fs::read_dir(DEVICES).unwrap().flatten();
        let device = devices.find(|device| is_ours(&device.path())).expect("a device of ours");
        Self(device.file_name().into_string().unwrap())
    }

    /// Plugs it in, or pulls it. (`soft_connect` does not do: after it dummy_hcd answers no request.)
    fn plug(&self, is_in: bool) {
        let attribute = format!("{GADGETS}/bondwire.{CONTROLLER}/UDC");
        fs::write(attribute, if is_in { CONTROLLER } else { "\n" }).unwrap();
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waited = wait_for("the cable", || is_so(self).then_some(()));
        assert!(waited.is_ok(), "cable {} never {what}: {:?}", self.0, links());
    }

    fn is_on_the_bus(&self) -> bool {
        Path::new(DEVICES).join(&self.0).exists()
    }

    /// A property of the unit that attaches it.
    fn attachment(&self, property: &str) -> String {
        let unit = format!("bondwire-attach@{}.service", self.0);
        let property = format!("--property={property}");
        let output = Command::new("systemctl").args(["show", "--value", &property, &unit]).output().unwrap();
        text(&output.stdout).trim().to_owned()
    }

    fn is_at(&self, moment: Moment) -> bool {
        match moment {
            Moment::Plugged => true,
            Moment::OnTheBus => self.is_on_the_bus(),
            // It may be over before anybody looks.
            Moment::BeingAttached => ["activating", "active"].contains(&&*self.attachment("ActiveState")),
            Moment::Attached => self.attachment("ActiveState") == "active",
            Moment::Used => links().iter().any(|(link, sent)| link.starts_with("usb") && *sent > USED),
        }
    }

    /// Neither the bus, nor systemd, nor the bond has it.
    fn is_gone(&self) -> bool {
        !self.is_on_the_bus()
            && self.attachment("ActiveState") == "inactive"
            && links().iter().all(|(link, _)| link.starts_with("tcp"))
    }
}

#[test]
fn a_cable_joins_the_running_bond_as_it_is_plugged_in_and_leaves_as_it_is_pulled() {
    let Some(guest) = guest() else { return };
    let mut joined = Joined::set_up(&guest);
    joined.come_and_go(TIMES);
    joined.change_role();
    joined.kill_service();
    joined.end();
}

#[test]
fn a_cable_may_be_pulled_while_it_is_being_attached() {
    let Some(guest) = guest() else { return };
    let joined = Joined::set_up(&guest);
    for moment in Moment::ALL {
        joined.pull_when(moment);
    }
    joined.end();
}

#[test]
#[ignore = "takes minutes: cargo xtask vm --long"]
fn a_cable_joins_and_leaves_fifty_times() {
    let Some(guest) = guest() else { return };
    let mut joined = Joined::set_up(&guest);
    joined.come_and_go(MANY_TIMES);
    joined.end();
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
