//! A USB cable in memory, full speed: packets of 64 bytes at the device, whole transfers at the host.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bondwire::link::Dialer;
use bondwire_usb::transfers::{Inlet, Outlet};
use bondwire_usb::{Role, UsbLink};
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

/// Packets of bulk endpoints at full speed.
pub(crate) const USB_PACKET_BYTES: usize = 64;
/// Transfers of a host that can be under way, each way.
const DEPTH: usize = 4;
/// Length of the host's reads.
const READ_BYTES: usize = 2048;

#[derive(Default)]
struct Bus {
    /// Packets on their way to the device.
    down: VecDeque<Vec<u8>>,
    /// Transfers that the host has begun and the device has not read whole.
    down_transfers: usize,
    /// The transfer to the host under way, and those that are complete.
    up: Vec<u8>,
    up_transfers: VecDeque<Vec<u8>>,
    /// How often the cable was plugged in. Ends of an earlier time are dead.
    plugged: u64,
    wakers: Vec<Waker>,
}

#[derive(Clone, Default)]
pub(crate) struct UsbCable(Arc<Mutex<Bus>>);

impl UsbCable {
    fn lock(&self) -> MutexGuard<'_, Bus> {
        self.0.lock().unwrap()
    }

    /// Pulls the cable out, and in again.
    pub(crate) fn replug(&self) {
        let mut bus = self.lock();
        let plugged = bus.plugged + 1;
        let wakers = std::mem::take(&mut bus.wakers);
        *bus = Bus { plugged, ..Bus::default() };
        drop(bus);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn device(&self) -> UsbDevice {
        UsbDevice(self.clone())
    }

    pub(crate) fn dialer(&self) -> UsbHost {
        UsbHost(self.clone())
    }
}

/// The host's end: dials with the real link.
pub(crate) struct UsbHost(UsbCable);

impl Dialer for UsbHost {
    type Link = UsbLink;

    fn name(&self) -> String {
        "usb in memory".to_owned()
    }

    async fn dial(&mut self) -> io::Result<UsbLink> {
        let plugged = self.0.lock().plugged;
        let inlet = HostInlet { cable: self.0.clone(), plugged, read: Vec::new() };
        let outlet = HostOutlet { cable: self.0.clone(), plugged, buffer: vec![0; READ_BYTES], begun: 0 };
        UsbLink::open("usb in memory".to_owned(), Role::Dialer, inlet, outlet).await
    }
}

fn unplugged() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "unplugged")
}

struct HostInlet {
    cable: UsbCable,
    plugged: u64,
    read: Vec<u8>,
}

impl Inlet for HostInlet {
    fn read_bytes(&self) -> usize {
        READ_BYTES
    }

    fn poll_transfer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let mut bus = self.cable.lock();
        if bus.plugged != self.plugged {
            return Poll::Ready(Err(unplugged()));
        }
        let Some(transfer) = bus.up_transfers.pop_front() else {
            bus.wakers.push(cx.waker().clone());
            return Poll::Pending;
        };
        drop(bus);
        assert!(transfer.len() <= READ_BYTES, "longer than the host reads");
        self.read = transfer;
        Poll::Ready(Ok(&self.read))
    }

    fn release(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct HostOutlet {
    cable: UsbCable,
    plugged: u64,
    buffer: Vec<u8>,
    begun: usize,
}

impl Outlet for HostOutlet {
    fn packet_bytes(&self) -> usize {
        USB_PACKET_BYTES
    }

    fn buffer(&mut self) -> Option<&mut [u8]> {
        (self.begun < DEPTH).then_some(&mut self.buffer[..])
    }

    fn submit(&mut self, len: usize) -> io::Result<()> {
        let mut bus = self.cable.lock();
        if bus.plugged != self.plugged {
            return Err(unplugged());
        }
        bus.down.extend(self.buffer[..len].chunks(USB_PACKET_BYTES).map(<[u8]>::to_vec));
        bus.down_transfers += 1;
        self.begun += 1;
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.begun
    }

    fn depth(&self) -> usize {
        DEPTH
    }

    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bus = self.cable.lock();
        if bus.plugged != self.plugged {
            return Poll::Ready(Err(unplugged()));
        }
        if self.begun > bus.down_transfers {
            self.begun -= 1;
            return Poll::Ready(Ok(()));
        }
        if self.begun > 0 {
            bus.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for HostOutlet {
    fn drop(&mut self) {
        let mut bus = self.cable.lock();
        if bus.plugged == self.plugged {
            // What is under way is cancelled: of the transfer that the device reads the rest does not come.
            bus.down.clear();
            bus.down_transfers = 0;
        }
    }
}

/// The device's end, packet by packet.
pub(crate) struct UsbDevice(UsbCable);

impl ErrorType for UsbDevice {
    type Error = Infallible;
}

impl Read for UsbDevice {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let mut bus = self.0.lock();
        let Some(packet) = bus.down.pop_front() else { return Ok(0) };
        if packet.len() < USB_PACKET_BYTES {
            bus.down_transfers = bus.down_transfers.saturating_sub(1);
        }
        let wakers = std::mem::take(&mut bus.wakers);
        drop(bus);
        wakers.into_iter().for_each(Waker::wake);
        buffer[..packet.len()].copy_from_slice(&packet);
        Ok(packet.len())
    }
}

impl ReadReady for UsbDevice {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!self.0.lock().down.is_empty())
    }
}

impl Write for UsbDevice {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let mut bus = self.0.lock();
        let packet = &bytes[..bytes.len().min(USB_PACKET_BYTES)];
        bus.up.extend(packet);
        if packet.len() < USB_PACKET_BYTES {
            let transfer = std::mem::take(&mut bus.up);
            bus.up_transfers.push_back(transfer);
        }
        let wakers = std::mem::take(&mut bus.wakers);
        drop(bus);
        wakers.into_iter().for_each(Waker::wake);
        Ok(packet.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl WriteReady for UsbDevice {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        // A few packets wait in the host's reads, no more.
        Ok(self.0.lock().up_transfers.len() < DEPTH)
    }
}
