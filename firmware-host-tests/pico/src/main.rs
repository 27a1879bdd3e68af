//! A Raspberry Pi Pico as a cable: one host at its USB port, another one at its UART. docs/FIRMWARE.md has the wires.
//!
//! Everything that the cable does is in `bondwire-firmware`. Here bytes go between it and the hardware, in four loops on one
//! executor, and a fifth one keeps time.
#![no_std]
#![no_main]

mod usb;

use core::cell::RefCell;

use bondwire_firmware::{
    Bridge, Instant, Line, Port, PortConfig, Roles, Transfers, line_frame_bytes, line_outgoing_bytes,
    queue_bytes,
};
use embassy_executor::Spawner;
use embassy_futures::join::{join, join5};
use embassy_futures::select::select;
use embassy_rp::clocks::RoscRng;
use embassy_rp::peripherals::{UART0, USB};
use embassy_rp::uart::{self, BufferedUart};
use embassy_rp::{bind_interrupts, flash};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::Timer;
use embassy_usb::driver::{EndpointIn, EndpointOut};
use embedded_io_async::{Read, Write};
use panic_halt as _;

/// Rate of the UART, in bits per second. Hosts begin at this one; for another, both must be told: `serial:/dev/ttyS0,baud=921600`.
const BAUD: u32 = 115_200;
/// Longest packet, in bytes: frames of 640 on the line.
const MTU_BYTES: u16 = 631;
/// Packets of so many bytes may wait in each direction.
const BUFFER_BYTES: usize = 32 << 10;
/// Longest transfer each way: three of the longest packets fit.
const TRANSFER_BYTES: usize = 2048;
const FLASH_BYTES: usize = 2 << 20;

bind_interrupts!(struct Interrupts {
    USBCTRL_IRQ => embassy_rp::usb::InterruptHandler<USB>;
    UART0_IRQ => uart::BufferedInterruptHandler<UART0>;
});

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    let board = embassy_rp::init(Default::default());
    let mut serial_number = [0; 16];
    let mut flash = flash::Flash::<_, _, FLASH_BYTES>::new_blocking(board.FLASH);
    let serial_number = serial_number_of(&mut flash, &mut serial_number);

    let (mut read, mut transfer) = ([0; TRANSFER_BYTES], [0; TRANSFER_BYTES]);
    let (mut frame, mut outgoing) = ([0; line_frame_bytes(MTU_BYTES)], [0; line_outgoing_bytes(MTU_BYTES)]);
    let mut queues = [[0; queue_bytes(MTU_BYTES, BUFFER_BYTES)]; 2];
    let [usb_queue, uart_queue] = &mut queues;
    let config = |roles| PortConfig { roles, mtu_bytes: MTU_BYTES, seed: RoscRng.next_u64() };
    let transfers = Transfers::new(&mut read, &mut transfer, usb::PACKET_BYTES);
    let usb_port = Port::new(now(), transfers, usb_queue, config(Roles::HostDials));
    let line = Line::new(&mut frame, &mut outgoing, BAUD);
    let uart_port = Port::new(now(), line, uart_queue, config(Roles::Either));
    // The sizes are those that the functions above have named.
    let (Ok(usb_port), Ok(uart_port)) = (usb_port, uart_port) else { panic!("too little memory") };
    let cable = Cable::new(Bridge::new(usb_port, uart_port));

    let mut uart_config = uart::Config::default();
    uart_config.baudrate = BAUD;
    let (mut tx_buffer, mut rx_buffer) = ([0; 64], [0; 1024]);
    let uart = BufferedUart::new(
        board.UART0,
        board.PIN_0,
        board.PIN_1,
        Interrupts,
        &mut tx_buffer,
        &mut rx_buffer,
        uart_config,
    );
    let (uart_out, uart_in) = uart.split();

    let mut memory = usb::Memory::new();
    let mut names = usb::Names::default();
    let driver = embassy_rp::usb::Driver::new(board.USB, Interrupts);
    let (mut device, usb_out, usb_in) = usb::device(driver, serial_number, &mut memory, &mut names);
    join(
        device.run(),
        join5(
            from_usb(&cable, usb_out),
            to_usb(&cable, usb_in),
            from_uart(&cable, uart_in),
            to_uart(&cable, uart_out),
            keep_time(&cable),
        ),
    )
    .await;
}

