//! IP packets over the bond, between hosts in network namespaces. These need root; see `able`.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bondwire_bench::emulator::{Gate, Shape};
use bondwire_bench::namespace::Namespace;
use bondwire_bench::network::{Network, address};
use bondwire_line::{End, Noise, PtyLine};
use rustix::process::Signal;
use serde_json::Value;

use crate::control::{status, wait_for};
use crate::tools::{SshServer, able, run};
use crate::up::write_config;
use crate::user::{PATIENCE, PROGRAM, Running, User};

const NEAR: &str = "10.9.0.1/24,fd09::1/64";
const FAR: &str = "10.9.0.2/24,fd09::2/64";
/// Somebody without rights.
const NOBODY: u32 = 65534;

/// Two hosts with two links, and a bond with an interface at each end.
struct World {
    network: Network,
    client: User,
    server: User,
    _connecting: Running,
    _listening: Running,
}

fn start(host: &Namespace, user: &User, arguments: &[&str]) -> Running {
    let mut command = user.command(Path::new("ip"));
    command.args(["netns", "exec", host.name(), PROGRAM]).args(arguments);
    Running::start(command.stdin(Stdio::null()))
}

fn network(shapes: &[Shape]) -> Network {
    let network = Network::emulated(shapes, None).unwrap();
    for host in [&network.near, &network.far] {
        // No time is lost with the search for others who have the same address.
        host.set_parameter("ipv6/conf/default/accept_dad", "0").unwrap();
    }
    network
}

fn listen(network: &Network, server: &User, client: &User, more: &[&str]) -> Running {
    let key = client.public_key();
    let listening =
        start(&network.far, server, &[&["listen", "tcp:0.0.0.0:7700", "--allow", &key], more].concat());
    listening.wait_for("public key of this host");
    listening
}

fn link(index: usize) -> String {
    format!("tcp:{}:7700", address(index, true))
}

impl World {
    fn new(shapes: &[Shape], near: &[&str], far: &[&str]) -> Self {
        let network = network(shapes);
        let (server, client) = (User::new(), User::new());
        let listening =
            listen(&network, &server, &client, &[&["--tun", "bond0", "--addr", FAR], far].concat());
        let links: Vec<_> = (0..shapes.len()).map(link).collect();
        let links: Vec<&str> = links.iter().map(String::as_str).collect();
        let peer = server.public_key();
        let own = ["--peer", &peer, "--no-discover", "--tun", "bond0", "--addr", NEAR];
        let connecting = start(&network.near, &client, &[&["connect"], &links[..], &own, near].concat());
        connecting.wait_for("bond0 leads to 10.9.0.2/24, fd09::2/64");
        let world = Self { network, client, server, _connecting: connecting, _listening: listening };
        wait_for(&world.client, |status| up(status) == shapes.len());
        world
    }
}

/// Pings and returns how many were answered of how many.
fn ping(host: &Namespace, target: &str, more: &[&str]) -> (usize, usize) {
    let mut command = host.command(Path::new("ping"));
    let output = command.args(["-q", "-W", "2", target]).args(more).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let numbers = said.lines().find(|line| line.contains("transmitted"));
    let numbers = numbers.unwrap_or_else(|| panic!("{output:?}"));
    // "3 packets transmitted, 2 received, 33% packet loss, time 401ms"
    let number = |before: &str| {
        let words: Vec<_> =
            numbers.split([' ', ',']).filter(|word| !word.is_empty() && *word != "packets").collect();
        let place = words.iter().position(|word| *word == before).unwrap();
        words[place - 1].parse().unwrap()
    };
    (number("received"), number("transmitted"))
}

fn up(status: &Value) -> usize {
    let links = status["bonds"][0]["links"].as_array();
    links.into_iter().flatten().filter(|link| link["state"] == "active").count()
}

fn two_links() -> [Shape; 2] {
    [Shape::new(80, Duration::from_millis(5)), Shape::new(40, Duration::from_millis(12))]
}

fn has_all() -> bool {
    able(&["ip", "ping", "iperf3", "setpriv"], true)
}

