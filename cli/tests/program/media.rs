//! `stdio:` and `exec:` links.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::pair::{address_behind, get, page, web_server};
use crate::user::{Ended, PATIENCE, PROGRAM, Running, User};

/// A command as it stands in an `exec:` link, in the configuration folder of `user`.
fn command(user: &User, arguments: &str) -> String {
    format!("exec:env XDG_CONFIG_HOME={} {PROGRAM} {arguments}", user.home().join("config").display())
}

/// A script that writes its process id into a file first.
struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    fn new(text: &str) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let script = format!("echo $$ >> {}\n{text}\n", folder.path().join("id").display());
        fs::write(folder.path().join("script"), script).unwrap();
        Self { folder }
    }

    fn link(&self) -> String {
        format!("exec:sh {}", self.folder.path().join("script").display())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Connects over it, in vain, and sees that nothing of it is left.
    #[track_caller]
    fn fails(&self) -> Ended {
        let user = User::new();
        let arguments = ["connect", &self.link(), "--peer", &user.public_key(), "--timeout", "1"];
        let ended = user.run(&arguments).assert_code(4);
        for id in ids(&self.file("id")) {
            assert!(!lives(id), "process {id:?} outlives its link");
        }
        ended
    }
}

fn ids(file: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| Pid::from_raw(line.parse().unwrap()).unwrap()).collect()
}

fn lives(id: Pid) -> bool {
    // Whoever was orphaned may wait to be reaped.
    let is_zombie = fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero()))
        .is_ok_and(|stat| stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'));
    test_kill_process(id).is_ok() && !is_zombie
}

#[test]
fn a_command_that_listens_on_its_pipes_is_a_peer() {
    let (server, client) = (User::new(), User::new());
    let link = command(&server, &format!("listen stdio: --allow {}", client.public_key()));
    let forward = format!("127.0.0.1:0:{}", web_server(5_000_000));
    let connecting = client.start(&["connect", &link, "--peer", &server.public_key(), "-L", &forward]);
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    let line = connecting.wait_for("listening on standard input and output");
    assert!(line.contains("exec env"), "its log comes with the link's name: {line}");
    connecting.wait_for("connected to ");
    assert!(get(local) == page(5_000_000));
    connecting.signal(Signal::TERM);
    connecting.wait().assert_code(130);
}

#[test]
fn both_ends_can_be_pipes() {
    let (server, client) = (User::new(), User::new());
    let server_key = server.public_key();
    let mut listening =
        server.start_piped(&["listen", "stdio:", "--allow", &client.public_key(), "--permit-open", "*:*"]);
    let (to, from) = listening.pipes();
    let forward = format!("127.0.0.1:0:{}", web_server(1_000_000));
    let arguments = ["connect", "stdio:", "--peer", &server_key, "-L", &forward];
    let connecting = Running::start_between(client.command(Path::new(PROGRAM)).args(arguments), from, to);
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    connecting.wait_for("connected to ");
    assert!(get(local) == page(1_000_000));
    connecting.signal(Signal::TERM);
    connecting.wait().assert_code(130);
    // The listener's one link is gone, and no other can come.
    listening.wait().assert_code(0);
}

#[test]
fn a_listener_on_a_pipe_ends_with_it_and_so_does_a_connector() {
    let user = User::new();
    let peer = user.public_key();
    user.run(&["listen", "stdio:", "--allow", &peer]).assert_code(0);
    let ended = user.run(&["connect", "stdio:", "--peer", &peer, "--timeout", "1"]).assert_code(4);
    assert!(ended.error_line().contains("stdio:"), "{}", ended.stderr);
    let (server, client) = (User::new(), User::new());
    let server_key = server.public_key();
    let mut listening = server.start_piped(&["listen", "stdio:", "--allow", &client.public_key()]);
    let (to, from) = listening.pipes();
    let arguments = ["connect", "stdio:", "--peer", &server_key];
    let connecting = Running::start_between(client.command(Path::new(PROGRAM)).args(arguments), from, to);
    connecting.wait_for("connected to ");
    drop(listening);
    let ended = connecting.wait().assert_code(6);
    assert!(ended.error_line().contains("the only link"), "{}", ended.stderr);
}

#[test]
fn standard_input_is_there_once() {
    let user = User::new();
    let peer = user.public_key();
    let ended = user.run(&["listen", "stdio:", "stdio:", "--allow", &peer]).assert_code(2);
    assert!(ended.error_line().contains("twice"), "{}", ended.stderr);
    let ended = user.run(&["connect", "stdio:", "--peer", &peer, "-W", "h:22"]).assert_code(2);
    assert!(ended.error_line().contains("-W"), "{}", ended.stderr);
}

