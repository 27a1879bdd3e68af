//! USB links over the kernel's own host and device stacks: `cargo xtask vm`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]
// What these tests print is shown when one fails, and tells how far it came.
#![allow(clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bondwire::conformance;
use bondwire::link::{Acceptor as _, Dialer as _, PacketLink as _};
use bondwire_usb::device::{GadgetAcceptor, GadgetAddress};
use bondwire_usb::host::{Cable, CableWatch, UsbDialer, cables};
use bondwire_usb::{Hint, INTERFACE_CLASS, Speed, UsbLink};
use bondwire_vm::wait_for;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Serves every controller of this machine.
fn serve(address: &str) -> GadgetAcceptor {
    GadgetAcceptor::start(&address.parse::<GadgetAddress>().unwrap(), Hint::NONE).unwrap()
}

/// Both ends of a link over the first cable.
async fn pair(dialer: &mut UsbDialer, acceptor: &mut GadgetAcceptor) -> (UsbLink, UsbLink) {
    let dial = async {
        loop {
            match dialer.dial().await {
                Ok(link) => return link,
                Err(e) => {
                    println!("dial: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    let accept = async {
        loop {
            match acceptor.accept().await {
                Ok(link) => return link,
                Err(e) => println!("accept: {e}"),
            }
        }
    };
    tokio::join!(dial, accept)
}

/// Names in configfs that are not there without a gadget.
fn gadgets() -> Vec<String> {
    let entries = fs::read_dir("/sys/kernel/config/usb_gadget").unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The contract of a link, over a real cable in software.
fn conforms(speed: bondwire_vm::Speed) {
    let Some(guest) = bondwire_vm::guest() else { return };
    let cables = guest.cables(1, speed).unwrap();
    runtime().block_on(async {
        let acceptor = tokio::sync::Mutex::new(serve(""));
        let dialer = tokio::sync::Mutex::new(UsbDialer::any_of("".parse().unwrap()));
        let link = async || pair(&mut *dialer.lock().await, &mut *acceptor.lock().await).await;
        let (host, device) = link().await;
        println!("{:?} {:?}", host.describe(), device.describe());
        let expected = match speed {
            bondwire_vm::Speed::Full => Speed::Full,
            bondwire_vm::Speed::High => Speed::High,
            bondwire_vm::Speed::Super => Speed::Super,
        };
        assert_eq!((host.speed(), device.speed()), (expected, expected));
        drop((host, device));
        conformance::check_within(Duration::from_secs(60), link).await.unwrap();
    });
    assert_eq!(gadgets(), [] as [&str; 0], "the gadget goes with its acceptor");
    assert!(fs::read_to_string("/proc/mounts").unwrap().lines().all(|mount| !mount.contains("functionfs")));
    drop(cables);
}

#[test]
fn a_link_at_full_speed_conforms() {
    conforms(bondwire_vm::Speed::Full);
}

#[test]
fn a_link_at_high_speed_conforms() {
    conforms(bondwire_vm::Speed::High);
}

#[test]
fn a_link_at_super_speed_conforms() {
    conforms(bondwire_vm::Speed::Super);
}

/// Those that speak this protocol: the guest has other devices, too.
fn ours(mut cables: Vec<Cable>) -> Vec<Cable> {
    cables.retain(|cable| cable.has_our_class);
    cables
}

/// Waits for such. Others may be found meanwhile: those of the guest itself, soon after it has started.
async fn ours_plugged_in(watch: &mut CableWatch) -> Vec<Cable> {
    loop {
        let found = ours(watch.plugged_in().await);
        if !found.is_empty() {
            return found;
        }
    }
}

#[test]
fn a_cable_says_whose_peer_is_there_before_it_is_claimed() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(1, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let mut watch = CableWatch::new();
        assert!(ours(watch.list().await.unwrap()).is_empty());
        let keys = [(); 2].map(|()| bondwire::Identity::generate().unwrap().public_key());
        let _acceptor =
            GadgetAcceptor::start(&",serial=board-7".parse().unwrap(), Hint::of_key(&keys[0])).unwrap();
        let found = ours_plugged_in(&mut watch).await;
        let [cable] = &found[..] else { panic!("{found:?}") };
        assert!(
            cable.has_our_class && cable.hint.may_be(&keys[0]) && !cable.hint.may_be(&keys[1]),
            "{cable:?}"
        );
        assert_eq!(cable.serial.as_deref(), Some("board-7"));
        assert_eq!((cable.vendor_id, cable.product_id, cable.speed), (0x1d6b, 0x0104, Some(Speed::High)));
        assert_eq!((cable.fault().await, cable.driver()), (None, None));
        // udev rules match what the kernel says, so it must say it so.
        let class = INTERFACE_CLASS.map(|byte| format!("{byte:02x}")).concat();
        guest.settle().unwrap();
        let device = format!("/sys/bus/usb/devices/{}", cable.port);
        let udev = std::process::Command::new("udevadm").args(["info", &device]).output().unwrap();
        let udev = String::from_utf8_lossy(&udev.stdout).into_owned();
        assert!(udev.contains(&format!("ID_USB_INTERFACES=:{class}:")), "{udev}");
    });
}

/// Pulls the first cable, or plugs it in. (`soft_connect` does not do: after it dummy_hcd of Linux 6.1 answers no request.)
fn plug(is_in: bool) {
    let controller = "/sys/kernel/config/usb_gadget/bondwire.dummy_udc.0/UDC";
    fs::write(controller, if is_in { "dummy_udc.0" } else { "\n" }).unwrap();
}

#[test]
fn a_link_ends_when_the_cable_is_pulled_and_comes_back_without_a_restart() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(1, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let (mut acceptor, mut dialer) = (serve(""), UsbDialer::any_of("".parse().unwrap()));
        for round in 0..5 {
            let (host, device) = pair(&mut dialer, &mut acceptor).await;
            let (mut halves, mut far) = (host.split(), device.split());
            plug(false);
            let pulled = Instant::now();
            let error =
                bondwire::link::PacketReader::receive(&mut halves.0, &mut Vec::new()).await.unwrap_err();
            println!("{round}: host: {error} after {:?}", pulled.elapsed());
            let error = bondwire::link::PacketReader::receive(&mut far.0, &mut Vec::new()).await.unwrap_err();
            println!("{round}: device: {error} after {:?}", pulled.elapsed());
            assert_eq!(dialer.dial().await.unwrap_err().to_string(), "not plugged in");
            plug(true);
            tokio::time::timeout(Duration::from_secs(20), dialer.worth_dialling()).await.unwrap();
        }
    });
}

#[test]
fn controllers_are_served_as_they_come_and_go() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let cables = guest.cables(3, bondwire_vm::Speed::High).unwrap();
    let runtime = runtime();
    let _in = runtime.enter();
    let are = |expected: &[&str]| {
        let waited = wait_for("gadgets", || (gadgets() == expected).then_some(()));
        assert!(waited.is_ok(), "{expected:?}: {:?}", gadgets());
    };
    // Somebody else's, which is left alone also when it is free.
    let other = bondwire_vm::Gadget::new(&guest, "other", "XY9", &["acm.0"]).unwrap();
    other.bind("dummy_udc.2").unwrap();
    cables.role(0, false).unwrap();
    let acceptor = serve("");
    assert_eq!(acceptor.served(), ["dummy_udc.1"]);
    other.unbind().unwrap();
    drop(other);
    cables.role(0, true).unwrap();
    are(&["bondwire.dummy_udc.0", "bondwire.dummy_udc.1"]);
    cables.role(1, false).unwrap();
    are(&["bondwire.dummy_udc.0"]);
    cables.role(1, true).unwrap();
    are(&["bondwire.dummy_udc.0", "bondwire.dummy_udc.1"]);
    let found = || runtime.block_on(cables_of_ours());
    wait_for("both devices", || (found() == 2).then_some(())).unwrap();
    drop(acceptor);
    are(&[]);

    // One that is named need not be there at the start.
    let address = "dummy_udc.1".parse().unwrap();
    cables.role(1, false).unwrap();
    let fault = GadgetAcceptor::start(&address, Hint::NONE).unwrap_err();
    assert!(fault.to_string().contains("no USB device controller `dummy_udc.1`"), "{fault}");
    let acceptor = GadgetAcceptor::start_when_there(&address, Hint::NONE).unwrap();
    assert_eq!(acceptor.served(), [] as [&str; 0]);
    cables.role(1, true).unwrap();
    are(&["bondwire.dummy_udc.1"]);
    drop((acceptor, cables));
}

