use std::path::Path;

use bondwire::PublicKey;
use tempfile::TempDir;

use super::*;
use crate::access::Always;

/// A folder with a peers file in which one peer is remembered, and the text of a configuration that uses it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let peers = format!("[peer.server]\nkey = \"{}\"\nlinks = [\"tcp:10.0.0.5\"]\n", key(9));
        let file = folder.path().join("peers.toml");
        std::fs::write(&file, peers).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Self(folder)
    }

    /// Reads `text`, with the peers file in its first line.
    fn parse(&self, text: &str) -> Result<Config, Failure> {
        file::parse(&self.0.path().join("f.toml"), &format!("peers = \"peers.toml\"\n{text}"))
    }

    /// What is wrong with `text`, from its place on.
    fn fault(&self, text: &str) -> String {
        let message = self.parse(text).err().unwrap_or_else(|| panic!("{text} is right")).to_string();
        assert!(!message.contains('\n'), "{message}");
        message.split("f.toml").nth(1).unwrap_or(&message).to_owned()
    }
}

fn key(of: u8) -> String {
    keys::public_key_text(&PublicKey([of; 32]))
}

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

#[test]
fn a_file_is_read_with_all_its_keys() {
    let folder = Folder::new();
    let text = format!(
        "key = \"key\"\ncontrol = \"office\"\ndrain-seconds = 3\n\
         [listen]\nlinks = [\"tcp:*\", \"tcp:127.0.0.1:7701,iface=lo\"]\nallow = [\"{one}\"]\n\
         permit-open = [\"localhost:22\"]\npermit-listen = [\"*:*\"]\ncipher = \"chacha\"\ndiscover = true\n\
         interfaces = \"eth*\"\nfamily = \"4\"\nnetwork = \"10.0.0.0/8\"\n\
         [connect.server]\nforwards = [\"-L 8080:localhost:80\", \"-R 0:localhost:22\", \"-D 1080\"]\n\
         [connect.board]\npeer = \"{two}\"\nlinks = [\"tcp:h,policy=backup,cap=1MB\", \"usb:\"]\n\
         [connect.lab]\npeer = \"{two}\"\nlinks = [\"tcp:i\"]\nper-path = 2\n\
         [peer.laptop]\nkey = \"{one}\"\npermit-open = []\n",
        one = key(1),
        two = key(2),
    );
    let config = folder.parse(&text).unwrap();
    assert_eq!(config.key.as_deref(), Some(&*folder.0.path().join("key")), "beside the file");
    assert_eq!((config.control.as_deref(), config.drain), (Some("office"), Duration::from_secs(3)));
    let listen = config.listen.as_ref().unwrap();
    assert_eq!(listen.grants.always, Always::Keys(vec![PublicKey([1; 32])]));
    assert_eq!(listen.grants.defaults.open, ["localhost:22".parse().unwrap()]);
    assert_eq!(listen.grants.configured.with_key(&PublicKey([1; 32])).unwrap().name, name("laptop"));
    assert!(listen.told.as_ref().is_some_and(|filter| !filter.interfaces.allows("wlan0")));
    let server = &config.connect[&name("server")];
    assert_eq!((server.way.peer, server.links.len()), (Some(PublicKey([9; 32])), 1), "as remembered");
    assert_eq!(server.way.paths, PeerPaths::found());
    let forwards: Vec<_> = server.forwards.iter().map(ToString::to_string).collect();
    assert_eq!(forwards, ["-L 8080:localhost:80", "-R 0:localhost:22", "-D 1080"]);
    let board = &config.connect[&name("board")];
    assert_eq!((board.way.peer, board.way.paths.discover), (Some(PublicKey([2; 32])), None));
    assert_eq!(
        config.connect[&name("lab")].way.paths.discover,
        Some(true),
        "whoever says how many wants them"
    );
    assert_eq!(
        config.to_string(),
        "listens on tcp:*, tcp:127.0.0.1:7701,iface=lo; connects to board over 2 links with 0 forwards; \
         connects to lab over 1 link with 0 forwards; connects to server over 1 link with 3 forwards"
    );
}

#[cfg(unix)]
#[test]
fn the_example_is_right() {
    let folder = TempDir::new().unwrap();
    let config =
        file::parse(&folder.path().join("f.toml"), include_str!("../../../docs/bondwire.toml")).unwrap();
    assert_eq!(config.connect.keys().map(PeerName::as_str).collect::<Vec<_>>(), ["lab", "server"]);
    assert_eq!(config.connect[&name("server")].forwards.len(), 4);
    assert_eq!(config.connect[&name("lab")].links.len(), 4);
    assert_eq!(config.listen.unwrap().grants.configured.iter().count(), 2);
}

