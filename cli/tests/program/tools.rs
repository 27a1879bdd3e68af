//! Forwards under the programs that people use them with. Some need root, all need their program; see `able`.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Instant;

use crate::pair::{Pair, address_behind, free_port, page, web_server};
use crate::user::{PATIENCE, PROGRAM, Running, User};

/// Whether these programs are there, and root where that is needed. Says loudly if not, and fails if it must not be so.
pub(crate) fn able(programs: &[&str], as_root: bool) -> bool {
    let missing = programs.iter().find(|program| find(program).is_none());
    let what = match missing {
        Some(program) => format!("{program} is not installed"),
        None if as_root && !rustix::process::geteuid().is_root() => "not root".to_owned(),
        None => return true,
    };
    println!("SKIPPED: {what}");
    let required = std::env::var_os("BONDWIRE_REQUIRE_ROOT_TESTS").is_some_and(|value| value == "1");
    assert!(!required, "BONDWIRE_REQUIRE_ROOT_TESTS=1, but: {what}");
    false
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Runs a command to its end, which has to be a good one.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// An OpenSSH server with keys of its own.
pub(crate) struct SshServer {
    user: User,
    server: Running,
}

impl SshServer {
    /// Starts it at `address`; `on_host` makes a command run on its host.
    pub(crate) fn start(address: SocketAddr, on_host: impl Fn(&Path) -> Command) -> Self {
        let user = User::new();
        let at = |name: &str| user.home().join(name).display().to_string();
        for key in ["host_key", "user_key"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
        }
        fs::create_dir_all("/run/sshd").unwrap();
        let config = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n",
            at("host_key"),
            at("user_key.pub")
        );
        fs::write(at("sshd_config"), config).unwrap();
        let mut sshd = on_host(&find("sshd").unwrap());
        let server = Running::start(sshd.args(["-D", "-e", "-f", &at("sshd_config")]).stdin(Stdio::null()));
        server.wait_for("Server listening on");
        Self { user, server }
    }

    /// Writes what the client is to know of it, the host `far`, and these lines more; the file's path.
    pub(crate) fn client_config(&self, more: &str) -> PathBuf {
        let path = self.user.home().join("ssh_config");
        let config = format!(
            "Host far\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  \
             UserKnownHostsFile /dev/null\n  LogLevel ERROR\n  BatchMode yes\n  {more}\n",
            self.user.home().join("user_key").display()
        );
        fs::write(&path, config).unwrap();
        path
    }
}

/// The same, and a client that reaches it through `connect -W`.
struct Ssh {
    server: SshServer,
    config: PathBuf,
    _listening: Running,
}

impl Ssh {
    fn start() -> Self {
        let address = free_port();
        let server = SshServer::start(address, |sshd| Command::new(sshd));
        let (user, peer) = (&server.user, User::new());
        let (listening, link) = peer.listen(&["--allow", &user.public_key()]);
        let proxy = format!(
            "ProxyCommand env XDG_CONFIG_HOME={} {PROGRAM} connect {link} {link} --peer {} -W {address}",
            user.home().join("config").display(),
            peer.public_key()
        );
        let config = server.client_config(&proxy);
        Self { server, config, _listening: listening }
    }
}

#[test]
fn ssh_runs_through_it() {
    if !able(&["sshd", "ssh", "ssh-keygen"], true) {
        return;
    }
    let ssh = Ssh::start();
    let output =
        run(Command::new("ssh").arg("-F").arg(&ssh.config).args(["far", "printf out; printf err >&2"]));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out"[..], &b"err"[..]));
    ssh.server.server.wait_for("Disconnected from user");
}

#[test]
fn rsync_runs_over_ssh_through_it() {
    if !able(&["sshd", "ssh", "ssh-keygen", "rsync"], true) {
        return;
    }
    let ssh = Ssh::start();
    let (from, to) = (ssh.server.user.home().join("from"), ssh.server.user.home().join("to"));
    fs::create_dir(&from).unwrap();
    for (name, length) in [("empty", 0), ("small", 700), ("large", 20_000_000)] {
        fs::write(from.join(name), page(length)).unwrap();
    }
    let shell = format!("ssh -F {}", ssh.config.display());
    let pull = format!("far:{}/", from.display());
    run(Command::new("rsync").args(["-a", "-e", &shell, &pull]).arg(&to));
    let files = |folder: &Path| ["empty", "small", "large"].map(|name| fs::read(folder.join(name)).unwrap());
    assert!(files(&from) == files(&to), "pulled files differ");
    fs::write(from.join("small"), b"changed").unwrap();
    let push = format!("far:{}/", to.display());
    run(Command::new("rsync").args(["-a", "-e", &shell, &format!("{}/", from.display()), &push]));
    assert!(files(&from) == files(&to), "pushed files differ");
}

