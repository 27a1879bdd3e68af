//! Bonds over the kernel's own serial ports of USB cables (CDC ACM): `cargo xtask vm`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]
// What this test prints is shown when it fails, and tells how far it came.
#![allow(clippy::print_stdout)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener};
use bondwire_serial::{SerialAcceptor, SerialAddress, SerialDialer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// Longest wait for anything: emulation on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);
const SERIAL_NUMBER: &str = "BWTTY0001";
const CONTROLLER: &str = "dummy_udc.0";

/// A gadget with one serial port: `ttyACM…` at the host end of its cable, `ttyGS0` at its own.
struct SerialGadget(PathBuf);

impl SerialGadget {
    fn set_up() -> Self {
        assert!(Command::new("modprobe").arg("libcomposite").status().unwrap().success());
        let gadget = Self(PathBuf::from("/sys/kernel/config/usb_gadget/tty"));
        for folder in ["", "strings/0x409", "functions/acm.x", "configs/c.1"] {
            fs::create_dir(gadget.0.join(folder)).unwrap();
        }
        let attributes =
            [("idVendor", "0x1d6b"), ("idProduct", "0x0104"), ("strings/0x409/serialnumber", SERIAL_NUMBER)];
        for (attribute, value) in attributes {
            fs::write(gadget.0.join(attribute), value).unwrap();
        }
        symlink(gadget.0.join("functions/acm.x"), gadget.0.join("configs/c.1/acm.x")).unwrap();
        gadget.plug_in();
        gadget
    }

    fn plug_in(&self) {
        fs::write(self.0.join("UDC"), CONTROLLER).unwrap();
    }

    fn pull(&self) {
        fs::write(self.0.join("UDC"), "\n").unwrap();
    }
}

impl Drop for SerialGadget {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("UDC"), "\n");
        let _ = fs::remove_file(self.0.join("configs/c.1/acm.x"));
        for folder in ["configs/c.1", "functions/acm.x", "strings/0x409", ""] {
            let _ = fs::remove_dir(self.0.join(folder));
        }
    }
}

async fn bonded() -> (Bond, Bond, Listener) {
    let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let listener = Listener::new(&there, ListenConfig::allow([here.public_key()])).unwrap();
    listener.add_acceptor(SerialAcceptor::bind(&SerialAddress::new("/dev/ttyGS0")).await.unwrap());
    let near = Bond::connect(&here, there.public_key(), BondConfig::default()).unwrap();
    near.add_dialer(SerialDialer::new(SerialAddress::new(SERIAL_NUMBER)));
    let far = timeout(PATIENCE, listener.accept()).await.unwrap();
    (near, far, listener)
}

/// Waits for the host's end of the cable.
async fn host_end() -> PathBuf {
    let address = SerialAddress::new(SERIAL_NUMBER);
    let there = async {
        loop {
            match address.path() {
                Ok(path) if path.exists() => break path,
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, there).await.unwrap()
}

fn byte_at(position: usize) -> u8 {
    ((position as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Moves 300 kB and checks them; calls `disturb` when a third of it has come.
async fn transfer(near: &Bond, far: &Bond, disturb: impl AsyncFnOnce()) {
    let data: Vec<u8> = (0..300_000).map(byte_at).collect();
    let mut sender = near.open_stream(Class::Bulk).await.unwrap();
    let sending = async {
        sender.write_all(&data).await.unwrap();
        sender.shutdown().await.unwrap();
    };
    let receiving = async {
        let mut receiver = far.accept_stream().await.unwrap();
        let mut received = vec![0; 100_000];
        receiver.read_exact(&mut received).await.unwrap();
        disturb().await;
        receiver.read_to_end(&mut received).await.unwrap();
        received
    };
    let ((), received) = timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.unwrap();
    assert!(received == data, "wrong data");
}

#[test]
fn a_cable_is_pulled_and_comes_back_under_another_name() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(1, bondwire_vm::Speed::High).unwrap();
    let gadget = SerialGadget::set_up();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let first = host_end().await;
        // Who still holds a port that is gone keeps its name from being given again.
        let mut held = vec![File::open(&first).unwrap()];
        let (near, far, _listener) = bonded().await;
        println!("bonded over {}", first.display());
        let mut names = vec![first];
        for _ in 0..3 {
            transfer(&near, &far, async || {
                gadget.pull();
                let last = names.last().unwrap();
                while last.exists() {
                    sleep(Duration::from_millis(10)).await;
                }
                gadget.plug_in();
                let since = Instant::now();
                let name = host_end().await;
                println!("{} after {:?}", name.display(), since.elapsed());
                held.push(File::open(&name).unwrap());
                names.push(name);
            })
            .await;
            println!("went on");
        }
        let expected: Vec<_> =
            (0..names.len()).map(|n| Path::new("/dev").join(format!("ttyACM{n}"))).collect();
        assert_eq!(names, expected);
    });
}
