//! Both ends of one connection over one cable.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aggligator::cfg::Cfg;
use aggligator::transport::{AcceptorBuilder, ConnectorBuilder};
use aggligator_transport_usb::upc::Class;
use aggligator_transport_usb::upc::device::{InterfaceId, UpcFunction};
use aggligator_transport_usb::usb_gadget::{Config, Gadget, Id, OsDescriptor, Strings, default_udc};
use aggligator_transport_usb::{UsbAcceptor, UsbConnector};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes written and read at once, as in the benchmark that this is set beside.
const BLOCK_BYTES: usize = 64 << 10;
/// How often it tells what has arrived.
const TELL_EVERY: Duration = Duration::from_millis(20);
const SERIAL: &str = "aggligator";

pub(crate) fn main() -> io::Result<()> {
    std::thread::spawn(|| {
        // Whatever ends the input ends the program. The kernel takes the gadget off the bus as its files are closed.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = aggligator_transport_usb::usb_gadget::remove_all();
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> io::Result<()> {
    let class = Class::vendor_specific(0x01, 0);
    let (function, handle) = UpcFunction::new(InterfaceId::new(class));
    let controller = default_udc()?;
    let name = controller.name().to_owned();
    let gadget = Gadget::new(class.into(), Id::new(0x1209, 0x0001), Strings::new("bench", "bench", SERIAL))
        .with_config(Config::new("config").with_function(handle))
        .with_os_descriptor(OsDescriptor::microsoft());
    let _registered = gadget.bind(&controller)?;

    let acceptor = AcceptorBuilder::new(Cfg::default()).build();
    acceptor.add(UsbAcceptor::new(function, name));
    let mut connector = ConnectorBuilder::new(Cfg::default()).build();
    connector.add(UsbConnector::new(|device, _| device.serial_number.as_deref() == Some(SERIAL))?);
    let outgoing = connector.channel().ok_or(io::ErrorKind::NotConnected)?;
    let connect = async { outgoing.connect().await.map_err(io::Error::other) };
    let accept = async { acceptor.accept().await.map_err(io::Error::other) };
    let (near, (far, _control)) = tokio::try_join!(connect, accept)?;

    let received = Arc::<AtomicU64>::default();
    let mut sender = near.into_stream();
    let sending = async move {
        let block = vec![0x5a; BLOCK_BYTES];
        loop {
            if let Err(e) = sender.write_all(&block).await {
                return io::Result::<()>::Err(e);
            }
        }
    };
    let mut receiver = far.into_stream();
    let receiving = {
        let received = received.clone();
        async move {
            let mut buffer = vec![0; BLOCK_BYTES];
            loop {
                match receiver.read(&mut buffer).await? {
                    0 => return io::Result::<()>::Err(io::ErrorKind::UnexpectedEof.into()),
                    bytes => received.fetch_add(bytes as u64, Ordering::Relaxed),
                };
            }
        }
    };
    let sending = tokio::spawn(sending);
    let receiving = tokio::spawn(receiving);
    tokio::select! {
        ended = sending => ended.map_err(io::Error::other)?,
        ended = receiving => ended.map_err(io::Error::other)?,
        never = tell(&received) => never,
    }
}

/// Tells what has arrived, for as long as it is polled.
async fn tell(received: &AtomicU64) -> io::Result<()> {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        // Who measured may have heard enough; the end of the input follows.
        let _ = writeln!(io::stdout(), "{}", received.load(Ordering::Relaxed));
    }
}