/// How many devices of ours are plugged in.
async fn cables_of_ours() -> usize {
    ours(cables().await.unwrap()).len()
}

#[test]
fn what_a_crash_leaves_goes_at_the_next_start() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(2, bondwire_vm::Speed::High).unwrap();
    let runtime = runtime();
    let _in = runtime.enter();
    let acceptor = serve("");
    assert_eq!(acceptor.served(), ["dummy_udc.0", "dummy_udc.1"]);
    assert_eq!(gadgets().len(), 2);
    let message = GadgetAcceptor::start(&"dummy_udc.1".parse().unwrap(), Hint::NONE).unwrap_err().to_string();
    assert!(message.contains("another bondwire serves controller dummy_udc.1"), "{message}");
    // As a kill leaves it: nothing is cleaned up, but the kernel closes the files.
    drop(acceptor);
    for controller in ["dummy_udc.0", "dummy_udc.1"] {
        fs::create_dir(format!("/sys/kernel/config/usb_gadget/bondwire.{controller}")).unwrap();
        fs::create_dir(format!("/sys/kernel/config/usb_gadget/bondwire.{controller}/functions/acm.x"))
            .unwrap();
    }
    let acceptor = serve("dummy_udc.1,with=acm+ncm");
    assert_eq!(gadgets(), ["bondwire.dummy_udc.1"]);
    wait_for("the serial port beside the link", || Path::new("/dev/ttyACM0").exists().then_some(())).unwrap();
    let found = runtime.block_on(async {
        let mut watch = CableWatch::new();
        let listed = ours(watch.list().await.unwrap());
        if listed.is_empty() { ours_plugged_in(&mut watch).await } else { listed }
    });
    assert_eq!(found.len(), 1, "{found:?}");
    drop(acceptor);
    assert_eq!(gadgets(), [] as [&str; 0]);
    assert!(ours(runtime.block_on(cables()).unwrap()).is_empty());
}
