//! The image for a Cortex-M, run by QEMU. The images are built by `cargo xtask firmware`, which runs these tests.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Folder of the images.
const IMAGES: &str = "BONDWIRE_CORTEX_M_IMAGES";
const QEMU: &str = "qemu-system-arm";

/// Where the images are. Without them says loudly that the test is skipped.
pub(crate) fn images() -> Option<PathBuf> {
    let images = std::env::var_os(IMAGES).map(PathBuf::from);
    #[allow(clippy::print_stdout, reason = "tests talk to the terminal")]
    if images.is_none() {
        println!("SKIPPED: needs images for a microcontroller, and QEMU: cargo xtask firmware");
    }
    images
}

/// What a UART of the microcontroller leads to.
pub(crate) enum Wire<'p> {
    /// A terminal that is there already.
    Terminal(&'p Path),
    /// A fresh terminal: [`Machine::terminal`].
    Fresh,
    Nothing,
}

/// A microcontroller that runs until this value goes.
pub(crate) struct Machine {
    qemu: Child,
    lines: Receiver<String>,
    /// The terminal that QEMU has made.
    terminal: Option<PathBuf>,
}

impl Machine {
    /// Starts one (TI LM3S6965) with this image. Its third UART is the console; when it says that it is ready, this comes
    /// back.
    pub(crate) fn start(image: &Path, wires: [Wire<'_>; 2]) -> Self {
        // Takes QEMU along when this process is killed and cannot clean up.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", QEMU]);
        command.args(["-machine", "lm3s6965evb", "-nodefaults", "-no-user-config", "-display", "none"]);
        command.arg("-kernel").arg(image);
        for (number, wire) in wires.iter().enumerate() {
            let wire = match wire {
                Wire::Terminal(path) => format!("serial,id=wire{number},path={}", path.display()),
                Wire::Fresh => format!("pty,id=wire{number}"),
                Wire::Nothing => format!("null,id=wire{number}"),
            };
            command.args(["-chardev", &wire, "-serial", &format!("chardev:wire{number}")]);
        }
        command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut qemu = command.spawn().expect("setpriv and qemu-system-arm");
        let output = BufReader::new(qemu.stdout.take().unwrap());
        let (sender, lines) = channel();
        // Ends with QEMU, which holds the other end of the pipe.
        std::thread::spawn(move || {
            let lines = output.split(b'\n').map_while(Result::ok);
            lines
                .map(|line| String::from_utf8_lossy(&line).trim().to_owned())
                .try_for_each(|line| sender.send(line))
        });
        let mut machine = Self { qemu, lines, terminal: None };
        loop {
            let line = machine.line();
            if let Some((_, rest)) = line.split_once("char device redirected to ") {
                machine.terminal = rest.split(' ').next().map(PathBuf::from);
            }
            if line.ends_with("ready") {
                return machine;
            }
        }
    }

    /// The terminal that QEMU has made.
    pub(crate) fn terminal(&self) -> &Path {
        self.terminal.as_deref().expect("a fresh terminal")
    }

    /// The next line of the console.
    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(60)).expect("the microcontroller says nothing")
    }

    /// Waits until the console says something with these words.
    pub(crate) fn expect(&self, words: &str) {
        while !self.line().contains(words) {}
    }

    /// Sees that it has not panicked.
    pub(crate) fn assert_well(&self) {
        let said: Vec<String> = self.lines.try_iter().collect();
        assert!(said.iter().all(|line| line.starts_with("port ")), "{said:?}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to kill, and the status is there.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