#[test]
fn what_is_left_out_is_as_on_the_command_line() {
    let folder = Folder::new();
    let config = folder.parse("[listen]\nlinks = [\"tcp:*\"]\n").unwrap();
    let listen = config.listen.unwrap();
    assert_eq!(listen.grants.defaults.open, ["localhost:*".parse().unwrap()]);
    assert!(listen.grants.defaults.listen.is_empty() && listen.told.is_some());
    assert_eq!(config.drain, Duration::from_secs(10));
}

/// A section that lacks only its links.
fn bond() -> String {
    format!("[connect.a]\npeer = \"{}\"\n", key(1))
}

#[track_caller]
fn assert_faults(cases: &[(String, &str)]) {
    let folder = Folder::new();
    for (text, fault) in cases {
        let found = folder.fault(text);
        assert!(found.starts_with(fault), "{text}\n{found}\n{fault}");
    }
}

#[test]
fn faults_of_links_have_their_place_and_what_was_meant() {
    let bond = bond();
    let one = key(1);
    let cases = [
        (bond.clone(), ":2:10: no link to a; name some"),
        (format!("{bond}link = []"), ":4:1: unknown key \"link\"; did you mean \"links\"?"),
        (format!("{bond}zzz = 1"), ":4:1: unknown key \"zzz\"; keys are links, peer, "),
        (format!("{bond}links = \"tcp:h\""), ":4:9: invalid type: string \"tcp:h\", expected a sequence"),
        (format!("{bond}links = [7]"), ":4:10: invalid type: integer `7`, expected a string"),
        (format!("{bond}links = [\"tcp:h\", \"10.0.0.1:7\"]"), ":4:19: \"10.0.0.1:7\": no kind of link"),
        (
            format!("{bond}links = [\"tcp:h,polcy=backup\"]"),
            ":4:10: \"tcp:h,polcy=backup\": unknown key \"polcy\"; did you mean \"policy\"?",
        ),
        (format!("{bond}links = [\"tcp:h\", \"tcp:i\",\n  \"tcp:h\"]"), ":5:3: tcp:h stands there twice"),
        (format!("{bond}links = []"), ":4:9: no link; name at least one"),
        (format!("{bond}links = [\"stdio:\"]"), ":4:10: stdio: is for commands"),
        (
            format!("{bond}links = [\"tcp:h\"]\naccept-any-peer = true"),
            ":2:10: accept-any-peer takes everybody",
        ),
        (
            format!("{bond}links = [\"tcp:h\"]\ncipher = \"des\""),
            ":5:10: \"des\": is none of aes, chacha, none",
        ),
        (
            format!("{bond}links = [\"tcp:h\"]\ncipher = \"none\""),
            ":2:10: --cipher none goes over TCP only with",
        ),
        (format!("{bond}links = [\"tcp:h\"]\nfamily = \"5\""), ":5:10: \"5\": `5` is not an address family"),
        (
            format!("{bond}links = [\"tcp:h,iface=wlan0\"]\ninterfaces = \"eth0\""),
            ":4:9: tcp:h,iface=wlan0 leaves by wlan0",
        ),
        (format!("{bond}links = [\"tcp:h\"]\n[connect.a]"), ":5:"),
    ];
    assert_faults(&cases);
    #[cfg(unix)]
    {
        let twice = format!(
            "{bond}links = [\"serial:/dev/ttyS1\"]\n[connect.b]\npeer = \"{one}\"\nlinks = [\"serial:/dev/ttyS1,baud=9600\"]"
        );
        let fault = Folder::new().fault(&twice);
        assert!(fault.starts_with(":7:10: serial port /dev/ttyS1 stands there twice"), "{fault}");
    }
}

#[test]
fn a_bond_may_have_attached_cables_alone() {
    let (bond, folder) = (bond(), Folder::new());
    let of = |text: &str| {
        let config = folder.parse(&format!("{bond}{text}")).unwrap().connect.remove(&name("a")).unwrap();
        (config.links.len(), config.attach.map(|patterns| patterns.len()))
    };
    assert_eq!(of("links = [\"tcp:h\"]"), (1, None));
    assert_eq!(of("links = [\"tcp:h\"]\nattach = []"), (1, Some(0)));
    assert_eq!(of("attach = [\"usb:\"]"), (0, Some(1)));
    assert_eq!(of("links = []\nattach = [\"usb:1d6b:0104,tier=1\", \"usb:\"]"), (0, Some(2)));
    let cases = [
        (format!("{bond}attach = []"), ":2:10: no link to a; name some"),
        (format!("{bond}links = []\nattach = []"), ":4:9: no link; name at least one"),
        (format!("{bond}attach = [\"tcp:h\"]"), ":4:11: tcp:h: only cables are attached"),
        (format!("{bond}attach = [\"usb:,quota=1GB\"]"), ":4:11: usb:,quota=1GB: quota= counts"),
        (format!("{bond}attach = [\"usb\"]"), ":4:11: \"usb\": no address; write usb: for every cable"),
    ];
    assert_faults(&cases);
}

