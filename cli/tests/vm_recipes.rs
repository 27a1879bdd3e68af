//! README's recipes for USB cables as they are written there, with the kernel's own USB stack: `cargo xtask vm`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]
// What these tests print is shown when one fails, and tells how far it came.
#![allow(clippy::print_stdout)]

#[path = "program/recipe.rs"]
mod recipe;
#[path = "program/user.rs"]
#[allow(dead_code, reason = "the other tests of the program need more of it")]
mod user;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bondwire_vm::{Guest, Load, Network, Speed, guest, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use crate::recipe::{README, Step, blocks, pasted};
use crate::user::{Running, User};

/// The laptop's user, who may open cables because of this group.
const USER: u32 = 1000;
const GROUP: &str = "bondwire";
/// A link that has carried so many bytes each way is in use.
const USED_BYTES: u64 = 100_000;
/// How much has to come through after a change.
const MORE_BYTES: u64 = 500_000;
/// What the laptop sends follows at once.
const NO_PAUSE: Duration = Duration::ZERO;

/// The board: a host of its own as far as networks and users go.
struct Board {
    /// Takes the Ethernet cable along when it goes.
    network: Network,
    user: User,
}

impl Board {
    fn new() -> Self {
        let board = Self { network: Network::create().unwrap(), user: User::new() };
        board.run("ip link set lo up");
        board
    }

    /// A command of the board's root.
    fn shell(&self, command: &str) -> Command {
        let mut shell = self.user.command(Path::new("nsenter"));
        let network = format!("--net={}", self.network.file().display());
        shell.args([&network, "sh", "-c", &format!("exec {command}")]);
        shell
    }

    fn run(&self, command: &str) {
        good(&mut self.shell(command));
    }

    /// Somebody who listens at a port of the board.
    fn listener(&self, address: &str) -> TcpListener {
        self.network.within(|| TcpListener::bind(address)).unwrap()
    }