#[test]
fn a_link_to_a_listener_of_its_own_stands_alone() {
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let own = command(&server, &format!("listen stdio: --allow {}", client.public_key()));
    let key = server.public_key();
    let ended = client.run(&["connect", &link, &own, "--peer", &key]).assert_code(2);
    assert!(ended.error_line().contains("no other link reaches; name it alone"), "{}", ended.stderr);
    let connecting = client.start(&["connect", &link, "--peer", &key]);
    connecting.wait_for("connected to ");
    let added = client.run(&["link", "add", &own]).assert_code(3);
    assert!(added.error_line().contains("no other link reaches"), "{}", added.stderr);
}

#[test]
fn a_command_that_dies_is_started_again() {
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let port = link.rsplit(':').next().unwrap();
    // The pipes carry what a TCP link carries, so anything that joins the two will do.
    let script =
        Script::new(&format!("exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3 & exec cat >&3'"));
    let link = script.link();
    let connecting = client.start(&["connect", &link, "--peer", &server.public_key()]);
    connecting.wait_for("connected to ");
    let first = ids(&script.file("id"))[0];
    kill_process(first, Signal::KILL).unwrap();
    let line = connecting.wait_for("link 1 ");
    assert!(line.ends_with(": up"), "{line}");
    let both = ids(&script.file("id"));
    assert!(both.len() >= 2 && lives(both[both.len() - 1]));
    connecting.signal(Signal::TERM);
    connecting.wait().assert_code(130);
    assert!(!ids(&script.file("id")).into_iter().any(lives));
}

#[test]
fn a_listener_can_call_a_command_too() {
    let (server, client) = (User::new(), User::new());
    let connect = format!("connect stdio: --peer {}", server.public_key());
    let link = command(&client, &connect);
    let listening = server.start(&["listen", &link, "--allow", &client.public_key()]);
    listening.wait_for("new bond from ");
    listening.signal(Signal::TERM);
    listening.wait().assert_code(130);
    // One that dies is started again, after a while that grows.
    let script = Script::new("echo dies >&2; exit 3");
    let listening = server.start(&["listen", &script.link(), "--allow", &client.public_key()]);
    for _ in 0..3 {
        listening.wait_for("the command ended (exit status: 3): dies");
    }
}

#[test]
fn what_became_of_a_command_is_told() {
    let ended = Script::new("exit 7").fails();
    assert!(ended.error_line().contains("exit status: 7"), "{}", ended.stderr);
    let ended = Script::new("echo no such host >&2; exit 255").fails();
    assert!(ended.error_line().contains("exit status: 255): no such host"), "{}", ended.stderr);
    assert!(ended.stderr.lines().any(|line| line.contains("INFO exec sh ")), "{}", ended.stderr);
    let user = User::new();
    let link = "exec:/nowhere/at/all";
    let ended = user.run(&["connect", link, "--peer", &user.public_key(), "--timeout", "1"]).assert_code(4);
    assert!(ended.error_line().contains("cannot start /nowhere/at/all"), "{}", ended.stderr);
}

#[test]
fn a_flood_harms_nothing() {
    let begun = Instant::now();
    Script::new("exec yes").fails();
    let ended = Script::new("yes flood >&2").fails();
    let lines = ended.stderr.lines().count();
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(lines < 200 + 100 * seconds, "{lines} lines");
    // No end of line ever.
    Script::new("exec cat /dev/zero >&2").fails();
    Script::new("exec cat /dev/zero").fails();
}

#[test]
fn who_ignores_signals_is_killed_and_so_are_grandchildren() {
    Script::new("trap '' TERM HUP INT PIPE\nwhile :; do sleep 1; done").fails();
    // A command that ends, and leaves one behind that ignores signals.
    let script = Script::new("(trap '' TERM HUP; while :; do sleep 1; done) &\necho $! >> \"${0%script}id\"");
    script.fails();
    assert!(ids(&script.file("id")).len() >= 2);
    // A command that only sleeps, with a child that holds its pipes.
    let script = Script::new("sleep 1000 &\necho $! >> \"${0%script}id\"\nwait");
    script.fails();
    assert!(ids(&script.file("id")).len() >= 2);
}

#[test]
fn other_links_go_on_beside_a_bad_command() {
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let script = Script::new("exec yes");
    let forward = format!("127.0.0.1:0:{}", web_server(5_000_000));
    let bad = script.link();
    let connecting = client.start(&["connect", &link, &bad, "--peer", &server.public_key(), "-L", &forward]);
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    connecting.wait_for("connected to ");
    let deadline = Instant::now() + PATIENCE;
    while fs::read_to_string(script.file("id")).map_or(0, |text| text.lines().count()) < 3 {
        assert!(get(local) == page(5_000_000));
        assert!(Instant::now() < deadline, "the command is not started again");
    }
    connecting.signal(Signal::TERM);
    connecting.wait().assert_code(130);
    assert!(!ids(&script.file("id")).into_iter().any(lives));
}
