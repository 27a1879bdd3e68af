//! Bonds over pseudo-terminals: cables that are pulled and come back under another name.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use bondwire_line::{End, Noise, PtyLine};
use bondwire_serial::SerialAddress;
use common::{bonded, transfer};

/// A line whose ends have lasting names, as udev gives them.
struct Cable {
    line: PtyLine,
    names: tempfile::TempDir,
}

impl Cable {
    fn new() -> Self {
        let cable =
            Self { line: PtyLine::open(Noise::NONE, 1).unwrap(), names: tempfile::tempdir().unwrap() };
        for end in [End::A, End::B] {
            cable.name(end, &cable.line.path(end).unwrap());
        }
        cable
    }

    fn name(&self, end: End, path: &Path) {
        let name = self.names.path().join(format!("{end:?}"));
        let _ = std::fs::remove_file(&name);
        symlink(path, name).unwrap();
    }

    fn address(&self, end: End) -> SerialAddress {
        SerialAddress::new(self.names.path().join(format!("{end:?}")).to_string_lossy())
    }
}

/// Bytes of one transfer.
const BYTES: usize = 600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cable_that_comes_back_under_another_name_goes_on() {
    let cable = Cable::new();
    let (near, far, _listener) = bonded(cable.address(End::A), &cable.address(End::B)).await;
    transfer(&near, &far, BYTES, async || {
        cable.line.hang_up(End::A);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let path = cable.line.plug_in(End::A).unwrap();
        cable.name(End::A, &path);
    })
    .await;
    // The same at the end that listens.
    transfer(&near, &far, BYTES, async || {
        cable.line.hang_up(End::B);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let path = cable.line.plug_in(End::B).unwrap();
        cable.name(End::B, &path);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_that_begins_under_load_slows_the_line_and_loses_nothing() {
    let cable = Cable::new();
    let (near, far, _listener) = bonded(cable.address(End::A), &cable.address(End::B)).await;
    transfer(&near, &far, BYTES, async || {
        cable.line.set_noise(Noise { baud_max: 1_000_000, bit_flip: 1e-5, ..Noise::NONE });
    })
    .await;
    assert!(cable.line.damaged_bytes() > 0);
}
