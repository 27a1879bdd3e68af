//! Wrong command lines: exit code 2, and one line that says what to do.

use crate::user::User;

const PEER: &str = "bwpub1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqk0fewv";

#[track_caller]
fn assert_usage(arguments: &[&str], parts: &[&str]) {
    let ended = User::new().run(arguments).assert_code(2);
    let line = ended.error_line();
    for part in parts {
        assert!(line.contains(part), "{arguments:?}: {part:?} is not in {line:?}");
    }
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn a_misspelt_option_names_the_nearest() {
    assert_usage(
        &["connect", "tcp:h", "--accept-any-pear"],
        &["'--accept-any-pear'", "'--accept-any-peer'", "see bondwire connect --help"],
    );
    assert_usage(&["lissen"], &["'lissen'", "'listen'"]);
    assert_usage(&["speed", "tcp:h"], &["--peer", "required"]);
    assert_usage(&["connect"], &["required", "LINK"]);
    assert_usage(&["keygen", "--force", "--force"], &["--force", "multiple"]);
}

#[test]
fn numbers_have_bounds() {
    let base = ["speed", "tcp:h", "--accept-any-peer"];
    for (option, value) in [("--seconds", "0"), ("--seconds", "x"), ("--omit", "-1"), ("--streams", "0")] {
        let joined = format!("{option}={value}");
        let arguments: Vec<_> = base.iter().copied().chain([joined.as_str()]).collect();
        assert_usage(&arguments, &[option, value]);
    }
    assert_usage(&["demo", "--seconds", "1000"], &["--seconds", "1000"]);
}

#[test]
fn bad_filters_are_explained() {
    let cases: [(&[&str], &str); 10] = [
        (
            &["--interfaces", "eth0,"],
            "empty entry; write names with commas between, as in eth0,wlan*,!docker0",
        ),
        (&["--interfaces", "eth 0"], "`eth 0` is not the name of a network interface"),
        (&["--interfaces", "a-name-of-16-chars"], "not the name of a network interface"),
        (&["--family", "5"], "`5` is not an address family; write 4, 6, any"),
        (&["--network", "10.0.0.1/8"], "bits set behind its prefix; the network is 10.0.0.0/8"),
        (&["--network", "eth0"], "`eth0` is not a network; write ADDRESS/BITS, as in 10.0.0.0/8"),
        (&["--network", "10.0.0.0/33"], "`10.0.0.0/33` is not a network"),
        (&["--no-discover", "--interfaces", "eth0"], "--no-discover"),
        (&["--per-path", "9"], "--per-path"),
        (&["--peer-network", ""], "--peer-network"),
    ];
    for (arguments, part) in cases {
        let base = ["connect", "tcp:h", "--peer", PEER];
        assert_usage(&base.iter().chain(arguments).copied().collect::<Vec<_>>(), &[part]);
    }
    assert_usage(&["listen", "tcp:*", "--pair", "--network", "!"], &["empty entry"]);
    assert_usage(&["listen", "tcp:*", "--pair", "--no-discover", "--family", "4"], &["--no-discover"]);
    // A link that stands as it is must not go where a filter forbids.
    let named = |link: &str, arguments: &[&str], part: &str| {
        let base = ["connect", link, "--peer", PEER];
        assert_usage(&base.iter().chain(arguments).copied().collect::<Vec<_>>(), &[link, part]);
    };
    named("tcp:h,iface=eth1", &["--interfaces", "eth0"], "leaves by eth1, which --interfaces leaves out");
    named("tcp:h,source=10.0.0.1", &["--family", "6"], "leaves from 10.0.0.1, which --family or --network");
    named("tcp:h,quota=5GB", &["--interfaces", "eth0"], "name one with iface=");
}

#[test]
fn every_bad_link_is_explained() {
    let cases = [
        ("", "no kind"),
        ("10.0.0.1", "tcp:10.0.0.1"),
        ("10.0.0.1:7700", "tcp:10.0.0.1:7700"),
        ("[::1]:7700", "tcp:[::1]:7700"),
        ("localhost:7700", "tcp:localhost:7700"),
        (":7700", "no kind"),
        ("udp:10.0.0.1", "unknown kind of link \"udp\""),
        ("http://10.0.0.1", "unknown kind of link \"http\""),
        ("usb", "write usb: for every cable"),
        ("usb:1d6b", "not VENDOR:PRODUCT"),
        ("usb:,port=x", "no port"),
        ("usb:,baud=9600", "unknown key \"baud\""),
        ("serial", "no port"),
        ("serial:", "no port"),
        ("serial:,baud=9600", "no port"),
        ("serial:/dev/ttyUSB0,baud=fast", "`fast` is no baud rate"),
        ("serial:/dev/ttyUSB0,baud=9600,baud=9600", "twice"),
        ("gadget", "write gadget: for every free controller"),
        ("gadget:,with=uvc", "there are acm"),
        ("gadget:", "use it with `listen`"),
        ("tcp", "no address"),
        ("tcp:", "no address"),
        ("tcp://", "no address"),
        ("tcp:,iface=eth0", "no address"),
        ("tcp::7700", "host is missing"),
        ("tcp:host:", "not a port"),
        ("tcp:host:http", "not a port"),
        ("tcp:host:65536", "not a port"),
        ("tcp:host:-1", "not a port"),
        ("tcp:[::1", "not closed"),
        ("tcp:[::1]7700", "behind the bracket|after the bracket"),
        ("tcp:[host]:1", "not an IPv6 address"),
        ("tcp:1:2:3", "not an IPv6 address"),
        ("tcp:10.0.0.1 :7700", "space"),
        ("tcp:user@host", "cannot be part of a host"),
        ("tcp:host,", "not key=value"),
        ("tcp:host,eth0", "\"eth0\" is not key=value"),
        ("tcp:host,iface=", "iface= has no value"),
        ("tcp:host,ifce=eth0", "did you mean \"iface\"?"),
        ("tcp:host,baud=9600", "unknown key \"baud\""),
        ("tcp:host,iface=a,iface=b", "iface stands there twice"),
        ("tcp:host,policy=spare", "policy=spare is none of active, backup, paused"),
        ("tcp:host,source=eth0", "not an IP address"),
        ("tcp:host,cap=20", "cap=20: write a number and a unit, such as 20Mbit or 2.5MB"),
        ("tcp:host,weight=0", "weight=0 is no number from 1 to 255"),
        ("tcp:host,tier=-1", "tier=-1 is no number from 0 to 255"),
        ("tcp:host,quota=lots", "quota=lots: write a number and a unit"),
        ("tcp:host,reset-day=3", "it needs quota="),
        ("tcp:host,keepalive=0", "keepalive=0 is no number of seconds"),
        ("stdio", "write stdio:"),
        ("stdio:x", "stdio: has no address"),
        ("stdio:,iface=eth0", "stdio links have policy, tier, weight, cap"),
        ("exec", "no command; write exec:COMMAND"),
        ("exec:", "no command"),
        ("exec:sh -c 'x", "has no end"),
        ("exec:sh,policy=spare", "policy=spare is none of"),
    ];
    for (link, parts) in cases {
        let ended = User::new().run(&["connect", link, "--peer", PEER]).assert_code(2);
        let line = ended.error_line();
        assert!(parts.split('|').any(|part| line.contains(part)), "{link}: {line}");
        assert!(line.contains(link) || link.is_empty(), "{link}: {line}");
    }
}

#[test]
fn every_bad_peer_key_is_explained() {
    let short = &PEER[..50];
    let wrong = PEER.replace("1qqq", "1pqq");
    for (key, part) in [
        ("", "no public key"),
        ("alice", "starts with bwpub1"),
        (short, "too short: 50 of 64"),
        (&wrong, "checksum"),
        ("BWSECRET1QQQQ", "PRIVATE key"),
    ] {
        assert_usage(&["connect", "tcp:h", "--peer", key], &[part]);
        assert_usage(&["listen", "tcp:h", "--allow", key], &[part]);
    }
}

#[test]
fn bad_forwards_are_explained() {
    for (forward, part) in
        [("8080", "[bind:]port:host:port"), ("80:h:x", "no port"), ("1:h:2,class=fast", "class=fast")]
    {
        for option in ["-L", "-R"] {
            assert_usage(&["connect", "tcp:h", "--peer", PEER, option, forward], &[part]);
        }
    }
    for (option, value, part) in [
        ("-L", "udp/1:/run/a", "udp/[bind:]port:host:port"),
        ("-L", "udp/1:h:2,class=bulk", "class="),
        ("-R", "/run/../a:h:2", "absolute path"),
        ("-D", "x", "[bind:]port"),
        ("-D", "1:2:3", "for example 1080"),
        ("-W", "22", "host:port"),
        ("-W", "h:0", "no port"),
    ] {
        assert_usage(&["connect", "tcp:h", "--peer", PEER, option, value], &[part]);
    }
    assert_usage(
        &["connect", "tcp:h", "--peer", PEER, "-W", "h:22", "-L", "1:h:2"],
        &["-W", "cannot be used with"],
    );
    assert_usage(&["listen", "tcp:h", "--permit-listen", "8080"], &["HOST:PORT"]);
    assert_usage(&["listen", "tcp:h", "--permit-open", "web"], &["HOST:PORT"]);
}