/// Tells boards of one kind apart: the number of the flash chip, in hexadecimal.
fn serial_number_of<'t>(
    flash: &mut flash::Flash<'_, embassy_rp::peripherals::FLASH, flash::Blocking, FLASH_BYTES>,
    text: &'t mut [u8; 16],
) -> Option<&'t str> {
    let mut id = [0; 8];
    flash.blocking_unique_id(&mut id).ok()?;
    for (digits, byte) in text.chunks_exact_mut(2).zip(id) {
        for (digit, value) in digits.iter_mut().zip([byte >> 4, byte & 0xf]) {
            *digit = b"0123456789abcdef"[usize::from(value)];
        }
    }
    core::str::from_utf8(text).ok()
}

fn now() -> Instant {
    Instant::from_micros(embassy_time::Instant::now().as_micros())
}

type UsbAndUart<'b> = Bridge<'b, Transfers<'b>, Line<'b>>;

/// The cable, and what its loops wait for. They take turns on one executor: nobody holds it across a wait.
struct Cable<'b> {
    bridge: RefCell<UsbAndUart<'b>>,
    /// There are bytes for the USB port, for the UART; the time has changed until which there is nothing to do.
    for_usb: Signal<NoopRawMutex, ()>,
    for_uart: Signal<NoopRawMutex, ()>,
    for_clock: Signal<NoopRawMutex, ()>,
}

impl<'b> Cable<'b> {
    fn new(bridge: UsbAndUart<'b>) -> Self {
        Self {
            bridge: RefCell::new(bridge),
            for_usb: Signal::new(),
            for_uart: Signal::new(),
            for_clock: Signal::new(),
        }
    }

    /// Lets `work` do something with the cable, and then the cable what follows from it.
    fn with(&self, work: impl FnOnce(&mut UsbAndUart<'b>)) {
        let mut bridge = self.bridge.borrow_mut();
        work(&mut bridge);
        bridge.step(now());
        if !bridge.a.outgoing().is_empty() {
            self.for_usb.signal(());
        }
        if !bridge.b.outgoing().is_empty() {
            self.for_uart.signal(());
        }
        self.for_clock.signal(());
    }
}

/// Packets of the host at the USB port.
async fn from_usb(cable: &Cable<'_>, mut endpoint: impl EndpointOut) {
    loop {
        endpoint.wait_enabled().await;
        let mut packet = [0; usb::PACKET_BYTES];
        while let Ok(bytes) = endpoint.read(&mut packet).await {
            cable.with(|bridge| bridge.a.handle_bytes(now(), &packet[..bytes]));
        }
        // The cable is out, or the host has set the device back: whoever comes next is another one.
        cable.with(|bridge| bridge.a.reopen(now()));
    }
}

/// Packets to the host at the USB port.
async fn to_usb(cable: &Cable<'_>, mut endpoint: impl EndpointIn) {
    loop {
        let mut packet = [0; usb::PACKET_BYTES];
        let bytes = take(cable.bridge.borrow().a.outgoing(), &mut packet);
        if bytes == 0 {
            cable.for_usb.wait().await;
            continue;
        }
        if endpoint.write(&packet[..bytes]).await.is_ok() {
            cable.with(|bridge| bridge.a.sent(bytes));
        } else {
            // Nobody will read the rest of this transfer.
            cable.with(|bridge| bridge.a.sent(bridge.a.outgoing().len()));
            endpoint.wait_enabled().await;
        }
    }
}

/// Bytes of the host at the UART. Damage and overruns are for the frame layer to find.
async fn from_uart(cable: &Cable<'_>, mut uart: impl Read) {
    let mut bytes = [0; 256];
    loop {
        if let Ok(len) = uart.read(&mut bytes).await {
            cable.with(|bridge| bridge.b.handle_bytes(now(), &bytes[..len]));
        }
    }
}

/// Bytes to the host at the UART.
async fn to_uart(cable: &Cable<'_>, mut uart: impl Write) {
    loop {
        let mut bytes = [0; 64];
        let len = take(cable.bridge.borrow().b.outgoing(), &mut bytes);
        if len == 0 {
            cable.for_uart.wait().await;
            continue;
        }
        let sent = uart.write(&bytes[..len]).await.unwrap_or(len);
        cable.with(|bridge| bridge.b.sent(sent));
    }
}

/// Does what is due.
async fn keep_time(cable: &Cable<'_>) {
    loop {
        let at = cable.bridge.borrow().poll_timeout(now());
        let until = embassy_time::Instant::from_micros(at.map_or(u64::MAX, Instant::as_micros));
        if now().as_micros() >= until.as_micros() {
            cable.with(|_| {});
        }
        select(Timer::at(until), cable.for_clock.wait()).await;
    }
}

/// Copies the beginning of `from`, and answers how much.
fn take(from: &[u8], to: &mut [u8]) -> usize {
    let bytes = from.len().min(to.len());
    to[..bytes].copy_from_slice(&from[..bytes]);
    bytes
}
