//! Systems on which no interface can be made.

use std::io;

use super::TunSpec;
use crate::failure::{Exit, Failure};

/// There is none.
pub(super) enum Device {}

impl Device {
    pub(super) fn open(spec: &TunSpec) -> Result<Self, Failure> {
        let what = format!(
            "--tun {}: network interfaces over the bond work on Linux only; forward ports with -L, -R or -D",
            spec.name
        );
        Err(Failure::new(Exit::Usage, what))
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn try_recv(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(super) async fn send(&self, _packet: &[u8]) -> io::Result<()> {
        match *self {}
    }
}