#[test]
fn faults_of_forwards_have_their_place_and_what_was_meant() {
    let bond = bond();
    let cases = [
        (
            format!("{bond}links = [\"tcp:h\"]\nforwards = [\"8080:localhost:80\"]"),
            ":5:13: \"8080:localhost:80\": write -L, -R or -D in front",
        ),
        (
            format!("{bond}links = [\"tcp:h\"]\nforwards = [\"-L 8080\"]"),
            ":5:13: \"-L 8080\": write [bind:]port:host:port",
        ),
        (
            format!("{bond}links = [\"tcp:h\"]\nforwards = [\"-L 8:h:1\", \"-D 8\"]"),
            ":5:25: -D 8: another forward of this file listens on localhost:8",
        ),
        (
            format!("{bond}links = [\"tcp:h\"]\nforwards = [\"-R 8:h:1\", \"-R 8:h:1\"]"),
            ":5:25: -R 8:h:1 stands there twice",
        ),
    ];
    assert_faults(&cases);
}

#[test]
fn faults_of_interfaces_have_their_place_and_what_was_meant() {
    let (bond, one) = (bond(), key(1));
    let with = |tun: &str| format!("{bond}links = [\"tcp:h\"]\ntun = {tun}");
    let cases = [
        (
            with("{ name = \"a-name-too-long-16\", addr = \"10.9.0.1/24\" }"),
            ":5:16: \"a-name-too-long-16\": ",
        ),
        (
            with("{ name = \"bond0\", addr = \"10.9.0.1\" }"),
            ":5:32: \"10.9.0.1\": `10.9.0.1` is no address with",
        ),
        (with("{ name = \"bond0\" }"), ":5:7: missing field `addr`"),
        (
            with("{ name = \"bond0\", addr = \"10.9.0.1/24\", mut = 9 }"),
            ":5:47: unknown key \"mut\"; did you mean \"mtu\"?",
        ),
        (
            with("{ name = \"bond0\", addr = \"10.9.0.1/24\", mtu = 70000 }"),
            ":5:53: invalid value: integer `70000`",
        ),
        (
            with("{ name = \"bond0\", addr = \"10.9.0.1/24\", mtu = 500 }"),
            ":5:7: `500` is no size of packets",
        ),
        (
            with("{ name = \"bond0\", addr = \"fd00::1/64\", mtu = 1000 }"),
            ":5:7: 1000 bytes are too few for IPv6",
        ),
        (
            format!(
                "{}\n[connect.b]\npeer = \"{one}\"\nlinks = [\"tcp:h\"]\ntun = {{ name = \"bond0\", addr = \"10.9.1.1/24\" }}",
                with("{ name = \"bond0\", addr = \"10.9.0.1/24\" }")
            ),
            ":9:7: another section of this file makes the interface bond0 already",
        ),
    ];
    assert_faults(&cases);
}

#[test]
fn faults_of_sections_have_their_place_and_what_was_meant() {
    let one = key(1);
    let cases = [
        ("conect.a.links = []".to_owned(), ":2:1: unknown key \"conect\"; did you mean \"connect\"?"),
        (
            "[listen]\nlinks = [\"tcp:*\"]\npermit_open = []".to_owned(),
            ":4:1: unknown key \"permit_open\"; did you mean \"permit-open\"?",
        ),
        ("[connect.sever]".to_owned(), ":2:10: no peer is called sever; there are server; or say who it is"),
        ("[connect.\"a b\"]".to_owned(), ":2:10: a name is made of letters"),
        ("[connect.a]\npeer = \"bwpub1x\"".to_owned(), ":3:8: too short"),
        ("drain-seconds = 9999".to_owned(), ":2:17: the longest time to drain is 3600 s, not 9999"),
        ("drain-seconds = \"3\"".to_owned(), ":2:17: invalid type: string \"3\", expected u64"),
        ("[listen]".to_owned(), ":2:1: missing field `links`"),
        (
            "[listen]\nlinks = [\"tcp:*,policy=backup\"]".to_owned(),
            ":3:9: tcp:*,policy=backup: policy=, cap= and the like go with the end that connects",
        ),
        ("[listen]\nlinks = [\"usb:\"]".to_owned(), ":3:9: usb:: the host of a cable begins"),
        (
            format!("[listen]\nlinks = [\"tcp:*\"]\naccept-any-peer = true\nallow = [\"{one}\"]"),
            ":2:1: accept-any-peer lets everybody in",
        ),
        (String::new(), ": it opens no bond and takes none"),
        ("[connect.a\n".to_owned(), ":2:"),
        ("[peer.x]\nkey = 7".to_owned(), ":3:7: invalid type: integer `7`"),
    ];
    assert_faults(&cases);
}