#[test]
fn curl_finds_a_name_that_only_the_peer_knows() {
    if !able(&["curl", "unshare", "mount"], true) {
        return;
    }
    let (server, client) = (User::new(), User::new());
    let hosts = server.home().join("hosts");
    fs::write(&hosts, "127.0.0.1 only-far.example\n").unwrap();
    // The listener alone sees this file of hosts.
    let listen = format!(
        "mount --bind {} /etc/hosts && exec {PROGRAM} listen tcp:127.0.0.1:0 --allow {} --permit-open '*:*'",
        hosts.display(),
        client.public_key()
    );
    let mut unshare = server.command(Path::new("unshare"));
    let listening = Running::start(unshare.args(["--mount", "sh", "-c", &listen]).stdin(Stdio::null()));
    let link = listening.link();
    let connecting =
        client.start(&["connect", &link, &link, "--peer", &server.public_key(), "-D", "127.0.0.1:0"]);
    let proxy = address_behind("SOCKS server on ", &connecting.wait_for("SOCKS server on "));
    connecting.wait_for("connected to ");
    let url = format!("http://only-far.example:{}/", web_server(300_000).port());
    let get = |kind: &str| {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "50",
            "--proxy",
            &format!("{kind}://{proxy}"),
            &url,
        ]);
        curl
    };
    assert!(run(&mut get("socks5h")).stdout == page(300_000));
    // Looked up here, the name is nobody's.
    assert!(!get("socks5").output().unwrap().status.success());
    // A proxy of another kind is told apart.
    assert!(!get("socks4a").output().unwrap().status.success());
    connecting.wait_for("it speaks SOCKS4");
    let heard = String::from_utf8(get("http").output().unwrap().stdout).unwrap();
    assert!(heard.contains("SOCKS5"), "{heard}");
}

#[test]
fn iperf3_runs_through_a_forward() {
    if !able(&["iperf3"], false) {
        return;
    }
    let target = free_port();
    let port = target.port().to_string();
    let _server = Running::start(
        Command::new("iperf3").args(["-s", "-1", "-B", "127.0.0.1", "-p", &port]).stdin(Stdio::null()),
    );
    let (_pair, local) = Pair::forwarding(&target.to_string(), &[], "");
    let port = local.port().to_string();
    // The server may not listen yet; the client then ends at once.
    let deadline = Instant::now() + PATIENCE;
    let output = loop {
        let arguments = ["-c", "127.0.0.1", "-p", &port, "-t", "1", "-P", "2", "--json"];
        let output = Command::new("iperf3").args(arguments).stdin(Stdio::null()).output().unwrap();
        if output.status.success() {
            break String::from_utf8(output.stdout).unwrap();
        }
        assert!(Instant::now() < deadline, "{output:?}");
    };
    assert!(output.contains("\"sum_received\""), "{output}");
}

/// Answers every question for an address with 192.0.2.7.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            // The name ends with an empty label; type and class follow.
            let end = 12 + question[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let mut answer = question[..2].to_vec();
            answer.extend(b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00");
            answer.extend(&question[12..end]);
            answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x07");
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

#[test]
fn dig_asks_through_a_udp_forward() {
    if !able(&["dig"], false) {
        return;
    }
    let pair = Pair::start(&[], &["-L", &format!("udp/127.0.0.1:0:{}", name_server())]);
    let near = address_behind("forwarding ", &pair.connecting.wait_for("forwarding udp/127.0.0.1:"));
    pair.connecting.wait_for("connected to ");
    let port = near.port().to_string();
    let output = run(Command::new("dig").args([
        "@127.0.0.1",
        "-p",
        &port,
        "+short",
        "+noedns",
        "+tries=20",
        "a.example",
        "A",
    ]));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "192.0.2.7");
}
