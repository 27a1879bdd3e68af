//! What links can be made of on this machine: one file for each kind of device.

#[cfg(target_os = "linux")]
pub(crate) mod gadget;
#[cfg(unix)]
pub(crate) mod serial;
pub(crate) mod usb;
