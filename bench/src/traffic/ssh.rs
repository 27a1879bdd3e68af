//! A real ssh session whose keystrokes come back.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::process::{Service, output_of};
use crate::subject::START_LIMIT;

/// What the far side says before the first echo.
const READY: u8 = b'!';
/// A terminal that changes nothing, and a program that sends back what comes.
const FAR_COMMAND: &str = "stty raw -echo; printf !; exec cat";

/// An OpenSSH server with keys of its own, on loopback.
#[derive(Debug)]
pub struct SshServer {
    folder: TempDir,
    _service: Service,
}

impl SshServer {
    /// Starts it in `host` on `port`.
    ///
    /// # Errors
    /// Without `sshd` and `ssh-keygen`, or with the server's last words.
    pub fn start(host: &Namespace, port: u16) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host_key", "user_key"] {
            let mut keygen = Command::new("ssh-keygen");
            output_of("ssh-keygen", keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]))?;
        }
        // Where Debian's sshd drops its privileges to.
        fs::create_dir_all("/run/sshd")?;
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n",
            at("host_key"),
            at("user_key.pub")
        );
        fs::write(at("sshd_config"), config)?;
        // It wants to be called by its whole path.
        let mut command = host.command(Path::new("/usr/sbin/sshd"));
        command.args(["-D", "-e", "-f", &at("sshd_config")]);
        let mut service = Service::start("sshd", &mut command)?;
        service.wait_until_listening(port, START_LIMIT)?;
        Ok(Self { folder, _service: service })
    }

    /// Logs in from `host` at a port of its loopback, with a terminal.
    ///
    /// # Errors
    /// If the login fails.
    pub fn log_in(&self, host: &Namespace, port: u16) -> Result<SshSession> {
        let key: PathBuf = self.folder.path().join("user_key");
        let mut command = host.command(Path::new("ssh"));
        command.args(["-tt", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"]);
        command.args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "IdentitiesOnly=yes",
        ]);
        command.arg("-i").arg(key).args(["-p", &port.to_string(), "root@127.0.0.1", FAR_COMMAND]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start ssh")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (keyboard, screen) = pipes.context("ssh has no pipes")?;
        let mut session = SshSession { child, keyboard, screen };
        // A login shell may greet first.
        while session.byte().context("the ssh login failed")? != READY {}
        Ok(session)
    }
}

/// A session. Dropping it ends it.
#[derive(Debug)]
pub struct SshSession {
    child: Child,
    keyboard: ChildStdin,
    screen: ChildStdout,
}

impl SshSession {
    /// Types one key at a time and waits for its echo, for so long, with a pause between. The round-trip times.
    ///
    /// # Errors
    /// If the session ends, or something else comes back.
    pub fn echo(&mut self, length: Duration, pause: Duration) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        let since = Instant::now();
        for key in (b'a'..=b'z').cycle() {
            if since.elapsed() >= length {
                break;
            }
            let at = Instant::now();
            self.keyboard.write_all(&[key])?;
            let shown = self.byte()?;
            times.push(at.elapsed());
            ensure!(shown == key, "typed {key:#04x}, and {shown:#04x} came back");
            sleep(pause);
        }
        Ok(times)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.screen.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

impl Drop for SshSession {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
