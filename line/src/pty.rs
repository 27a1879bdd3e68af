//! Two pseudo-terminals joined by a paced line.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::FdFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::{Noise, Wire};

/// How often bytes are moved. Well below the time of a frame at any rate.
const TICK: Duration = Duration::from_micros(500);
/// Most of a late tick that counts: a relay that was not run must not flood the line afterwards.
const TICK_MAX: Duration = Duration::from_millis(20);
/// Bytes that a receiver's driver keeps for a program that does not read: the limit of a Linux terminal's flip buffer.
const RECEIVE_QUEUE_BYTES: usize = 64 << 10;
/// Rate of an end that nobody has opened yet.
const BAUD_AT_FIRST: u32 = 115_200;

/// One of the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The first.
    A,
    /// The second.
    B,
}

/// A serial line between two pseudo-terminals, carried by a thread of its own until dropped.
///
/// Each direction moves as many bytes as its sender's baud rate allows; what the sender wrote beyond that waits in the
/// terminal's queue. If the rates of the ends differ, the receiver gets garbage.
#[derive(Debug)]
pub struct PtyLine {
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ends: [Option<Plug>; 2],
    /// From A to B, and back.
    wires: [Wire; 2],
    /// Byte times that have passed on each direction, with or without a byte in them.
    slots: [f64; 2],
    /// What has arrived at the end of each direction, and the terminal there has not taken yet.
    arrived: [Vec<u8>; 2],
    overrun_bytes: u64,
    /// Nothing passes, and nobody is told.
    silent: bool,
    over: bool,
}

/// An end that is plugged in.
#[derive(Debug)]
struct Plug {
    master: OwnedFd,
    path: PathBuf,
}

impl PtyLine {
    /// A line between two fresh pseudo-terminals, whose noise follows from `seed`.
    pub fn open(noise: Noise, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared {
            ends: [Some(Plug::new()?), Some(Plug::new()?)],
            wires: [Wire::new(noise, seed), Wire::new(noise, seed ^ u64::MAX)],
            slots: [0.0; 2],
            arrived: [Vec::new(), Vec::new()],
            overrun_bytes: 0,
            silent: false,
            over: false,
        }));
        let relayed = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("serial line".to_owned()).spawn(move || relay(&relayed))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// The terminal of an end, if it is plugged in.
    pub fn path(&self, end: End) -> Option<PathBuf> {
        self.lock().ends[end as usize].as_ref().map(|plug| plug.path.clone())
    }

    /// Changes the noise in both directions.
    pub fn set_noise(&self, noise: Noise) {
        self.lock().wires.iter_mut().for_each(|wire| wire.set_noise(noise));
    }

    /// Lets nothing pass any more, or lets it pass again. What is sent meanwhile waits with its sender.
    pub fn set_silent(&self, silent: bool) {
        self.lock().silent = silent;
    }

    /// Whether nothing passes.
    pub fn is_silent(&self) -> bool {
        self.lock().silent
    }

    /// Unplugs an end: who has its terminal open sees it hang up. What it had not sent is lost.
    pub fn hang_up(&self, end: End) {
        let mut shared = self.lock();
        shared.ends[end as usize] = None;
        // A direction is numbered as the end where it begins.
        shared.arrived[1 - end as usize].clear();
    }

    /// Plugs an end in again, under a new name, as the kernel does while somebody still has the old one open.
    pub fn plug_in(&self, end: End) -> io::Result<PathBuf> {
        let plug = Plug::new()?;
        let path = plug.path.clone();
        self.lock().ends[end as usize] = Some(plug);
        Ok(path)
    }

    /// The line's own clock: byte times that have passed in the direction that begins at `from`, with or without a byte in
    /// them. On a busy machine the relay is late, and so is this clock: measured by it, the line always has its rate.
    pub fn byte_slots(&self, from: End) -> u64 {
        self.lock().slots[from as usize] as u64
    }

    /// Bytes that the direction from `from` has carried.
    pub fn carried_bytes(&self, from: End) -> u64 {
        self.lock().wires[from as usize].carried_bytes()
    }

    /// Bytes that noise has damaged, lost or added, both directions.
    pub fn damaged_bytes(&self) -> u64 {
        self.lock().wires.iter().map(Wire::damaged_bytes).sum()
    }

    /// Bytes that arrived while the receiver's queue was full, and were lost as in a UART.
    pub fn overrun_bytes(&self) -> u64 {
        self.lock().overrun_bytes
    }
}

