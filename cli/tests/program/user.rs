//! Runs the program as a user would, in a configuration folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for anything: far above what any test needs, so that only a hang meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_bondwire");

/// A user with an own configuration folder.
pub(crate) struct User {
    home: TempDir,
}

/// What a finished program left.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A program that runs until it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().unwrap() }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// Starts the program.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(Path::new(PROGRAM)).args(arguments).stdin(Stdio::null()))
    }

    /// Starts the program with a pipe to its standard input.
    pub(crate) fn start_piped(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(Path::new(PROGRAM)).args(arguments).stdin(Stdio::piped()))
    }

    /// A command of this user.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.home())
            .env("XDG_CONFIG_HOME", self.home().join("config"))
            .env("XDG_RUNTIME_DIR", self.home())
            .env("XDG_STATE_HOME", self.home().join("state"))
            .env_remove("RUST_LOG")
            .env_remove("JOURNAL_STREAM");
        command
    }

    /// The user's public key, made when missing.
    pub(crate) fn public_key(&self) -> String {
        if !self.home().join("config/bondwire/key").exists() {
            self.run(&["keygen"]).assert_code(0);
        }
        self.run(&["pubkey"]).assert_code(0).stdout.trim().to_owned()
    }

    /// The file with the user's peers.
    pub(crate) fn peers_file(&self) -> PathBuf {
        self.home().join("config/bondwire/peers.toml")
    }

    /// Starts `listen --pair`, and returns it with the arguments that it prints for the other end.
    pub(crate) fn invite(&self, arguments: &[&str]) -> (Running, Vec<String>) {
        let (mut running, _) = self.listen(arguments);
        let line = running.output_line();
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        assert_eq!((words[0].as_str(), words[1].as_str()), ("bondwire", "connect"), "{line}");
        (running, words[1..].to_vec())
    }

    /// Starts `listen` on a free port, and returns it with its LINK.
    pub(crate) fn listen(&self, arguments: &[&str]) -> (Running, String) {
        self.listen_on("tcp:127.0.0.1:0", arguments)
    }

    pub(crate) fn listen_on(&self, link: &str, arguments: &[&str]) -> (Running, String) {
        let arguments: Vec<_> = ["listen", link].iter().chain(arguments).copied().collect();
        let running = self.start(&arguments);
        let link = running.link();
        (running, link)
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The one line of an error.
    #[track_caller]
    pub(crate) fn error_line(&self) -> &str {
        let mut errors = self.stderr.lines().filter(|line| line.starts_with("bondwire: "));
        let line = errors.next().unwrap_or_else(|| panic!("no error line in {:?}", self.stderr));
        assert!(errors.next().is_none(), "more than one error line: {}", self.stderr);
        assert!(self.stderr.trim_end().ends_with(line), "the error is the last line: {}", self.stderr);
        line
    }
}

impl Running {
    /// Starts a command and listens to its standard error.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::spawn(command.stdout(Stdio::piped()))
    }

    /// Starts a command between two pipes of another one.
    #[cfg(unix)]
    pub(crate) fn start_between(command: &mut Command, from: ChildStdout, to: ChildStdin) -> Self {
        Self::spawn(command.stdin(from).stdout(to))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The LINK to this listener.
    pub(crate) fn link(&self) -> String {
        let line = self.wait_for("listening on tcp ");
        format!("tcp:{}", line.split("listening on tcp ").nth(1).unwrap().trim())
    }

    /// Waits for the next line on standard output.
    #[track_caller]
    pub(crate) fn output_line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// The pipes to its standard input and from its standard output.
    pub(crate) fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        (self.child.stdin.take().unwrap(), self.child.stdout.take().unwrap())
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard error that contains `part`.
    #[track_caller]
    pub(crate) fn wait_for(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no line with {part:?} in time; there was {seen:#?}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without a line with {part:?}: {seen:#?}")
                }
            }
        }
    }

    /// Sends the process a signal.
    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let stdout = self.child.stdout.take();
        let output = thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stdout) = stdout {
                stdout.read_to_end(&mut bytes).unwrap();
            }
            // A link is no text.
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let deadline = Instant::now() + PATIENCE;
        let mut stderr = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => stderr = stderr + &line + "\n",
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end in time: {stderr}"),
            }
        }
        let status: ExitStatus = self.child.wait().unwrap();
        Ended { code: status.code(), stdout: output.join().unwrap(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
