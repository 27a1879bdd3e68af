//! Links that are found by themselves, between hosts in network namespaces. These need root; see `able`.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bondwire_bench::namespace::Namespace;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::tools::able;
use crate::user::{PATIENCE, PROGRAM, Running, User};

/// Interfaces of the connecting host, with their networks.
const NEAR: [(&str, &str); 3] = [("a0", "10.1.0"), ("a1", "10.2.0"), ("a2", "10.3.0")];
/// Those of the listening one.
const FAR: [(&str, &str); 2] = [("b0", "10.11.0"), ("b1", "10.12.0")];

/// A host with three interfaces, one with two, and a router between their five networks.
struct World {
    near: Namespace,
    far: Namespace,
    router: Namespace,
}

impl World {
    fn new() -> Self {
        let [near, far, router] = [(); 3].map(|()| Namespace::create().unwrap());
        let world = Self { near, far, router };
        for host in [&world.near, &world.far, &world.router] {
            // Packets of the system itself would only be in the way.
            host.set_parameter("ipv6/conf/all/disable_ipv6", "1").unwrap();
            host.set_parameter("ipv4/conf/all/rp_filter", "0").unwrap();
        }
        world.router.set_parameter("ipv4/ip_forward", "1").unwrap();
        for (host, interfaces) in [(&world.near, &NEAR[..]), (&world.far, &FAR[..])] {
            for (name, network) in interfaces {
                let router = world.router.name();
                host.ip(&format!("link add {name} type veth peer name r{name} netns {router}")).unwrap();
                host.set_parameter(&format!("ipv4/conf/{name}/rp_filter"), "0").unwrap();
                world.router.set_parameter(&format!("ipv4/conf/r{name}/rp_filter"), "0").unwrap();
                world.router.ip(&format!("addr add {network}.254/24 dev r{name}")).unwrap();
                world.router.ip(&format!("link set r{name} up")).unwrap();
                plug_in(host, name, network);
            }
        }
        world
    }

    /// Starts the program of `user` at a host.
    fn start(host: &Namespace, user: &User, arguments: &[&str]) -> Running {
        let mut command = user.command(Path::new("ip"));
        command.args(["netns", "exec", host.name(), PROGRAM]).args(arguments);
        Running::start(command.stdin(std::process::Stdio::null()))
    }

    /// A listener on every address, and a connector that knows `10.11.0.1` alone.
    fn connect(&self, listen: &[&str], connect: &[&str]) -> Hosts {
        let (server, client) = (User::new(), User::new());
        let arguments: Vec<_> = ["listen", "tcp:*", "--pair"].iter().chain(listen).copied().collect();
        let mut listening = Self::start(&self.far, &server, &arguments);
        listening.wait_for("listening on tcp ");
        let line = listening.output_line();
        let token = line.split(" --pair ").nth(1).unwrap().trim().to_owned();
        let known = ["connect", "tcp:10.11.0.1", "--pair", &token, "--name", "far"];
        let arguments: Vec<_> = known.iter().chain(connect).copied().collect();
        let connecting = Self::start(&self.near, &client, &arguments);
        connecting.wait_for("paired with far");
        Hosts { _server: server, client, _listening: listening, _connecting: connecting, invitation: line }
    }
}

/// Gives an interface its address and a route. At the listening host answers leave by the interface of their address;
/// at the other one only the binding of a link to its interface keeps it from the preferred route.
fn plug_in(host: &Namespace, name: &str, network: &str) {
    let table = network.split('.').nth(1).unwrap();
    host.ip(&format!("addr add {network}.1/24 dev {name}")).unwrap();
    host.ip(&format!("link set {name} up")).unwrap();
    // The last interface is the preferred one.
    let metric = 100 - name[1..].parse::<u32>().unwrap();
    host.ip(&format!("route add default via {network}.254 dev {name} metric {metric}")).unwrap();
    if name.starts_with('a') {
        return;
    }
    host.ip(&format!("route replace default via {network}.254 dev {name} table {table}")).unwrap();
    // It may still be there from the last time.
    let _ = host.ip(&format!("rule del from {network}.1 lookup {table}"));
    host.ip(&format!("rule add from {network}.1 lookup {table}")).unwrap();
}

