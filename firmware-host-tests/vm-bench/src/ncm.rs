//! Plain TCP over a network gadget: the kernel's NCM function, and its driver at the host.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use bondwire_vm::{Cables, Network, Speed, wait_for};

use crate::bonds::BLOCK_BYTES;
use crate::measure::{Sample, Traffic, Window};

const GADGET: &str = "/sys/kernel/config/usb_gadget/ncm";
const HOST_MAC: &str = "02:00:00:00:00:01";
const DEVICE_MAC: &str = "02:00:00:00:00:02";
const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const DEVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

/// A cable with a network interface at each end. The device's is in a namespace of its own, else the kernel would not use the
/// cable.
pub(crate) struct Ncm {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    device: Option<JoinHandle<()>>,
    received: Arc<AtomicU64>,
    _gadget: Gadget,
    _cables: Cables,
}

/// Removed when this value goes.
struct Gadget(PathBuf);

impl Gadget {
    fn bind(controller: &str) -> Result<Self> {
        let gadget = Self(GADGET.into());
        let folder = &gadget.0;
        let write = |file: &str, text: &str| {
            fs::write(folder.join(file), text)
                .with_context(|| format!("cannot write {file} of the NCM gadget"))
        };
        let make = |name: &str| {
            fs::create_dir(folder.join(name)).with_context(|| format!("cannot make {name} of the NCM gadget"))
        };
        make("")?;
        write("idVendor", "0x1d6b")?;
        write("idProduct", "0x0104")?;
        make("strings/0x409")?;
        make("configs/c.1")?;
        make("functions/ncm.0")?;
        write("functions/ncm.0/host_addr", HOST_MAC)?;
        write("functions/ncm.0/dev_addr", DEVICE_MAC)?;
        std::os::unix::fs::symlink(folder.join("functions/ncm.0"), folder.join("configs/c.1/ncm.0"))?;
        write("UDC", controller)?;
        Ok(gadget)
    }
}

impl Drop for Gadget {
    fn drop(&mut self) {
        // In the order that configfs asks for. What stays is in the way of the next gadget, which says so.
        let _ = fs::write(self.0.join("UDC"), "\n");
        let _ = fs::remove_file(self.0.join("configs/c.1/ncm.0"));
        for folder in ["functions/ncm.0", "configs/c.1", "strings/0x409", ""] {
            let _ = fs::remove_dir(self.0.join(folder));
        }
    }
}

impl Ncm {
    pub(crate) fn plug(speed: Speed) -> Result<Self> {
        let guest = bondwire_vm::guest().context("runs in the guest only: cargo xtask bench --vm")?;
        for module in ["libcomposite", "usb_f_ncm", "cdc_ncm"] {
            guest.load(module, &[])?;
        }
        let cables = guest.cables(1, speed)?;
        let gadget = Gadget::bind("dummy_udc.0")?;
        let host = wait_for("the host's network interface", || interface(HOST_MAC))?;
        let device = wait_for("the device's network interface", || interface(DEVICE_MAC))?;
        guest.settle()?;
        // udev may have given it another name meanwhile.
        let host = interface(HOST_MAC).unwrap_or(host);
        let device = interface(DEVICE_MAC).unwrap_or(device);
        let (stopped, received) = (Arc::<AtomicBool>::default(), Arc::default());
        let network = Network::create()?;
        ip(&["link", "set", &device, "netns", &network.process().to_string()])?;
        let listener = network.within(|| listen(&device)).context("the device's end of the network")?;
        let address = listener.local_addr()?;
        let far = thread::spawn({
            let (stopped, received) = (Arc::clone(&stopped), Arc::clone(&received));
            move || {
                serve(&listener, &stopped, &received);
                drop(network);
            }
        });
        ip(&["addr", "add", &format!("{HOST_ADDRESS}/24"), "dev", &host])?;
        ip(&["link", "set", &host, "up"])?;
        Ok(Self { address, stopped, device: Some(far), received, _gadget: gadget, _cables: cables })
    }

    /// The rate at which one TCP connection carries data, from host to device as the others here.
    pub(crate) async fn rate(&self, window: Window) -> Result<Sample> {
        let address = self.address;
        let stream = tokio::task::spawn_blocking(move || connect(address)).await??;
        let socket = stream.try_clone()?;
        let mut traffic = Traffic::counting(Arc::clone(&self.received));
        let sender = thread::spawn(move || send(stream));
        traffic.spawn(async { std::future::pending().await });
        let sample = traffic.measure(window).await;
        // Ends the sender, too.
        socket.shutdown(std::net::Shutdown::Both)?;
        let sent = tokio::task::spawn_blocking(move || sender.join()).await?;
        ensure!(sent.is_ok(), "the sender panicked");
        sample
    }
}

impl Drop for Ncm {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the one that waits for connections.
        let _ = TcpStream::connect(self.address);
        if let Some(device) = self.device.take() {
            let _ = device.join();
        }
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    // The interfaces need a moment until they carry something.
    Ok(wait_for("the device's end of the network", || TcpStream::connect(address).ok())?)
}

fn send(mut stream: TcpStream) {
    let block = vec![0x5a; BLOCK_BYTES];
    while stream.write_all(&block).is_ok() {}
}

/// Listens at the device's end, inside its network.
fn listen(device: &str) -> io::Result<TcpListener> {
    ip(&["addr", "add", &format!("{DEVICE_ADDRESS}/24"), "dev", device])?;
    ip(&["link", "set", device, "up"])?;
    TcpListener::bind((DEVICE_ADDRESS, 0))
}

fn serve(listener: &TcpListener, stopped: &AtomicBool, received: &AtomicU64) {
    let mut buffer = vec![0; BLOCK_BYTES];
    while let Ok((mut stream, _)) = listener.accept()
        && !stopped.load(Ordering::Relaxed)
    {
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// The network interface with this address.
fn interface(mac: &str) -> Option<String> {
    let has_it =
        |path: &Path| fs::read_to_string(path.join("address")).is_ok_and(|address| address.trim() == mac);
    let mut all = fs::read_dir("/sys/class/net").ok()?.flatten();
    let found = all.find(|entry| has_it(&entry.path()))?;
    Some(found.file_name().to_string_lossy().into_owned())
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip {}: {complaint}", arguments.join(" "))))
}