#[test]
fn ping_goes_both_ways_and_survives_each_cut() {
    if !has_all() {
        return;
    }
    let world = World::new(&two_links(), &[], &[]);
    let Network { near, far, emulator, .. } = &world.network;
    for (host, target) in [(near, "10.9.0.2"), (near, "fd09::2"), (far, "10.9.0.1"), (far, "fd09::1")] {
        assert_eq!(ping(host, target, &["-c", "3", "-i", "0.2"]), (3, 3), "{target}");
    }
    // Larger than any packet of a link, and in fragments of the host's own.
    assert_eq!(ping(near, "10.9.0.2", &["-c", "2", "-i", "0.2", "-s", "9000"]), (2, 2));
    for index in [0, 1] {
        emulator.set_gates(index, Gate::Blackhole);
        let (received, sent) = ping(near, "10.9.0.2", &["-c", "40", "-i", "0.05"]);
        // What was under way is lost, and what is sent before the cut is noticed.
        assert!(received >= sent / 2, "link {index} cut: {received} of {sent}");
        assert_eq!(ping(near, "fd09::2", &["-c", "10", "-i", "0.05"]), (10, 10), "link {index} is cut");
        emulator.set_gates(index, Gate::Open);
        wait_for(&world.client, |status| up(status) == 2);
    }
    let shown = world.client.run(&["status", "connect"]).assert_code(0).stdout;
    assert!(
        shown.contains("tun bond0 (10.9.0.1/24, fd09::1/64): leads to 10.9.0.2/24, fd09::2/64"),
        "{shown}"
    );
    let tun = status(&world.client, "connect")["tuns"][0].clone();
    assert!(tun["sent_packets"].as_u64() > Some(50) && tun["received_packets"].as_u64() > Some(50), "{tun}");
}

#[test]
fn one_tcp_connection_uses_both_links() {
    if !has_all() {
        return;
    }
    let world = World::new(&two_links(), &[], &[]);
    let Network { near, far, .. } = &world.network;
    let mut server = far.command(Path::new("iperf3"));
    let _server = Running::start(server.args(["-s", "-1", "-B", "10.9.0.2"]).stdin(Stdio::null()));
    let began = Instant::now();
    loop {
        let mut client = near.command(Path::new("iperf3"));
        let output = client.args(["-c", "10.9.0.2", "-n", "40M"]).output().unwrap();
        if output.status.success() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{output:?}");
    }
    let status = status(&world.client, "connect");
    let links = status["bonds"][0]["links"].as_array().unwrap();
    let sent: Vec<u64> = links.iter().map(|link| link["sent_bytes"].as_u64().unwrap()).collect();
    let all: u64 = sent.iter().sum();
    // iperf3 ends when it has written all; the last of it may still wait in the host.
    assert!(all >= 30 << 20, "{sent:?}");
    // By their rates it would be a third for the slower one; how much it is, the host's other work decides. A link to which the
    // connection was not spread has sent a few acknowledgements only.
    assert!(sent.len() == 2 && sent.iter().all(|bytes| *bytes > 1 << 20), "{sent:?}");
}

#[test]
fn ssh_goes_on_when_only_a_serial_line_is_left() {
    if !has_all() || !able(&["sshd", "ssh", "ssh-keygen"], true) {
        return;
    }
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let serial = |end| format!("serial:{},baud=115200", line.path(end).unwrap().display());
    let (near, far) = (serial(End::A), serial(End::B));
    let world = World::new(&two_links()[..1], &[], &[&far]);
    world.client.run(&["link", "add", &near]).assert_code(0);
    wait_for(&world.client, |status| up(status) == 2);

    let server = SshServer::start("10.9.0.2:22".parse().unwrap(), |sshd| world.network.far.command(sshd));
    let config = server.client_config("HostName 10.9.0.2");
    let mut session = world.network.near.command(Path::new("ssh"));
    session.arg("-F").arg(config).args(["far", "cat"]).stdin(Stdio::piped());
    let mut session = Running::start(&mut session);
    let (mut keys, mut screen) = session.pipes();
    let mut echo = |bytes: &[u8]| {
        // What does not fit into the pipes is read meanwhile.
        let back = thread::scope(|scope| {
            scope.spawn(|| keys.write_all(bytes).unwrap());
            let mut back = vec![0; bytes.len()];
            screen.read_exact(&mut back).unwrap();
            back
        });
        assert!(back == bytes, "{} bytes came back changed", bytes.len());
    };
    echo(&[7; 100_000]);
    world.network.emulator.set_gates(0, Gate::Blackhole);
    wait_for(&world.client, |status| up(status) == 1);
    for _ in 0..5 {
        echo(b"a key\n");
    }
    echo(&[9; 10_000]);
    world.network.emulator.set_gates(0, Gate::Open);
    wait_for(&world.client, |status| up(status) == 2);
    echo(&[7; 100_000]);
    drop((keys, screen));
    session.wait().assert_code(0);
}

