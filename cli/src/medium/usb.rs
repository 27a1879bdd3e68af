//! What keeps the two ends of a cable apart.

use std::io;

use bondwire::link::Dialer;
use bondwire_usb::UsbLink;

use super::GADGETS_LISTEN;

/// Stands for a gadget among the links that are dialled; commands refuse it before.
pub(super) struct NeverDialled;

impl Dialer for NeverDialled {
    type Link = UsbLink;

    fn name(&self) -> String {
        "gadget".to_owned()
    }

    async fn dial(&mut self) -> io::Result<UsbLink> {
        Err(io::Error::new(io::ErrorKind::InvalidInput, GADGETS_LISTEN))
    }
}
