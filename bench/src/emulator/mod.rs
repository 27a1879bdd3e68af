//! A user-space link emulator between two network namespaces, for kernels with and without netem.
//!
//! A link is a pair of TUN devices, one in each namespace. One thread carries the packets of all links:
//! it reads what the kernel sends, lets a [`Line`] decide when it arrives, and writes it to the other
//! device then. One thread for everything keeps the emulator's share of a small machine small, and
//! [`COALESCE`] bounds how often it runs.

mod line;
mod reset;
mod shape;
mod worker;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::EventfdFlags;
use rustix::fs::OFlags;

pub use line::{Counters, Gate, Line};
pub use shape::Shape;

use crate::namespace::Namespace;
use crate::traffic::clock;

/// After moving packets the emulator sleeps so long before it looks again: at most 10 000 rounds in a
/// second, and each packet at most so much late in either step. A network card coalesces as much.
pub const COALESCE: Duration = Duration::from_micros(100);

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first namespace to the second.
    Forth,
    /// From the second namespace to the first.
    Back,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::Forth, Self::Back];
}

/// A running emulator. Dropping it stops its thread and removes the devices.
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the worker and the controlling side share.
#[derive(Debug)]
struct Shared {
    links: Vec<Link>,
    /// Written to after a change, so that a sleeping worker sees it.
    wake: OwnedFd,
    stop: AtomicBool,
}

/// The two devices of a link and what lies between them.
#[derive(Debug)]
struct Link {
    devices: [File; 2],
    lines: [Mutex<Line>; 2],
}

impl Emulator {
    /// Creates one link for each shape, the same in both directions, with a device `names[i]` in each of the
    /// two namespaces. The devices are left down and without address.
    ///
    /// # Errors
    /// Without root or `/dev/net/tun`.
    pub fn start(ends: [&Namespace; 2], links: &[(String, Shape)]) -> Result<Self> {
        let links = links
            .iter()
            .enumerate()
            .map(|(index, (name, shape))| {
                let [near, far] = ends.map(|end| end.run(|| open_tun(name)));
                let seed = index as u64 * 2;
                let lines = [Line::new(*shape, seed), Line::new(*shape, seed + 1)].map(Mutex::new);
                Ok(Link { devices: [near?, far?], lines })
            })
            .collect::<Result<Vec<_>>>()?;
        let wake = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { links, wake, stop: AtomicBool::new(false) });
        let thread = std::thread::Builder::new().name("emulator".into()).spawn({
            let shared = Arc::clone(&shared);
            move || worker::carry(&shared)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Changes the shape of one direction of link `index` (from 0).
    pub fn set_shape(&self, index: usize, direction: Direction, shape: Shape) {
        self.with_line(index, direction, |line| line.set_shape(clock::now_ns(), shape));
    }

    /// Changes the gate of one direction of link `index` (from 0).
    pub fn set_gate(&self, index: usize, direction: Direction, gate: Gate) {
        self.with_line(index, direction, |line| line.set_gate(gate));
    }

    /// Changes the gate of both directions of link `index` (from 0).
    pub fn set_gates(&self, index: usize, gate: Gate) {
        for direction in Direction::BOTH {
            self.set_gate(index, direction, gate);
        }
    }

    /// The shape of one direction of link `index` (from 0).
    #[must_use]
    pub fn shape(&self, index: usize, direction: Direction) -> Shape {
        self.with_line(index, direction, |line| line.shape())
    }

    /// What became of the packets of one direction of link `index` (from 0).
    #[must_use]
    pub fn counters(&self, index: usize, direction: Direction) -> Counters {
        self.with_line(index, direction, |line| line.counters())
    }

    /// How many links there are.
    #[must_use]
    pub fn link_count(&self) -> usize {
        self.shared.links.len()
    }

    fn with_line<T>(&self, index: usize, direction: Direction, act: impl FnOnce(&mut Line) -> T) -> T {
        let outcome = act(&mut self.shared.links[index].line(direction));
        self.shared.wake();
        outcome
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wake(&self) {
        // Fails only if the counter is full, and then the worker is awake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Link {
    fn line(&self, direction: Direction) -> MutexGuard<'_, Line> {
        // A line is whole after any panic of its user: its methods do not stop half-way.
        self.lines[direction as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device packets of a direction come from, and the one they go to.
    fn ends(&self, direction: Direction) -> (&File, &File) {
        let [near, far] = &self.devices;
        match direction {
            Direction::Forth => (near, far),
            Direction::Back => (far, near),
        }
    }
}

/// Creates the TUN device `name` in the calling thread's network namespace.
fn open_tun(name: &str) -> Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits())?;
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nonblocking)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun: the emulator needs root and the kernel's tun module")?;
    crate::sys::attach_tun(&tun, name).with_context(|| format!("cannot create the TUN device {name}"))?;
    Ok(tun)
}

/// Whether this process may create namespaces and TUN devices.
///
/// # Errors
/// Says what is missing.
pub fn is_available() -> Result<(), io::Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not root"));
    }
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").map(drop)
}