#[test]
fn a_service_has_its_interfaces_from_its_file() {
    if !has_all() {
        return;
    }
    let network = network(&two_links()[..1]);
    let (server, client) = (User::new(), User::new());
    let (of_server, of_client) = (server.public_key(), client.public_key());
    let printed = |user: &User, name: &str, arguments: &[&str]| {
        let text = user.run(&[arguments, &["--print-config"]].concat()).assert_code(0).stdout;
        (write_config(user, name, &text).display().to_string(), text)
    };
    let listen = ["listen", "tcp:0.0.0.0:7700", "--allow", &of_client, "--tun", "bond0", "--addr", FAR];
    let (file, _) = printed(&server, "server.toml", &listen);
    let listening = start(&network.far, &server, &["up", &file]);
    listening.wait_for("public key of this host");
    let to_server = link(0);
    let connect =
        ["connect", &to_server, "--peer", &of_server, "--no-discover", "--tun", "bond0", "--addr", NEAR];
    let (file, text) = printed(&client, "client.toml", &connect);
    let connecting = start(&network.near, &client, &["up", &file]);
    connecting.wait_for("bond0 leads to 10.9.0.2/24, fd09::2/64");
    assert_eq!(ping(&network.near, "10.9.0.2", &["-c", "3", "-i", "0.2"]), (3, 3));
    write_config(&client, "client.toml", &text.replace("mtu = 1400", "mtu = 1300"));
    connecting.signal(Signal::HUP);
    connecting.wait_for("tun of a bond cannot change while the service runs; restart it");
    assert_eq!(ping(&network.near, "fd09::2", &["-c", "3", "-i", "0.2"]), (3, 3));
    // The listening end comes back with its interface, and packets go on.
    drop(listening);
    let listening =
        start(&network.far, &server, &["up", &server.home().join("server.toml").display().to_string()]);
    listening.wait_for("bond0 leads to 10.9.0.1/24, fd09::1/64");
    connecting.wait_for("bond0 leads to 10.9.0.2/24, fd09::2/64");
    assert_eq!(ping(&network.near, "10.9.0.2", &["-c", "3", "-i", "0.2"]), (3, 3));
}

#[test]
fn no_link_leaves_through_the_interface_that_it_carries() {
    if !has_all() {
        return;
    }
    let world = World::new(&two_links(), &[], &[]);
    let Network { near, .. } = &world.network;
    // A link that is there stays where it is, whatever is routed otherwise later.
    near.ip(&format!("route add {}/32 dev bond0", address(0, true))).unwrap();
    assert_eq!(ping(near, "10.9.0.2", &["-c", "5", "-i", "0.2"]), (5, 5));
    assert_eq!(up(&status(&world.client, "connect")), 2);
    // A new one is refused, and says why.
    world.client.run(&["link", "remove", &link(0)]).assert_code(0);
    world.client.run(&["link", "add", &link(0)]).assert_code(0);
    let routed = format!("{} is routed through bond0, which this bond carries itself", address(0, true));
    wait_for(&world.client, |status| status["bonds"][0]["links"].to_string().contains(&routed));
    near.ip(&format!("route del {}/32 dev bond0", address(0, true))).unwrap();
    wait_for(&world.client, |status| up(status) == 2);
}

#[test]
fn a_packet_with_a_forged_sender_is_dropped_and_counted() {
    if !has_all() {
        return;
    }
    let world = World::new(&two_links()[..1], &[], &[]);
    let near = &world.network.near;
    near.ip("addr add 10.9.0.2/32 dev lo").unwrap();
    assert_eq!(ping(near, "10.9.0.77", &["-c", "3", "-i", "0.2", "-W", "1", "-I", "10.9.0.2"]), (0, 3));
    let tun = status(&world.server, "listen")["tuns"][0].clone();
    assert!(tun["dropped_forged"].as_u64() >= Some(3), "{tun}");
}

