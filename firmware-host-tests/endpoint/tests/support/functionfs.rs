//! A gadget of Linux as the hardware of a device on USB: FunctionFS gives whole transfers, which are cut into packets here as a
//! controller of a microcontroller has them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bondwire_usb::INTERFACE_CLASS;
use bondwire_usb::device::{Gadget, GadgetConfig, MaxSpeed};
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

/// Longest transfer from a host: that of the device's reads.
const READ_BYTES: usize = 2048;
/// Wait before an endpoint is tried again that no host has configured.
const RETRY: Duration = Duration::from_millis(5);
/// `linux/usb/functionfs.h`.
const DESCRIPTORS_MAGIC_V2: u32 = 3;
const STRINGS_MAGIC: u32 = 2;
const FULL_AND_HIGH_SPEED: u32 = 1 | 2;

/// The gadget and its endpoints, until it is dropped.
pub(crate) struct FunctionFs {
    gadget: Option<Gadget>,
    /// Keeps the function alive.
    _ep0: File,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// The endpoints as a device sees them.
pub(crate) struct Endpoints {
    packet_bytes: usize,
    received: Receiver<Vec<u8>>,
    /// Packets of the last transfer.
    packets: VecDeque<Vec<u8>>,
    to_send: SyncSender<Vec<u8>>,
    transfer: Vec<u8>,
    /// Complete, and not taken yet.
    waiting: Option<Vec<u8>>,
}

impl FunctionFs {
    pub(crate) fn start(controller: &str, packet_bytes: usize) -> (Self, Endpoints) {
        let config = GadgetConfig {
            controller: controller.to_owned(),
            with: Default::default(),
            serial: None,
            max_speed: Option::<MaxSpeed>::None,
            owner: None,
        };
        let gadget = Gadget::create(&config).unwrap();
        let folder = gadget.mount_point().to_owned();
        let mut ep0 = OpenOptions::new().read(true).write(true).open(folder.join("ep0")).unwrap();
        ep0.write_all(&descriptors()).unwrap();
        ep0.write_all(&strings()).unwrap();
        gadget.bind().unwrap();
        let stopped = Arc::<AtomicBool>::default();
        let (received_sender, received) = sync_channel(4);
        let (to_send, sent) = sync_channel(1);
        let threads = vec![
            std::thread::spawn({
                let (file, stopped) = (open(&folder, "ep2"), stopped.clone());
                move || read_transfers(file, &received_sender, &stopped)
            }),
            std::thread::spawn({
                let (file, stopped) = (open(&folder, "ep1"), stopped.clone());
                move || write_transfers(file, &sent, &stopped)
            }),
        ];
        let endpoints = Endpoints {
            packet_bytes,
            received,
            packets: VecDeque::new(),
            to_send,
            transfer: Vec::new(),
            waiting: None,
        };
        (Self { gadget: Some(gadget), _ep0: ep0, stopped, threads }, endpoints)
    }
}

impl Drop for FunctionFs {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // What waits on the endpoints ends as the gadget leaves its controller.
        drop(self.gadget.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(folder: &Path, endpoint: &str) -> File {
    OpenOptions::new().read(true).write(true).open(folder.join(endpoint)).unwrap()
}

fn read_transfers(mut endpoint: File, received: &SyncSender<Vec<u8>>, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        let mut transfer = vec![0; READ_BYTES];
        match endpoint.read(&mut transfer) {
            Ok(bytes) => {
                transfer.truncate(bytes);
                if received.send(transfer).is_err() {
                    return;
                }
            }
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

fn write_transfers(mut endpoint: File, to_send: &Receiver<Vec<u8>>, stopped: &AtomicBool) {
    while let Ok(transfer) = to_send.recv() {
        // A host that goes takes its transfer along.
        if endpoint.write(&transfer).is_err() {
            std::thread::sleep(RETRY);
        }
        if stopped.load(Ordering::Relaxed) {
            return;
        }
    }
}

impl ErrorType for Endpoints {
    type Error = Infallible;
}

impl ReadReady for Endpoints {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        if self.packets.is_empty()
            && let Ok(transfer) = self.received.try_recv()
        {
            self.packets.extend(transfer.chunks(self.packet_bytes).map(<[u8]>::to_vec));
            if transfer.len().is_multiple_of(self.packet_bytes) {
                self.packets.push_back(Vec::new());
            }
        }
        Ok(!self.packets.is_empty())
    }
}

impl Read for Endpoints {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let packet = self.packets.pop_front().unwrap_or_default();
        buffer[..packet.len()].copy_from_slice(&packet);
        Ok(packet.len())
    }
}

impl WriteReady for Endpoints {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        if let Some(transfer) = self.waiting.take()
            && let Err(TrySendError::Full(transfer)) = self.to_send.try_send(transfer)
        {
            self.waiting = Some(transfer);
        }
        Ok(self.waiting.is_none())
    }
}

impl Write for Endpoints {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let packet = &bytes[..bytes.len().min(self.packet_bytes)];
        self.transfer.extend(packet);
        if packet.len() < self.packet_bytes {
            self.waiting = Some(std::mem::take(&mut self.transfer));
            let _ = self.write_ready();
        }
        Ok(packet.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// One interface with a bulk endpoint to the host and one from it, at full and at high speed.
fn descriptors() -> Vec<u8> {
    let [class, subclass, protocol] = INTERFACE_CLASS;
    let speed = |packet_bytes: u16| {
        let [low, high] = packet_bytes.to_le_bytes();
        let interface = [9, 4, 0, 0, 2, class, subclass, protocol, 1];
        let endpoint = |address| [7, 5, address, 2, low, high, 0];
        [&interface[..], &endpoint(0x81), &endpoint(0x02)].concat()
    };
    let counts = [3_u32, 3].map(u32::to_le_bytes).concat();
    let body = [counts, speed(64), speed(512)].concat();
    let head = [DESCRIPTORS_MAGIC_V2, 12 + body.len() as u32, FULL_AND_HIGH_SPEED];
    [head.map(u32::to_le_bytes).concat(), body].concat()
}

fn strings() -> Vec<u8> {
    let body = [&0x409_u16.to_le_bytes()[..], b"Bondwire\0"].concat();
    let head = [STRINGS_MAGIC, 16 + body.len() as u32, 1, 1];
    [head.map(u32::to_le_bytes).concat(), body].concat()
}
