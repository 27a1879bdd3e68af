//! A device at a UART against the real serial links, over pseudo-terminals with the pace of a line.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use bondwire::link::{Dialer, PacketLink};
use bondwire_firmware::End;
use bondwire_line::Noise;
use bondwire_serial::SerialDialer;
use support::cable::{Cable, bonded};
use support::device::Device;
use support::tty::Tty;
use support::{echo_test, transfer};

const BAUD: u32 = 3_000_000;
const FAST: &str = ",baud=3000000";

fn device_at(cable: &Cable, baud: u32) -> Tty {
    Tty::open(&cable.device(), baud).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_answers_at_its_fixed_rate_to_a_host_that_would_climb() {
    let cable = Cable::new();
    let device = Device::line_echo(device_at(&cable, 115_200), 115_200);
    let link = SerialDialer::new(cable.address("")).dial().await.unwrap();
    assert_eq!((link.baud(), link.describe().mtu_bytes), (115_200, 631));
    echo_test(link, 60).await;
    assert_eq!(device.stop().dropped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_bond_through_a_device_with_two_uarts() {
    let (a, b) = (Cable::new(), Cable::new());
    let device = Device::line_bridge(device_at(&a, BAUD), device_at(&b, BAUD), BAUD);
    let hosts = bonded(&a, &b, FAST).await;
    transfer(&hosts.near, &hosts.far, 400_000, async || {}).await;
    transfer(&hosts.far, &hosts.near, 400_000, async || {}).await;
    assert_eq!(device.stop().dropped, 0);
}

/// Hosts without options begin at 115 200 baud and would climb. Neither end waits for a device that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_that_would_climb_bond_at_the_rate_of_the_device() {
    let (a, b) = (Cable::new(), Cable::new());
    let device = Device::line_bridge(device_at(&a, 115_200), device_at(&b, 115_200), 115_200);
    let hosts = bonded(&a, &b, "").await;
    transfer(&hosts.near, &hosts.far, 20_000, async || {}).await;
    assert_eq!(device.stop().dropped, 0);
}

/// Each host in turn loses its cable in the midst of a transfer, and gets it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_survives_a_pulled_cable_on_either_side_of_the_device() {
    let (a, b) = (Cable::new(), Cable::new());
    let device = Device::line_bridge(device_at(&a, BAUD), device_at(&b, BAUD), BAUD);
    let hosts = bonded(&a, &b, FAST).await;
    for cable in [&a, &b] {
        transfer(&hosts.near, &hosts.far, 400_000, async || {
            cable.pull();
            tokio::time::sleep(Duration::from_millis(100)).await;
            cable.plug_in();
        })
        .await;
    }
    let seen = device.stop();
    assert_eq!(seen.dropped, 0);
    assert!(seen.last_ends.iter().all(Option::is_some), "{seen:?}");
}

/// The device loses its power, and comes back as one that knows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bond_survives_a_device_that_restarts() {
    let (a, b) = (Cable::new(), Cable::new());
    let start = || Device::line_bridge(device_at(&a, BAUD), device_at(&b, BAUD), BAUD);
    let device = std::cell::Cell::new(Some(start()));
    let hosts = bonded(&a, &b, FAST).await;
    transfer(&hosts.near, &hosts.far, 400_000, async || {
        drop(device.take());
        device.set(Some(start()));
    })
    .await;
    drop(device.take());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_both_lines_loses_nothing() {
    let (a, b) = (Cable::new(), Cable::new());
    let _device = Device::line_bridge(device_at(&a, BAUD), device_at(&b, BAUD), BAUD);
    let hosts = bonded(&a, &b, FAST).await;
    transfer(&hosts.near, &hosts.far, 400_000, async || {
        for cable in [&a, &b] {
            cable.line.set_noise(Noise { bit_flip: 1e-5, byte_drop: 1e-5, ..Noise::NONE });
        }
    })
    .await;
    assert!(a.line.damaged_bytes() > 0 && b.line.damaged_bytes() > 0);
}

/// What a loop plug, or two of these devices back to back, would say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hears_nobody_says_so() {
    let cable = Cable::new();
    let error = SerialDialer::new(cable.address("")).dial().await.unwrap_err();
    assert!(error.to_string().contains("no Bondwire at the other end"), "{error}");
    // A device that comes later answers the next call.
    let device = Device::line_echo(device_at(&cable, 115_200), 115_200);
    let link = SerialDialer::new(cable.address("")).dial().await.unwrap();
    echo_test(link, 5).await;
    assert!(matches!(device.stop().last_ends[0], None | Some(End::ClosedByPeer(0))));
}