#[test]
fn packets_are_refused_where_nobody_takes_them() {
    if !has_all() {
        return;
    }
    let network = network(&two_links()[..1]);
    let (server, client) = (User::new(), User::new());
    let peer = server.public_key();
    let connect = |address: &str| {
        let tun =
            ["connect", &link(0), "--peer", &peer, "--no-discover", "--tun", "bond0", "--addr", address];
        start(&network.near, &client, &tun).wait()
    };
    let listening = listen(&network, &server, &client, &[]);
    let ended = connect("10.9.0.1/24").assert_code(5);
    assert!(
        ended.error_line().contains("this host has no interface for it; it needs --tun"),
        "{}",
        ended.stderr
    );
    drop(listening);
    let listening = listen(&network, &server, &client, &["--tun", "bond0", "--addr", "10.9.0.1/24"]);
    let ended = connect("10.9.0.1/24").assert_code(5);
    assert!(ended.error_line().contains("both ends have the address 10.9.0.1"), "{}", ended.stderr);
    drop(listening);
    let entry = format!("[peer.client]\nkey = \"{}\"\npermit-tun = false\n", client.public_key());
    std::fs::write(server.peers_file(), entry).unwrap();
    let listening = listen(&network, &server, &client, &["--tun", "bond0", "--addr", "10.9.0.2/24"]);
    let ended = connect("10.9.0.1/24").assert_code(5);
    assert!(ended.error_line().contains("permit-tun = true of [peer.client]"), "{}", ended.stderr);
    drop(listening);
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    if !has_all() {
        return;
    }
    let host = Namespace::create().unwrap();
    host.ip("link add eth7 type veth peer name eth8").unwrap();
    host.ip("addr add 10.9.7.1/24 dev eth7").unwrap();
    host.ip("link set eth7 up").unwrap();
    host.ip("link set eth8 up").unwrap();
    let user = User::new();
    let key = user.public_key();
    let listen = |user: &User, more: &[&str]| {
        start(&host, user, &[&["listen", "tcp:127.0.0.1:0", "--allow", &key], more].concat())
    };
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--tun", "a-name-too-long-16", "--addr", "10.9.0.1/24"], 2, "1 to 15 bytes"),
        (&["--tun", "bond0", "--addr", "10.9.0.1"], 2, "write 10.9.0.1/24"),
        (&["--tun", "bond0", "--addr", "10.9.0.1/33"], 2, "write 10.9.0.1/24"),
        (&["--tun", "bond0"], 2, "--addr"),
        (&["--addr", "10.9.0.1/24"], 2, "--tun"),
        (&["--tun", "bond0", "--addr", "fd00::1/64", "--tun-mtu", "1000"], 2, "too few for IPv6"),
        (&["--tun", "bond0", "--addr", "10.9.7.1/24"], 3, "10.9.7.1 is the address of eth7 already"),
        (&["--tun", "eth7", "--addr", "10.9.0.1/24"], 3, "eth7 is another interface of this host already"),
    ];
    for (arguments, code, said) in cases {
        let ended = listen(&user, arguments).wait();
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
    let other = User::new();
    let first = listen(&other, &["--tun", "bond0", "--addr", "10.9.0.1/24"]);
    first.wait_for("public key of this host");
    let ended = listen(&user, &["--tun", "bond0", "--addr", "10.9.1.1/24"]).wait().assert_code(3);
    assert!(ended.error_line().contains("another program has the interface bond0"), "{}", ended.stderr);
}

/// A command of somebody without rights, with a program that he may read.
fn as_nobody(user: &User, host: &Namespace, arguments: &[&str]) -> Command {
    let program = user.home().join("bondwire");
    if !program.exists() {
        std::fs::copy(PROGRAM, &program).unwrap();
        run(Command::new("chown").arg("-R").arg(NOBODY.to_string()).arg(user.home()));
    }
    let mut command = user.command(Path::new("ip"));
    let nobody = NOBODY.to_string();
    command.args([
        "netns",
        "exec",
        host.name(),
        "setpriv",
        "--reuid",
        &nobody,
        "--regid",
        &nobody,
        "--clear-groups",
    ]);
    command
        .args(["--inh-caps=-all", "--bounding-set=-all"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null());
    command
}

#[test]
fn who_has_no_rights_hears_what_to_do_and_can_use_what_root_has_made() {
    if !has_all() {
        return;
    }
    let host = Namespace::create().unwrap();
    let user = User::new();
    let key = user.public_key();
    let arguments = ["listen", "tcp:127.0.0.1:0", "--allow", &key, "--tun", "bond0", "--addr", "10.9.0.1/24"];
    let ended = Running::start(&mut as_nobody(&user, &host, &arguments)).wait().assert_code(3);
    for advice in
        ["not permitted", "setcap cap_net_admin+ep", "ip tuntap add bond0 mode tun user", "run this as root"]
    {
        assert!(ended.error_line().contains(advice), "{}", ended.stderr);
    }
    host.ip(&format!("tuntap add bond0 mode tun user {NOBODY}")).unwrap();
    host.ip("addr add 10.9.0.1/24 dev bond0").unwrap();
    host.ip("link set bond0 mtu 1400 up").unwrap();
    let listening = Running::start(&mut as_nobody(&user, &host, &arguments));
    listening.wait_for("made the interface bond0");
    listening.wait_for("public key of this host");
}
