//! Devices in threads of their own: the loop that firmware has.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bondwire_firmware::{
    Bridge, Echo, End, Framing, Instant, Line, Port, PortConfig, Roles, Transfers, exchange,
    line_frame_bytes, line_outgoing_bytes, queue_bytes,
};
use embedded_io::{Read, ReadReady, Write, WriteReady};

const MTU_BYTES: u16 = 631;
const BUFFER_BYTES: usize = 8 << 10;
const TRANSFER_BYTES: usize = 2048;
/// Longest packet of USB that there is here: high speed.
const PACKET_MAX_BYTES: usize = 512;
/// Sleep of a device that has nothing to do: well below the time of a frame.
const NAP: Duration = Duration::from_micros(200);

/// What a device can be read and written through.
pub(crate) trait Hardware: Read + ReadReady + Write + WriteReady + Send + 'static {}

impl<H: Read + ReadReady + Write + WriteReady + Send + 'static> Hardware for H {}

/// What a device saw, told at its end.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) dropped: u64,
    pub(crate) last_ends: Vec<Option<End>>,
}

/// A device that runs until [`stop`](Self::stop), or until this value goes.
pub(crate) struct Device {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Device {
    fn start(run: impl FnOnce(&AtomicBool) -> Seen + Send + 'static) -> Self {
        let stopped = Arc::<AtomicBool>::default();
        let seen_by_device = stopped.clone();
        Self { stopped, thread: Some(std::thread::spawn(move || run(&seen_by_device))) }
    }

    /// Echoes at a UART.
    pub(crate) fn line_echo(hardware: impl Hardware, baud: u32) -> Self {
        Self::start(move |stopped| echo(line_port(Roles::HostDials, baud), hardware, stopped))
    }

    /// Echoes on USB.
    pub(crate) fn usb_echo(hardware: impl Hardware, packet_bytes: usize) -> Self {
        Self::start(move |stopped| echo(usb_port(packet_bytes), hardware, stopped))
    }

    /// A cable between two UARTs.
    pub(crate) fn line_bridge(a: impl Hardware, b: impl Hardware, baud: u32) -> Self {
        Self::start(move |stopped| {
            bridge(line_port(Roles::Either, baud), line_port(Roles::Either, baud), a, b, stopped)
        })
    }

    /// A cable between USB and a UART.
    pub(crate) fn usb_line_bridge(
        usb: impl Hardware,
        packet_bytes: usize,
        line: impl Hardware,
        baud: u32,
    ) -> Self {
        Self::start(move |stopped| {
            bridge(usb_port(packet_bytes), line_port(Roles::Either, baud), usb, line, stopped)
        })
    }

    pub(crate) fn stop(mut self) -> Seen {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn leaked(bytes: usize) -> &'static mut [u8] {
    vec![0; bytes].leak()
}

fn line_port(roles: Roles, baud: u32) -> Port<'static, Line<'static>> {
    let (frame, outgoing) = (leaked(line_frame_bytes(MTU_BYTES)), leaked(line_outgoing_bytes(MTU_BYTES)));
    port(Line::new(frame, outgoing, baud), roles)
}

fn usb_port(packet_bytes: usize) -> Port<'static, Transfers<'static>> {
    let transfers = Transfers::new(leaked(TRANSFER_BYTES), leaked(TRANSFER_BYTES), packet_bytes);
    port(transfers, Roles::HostDials)
}

fn port<F: Framing>(framing: F, roles: Roles) -> Port<'static, F> {
    let config = PortConfig { roles, mtu_bytes: MTU_BYTES, seed: RandomState::new().build_hasher().finish() };
    Port::new(Instant::ZERO, framing, leaked(queue_bytes(MTU_BYTES, BUFFER_BYTES)), config).unwrap()
}

fn echo<F: Framing>(port: Port<'static, F>, mut hardware: impl Hardware, stopped: &AtomicBool) -> Seen {
    let (clock, mut echo, mut chunk) = (Clock::start(), Echo::new(port), [0; PACKET_MAX_BYTES]);
    while !stopped.load(Ordering::Relaxed) {
        let now = clock.now();
        let has_moved = exchange(&mut echo.port, now, &mut hardware, &mut chunk).unwrap();
        echo.step(now);
        if !has_moved {
            std::thread::sleep(NAP);
        }
    }
    Seen { dropped: echo.port.dropped_packets(), last_ends: vec![echo.port.last_end()] }
}

fn bridge<A: Framing, B: Framing>(
    a: Port<'static, A>,
    b: Port<'static, B>,
    mut hardware_a: impl Hardware,
    mut hardware_b: impl Hardware,
    stopped: &AtomicBool,
) -> Seen {
    let (clock, mut bridge, mut chunk) = (Clock::start(), Bridge::new(a, b), [0; PACKET_MAX_BYTES]);
    while !stopped.load(Ordering::Relaxed) {
        let now = clock.now();
        let moved_a = exchange(&mut bridge.a, now, &mut hardware_a, &mut chunk).unwrap();
        let moved_b = exchange(&mut bridge.b, now, &mut hardware_b, &mut chunk).unwrap();
        bridge.step(now);
        if !moved_a && !moved_b {
            std::thread::sleep(NAP);
        }
    }
    Seen {
        dropped: bridge.a.dropped_packets() + bridge.b.dropped_packets(),
        last_ends: vec![bridge.a.last_end(), bridge.b.last_end()],
    }
}

struct Clock(std::time::Instant);

impl Clock {
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.0.elapsed().as_micros() as u64)
    }
}
