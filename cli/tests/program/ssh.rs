//! `connect ssh:`, with a program in the place of ssh that runs what it is given on this host, as another user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use crate::user::{Ended, PROGRAM, Running, User};

/// Two users, and an ssh from one to the other.
struct Login {
    near: User,
    far: User,
    /// Where the near user finds programs.
    path: PathBuf,
}

/// Runs what it is given as the far user; its own words stand in the file `arguments`, and its process in `pid`.
const SSH: &str = r#"echo "$@" > FAR/arguments; echo $$ > FAR/pid
while [ "$1" != -- ]; do shift; done
shift 2
HOME=FAR XDG_CONFIG_HOME=FAR/config PATH=FAR/bin:/usr/bin:/bin exec sh -c "$*"
"#;

impl Login {
    fn new(ssh: &str) -> Self {
        let (near, far) = (User::new(), User::new());
        let path = near.home().join("bin");
        for folder in [&path, &far.home().join("bin")] {
            fs::create_dir(folder).unwrap();
        }
        symlink(PROGRAM, far.home().join("bin/bondwire")).unwrap();
        let script = format!("#!/bin/sh\n{}", ssh.replace("FAR", far.home().to_str().unwrap()));
        fs::write(path.join("ssh"), script).unwrap();
        fs::set_permissions(path.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { near, far, path }
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.near.command(PROGRAM.as_ref());
        command.args(arguments).stdin(Stdio::null());
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path.display()));
        Running::start(&mut command)
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// The process of ssh, or what took its place.
    fn pid(&self) -> rustix::process::Pid {
        let pid = fs::read_to_string(self.far.home().join("pid")).unwrap();
        rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
    }

    fn fails(ssh: &str, code: i32, parts: &[&str]) {
        let ended = Self::new(ssh).run(&["connect", "ssh:pi@board"]).assert_code(code);
        for part in parts {
            assert!(ended.error_line().contains(part), "{part:?}: {}", ended.stderr);
        }
    }
}

#[test]
fn one_login_starts_pairs_and_carries_and_the_far_end_goes_with_it() {
    let login = Login::new(SSH);
    let port = crate::peers::greeter("hello");
    let forward = format!("0:localhost:{port}");
    let connecting = login.start(&["connect", "ssh:pi@localhost:2222", "--name", "board", "-L", &forward]);
    let local = crate::peers::forwarded(&connecting.wait_for("forwarding 127.0.0.1:"));
    connecting.wait_for("paired with board");
    assert_eq!(crate::peers::heard(local), "hello");
    let arguments = fs::read_to_string(login.far.home().join("arguments")).unwrap();
    assert!(arguments.starts_with("-p 2222 -- pi@localhost bondwire listen "), "{arguments}");
    assert!(login.near.run(&["peers"]).stdout.contains(&login.far.public_key()));
    assert!(login.far.run(&["peers"]).stdout.contains(&login.near.public_key()));

    connecting.signal(rustix::process::Signal::INT);
    let ended = connecting.wait().assert_code(130);
    // It waits for the far end.
    assert!(rustix::process::test_kill_process(login.pid()).is_err(), "{}", ended.stderr);

    // From then on the name is enough for another login.
    assert!(login.near.run(&["peers"]).stdout.contains("  ssh:pi@localhost:2222\n"));
    let connecting = login.start(&["connect", "board", "-L", &forward]);
    let local = crate::peers::forwarded(&connecting.wait_for("forwarding 127.0.0.1:"));
    connecting.wait_for("paired with board");
    assert_eq!(crate::peers::heard(local), "hello");
    let alone = login.run(&["speed", "board", "--key", "other"]).assert_code(3);
    assert!(alone.error_line().contains("run `bondwire connect board` first"), "{}", alone.stderr);
}

#[test]
fn another_host_behind_the_login_is_refused() {
    let login = Login::new(SSH);
    login.start(&["connect", "ssh:pi@localhost", "--name", "board"]).wait_for("paired with board");
    fs::remove_file(login.far.home().join("config/bondwire/key")).unwrap();
    let ended = login.run(&["connect", "board"]).assert_code(5);
    let line = ended.error_line();
    assert!(line.contains("has another key than board") && line.contains("peers remove board"), "{line}");
}

#[test]
fn the_end_of_the_session_ends_the_command() {
    let login = Login::new(SSH);
    let connecting = login.start(&["connect", "ssh:localhost", "--name", "board"]);
    // Not the far end's word of it, which stands in the log, too.
    connecting.wait_for("paired with board");
    rustix::process::kill_process(login.pid(), rustix::process::Signal::KILL).unwrap();
    let ended = connecting.wait().assert_code(6);
    assert!(ended.error_line().contains("the ssh session to localhost has ended"), "{}", ended.stderr);
}

#[test]
fn every_failure_of_ssh_is_one_line_that_says_what_to_do() {
    let refused = "echo 'ssh: connect to host board port 22: Connection refused' >&2; exit 255";
    Login::fails(refused, 4, &["ssh:pi@board: no login", "Connection refused", "without a password"]);
    let missing = "echo 'sh: 1: bondwire: not found' >&2; exit 127";
    Login::fails(missing, 5, &["no bondwire on the path of that host; install it there"]);
    let old = "echo \"bondwire: unexpected argument '--until-eof' found\" >&2; exit 2";
    Login::fails(old, 5, &["bondwire did not start at that host", "--until-eof"]);
    Login::fails("echo Welcome to board; cat", 5, &["not what bondwire prints", "Welcome to board"]);
    Login::fails("echo bondwire connect exec:reboot --pair x; cat", 5, &["not what bondwire prints"]);
    Login::fails("head -c 100000 /dev/zero; exit 0", 5, &["bondwire did not start"]);
}

#[test]
fn without_ssh_the_error_says_so() {
    let login = Login::new("");
    fs::remove_file(login.path.join("ssh")).unwrap();
    let mut command = login.near.command(PROGRAM.as_ref());
    command.args(["connect", "ssh:board"]).stdin(Stdio::null()).env("PATH", &login.path);
    let ended = Running::start(&mut command).wait().assert_code(3);
    assert!(ended.error_line().contains("install an ssh client"), "{}", ended.stderr);
}

#[test]
fn wrong_uses_are_explained() {
    let user = User::new();
    for (arguments, part) in [
        (&["connect", "ssh:-oProxyCommand=x"][..], "ssh:[user@]host[:port]"),
        (&["connect", "ssh:"], "ssh:[user@]host[:port]"),
        (&["connect", "ssh:board", "tcp:h"], "name nothing else"),
        (&["connect", "ssh:a", "ssh:b"], "name nothing else"),
        (&["speed", "ssh:board"], "ssh: goes with connect"),
        (&["listen", "stdio:", "--until-eof", "--accept-any-peer"], "both want standard input"),
    ] {
        let ended = user.run(arguments).assert_code(2);
        assert!(ended.error_line().contains(part), "{arguments:?}: {}", ended.stderr);
    }
}
