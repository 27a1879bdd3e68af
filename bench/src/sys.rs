//! The one place with `unsafe`: asking the kernel for a TUN device.
//!
//! No safe crate in use here covers `TUNSETIFF`, and one `ioctl` does not justify a dependency.
#![expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper among our dependencies")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Longest device name the kernel takes, without the closing zero (`IFNAMSIZ - 1`).
const DEVICE_NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

/// Turns `tun`, a freshly opened `/dev/net/tun`, into the network device `name`: IP packets, no extra header.
///
/// The device appears in the network namespace in which the file was opened, and goes with the file.
///
/// # Errors
/// `InvalidInput` if the name is too long or has a zero byte; else what the kernel says, most often
/// `EPERM` (not root) or `EBUSY` (the name is taken).
pub(crate) fn attach_tun(tun: &File, name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() > DEVICE_NAME_BYTES_MAX || name.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "device name must have 1 to 15 bytes"));
    }
    // SAFETY: `ifreq` is a C struct of integers, arrays and unions of those; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the whole call, and TUNSETIFF reads and writes one `ifreq`, which
    // `request` is. The name is zero-terminated because it is shorter than its array.
    let outcome = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
