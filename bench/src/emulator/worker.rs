//! The thread that carries the packets.

use std::io::{Read, Write};
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{COALESCE, Direction, Gate, Link, Shared, reset};
use crate::traffic::clock;

/// Largest packet a TUN device hands out.
const PACKET_BYTES_MAX: usize = 65_536;

/// Packets taken from one device before the others have their turn.
const BATCH_PACKETS: usize = 64;

/// How much sooner than other processes the emulator gets the processor: a line does not wait for it.
const NICE: i32 = -15;

/// Carries packets until told to stop.
pub(super) fn carry(shared: &Shared) {
    // Both are refinements: without them the emulator works, a little later.
    let _ = rustix::process::nice(NICE);
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut moved = false;
    while !shared.stop.load(Ordering::Relaxed) {
        if moved {
            std::thread::sleep(COALESCE);
        }
        let timeout = if moved { Some(Duration::ZERO) } else { until_next_arrival(&shared.links) };
        let readable = wait(shared, timeout);
        let now_ns = clock::now_ns();
        moved = false;
        for (link, readable) in shared.links.iter().zip(readable) {
            for (direction, readable) in Direction::BOTH.into_iter().zip(readable) {
                if readable {
                    moved |= take_in(link, direction, now_ns, &mut buffer);
                }
                moved |= put_out(link, direction, now_ns);
            }
        }
    }
}

/// Waits until a device has packets, a change was made, or the time is over. For each link: which of its
/// devices have packets.
fn wait(shared: &Shared, timeout: Option<Duration>) -> Vec<[bool; 2]> {
    let devices = shared.links.iter().flat_map(|link| &link.devices);
    let mut fds: Vec<PollFd<'_>> = devices.map(|device| PollFd::new(device, PollFlags::IN)).collect();
    fds.push(PollFd::new(&shared.wake, PollFlags::IN));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // An interrupted call leaves no flag set; the next round asks again.
    let _ = rustix::event::poll(&mut fds, timeout.as_ref());
    let is_readable = |fd: &PollFd<'_>| fd.revents().contains(PollFlags::IN);
    if fds.pop().is_some_and(|wake| is_readable(&wake)) {
        let _ = rustix::io::read(&shared.wake, &mut [0; 8]);
    }
    fds.chunks_exact(2).map(|pair| [is_readable(&pair[0]), is_readable(&pair[1])]).collect()
}

fn until_next_arrival(links: &[Link]) -> Option<Duration> {
    let lines = links.iter().flat_map(|link| Direction::BOTH.map(|direction| link.line(direction)));
    let next_ns = lines.filter_map(|line| line.next_arrival_ns()).min()?;
    Some(Duration::from_nanos(next_ns.saturating_sub(clock::now_ns())))
}

/// Reads what the sending device has. True if it had anything.
fn take_in(link: &Link, direction: Direction, now_ns: u64, buffer: &mut [u8]) -> bool {
    let (mut from, _) = link.ends(direction);
    let mut line = link.line(direction);
    let mut count = 0;
    while count < BATCH_PACKETS {
        // No more packets, or the device is down; either way the next poll tells.
        let Ok(length) = from.read(buffer) else { break };
        count += 1;
        let packet = &buffer[..length];
        line.offer(now_ns, packet);
        if line.gate() == Gate::Reset
            && let Some(reply) = reset::answer(packet)
        {
            let _ = from.write(&reply);
        }
    }
    count > 0
}

/// Writes what has arrived to the receiving device. True if anything had.
fn put_out(link: &Link, direction: Direction, now_ns: u64) -> bool {
    let (_, mut to) = link.ends(direction);
    let mut line = link.line(direction);
    let mut any = false;
    while let Some(packet) = line.take_arrived(now_ns) {
        any = true;
        let taken = to.write(&packet).is_ok();
        line.delivered(packet, taken);
    }
    any
}
