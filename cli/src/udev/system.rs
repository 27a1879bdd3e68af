//! Tells the running udev and systemd of files that have changed.

use std::path::Path;
use std::process::{Command, Stdio};

/// There while systemd is the system's service manager: sd_booted(3).
const SYSTEMD_RUNS: &str = "/run/systemd/system";
/// There while udevd runs.
const UDEV_RUNS: &str = "/run/udev/control";

/// A command of the system.
type Order = &'static [&'static str];

/// Makes the user and its folders, and has the units read.
const SYSTEMD_INSTALLED: [Order; 3] = [
    &["systemd-sysusers", "bondwire.conf"],
    &["systemd-tmpfiles", "--create", "bondwire.conf"],
    &["systemctl", "daemon-reload"],
];
/// Has the rules read, and looks at what is plugged in already. After the user's group is there: rules name it.
const UDEV_INSTALLED: [Order; 2] = [
    &["udevadm", "control", "--reload"],
    &["udevadm", "trigger", "--action=change", "--subsystem-match=usb", "--subsystem-match=tty"],
];
/// Ends what runs by the units, while they are there.
const SYSTEMD_LEAVES: [Order; 2] = [
    &["systemctl", "stop", "bondwire-attach@*.service"],
    &["systemctl", "disable", "--quiet", "--now", "bondwire.service", "bondwire-gadget.service"],
];
const SYSTEMD_UNINSTALLED: [Order; 1] = [&["systemctl", "daemon-reload"]];
const UDEV_UNINSTALLED: [Order; 1] = [&["udevadm", "control", "--reload"]];

/// A command that did not work, and what it said.
#[derive(Debug, thiserror::Error)]
#[error("`{order}` failed, run it by hand: {why}")]
pub(crate) struct OrderError {
    order: String,
    why: String,
}

/// What was told of, for people.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) systemd: bool,
    pub(crate) udev: bool,
}

/// After files were written.
pub(crate) fn installed() -> Result<Told, OrderError> {
    tell(&SYSTEMD_INSTALLED, &UDEV_INSTALLED)
}

/// Before files are removed.
pub(crate) fn leaves() -> Result<Told, OrderError> {
    tell(&SYSTEMD_LEAVES, &[])
}

/// After files were removed.
pub(crate) fn uninstalled() -> Result<Told, OrderError> {
    tell(&SYSTEMD_UNINSTALLED, &UDEV_UNINSTALLED)
}

fn tell(systemd: &[Order], udev: &[Order]) -> Result<Told, OrderError> {
    let told = Told { systemd: Path::new(SYSTEMD_RUNS).is_dir(), udev: Path::new(UDEV_RUNS).exists() };
    let to_systemd = if told.systemd { systemd } else { &[] };
    let to_udev = if told.udev { udev } else { &[] };
    to_systemd.iter().chain(to_udev).try_for_each(|order| run(order))?;
    Ok(told)
}

fn run(order: Order) -> Result<(), OrderError> {
    let Some((program, arguments)) = order.split_first() else { return Ok(()) };
    let failed = |why: String| OrderError { order: order.join(" "), why };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}: {}", output.status, said.trim())))
}
