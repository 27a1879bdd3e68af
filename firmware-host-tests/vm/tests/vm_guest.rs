//! The guest itself: cables, gadgets, udev.

use bondwire_vm::{Speed, guest};

#[test]
fn a_cable_has_two_ends() {
    let Some(guest) = guest() else { return };
    let cables = guest.cables(2, Speed::High).unwrap();
    assert_eq!(cables.controllers().unwrap(), ["dummy_udc.0", "dummy_udc.1"]);
}
