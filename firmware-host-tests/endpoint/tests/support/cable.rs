//! A serial line between a host and a device, with a name that lasts, as udev gives one.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bondwire::{Bond, BondConfig, Identity, ListenConfig, Listener};
use bondwire_line::{End, Noise, PtyLine};
use bondwire_serial::{SerialAcceptor, SerialAddress, SerialDialer};

use super::PATIENCE;

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

/// Two hosts with a bond, each at one cable.
pub(crate) struct Hosts {
    pub(crate) near: Bond,
    pub(crate) far: Bond,
    _listener: Listener,
}

/// Bonds a host at `a`, which connects, with one at `b`, which listens; both have these options of
/// serial ports.
pub(crate) async fn bonded(a: &Cable, b: &Cable, options: &str) -> Hosts {
    let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let listener = Listener::new(&there, ListenConfig::allow([here.public_key()])).unwrap();
    listener.add_acceptor(SerialAcceptor::bind(&b.address(options)).await.unwrap());
    let near = Bond::connect(&here, there.public_key(), BondConfig::default()).unwrap();
    near.add_dialer(SerialDialer::new(a.address(options)));
    let far = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap();
    Hosts { near, far, _listener: listener }
}
