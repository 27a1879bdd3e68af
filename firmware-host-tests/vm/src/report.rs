//! What host and guest tell each other: the jobs in a file of the guest, reports as JSON lines on a serial port.

use serde::{Deserialize, Serialize};

/// Where the guest finds its jobs: JSON, a list of [`Job`].
pub const JOBS_FILE: &str = "/etc/bondwire-vm/jobs.json";
/// The Debian package of the workspace, in a guest with systemd.
pub const PACKAGE_FILE: &str = "/root/bondwire.deb";
/// The guest's port for reports. Its console is another.
pub const REPORT_PORT: &str = "/dev/ttyS1";
/// A word on the kernel's command line: a shell on the console instead of jobs.
pub const SHELL_FLAG: &str = "bondwire_vm.shell";
/// A word on the kernel's command line: systemd is the first program, and has the jobs run.
pub const SYSTEMD_FLAG: &str = "bondwire_vm.systemd";
/// What a job ends with that goes on after a reboot: it runs anew then.
pub const REBOOT_CODE: i32 = 86;
/// Counts the reboots of a job, on the guest's disk.
pub const REBOOTS_FILE: &str = "/var/lib/bondwire-vm-reboots";
/// Environment variable that tells a program that it runs in the guest.
pub const IN_GUEST: &str = "BONDWIRE_VM";

/// A program to run in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What people call it.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take, in seconds.
    pub limit_seconds: u64,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It ended with this exit code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It took too long and was killed.
    TimedOut,
    /// It took too long, and does not even die: it hangs in the kernel.
    Unkillable,
    /// It could not be started.
    NotStarted(String),
}

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The guest is up and begins with its jobs.
    Up,
    /// The guest cannot be set up.
    Broken(String),
    /// The job with this number in the list begins.
    Start(usize),
    /// It printed this line.
    Output(String),
    /// The kernel complained while it ran.
    Kernel(String),
    /// It is over.
    End {
        /// How.
        ending: Ending,
        /// How long it took by the guest's clock.
        milliseconds: u64,
    },
    /// All jobs are over.
    Done,
}

impl Report {
    /// As a line, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From a line; nothing else comes over the port, but firmware and kernel may leave scraps on it.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }
}

/// Words of the kernel that mean a fault of the kernel, or of what was asked of it.
const COMPLAINTS: [&str; 12] = [
    "WARNING: ",
    "BUG: ",
    "BUG at ",
    "Oops: ",
    "general protection fault",
    "INFO: task ",
    "INFO: rcu",
    "refcount_t: ",
    "UBSAN: ",
    "possible circular locking",
    "possible recursive locking",
    "scheduling while atomic",
];

/// Whether a message of the kernel fails the job that ran meanwhile.
#[must_use]
pub fn is_complaint(message: &str) -> bool {
    COMPLAINTS.iter().any(|complaint| message.contains(complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_line() {
        let reports = [
            Report::Up,
            Report::Start(3),
            Report::Output("a \"quoted\"\tline\u{1b}[0m".to_owned()),
            Report::End { ending: Ending::Signal(6), milliseconds: 17 },
            Report::End { ending: Ending::TimedOut, milliseconds: 17 },
            Report::Done,
        ];
        for report in reports {
            let line = report.to_line();
            assert!(!line.contains('\n'));
            assert_eq!(Report::from_line(&format!("{line}\r")), Some(report));
        }
        assert_eq!(Report::from_line("SeaBIOS (version 1.16.2)"), None);
    }

    #[test]
    fn complaints_are_told_from_news() {
        assert!(is_complaint("WARNING: CPU: 0 PID: 77 at drivers/usb/gadget/udc/core.c:292"));
        assert!(is_complaint("BUG: kernel NULL pointer dereference, address: 0000000000000000"));
        assert!(is_complaint("INFO: task vm_self:77 blocked for more than 120 seconds."));
        assert!(!is_complaint("usb 1-1: new high-speed USB device number 2 using dummy_hcd"));
    }
}
