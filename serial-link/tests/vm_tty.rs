//! Bonds over the kernel's own serial ports of USB cables (CDC ACM): `cargo xtask vm`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]
// What this test prints is shown when it fails, and tells how far it came.
#![allow(clippy::print_stdout)]

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bondwire_serial::SerialAddress;
use bondwire_vm::{Gadget, Speed};
use common::{PATIENCE, bonded, transfer};
use tokio::time::{sleep, timeout};

/// The gadget has one serial port: `ttyACM…` at the host's end of its cable, `ttyGS0` at its own.
const SERIAL_NUMBER: &str = "BWTTY0001";
const CONTROLLER: &str = "dummy_udc.0";
/// Bytes of one transfer.
const BYTES: usize = 300_000;

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

#[test]
fn a_cable_is_pulled_and_comes_back_under_another_name() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(1, Speed::High).unwrap();
    let gadget = Gadget::new(&guest, "tty", SERIAL_NUMBER, &["acm.0"]).unwrap();
    gadget.bind(CONTROLLER).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let first = host_end().await;
        // Who still holds a port that is gone keeps its name from being given again.
        let mut held = vec![File::open(&first).unwrap()];
        let (near, far, _listener) =
            bonded(SerialAddress::new(SERIAL_NUMBER), &SerialAddress::new("/dev/ttyGS0")).await;
        println!("bonded over {}", first.display());
        let mut names = vec![first];
        for _ in 0..3 {
            transfer(&near, &far, BYTES, async || {
                gadget.unbind().unwrap();
                let last = names.last().unwrap();
                while last.exists() {
                    sleep(Duration::from_millis(10)).await;
                }
                gadget.bind(CONTROLLER).unwrap();
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
