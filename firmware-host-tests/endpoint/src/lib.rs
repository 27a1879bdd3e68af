//! The device side of Bondwire's serial and USB links, as firmware of a microcontroller has it: no allocator, no operating
//! system, no clock of its own, all memory given by the caller and none beyond it.
//!
//! - A [`Port`] is one place where a host is plugged in: a UART ([`Line`]) or a pair of USB bulk endpoints ([`Transfers`]). It
//!   begins a new session whenever one ends, and keeps packets that came until somebody takes them. What it cannot keep,
//!   the host does not send: there is back-pressure, never loss.
//! - A [`Bridge`] joins two ports: a cable made of a microcontroller. Two hosts, one at each port, bond through it.
//! - An [`Echo`] sends every packet back, to see what a cable does.
//!
//! Bytes go in with [`Port::handle_bytes`] and come out of [`Port::outgoing`], so that interrupts, DMA or an async executor
//! can move them; [`exchange`] does it for hardware with the traits of `embedded-io`. Time is an argument.
//!
//! ```
//! use bondwire_firmware::{Bridge, Instant, Line, Port, PortConfig, Roles, line_frame_bytes, line_outgoing_bytes, queue_bytes};
//!
//! const MTU_BYTES: u16 = 631; // frames of 640 bytes
//! let mut frames = [[0; line_frame_bytes(MTU_BYTES)]; 2];
//! let mut outgoing = [[0; line_outgoing_bytes(MTU_BYTES)]; 2];
//! let mut queues = [[0; queue_bytes(MTU_BYTES, 4096)]; 2]; // 4 KiB in each direction may be under way
//!
//! let now = Instant::ZERO;
//! let ([frame_a, frame_b], [out_a, out_b], [queue_a, queue_b]) = (&mut frames, &mut outgoing, &mut queues);
//! let config = PortConfig { roles: Roles::Either, mtu_bytes: MTU_BYTES, seed: 0x5eed }; // seed: random, at each reset
//! let a = Port::new(now, Line::new(frame_a, out_a, 115_200), queue_a, config)?;
//! let b = Port::new(now, Line::new(frame_b, out_b, 115_200), queue_b, PortConfig { seed: 0xca11, ..config })?;
//! let mut bridge = Bridge::new(a, b);
//!
//! // For ever: bytes from the hardware, a step, bytes to the hardware.
//! bridge.a.handle_bytes(now, b"noise");
//! bridge.step(now);
//! assert!(bridge.a.outgoing().is_empty(), "nothing is said before a host says HELLO");
//! # Ok::<_, bondwire_firmware::TooSmall>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
extern crate std;

mod bridge;
mod echo;
mod framing;
mod hardware;
pub mod limits;
mod line;
mod nonces;
mod port;
mod queue;
mod rate;
#[cfg(test)]
mod tests;
mod transfers;

pub use bondwire_frame::{Counters, Duration, End, Instant, Role};
pub use bridge::Bridge;
pub use echo::Echo;
pub use framing::Framing;
pub use hardware::exchange;
pub use line::{Line, line_frame_bytes, line_outgoing_bytes};
pub use port::{Port, PortConfig, Roles, TooSmall, queue_bytes};
pub use transfers::Transfers;
