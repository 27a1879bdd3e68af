//! The image for a Cortex-M, in QEMU, against the real serial links: `cargo xtask firmware`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::cell::Cell;

use bondwire::link::{Dialer, PacketLink};
use bondwire_line::Noise;
use bondwire_serial::{SerialAddress, SerialDialer};
use support::cable::{Cable, bonded};
use support::qemu::{Machine, Wire, images};
use support::{echo_test, transfer};

/// The rate of the image.
const BAUD: u32 = 115_200;

/// The host opens the terminal that QEMU has made. It has no pace, so the host may send as fast as it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_answers_hello_and_packets() {
    let Some(images) = images() else { return };
    let machine = Machine::start(&images.join("echo"), [Wire::Fresh, Wire::Nothing]);
    let address: SerialAddress = format!("{},baud=3000000", machine.terminal().display()).parse().unwrap();
    let mut dialer = SerialDialer::new(address);
    // Links one after another: each is a new session.
    for _ in 0..3 {
        let link = dialer.dial().await.unwrap();
        assert_eq!(link.describe().mtu_bytes, 631);
        echo_test(link, 200).await;
    }
    // Each but the last has ended: with a word of the host, or without one, if QEMU saw the terminal closed before it had read
    // that.
    for _ in 0..2 {
        machine.expect("port A: ");
    }
    machine.assert_well();
}

/// A line with the pace of its rate, and a host that would climb to a higher one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_stays_at_its_rate() {
    let Some(images) = images() else { return };
    let cable = Cable::new();
    let machine = Machine::start(&images.join("echo"), [Wire::Terminal(&cable.device()), Wire::Nothing]);
    let link = SerialDialer::new(cable.address("")).dial().await.unwrap();
    assert_eq!(link.baud(), BAUD);
    echo_test(link, 40).await;
    machine.assert_well();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_bond_through_the_microcontroller() {
    let Some(images) = images() else { return };
    let (a, b) = (Cable::new(), Cable::new());
    let wires = [a.device(), b.device()];
    let machine =
        Machine::start(&images.join("cable"), [Wire::Terminal(&wires[0]), Wire::Terminal(&wires[1])]);
    let hosts = bonded(&a, &b, "").await;
    transfer(&hosts.near, &hosts.far, 60_000, async || {
        for cable in [&a, &b] {
            cable.line.set_noise(Noise { bit_flip: 1e-5, byte_drop: 1e-5, ..Noise::NONE });
        }
    })
    .await;
    transfer(&hosts.far, &hosts.near, 60_000, async || a.line.set_noise(Noise::NONE)).await;
    machine.assert_well();
}

/// A cable that is pulled and comes back, and then a microcontroller that loses its power.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_survives_its_cable_and_its_microcontroller() {
    let Some(images) = images() else { return };
    let (a, b) = (Cable::new(), Cable::new());
    let wires = [a.device(), b.device()];
    let start =
        || Machine::start(&images.join("cable"), [Wire::Terminal(&wires[0]), Wire::Terminal(&wires[1])]);
    let machine = Cell::new(Some(start()));
    let hosts = bonded(&a, &b, "").await;
    transfer(&hosts.near, &hosts.far, 40_000, async || {
        a.pull();
        a.plug_in();
    })
    .await;
    transfer(&hosts.far, &hosts.near, 40_000, async || {
        drop(machine.take());
        machine.set(Some(start()));
    })
    .await;
    machine.take().unwrap().assert_well();
}