#[test]
fn nobody_to_let_in_is_a_fault() {
    let folder = TempDir::new().unwrap();
    let text = "peers = \"none.toml\"\n[listen]\nlinks = [\"tcp:*\"]\n";
    let message = file::parse(&folder.path().join("f.toml"), text).unwrap_err().to_string();
    assert!(message.contains("f.toml:2:1: nobody may connect"), "{message}");
}

#[cfg(unix)]
#[test]
fn files_that_are_missing_or_that_others_can_change_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let path = folder.0.path().join("f.toml");
    let message = Config::load(&path).unwrap_err().to_string();
    assert!(message.starts_with("there is no file ") && message.contains("--print-config"), "{message}");
    std::fs::write(&path, "peers = \"peers.toml\"\n[connect.server]\n").unwrap();
    for (mode, good) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        match Config::load(&path) {
            Ok(_) => assert!(good, "{mode:o}"),
            Err(error) => {
                let message = error.to_string();
                let fault = format!("has mode {mode:04o}, so others decide what this program runs");
                assert!(!good && message.contains(&fault) && message.contains("chmod"), "{message}");
            }
        }
    }
    let message = Config::load(folder.0.path()).unwrap_err().to_string();
    assert!(message.contains("cannot read the configuration file"), "{message}");
}

#[test]
fn what_is_printed_can_be_read_and_says_the_same() {
    let folder = Folder::new();
    let general = General {
        key: Some("/k \"x\"".into()),
        peers: Some(folder.0.path().join("peers.toml")),
        control: None,
        record: Some("/r".into()),
        metrics: Some("127.0.0.1:9".parse().unwrap()),
    };
    let links = ["tcp:h,policy=backup".parse().unwrap(), "exec:ssh \"a b\" nc x 7700".parse().unwrap()];
    let forwards = ["-L 8080:localhost:80,class=interactive".parse().unwrap(), "-D 1080".parse().unwrap()];
    let paths = PeerPaths {
        per_path: Some(2),
        interfaces: Some("eth*,!eth1".parse().unwrap()),
        ..PeerPaths::default()
    };
    let tun = |address: &str| {
        let addresses = address.parse().unwrap();
        TunSpec::new("bond0".parse().unwrap(), addresses, Some("1300".parse().unwrap())).unwrap()
    };
    let text = ConnectText {
        tun: Some(tun("10.9.0.1/24,fd00::1/64")),
        name: "board",
        links: &links,
        peer: Some(PublicKey([1; 32])),
        accept_any_peer: false,
        cipher: &CipherOptions::new(Some("none".parse().unwrap()), true),
        paths: &paths,
        forwards: &forwards,
    };
    let read = file::parse(Path::new("f"), &text.file(&general)).unwrap();
    let board = &read.connect[&name("board")];
    assert_eq!((&board.links[..], &board.forwards[..]), (&links[..], &forwards[..]));
    assert_eq!(read.key.as_deref(), Some(Path::new("/k \"x\"")));
    assert_eq!(read.observers.metrics(), general.metrics);
    assert_eq!(read.observers.record(), Some(Path::new("/r")));
    assert_eq!((&board.way.cipher, board.way.peer), (text.cipher, text.peer));
    assert_eq!(board.tun, text.tun);
    assert_eq!(board.way.paths, paths.into_wishes());

    // Nothing but a name: everything else stands there as a comment.
    let (cipher, paths) = (CipherOptions::default(), PeerPaths::default());
    let text = ConnectText {
        tun: None,
        name: "server",
        links: &[],
        peer: None,
        accept_any_peer: false,
        cipher: &cipher,
        paths: &paths,
        forwards: &[],
    };
    let read = file::parse(Path::new("f"), &text.file(&general)).unwrap();
    assert_eq!(read.connect[&name("server")].links.len(), 1);

    let permits = ["localhost:*".parse().unwrap(), "/run/*".parse().unwrap()];
    let links = ["tcp:*".parse().unwrap()];
    let filter = crate::discovery::FilterOptions::default();
    let text = ListenText {
        tun: Some(tun("10.9.0.2/31")),
        links: &links,
        allow: &[PublicKey([1; 32]), PublicKey([2; 32])],
        accept_any_peer: false,
        permit_open: &permits,
        permit_listen: &[],
        cipher: &cipher,
        discover: false,
        filter: &filter,
    };
    let listen = file::parse(Path::new("f"), &text.file(&general)).unwrap().listen.unwrap();
    assert_eq!((&listen.links[..], listen.told), (&links[..], None));
    assert_eq!(listen.grants.defaults.open, permits);
    assert_eq!(listen.grants.always, Always::Keys(text.allow.to_vec()));
    assert_eq!(listen.tun, text.tun);
}
