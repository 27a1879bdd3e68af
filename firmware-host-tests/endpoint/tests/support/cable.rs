//! A serial line between a host and a device, with a name that lasts, as udev gives one.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bondwire_line::{End, Noise, PtyLine};
use bondwire_serial::SerialAddress;

/// The host is at end A, the device at end B.
pub(crate) struct Cable {
    pub(crate) line: PtyLine,
    names: tempfile::TempDir,
}

impl Cable {
    pub(crate) fn new() -> Self {
        let cable =
            Self { line: PtyLine::open(Noise::NONE, 1).unwrap(), names: tempfile::tempdir().unwrap() };
        cable.name(&cable.line.path(End::A).unwrap());
        cable
    }

    fn name(&self, path: &Path) {
        let name = self.names.path().join("host");
        let _ = std::fs::remove_file(&name);
        symlink(path, name).unwrap();
    }

    /// The port of the host.
    pub(crate) fn address(&self, options: &str) -> SerialAddress {
        format!("{}{options}", self.names.path().join("host").display()).parse().unwrap()
    }

    /// The port of the device.
    pub(crate) fn device(&self) -> PathBuf {
        self.line.path(End::B).unwrap()
    }

    /// Pulls the cable at the host.
    pub(crate) fn pull(&self) {
        self.line.hang_up(End::A);
    }

    pub(crate) fn plug_in(&self) {
        let path = self.line.plug_in(End::A).unwrap();
        self.name(&path);
    }
}