    /// An Ethernet cable between the board and the laptop.
    fn ethernet(&self, guest: &Guest) {
        guest.load("veth", &[]).unwrap();
        local("ip link add eth0 type veth");
        let is_far_end = |name: &String| name.starts_with("veth");
        let names = || fs::read_dir("/sys/class/net").unwrap().flatten();
        let far_end = || names().map(|entry| entry.file_name().into_string().unwrap()).find(is_far_end);
        let far_end = wait_for("the cable's other end", far_end).unwrap();
        guest.settle().unwrap();
        local(&format!("ip link set {far_end} netns {}", self.network.process()));
        self.run(&format!("ip link set {far_end} name eth0"));
        self.run("ip addr add 192.168.1.5/24 dev eth0");
        self.run("ip link set eth0 up");
        local("ip addr add 192.168.1.9/24 dev eth0");
        local("ip link set eth0 up");
    }
}

#[track_caller]
fn good(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn local(command: &str) {
    good(Command::new("sh").args(["-c", command]));
}

/// The laptop: this guest, and a user without root's rights.
struct Laptop(User);

impl Laptop {
    fn new() -> Self {
        let user = User::new();
        chown(user.home(), Some(USER), Some(USER)).unwrap();
        Self(user)
    }

    fn shell(&self, command: &str) -> Command {
        let groups = fs::read_to_string("/etc/group").unwrap();
        let group = groups.lines().find_map(|line| line.strip_prefix(&format!("{GROUP}:x:"))).unwrap();
        let mut shell = self.0.command(Path::new("sh"));
        shell.args(["-c", &format!("exec {command}")]).stdin(Stdio::null());
        shell.uid(USER).gid(group.trim_end_matches(':').parse().unwrap());
        shell
    }

    /// The state of each link, and what it has carried in that direction which has carried less.
    fn links(&self) -> Vec<(String, String, u64)> {
        let output = self.shell("bondwire status --json").output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let links = status[0]["bonds"][0]["links"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let bytes = |link: &Value| {
            ["sent_bytes", "received_bytes"].map(|key| link[key].as_u64().unwrap()).into_iter().min()
        };
        links.iter().map(|link| (text(&link["link"]), text(&link["state"]), bytes(link).unwrap())).collect()
    }

    /// Waits until so many links of this kind are in use.
    #[track_caller]
    fn uses(&self, kind: &str, count: usize) {
        let in_use = |links: &[(String, String, u64)]| {
            let of_kind = links.iter().filter(|(name, state, _)| name.starts_with(kind) && state == "active");
            of_kind.filter(|(.., bytes)| *bytes > USED_BYTES).count() == count
        };
        let waited = wait_for("links in use", || in_use(&self.links()).then_some(()));
        assert!(waited.is_ok(), "{count} {kind} links: {:?}", self.links());
    }

    /// Waits until so many links of this kind are there to be used, and no more.
    #[track_caller]
    fn has(&self, kind: &str, count: usize) {
        let active = |links: &[(String, String, u64)]| {
            links.iter().filter(|(name, state, _)| name.starts_with(kind) && state == "active").count()
        };
        let waited = wait_for("links", || (active(&self.links()) == count).then_some(()));
        assert!(waited.is_ok(), "{count} {kind} links: {:?}", self.links());
    }
}

/// Both programs of a recipe, and a connection through its forward.
struct Recipe<'a> {
    laptop: &'a Laptop,
    listening: Running,
    connecting: Running,
    load: Load,
}

impl<'a> Recipe<'a> {
    /// Runs the commands of a block one after the other, as the reader does.
    fn follow(steps: &[Step<'_>], board: &Board, laptop: &'a Laptop) -> Self {
        let far = board.listener("127.0.0.1:80");
        let (mut listening, mut connecting, mut printed) = (None, None, None);
        for Step { host, command } in steps {
            println!("{host}: {command}");
            let command = pasted(command, printed.as_deref());
            match *host {
                "board" => {
                    let running = Running::start(board.shell(&command).stdin(Stdio::null()));
                    let running = listening.insert(running);
                    if command.contains("tcp:") {
                        running.wait_for("listening on tcp ");
                    }
                    printed = Some(running.output_line());
                }
                "laptop" if command.starts_with("bondwire connect ") => {
                    let running = connecting.insert(Running::start(&mut laptop.shell(&command)));
                    running.wait_for("forwarding ");
                }
                "laptop" => good(&mut laptop.shell(&command)),
                _ => panic!("who is {host}?"),
            }
        }
        let near = wait_for("the forward", || TcpStream::connect("127.0.0.1:8080").ok()).unwrap();
        let load = Load::start(near, far, NO_PAUSE).unwrap();
        Self { laptop, listening: listening.unwrap(), connecting: connecting.unwrap(), load }
    }

    /// Waits until much more has come back.
    fn goes_on(&self) {
        let before = self.load.back_bytes();
        wait_for("more bytes", || (self.load.back_bytes() > before + MORE_BYTES).then_some(())).unwrap();
    }

    /// Pulls a USB cable, or plugs it in.
    fn plug(&self, cable: usize, is_in: bool) {
        let controller = format!("dummy_udc.{cable}");
        let attribute = format!("/sys/kernel/config/usb_gadget/bondwire.{controller}/UDC");
        fs::write(attribute, if is_in { &controller } else { "\n" }).unwrap();
    }

    /// Everything arrived, and Ctrl-C at both ends leaves nothing behind.
    fn end(self) {
        println!("{} bytes there and back", self.load.end().unwrap());
        for running in [self.connecting, self.listening] {
            running.signal(Signal::INT);
            running.wait().assert_code(130);
        }
        assert_eq!(fs::read_dir("/sys/kernel/config/usb_gadget").unwrap().count(), 0);
        assert!(self.laptop.links().is_empty());
    }
}

#[test]
fn usb_and_ethernet_are_one_stream() {
    let blocks = blocks(README, "Over USB cables");
    let Some(guest) = guest() else { return };
    let (board, laptop) = (Board::new(), Laptop::new());
    board.ethernet(&guest);
    let cables = guest.cables(1, Speed::High).unwrap();
    let recipe = Recipe::follow(&blocks[0], &board, &laptop);
    laptop.uses("usb", 1);
    laptop.uses("tcp", 1);

    recipe.plug(0, false);
    laptop.has("usb", 0);
    recipe.goes_on();
    recipe.plug(0, true);
    laptop.uses("usb", 1);

    board.run("ip link set eth0 down");
    laptop.has("tcp", 0);
    recipe.goes_on();
    board.run("ip link set eth0 up");
    laptop.has("tcp", 1);
    recipe.goes_on();
    recipe.end();
    drop(cables);
}

#[test]
fn three_cables_join_two_hosts() {
    let blocks = blocks(README, "Over USB cables");
    let Some(guest) = guest() else { return };
    let (board, laptop) = (Board::new(), Laptop::new());
    let cables = guest.cables(3, Speed::High).unwrap();
    let recipe = Recipe::follow(&blocks[1], &board, &laptop);
    laptop.uses("usb", 3);
    for left in (0..3).rev() {
        // All are pulled, one after the other.
        recipe.plug(left, false);
        laptop.has("usb", left);
        if left > 0 {
            recipe.goes_on();
        }
    }
    for cable in 0..3 {
        recipe.plug(cable, true);
        laptop.has("usb", cable + 1);
        recipe.goes_on();
    }
    laptop.uses("usb", 3);
    recipe.end();
    drop(cables);
}