/// A bond between two users.
struct Hosts {
    _server: User,
    client: User,
    _listening: Running,
    _connecting: Running,
    invitation: String,
}

impl Hosts {
    /// The links as `status` shows them.
    fn links(&self) -> Vec<Value> {
        let shown = self.client.run(&["status", "connect", "--json"]).assert_code(0).stdout;
        let status: Vec<Value> = serde_json::from_str(&shown).unwrap();
        status[0]["bonds"][0]["links"].as_array().unwrap().clone()
    }

    /// The names of the links that are up.
    fn up(&self) -> BTreeSet<String> {
        let links = self.links();
        let up = links.iter().filter(|link| link["state"] == "active");
        up.map(|link| link["link"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until these links are up and no others; answers how long that took.
    #[track_caller]
    fn wait_for_links(&self, wanted: &BTreeSet<String>) -> Duration {
        let began = Instant::now();
        loop {
            let up = self.up();
            if up == *wanted {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "not {wanted:?} but {up:?}: {:#?}", self.links());
        }
    }
}

/// The links between these interfaces and addresses.
fn links(interfaces: &[&str], targets: &[&str]) -> BTreeSet<String> {
    let name = |interface: &&str, target: &&str| format!("tcp {target}:7700,iface={interface}");
    interfaces
        .iter()
        .flat_map(|interface| targets.iter().map(move |target| name(interface, target)))
        .collect()
}

/// The hardware addresses of interfaces of a host.
fn macs(host: &Namespace, interfaces: &[&str]) -> Vec<[u8; 6]> {
    let mac = |interface: &&str| {
        let output =
            Command::new("ip").args(["-n", host.name(), "-o", "link", "show", interface]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mac = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        let bytes: Vec<_> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    };
    interfaces.iter().map(mac).collect()
}

const BOTH: [&str; 2] = ["10.11.0.1", "10.12.0.1"];

#[test]
fn three_interfaces_and_two_make_six_links_that_follow_their_addresses() {
    if !able(&["ip"], true) {
        return;
    }
    let world = World::new();
    let hosts = world.connect(&[], &[]);
    let all = links(&["a0", "a1", "a2"], &BOTH);
    let found = hosts.wait_for_links(&all);
    for link in hosts.links() {
        assert_eq!(link["discovered_from"], "tcp:10.11.0.1", "{link}");
    }
    let shown = hosts.client.run(&["status"]).assert_code(0).stdout;
    assert!(shown.contains("tcp 10.12.0.1:7700,iface=a1 (discovered): active"), "{shown}");

    // An address of the other host goes and comes back.
    world.far.ip("addr del 10.12.0.1/24 dev b1").unwrap();
    let gone = hosts.wait_for_links(&links(&["a0", "a1", "a2"], &BOTH[..1]));
    plug_in(&world.far, "b1", "10.12.0");
    let back = hosts.wait_for_links(&all);
    // An interface of this host does.
    world.near.ip("link set a2 down").unwrap();
    let down = hosts.wait_for_links(&links(&["a0", "a1"], &BOTH));
    world.near.ip("addr del 10.3.0.1/24 dev a2").unwrap();
    plug_in(&world.near, "a2", "10.3.0");
    let up = hosts.wait_for_links(&all);
    println!(
        "each with a look of 0.2 s: six links after {found:.1?}; the peer's address gone {gone:.1?}, back {back:.1?}; \
         an interface down {down:.1?}, up {up:.1?}"
    );
}

#[test]
fn what_is_removed_stays_away_and_what_is_set_holds() {
    if !able(&["ip"], true) {
        return;
    }
    let world = World::new();
    let hosts = world.connect(&[], &[]);
    let all = links(&["a0", "a1", "a2"], &BOTH);
    hosts.wait_for_links(&all);
    hosts.client.run(&["link", "remove", "tcp:10.12.0.1:7700,iface=a1"]).assert_code(0);
    let removed = links(&["a1"], &BOTH[1..]);
    let rest: BTreeSet<_> = all.difference(&removed).cloned().collect();
    hosts.wait_for_links(&rest);
    // It is thought over when an address comes and goes.
    world.far.ip("addr del 10.12.0.1/24 dev b1").unwrap();
    hosts.wait_for_links(&links(&["a0", "a1", "a2"], &BOTH[..1]));
    plug_in(&world.far, "b1", "10.12.0");
    hosts.wait_for_links(&rest);
    // What is set of the LINK holds for links that come later, too.
    hosts.client.run(&["link", "set", "tcp:10.11.0.1", "--tier", "3"]).assert_code(0);
    world.far.ip("addr del 10.12.0.1/24 dev b1").unwrap();
    hosts.wait_for_links(&links(&["a0", "a1", "a2"], &BOTH[..1]));
    plug_in(&world.far, "b1", "10.12.0");
    hosts.wait_for_links(&rest);
    assert!(hosts.links().iter().filter(|link| link["state"] == "active").all(|link| link["tier"] == 3));
    hosts.client.run(&["link", "pause", "tcp 10.12.0.1:7700,iface=a0"]).assert_code(0);
    let paused = |link: &Value| link["policy"] == "paused";
    let names: Vec<_> = hosts.links().into_iter().filter(paused).map(|link| link["link"].clone()).collect();
    assert_eq!(names, ["tcp 10.12.0.1:7700,iface=a0"]);
    // With the LINK go all that come from it.
    hosts.client.run(&["link", "remove", "tcp:10.11.0.1"]).assert_code(0);
    hosts.wait_for_links(&BTreeSet::new());
    hosts.client.run(&["link", "add", "tcp:10.12.0.1,policy=backup"]).assert_code(0);
    hosts.wait_for_links(&rest);
    assert!(
        hosts.links().iter().filter(|link| link["state"] == "active").all(|link| link["policy"] == "backup")
    );
}

#[test]
fn a_filter_keeps_every_packet_off_an_interface() {
    if !able(&["ip"], true) {
        return;
    }
    let world = World::new();
    let macs = macs(&world.near, &["a0", "a1", "a2"]);
    // Without a filter the first link would leave by a2, whose route is preferred.
    let capture = Capture::start(&world.router);
    let hosts = world.connect(&["--network", "!10.12.0.0/16"], &["--interfaces", "a*,!a2"]);
    hosts.wait_for_links(&links(&["a0", "a1"], &BOTH[..1]));
    assert!(!hosts.invitation.contains("10.12."), "{}", hosts.invitation);
    // Something that wakes it once more.
    world.near.ip("addr add 10.3.0.9/24 dev a2").unwrap();
    hosts.client.run(&["link", "remove", "tcp:10.11.0.1:7700,iface=a1"]).assert_code(0);
    hosts.wait_for_links(&links(&["a0"], &BOTH[..1]));
    let packets = capture.end(&macs);
    assert!(packets[0] > 10 && packets[1] > 10, "{packets:?}");
    assert_eq!(packets[2], 0, "{packets:?}");
    println!("packets of a0, a1 and a2, which is left out: {packets:?}");

    // The capture would have seen them.
    drop(hosts);
    let capture = Capture::start(&world.router);
    let hosts = world.connect(&[], &["--no-discover"]);
    let named = BTreeSet::from(["tcp 10.11.0.1:7700".to_owned()]);
    hosts.wait_for_links(&named);
    assert!(capture.end(&macs)[2] > 10);
}

#[test]
fn more_links_over_each_path_and_fewer_interfaces_where_asked() {
    if !able(&["ip"], true) {
        return;
    }
    let world = World::new();
    let hosts = world
        .connect(&[], &["--per-path", "2", "--interfaces", "a1", "--peer-network", "10.12.0.0/16,10.11.0.1"]);
    let mut wanted = links(&["a1"], &BOTH);
    wanted.extend(links(&["a1"], &BOTH).iter().map(|name| format!("{name} #2")));
    hosts.wait_for_links(&wanted);
}

#[test]
fn a_refusal_ends_the_search_and_a_lost_interface_is_named() {
    if !able(&["ip"], true) {
        return;
    }
    let world = World::new();
    let (server, client) = (User::new(), User::new());
    let listening = World::start(&world.far, &server, &["listen", "tcp:*", "--allow", &server.public_key()]);
    listening.wait_for("listening on tcp ");
    let connect = |key: &str| {
        let arguments = ["connect", "tcp:10.11.0.1", "--peer", key, "--discover", "--control", "near"];
        World::start(&world.near, &client, &arguments)
    };
    let line = connect(&server.public_key()).wait().assert_code(5).error_line().to_owned();
    assert!(line.contains("tcp:10.11.0.1:7700,iface=a0: "), "{line}");
    drop(listening);

    let arguments = ["listen", "tcp:*", "--allow", &client.public_key()];
    let listening = World::start(&world.far, &server, &arguments);
    listening.wait_for("listening on tcp ");
    let connecting = connect(&server.public_key());
    connecting.wait_for("connected to ");
    for interface in ["a0", "a1", "a2"] {
        world.near.ip(&format!("link set {interface} down")).unwrap();
    }
    let began = Instant::now();
    let why = "tcp 10.11.0.1: missing; no network interface has a route there";
    while !client.run(&["status", "near"]).assert_code(0).stdout.contains(why) {
        assert!(began.elapsed() < PATIENCE);
    }
}

#[test]
fn a_host_that_no_interface_leads_to_is_said_to_be_so() {
    if !able(&["ip"], true) {
        return;
    }
    let world = World::new();
    let user = User::new();
    let key = user.public_key();
    let connect = |arguments: &[&str]| {
        let known = ["connect", "tcp:10.11.0.1", "--peer", &key, "--timeout", "1"];
        let arguments: Vec<_> = known.iter().chain(arguments).copied().collect();
        World::start(&world.near, &user, &arguments).wait().assert_code(4).error_line().to_owned()
    };
    let line = connect(&["--interfaces", "eth7"]);
    assert!(
        line.contains("tcp:10.11.0.1: no network interface that the filters allow has a route"),
        "{line}"
    );
    let line = connect(&["--family", "6"]);
    assert!(line.contains("no network interface that the filters allow"), "{line}");
    let line = connect(&["--discover", "--peer-network", "!10.0.0.0/8"]);
    assert!(line.contains("no network interface that the filters allow"), "{line}");
    // Nobody listens there.
    let line = connect(&["--discover"]);
    assert!(line.contains("tcp:10.11.0.1:7700,iface=a2: ") && line.contains("refused"), "{line}");
}

/// Counts packets of IPv4 by the hardware address of the interface that sent or is to receive them.
struct Capture {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<[[u8; 6]; 2]>>,
}

impl Capture {
    /// Listens on all interfaces of a host.
    fn start(host: &Namespace) -> Self {
        let socket = host
            .run(|| {
                // ETH_P_ALL, in the order of the network.
                let all = i32::from(3_u16.to_be());
                Ok(Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all)))?)
            })
            .unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            let mut frame = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                match (&socket).read(&mut frame) {
                    // An Ethernet header: to, from, type.
                    Ok(14..) if frame[12..14] == [8, 0] => {
                        seen.push([&frame[..6], &frame[6..12]].map(|mac| mac.try_into().unwrap()));
                    }
                    Ok(_) => {}
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(e) => panic!("{e}"),
                }
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends it; answers how many packets each of these interfaces sent or received.
    fn end(self, interfaces: &[[u8; 6]]) -> Vec<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().unwrap();
        let count = |mac: &[u8; 6]| seen.iter().filter(|pair| pair.contains(mac)).count();
        interfaces.iter().map(count).collect()
    }
}