impl Drop for PtyLine {
    fn drop(&mut self) {
        self.lock().over = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Plug {
    fn new() -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        rustix::io::fcntl_setfd(&master, FdFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?;
        rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK)?;
        // A terminal echoes until somebody opens it and says otherwise; a serial port that nobody has opened does not.
        let mut termios = tcgetattr(&master)?;
        termios.make_raw();
        termios.set_speed(BAUD_AT_FIRST)?;
        tcsetattr(&master, OptionalActions::Now, &termios)?;
        Ok(Self { master, path: Path::new(OsStr::from_bytes(path.as_bytes())).to_owned() })
    }

    /// The rate that whoever has the terminal open has set.
    fn baud(&self) -> u32 {
        tcgetattr(&self.master).map_or(BAUD_AT_FIRST, |termios| termios.output_speed()).max(1)
    }

    /// What was written to the terminal; nothing if nobody has it open.
    fn read(&self, buffer: &mut [u8]) -> usize {
        rustix::io::read(&self.master, buffer).unwrap_or(0)
    }

    fn write(&self, bytes: &[u8]) -> usize {
        rustix::io::write(&self.master, bytes).unwrap_or(0)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves bytes until the line is over.
fn relay(shared: &Mutex<Shared>) {
    let mut last = Instant::now();
    let mut owed = [0.0; 2];
    loop {
        std::thread::sleep(TICK);
        let now = Instant::now();
        let passed = (now - last).min(TICK_MAX);
        last = now;
        let mut shared = lock(shared);
        if shared.over {
            return;
        }
        for (direction, owed) in owed.iter_mut().enumerate() {
            shared.carry(direction, passed, owed);
        }
    }
}

impl Shared {
    /// Moves what one direction carries in `passed`; `owed` is the fraction of a byte left from before.
    fn carry(&mut self, direction: usize, passed: Duration, owed: &mut f64) {
        let [Some(from), Some(to)] = [&self.ends[direction], &self.ends[1 - direction]] else { return };
        let (baud, read_baud) = (from.baud(), to.baud());
        let slots = f64::from(baud) / 10.0 * passed.as_secs_f64();
        self.slots[direction] += slots;
        if self.silent {
            return;
        }
        *owed += slots;
        let mut buffer = [0; 16 << 10];
        let room = (*owed as usize).min(buffer.len());
        let read = from.read(&mut buffer[..room]);
        // An idle line saves nothing up.
        *owed = if read < room { owed.fract() } else { *owed - read as f64 };
        self.wires[direction].idle((room - read) as u64);
        let arrived = &mut self.arrived[direction];
        for byte in &buffer[..read] {
            self.wires[direction].arrive(baud, *byte, read_baud, arrived);
        }
        if !arrived.is_empty() {
            arrived.drain(..to.write(arrived));
        }
        self.overrun_bytes += arrived.len().saturating_sub(RECEIVE_QUEUE_BYTES) as u64;
        arrived.truncate(RECEIVE_QUEUE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};

    use super::*;

    fn open(path: &Path, baud: u32) -> File {
        let port = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut termios = tcgetattr(&port).unwrap();
        termios.make_raw();
        termios.set_speed(baud).unwrap();
        tcsetattr(&port, OptionalActions::Now, &termios).unwrap();
        port
    }

    #[test]
    fn bytes_pass_both_ways_at_the_line_rate() {
        let line = PtyLine::open(Noise::NONE, 1).unwrap();
        let mut a = open(&line.path(End::A).unwrap(), 100_000);
        let mut b = open(&line.path(End::B).unwrap(), 100_000);
        let bytes: Vec<u8> = (0..2000u32).map(|n| n as u8).collect();
        let before = line.byte_slots(End::A);
        a.write_all(&bytes).unwrap();
        let mut received = vec![0; bytes.len()];
        b.read_exact(&mut received).unwrap();
        assert_eq!(received, bytes);
        assert!(line.byte_slots(End::A) - before >= 2000, "faster than the line");
        b.write_all(b"back").unwrap();
        a.read_exact(&mut received[..4]).unwrap();
        assert_eq!(&received[..4], b"back");
        assert_eq!((line.carried_bytes(End::A), line.carried_bytes(End::B)), (2000, 4));
        assert_eq!((line.damaged_bytes(), line.overrun_bytes()), (0, 0));
    }

    #[test]
    fn other_rates_are_garbage() {
        let line = PtyLine::open(Noise::NONE, 1).unwrap();
        let mut a = open(&line.path(End::A).unwrap(), 115_200);
        let mut b = open(&line.path(End::B).unwrap(), 230_400);
        a.write_all(&[0x55; 100]).unwrap();
        let mut received = [0; 100];
        b.read_exact(&mut received).unwrap();
        assert_ne!(received, [0x55; 100]);
    }

    #[test]
    fn a_hang_up_is_seen_and_the_end_comes_back_under_another_name() {
        let line = PtyLine::open(Noise::NONE, 1).unwrap();
        let old = line.path(End::B).unwrap();
        let mut b = open(&old, 115_200);
        line.hang_up(End::B);
        assert_eq!(line.path(End::B), None);
        assert!(matches!(b.read(&mut [0; 10]), Ok(0) | Err(_)));
        let new = line.plug_in(End::B).unwrap();
        assert_ne!(new, old, "somebody still has the old one open");
        let mut again = open(&new, 115_200);
        let mut a = open(&line.path(End::A).unwrap(), 115_200);
        a.write_all(b"hello").unwrap();
        let mut received = [0; 5];
        again.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"hello");
    }

    #[test]
    fn silence_holds_back() {
        let line = PtyLine::open(Noise::NONE, 1).unwrap();
        let mut a = open(&line.path(End::A).unwrap(), 115_200);
        let mut b = open(&line.path(End::B).unwrap(), 115_200);
        line.set_silent(true);
        a.write_all(b"late").unwrap();
        let before = line.byte_slots(End::A);
        while line.byte_slots(End::A) < before + 100 {
            std::thread::sleep(TICK);
        }
        assert_eq!(line.carried_bytes(End::A), 0);
        line.set_silent(false);
        let mut received = [0; 4];
        b.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"late");
    }
}
