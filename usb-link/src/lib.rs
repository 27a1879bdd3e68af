//! USB cables as links of a Bondwire bond.
//!
//! One end of a cable is the **host**: it finds devices and claims their interface. The other is the **device**: on Linux a
//! gadget controller with a FunctionFS function. Both exchange frames over a pair of bulk endpoints; PROTOCOL.md, section
//! 12.3, has the bytes.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(target_os = "linux")]
pub mod device;
mod hint;
pub mod host;
pub mod limits;
mod link;
mod speed;
pub mod transfers;

pub use hint::Hint;
pub use link::{UsbLink, UsbReader, UsbWriter};
pub use speed::Speed;
// Of `UsbLink::open`.
pub use bondwire_frame::Role;

/// Class, subclass and protocol of the interface of this protocol: "vendor specific", and numbers of our own in it.
pub const INTERFACE_CLASS: [u8; 3] = [0xff, 0x01, 0x02];
