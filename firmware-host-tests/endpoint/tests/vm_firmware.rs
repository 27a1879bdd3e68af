//! A device on USB against the real USB link, over the kernel's own host and device stacks: `cargo xtask vm`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]
// What these tests print is shown when one fails, and tells how far it came.
#![allow(clippy::print_stdout)]

mod support;

use std::time::Duration;

use bondwire::link::{Dialer, PacketLink};
use bondwire::{Bond, BondConfig, Identity, ListenConfig, Listener};
use bondwire_serial::SerialAcceptor;
use bondwire_usb::UsbLink;
use bondwire_usb::host::UsbDialer;
use support::cable::Cable;
use support::device::Device;
use support::functionfs::FunctionFs;
use support::tty::Tty;
use support::{PATIENCE, echo_test, transfer};

const BAUD: u32 = 3_000_000;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Dials until the device is there.
async fn dial() -> UsbLink {
    let mut dialer = UsbDialer::any_of("".parse().unwrap());
    loop {
        match dialer.dial().await {
            Ok(link) => return link,
            Err(error) => {
                println!("dial: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn echoes(speed: bondwire_vm::Speed, packet_bytes: usize) {
    let Some(guest) = bondwire_vm::guest() else { return };
    let cables = guest.cables(1, speed).unwrap();
    let (function, endpoints) = FunctionFs::start(&cables.controllers().unwrap()[0], packet_bytes);
    let device = Device::usb_echo(endpoints, packet_bytes);
    runtime().block_on(async {
        // Links one after another: each is a new session.
        for _ in 0..3 {
            let link = tokio::time::timeout(PATIENCE, dial()).await.unwrap();
            assert_eq!(link.describe().mtu_bytes, 631);
            echo_test(link, 300).await;
        }
    });
    assert_eq!(device.stop().dropped, 0);
    drop(function);
}

#[test]
fn an_echo_answers_at_full_speed() {
    echoes(bondwire_vm::Speed::Full, 64);
}

#[test]
fn an_echo_answers_at_high_speed() {
    echoes(bondwire_vm::Speed::High, 512);
}

/// A cable with a USB plug at one end and a UART at the other.
#[test]
fn a_host_on_usb_bonds_with_one_at_a_uart() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let cables = guest.cables(1, bondwire_vm::Speed::Full).unwrap();
    let line = Cable::new();
    let (function, endpoints) = FunctionFs::start(&cables.controllers().unwrap()[0], 64);
    let uart = Tty::open(&line.device(), BAUD).unwrap();
    let device = Device::usb_line_bridge(endpoints, 64, uart, BAUD);
    runtime().block_on(async {
        let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let listener = Listener::new(&there, ListenConfig::allow([here.public_key()])).unwrap();
        let address = line.address(&format!(",baud={BAUD}"));
        listener.add_acceptor(SerialAcceptor::bind(&address).await.unwrap());
        let near = Bond::connect(&here, there.public_key(), BondConfig::default()).unwrap();
        near.add_dialer(UsbDialer::any_of("".parse().unwrap()));
        let far = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap();
        transfer(&near, &far, 200_000, async || {
            line.pull();
            line.plug_in();
        })
        .await;
        transfer(&far, &near, 200_000, async || {}).await;
    });
    assert_eq!(device.stop().dropped, 0);
    drop(function);
}
