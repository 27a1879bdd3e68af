//! A device on USB against the real USB link, over a cable in memory: transfers at the host, packets at the device.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use bondwire::link::{Dialer, PacketLink};
use bondwire::{Bond, BondConfig, Identity, ListenConfig, Listener};
use bondwire_serial::SerialAcceptor;
use support::cable::Cable;
use support::device::Device;
use support::tty::Tty;
use support::usb::{USB_PACKET_BYTES, UsbCable};
use support::{PATIENCE, echo_test, transfer};

const BAUD: u32 = 3_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_answers_over_usb() {
    let cable = UsbCable::default();
    let device = Device::usb_echo(cable.device(), USB_PACKET_BYTES);
    // Links one after another: each is a new session.
    for _ in 0..3 {
        let link = cable.dialer().dial().await.unwrap();
        assert_eq!(link.describe().mtu_bytes, 631);
        echo_test(link, 300).await;
    }
    assert_eq!(device.stop().dropped, 0);
}

/// A cable with a USB plug at one end and a UART at the other; the USB cable is pulled in the midst of a transfer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_on_usb_bonds_with_one_at_a_uart() {
    let (usb, line) = (UsbCable::default(), Cable::new());
    let uart = Tty::open(&line.device(), BAUD).unwrap();
    let device = Device::usb_line_bridge(usb.device(), USB_PACKET_BYTES, uart, BAUD);
    let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let listener = Listener::new(&there, ListenConfig::allow([here.public_key()])).unwrap();
    let address = line.address(&format!(",baud={BAUD}"));
    listener.add_acceptor(SerialAcceptor::bind(&address).await.unwrap());
    let near = Bond::connect(&here, there.public_key(), BondConfig::default()).unwrap();
    near.add_dialer(usb.dialer());
    let far = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap();
    transfer(&near, &far, 400_000, async || usb.replug()).await;
    transfer(&far, &near, 400_000, async || {
        line.pull();
        line.plug_in();
    })
    .await;
    assert_eq!(device.stop().dropped, 0);
}
