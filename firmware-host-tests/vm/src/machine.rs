//! One boot of the guest in QEMU.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use crate::error::{During, SetUpError};
use crate::packages::find_program;
use crate::report::{Report, SHELL_FLAG, SYSTEMD_FLAG};

/// QEMU, and the Debian package that has it.
pub const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// The guest's file system, in its folder.
pub(crate) const IMAGE: &str = "image.cpio";
/// The disk of a guest with systemd, in its folder.
pub(crate) const DISK: &str = "disk.img";
/// The record of its console, in its folder.
pub(crate) const CONSOLE: &str = "console.log";
/// The line of its USB serial adapter: a socket in its folder.
const SERIAL_ADAPTER: &str = "serial-adapter";

/// What runs the guest's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accelerator {
    /// Emulation by QEMU alone. Works everywhere.
    #[default]
    Tcg,
    /// The host's kernel. Fast, where it works.
    Kvm,
}

/// What to boot.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The kernel.
    pub kernel: PathBuf,
    /// The folder of this guest's files, absolute; its file system is there.
    pub folder: PathBuf,
    /// What runs the processors.
    pub accelerator: Accelerator,
    /// Memory of the guest, in MiB.
    pub memory_mib: u32,
    /// Whether systemd is its first program. Such a guest has a disk, which outlasts reboots.
    pub systemd: bool,
}

/// A running guest. It ends with this value, whatever happens.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    reports: Receiver<Report>,
}

/// Why no report came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Time is up.
    TimedOut,
    /// The guest is gone.
    Gone,
}

impl Machine {
    /// Boots it with reports on a port of its own.
    ///
    /// # Errors
    ///
    /// QEMU cannot be started.
    pub fn start(boot: &Boot) -> Result<Self, SetUpError> {
        let console = format!("file:{CONSOLE}");
        let mut command =
            boot.command(&console, "chardev:reports", if boot.systemd { SYSTEMD_FLAG } else { "" })?;
        command.args(["-chardev", "stdio,id=reports,signal=off"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut qemu = command.spawn().during("start QEMU")?;
        let port = qemu.stdout.take();
        let (sender, reports) = channel();
        // Ends with QEMU, which holds the other end of the pipe.
        thread::spawn(move || {
            for line in BufReader::new(port?).split(b'\n') {
                let line = line.ok()?;
                if let Some(report) = Report::from_line(&String::from_utf8_lossy(&line)) {
                    sender.send(report).ok()?;
                }
            }
            Some(())
        });
        Ok(Self { qemu, reports })
    }

    /// The next report, if it comes until `deadline`.
    ///
    /// # Errors
    ///
    /// None came.
    pub fn next(&self, deadline: Instant) -> Result<Report, Silence> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.reports.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::TimedOut,
            RecvTimeoutError::Disconnected => Silence::Gone,
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to kill, and the status is there.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Boot {
    /// Boots it with a shell on this terminal, and waits for the end.
    ///
    /// # Errors
    ///
    /// QEMU cannot be started.
    pub fn shell(&self) -> Result<(), SetUpError> {
        let mut command = self.command("mon:stdio", "null", &format!("quiet {SHELL_FLAG}"))?;
        command.status().during("start QEMU").map(drop)
    }

    /// QEMU with the guest's console and port for reports, and words for the kernel's command line.
    fn command(&self, console: &str, reports: &str, words: &str) -> Result<Command, SetUpError> {
        let (program, package) = QEMU;
        let qemu = find_program(program).ok_or(SetUpError::ProgramMissing { program, package })?;
        // Takes QEMU along when this process is killed and cannot clean up.
        let mut command = match find_program("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(qemu);
                command
            }
            None => Command::new(qemu),
        };
        // Names of sockets must be short, wherever the folder is.
        command.current_dir(&self.folder);
        command.args(match self.accelerator {
            Accelerator::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host,arch-capabilities=off"],
        });
        command.args(["-machine", "pc", "-smp", "2", "-m", &format!("{}M", self.memory_mib)]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&self.kernel).args(["-initrd", IMAGE]);
        // A panic ends QEMU at once instead of standing still.
        command.args(["-append", &format!("console=ttyS0 rdinit=/init panic=-1 {words}")]);
        command.args(["-serial", console, "-serial", reports]);
        Self::add_serial_adapter(&mut command);
        if self.systemd {
            // What it has not yet written is of no use to anybody if the host dies.
            command.args(["-drive", &format!("file={DISK},format=raw,if=none,id=disk,cache=unsafe")]);
            command.args(["-device", "virtio-blk-pci,drive=disk"]);
        }
        Ok(command)
    }

    /// A USB serial adapter (FT232BM) whose line ends at the guest's third serial port: ttyUSB0 and ttyS2 are one cable.
    fn add_serial_adapter(command: &mut Command) {
        command.args(["-chardev", &format!("socket,id=adapter,path={SERIAL_ADAPTER},server=on,wait=off")]);
        command.args(["-chardev", &format!("socket,id=far,path={SERIAL_ADAPTER}")]);
        command.args(["-serial", "chardev:far"]);
        command.args(["-device", "qemu-xhci", "-device", "usb-serial,chardev=adapter,always-plugged=on"]);
    }
}

/// The last lines of the console's record in a guest's folder, without the returns of a terminal.
#[must_use]
pub(crate) fn console_tail(folder: &Path, lines: usize) -> Vec<String> {
    let bytes = std::fs::read(folder.join(CONSOLE)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    let all: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}
