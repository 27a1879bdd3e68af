//! Who else uses a port: login prompts, other programs, the kernel's messages.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use crate::PortError;

/// Programs that put a login prompt on a port.
const GETTYS: [&str; 5] = ["agetty", "getty", "login", "mgetty", "fbgetty"];

/// A process that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// It is the process's controlling terminal.
    pub(crate) is_terminal: bool,
}

impl Holder {
    pub(crate) fn is_getty(&self) -> bool {
        self.is_terminal && GETTYS.contains(&self.name.as_str())
    }

    pub(crate) fn text(&self) -> String {
        format!("{} (process {})", self.name, self.pid)
    }
}

/// Processes that have the port at `path` as their terminal or open, as far as this user may see. `proc` is `/proc`.
pub(crate) fn holders(path: &Path, proc: &Path) -> Vec<Holder> {
    let Some(device) = fs::metadata(path).ok().filter(|m| m.file_type().is_char_device()).map(|m| m.rdev())
    else {
        return Vec::new();
    };
    let own = std::process::id();
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own)
        .filter_map(|pid| holder(pid, device, &proc.join(pid.to_string())))
        .collect()
}

fn holder(pid: u32, device: u64, folder: &Path) -> Option<Holder> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (name, terminal) = name_and_terminal(&stat)?;
    // The kernel's old number of a device: major in bits 8 to 19, minor around it.
    let is_terminal = terminal != 0 && terminal == old_number(device);
    let has_open = || {
        let descriptors = fs::read_dir(folder.join("fd")).ok()?;
        let mut devices = descriptors.filter_map(|fd| fs::metadata(fd.ok()?.path()).ok());
        devices.any(|m| m.file_type().is_char_device() && m.rdev() == device).then_some(())
    };
    (is_terminal || has_open().is_some()).then(|| Holder { name: name.to_owned(), pid, is_terminal })
}

/// Name and `tty_nr` in `/proc/PID/stat` (proc_pid_stat(5)); the name may hold spaces and brackets.
fn name_and_terminal(stat: &str) -> Option<(&str, u64)> {
    let (front, rest) = stat.rsplit_once(')')?;
    let name = front.split_once('(')?.1;
    let terminal = rest.split_whitespace().nth(4)?.parse::<i64>().ok()?;
    Some((name, terminal as u32 as u64))
}

/// A device number as `/proc` has it, from that of Linux's `stat` (sys/sysmacros.h).
fn old_number(device: u64) -> u64 {
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
    let minor = (device & 0xff) | ((device >> 12) & !0xff);
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Whether kernel messages go to the port `name`, as in `ttyS0`. `active` is `/sys/class/tty/console/active`.
pub(crate) fn is_kernel_console(name: &str, active: &Path) -> bool {
    fs::read_to_string(active).is_ok_and(|names| names.split_whitespace().any(|console| console == name))
}

/// A login prompt that was stopped; it is started again when this is dropped.
#[derive(Debug)]
pub(crate) struct StoppedGetty {
    unit: String,
    systemctl: String,
}

impl StoppedGetty {
    /// Stops the login prompt on port `name` with the program `systemctl`.
    pub(crate) fn stop(name: &str, systemctl: &str) -> Result<Self, PortError> {
        let unit = name.to_owned();
        let fault = |fault: String| PortError::GettyNotStopped { unit: unit.clone(), fault };
        let output = Command::new(systemctl).args(["stop", &format!("serial-getty@{name}.service")]).output();
        let output = output.map_err(|e| fault(format!("{systemctl}: {e}")))?;
        if !output.status.success() {
            return Err(fault(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        tracing::info!(target: "bondwire", "stopped the login prompt on {name} for the time of the link");
        Ok(Self { unit, systemctl: systemctl.to_owned() })
    }
}

impl Drop for StoppedGetty {
    fn drop(&mut self) {
        let unit = format!("serial-getty@{}.service", self.unit);
        // Not waited for: the port is closed in a moment, and systemd does it in its own time.
        let started = Command::new(&self.systemctl).args(["start", "--no-block", &unit]).status();
        if !started.is_ok_and(|status| status.success()) {
            tracing::warn!(target: "bondwire", "could not start {unit} again; do it with: systemctl start {unit}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn stat_lines_are_read() {
        let stat = "1234 (a (b) c) S 1 1234 1234 1088 1234 4194560 200 0";
        assert_eq!(name_and_terminal(stat), Some(("a (b) c", 1088)));
        assert_eq!(name_and_terminal("garbage"), None);
        // ttyS0 is 4:64.
        assert_eq!(old_number(0x440), 1088);
    }

    #[test]
    fn kernel_consoles_are_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "tty0 ttyS0\n").unwrap();
        assert!(is_kernel_console("ttyS0", file.path()) && !is_kernel_console("ttyS", file.path()));
        assert!(!is_kernel_console("ttyS0", Path::new("/nonexistent")));
    }

    #[test]
    fn a_getty_is_found_by_its_terminal() {
        let proc = tempfile::tempdir().unwrap();
        let folder = proc.path().join("77");
        fs::create_dir(&folder).unwrap();
        let device = fs::metadata("/dev/null").unwrap().rdev();
        fs::write(folder.join("stat"), format!("77 (agetty) S 1 77 77 {} 77 0", old_number(device))).unwrap();
        let found = holders(Path::new("/dev/null"), proc.path());
        assert_eq!(found, [Holder { name: "agetty".to_owned(), pid: 77, is_terminal: true }]);
        assert!(found[0].is_getty());
        assert_eq!(holders(Path::new("/dev/zero"), proc.path()), []);
    }

    #[test]
    fn a_getty_is_stopped_and_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let (program, log) = (folder.path().join("systemctl"), folder.path().join("log"));
        let script = format!("#!/bin/sh\necho \"$@\" >> {}\n", log.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let stopped = StoppedGetty::stop("ttyS0", &program.to_string_lossy()).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "stop serial-getty@ttyS0.service\n");
        drop(stopped);
        let all = fs::read_to_string(&log).unwrap();
        assert!(all.ends_with("start --no-block serial-getty@ttyS0.service\n"), "{all}");
        let error = StoppedGetty::stop("ttyS0", "/nonexistent/systemctl").unwrap_err();
        assert!(error.to_string().contains("could not stop serial-getty@ttyS0"), "{error}");
    }
}
