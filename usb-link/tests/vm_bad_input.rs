//! Devices, programs and kernels that do what they should not: `cargo xtask vm`. Each has one line that says what happened and what
//! to do; nothing hangs, and what works goes on.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]
// What these tests print is shown when one fails, and tells how far it came.
#![allow(clippy::print_stdout)]

mod raw_device;

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bondwire::link::{Acceptor, Dialer as _, LinkDescription, PacketLink, PacketReader};
use bondwire::{Bond, BondConfig, Class, Identity, LinkSnapshot, LinkState, ListenConfig, Listener};
use bondwire_frame::crc::Crc32c;
use bondwire_usb::device::GadgetAcceptor;
use bondwire_usb::host::{Cable, CableLinks, CableWatch, UsbDialer};
use bondwire_usb::{Hint, UsbLink, UsbReader, UsbWriter};
use bondwire_vm::{Guest, wait_for};
use bytes::BytesMut;
use raw_device::{BULK, DATA, Endpoint, Endpoints, HELLO, INTERRUPT, RawDevice, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

/// Longest wait for anything: emulation on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that a good cable moves in each round, there and back.
const ROUND_BYTES: u64 = 500_000;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn serve(address: &str) -> GadgetAcceptor {
    GadgetAcceptor::start(&address.parse().unwrap(), Hint::NONE).unwrap()
}

/// A bond over every cable that is plugged in, and data that goes there and back without end.
struct Working {
    near: Bond,
    listener: Listener,
    links: CableLinks,
    moved: Arc<AtomicU64>,
    _far: tokio::task::JoinSet<()>,
}

impl Working {
    /// Over the first cable, and whatever looks like one.
    async fn start(acceptor: impl Acceptor) -> Self {
        let (here, there) = [(); 2].map(|()| Identity::generate().unwrap()).into();
        let listener = Listener::new(&there, ListenConfig::allow([here.public_key()])).unwrap();
        listener.add_acceptor(acceptor);
        let near = Bond::connect(&here, there.public_key(), BondConfig::default()).unwrap();
        let links = CableLinks::start(&near, "".parse().unwrap());
        let far = timeout(PATIENCE, listener.accept()).await.unwrap();
        let moved = Arc::<AtomicU64>::default();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let mut stream = far.accept_stream().await.unwrap();
            let (mut recv, mut send) = tokio::io::split(&mut stream);
            tokio::io::copy(&mut recv, &mut send).await.unwrap();
        });
        tasks.spawn(exchange(near.clone(), moved.clone()));
        let working = Self { near, listener, links, moved, _far: tasks };
        working.goes_on().await;
        working
    }

    /// Waits until the link over the cable with this serial number has failed in these words.
    async fn fault_of(&self, serial: &str, words: &str) -> String {
        let mut last = String::new();
        let wait = async {
            loop {
                let links = self.links.links();
                let link = links.iter().find(|link| link.cable.to_string().contains(serial));
                let fault = link.and_then(|link| link.dialer.state().fault).map(|fault| fault.to_string());
                if let Some(fault) = fault.filter(|fault| *fault != last) {
                    println!("{fault}");
                    // The only program that uses it is this one.
                    assert!(!fault.contains("in use"), "{fault}");
                    last = fault;
                    if last.contains(words) {
                        return;
                    }
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{serial} should have failed with {words:?}, and says: {last}");
        // One line, and it says of which device.
        assert!(last.contains(serial) && !last.contains('\n'), "{last}");
        last
    }

    /// Waits until so many more bytes have come back, each right.
    async fn goes_on(&self) {
        let wanted = self.moved.load(Ordering::Relaxed) + ROUND_BYTES;
        let wait = async {
            while self.moved.load(Ordering::Relaxed) < wanted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("data stands still: {:?}", self.near.links()));
    }

    /// Waits until so many links carry data.
    async fn links_are(&self, count: usize) {
        wait_for_async("the links", || self.active().len() == count).await;
    }

    fn active(&self) -> Vec<LinkSnapshot> {
        self.near.links().into_iter().filter(|link| link.state == LinkState::Active).collect()
    }
}

async fn wait_for_async(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// Sends a pattern and expects it back.
async fn exchange(bond: Bond, moved: Arc<AtomicU64>) {
    let mut stream = bond.open_stream(Class::Bulk).await.unwrap();
    let (mut recv, mut send) = tokio::io::split(&mut stream);
    let pattern: Vec<u8> = (0..=250).cycle().take(251 * 100).collect();
    let sending = async {
        loop {
            send.write_all(&pattern).await.unwrap();
        }
    };
    let receiving = async {
        let mut buffer = vec![0; pattern.len()];
        loop {
            recv.read_exact(&mut buffer).await.unwrap();
            assert!(buffer == pattern, "bytes changed on their way");
            moved.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        }
    };
    tokio::join!(sending, receiving);
}

/// A device that only looks like one of ours: the words with which its link fails, and what it does.
struct Stranger {
    serial: &'static str,
    words: &'static str,
    endpoints: &'static [Endpoint],
    program: fn(&Endpoints) -> io::Result<()>,
}

impl Stranger {
    fn of_shape(serial: &'static str, words: &'static str, endpoints: &'static [Endpoint]) -> Self {
        Self { serial, words, endpoints, program: |_| Ok(()) }
    }

    fn of_program(
        serial: &'static str,
        words: &'static str,
        program: fn(&Endpoints) -> io::Result<()>,
    ) -> Self {
        Self { serial, words, endpoints: raw_device::GOOD, program }
    }

    fn plug_in(&self, controller: &str) -> RawDevice {
        if self.endpoints == raw_device::GOOD {
            RawDevice::with_program(controller, self.serial, self.program)
        } else {
            RawDevice::plug_in(controller, self.serial, self.endpoints)
        }
    }
}

/// Plugs strangers in beside the good cable: each is named, and the good cable works meanwhile and afterwards.
async fn meet(working: &Working, strangers: &[Stranger]) {
    let good = working.active();
    let devices =
        (1..).zip(strangers).map(|(number, stranger)| stranger.plug_in(&format!("dummy_udc.{number}")));
    let devices: Vec<RawDevice> = devices.collect();
    for stranger in strangers {
        working.fault_of(stranger.serial, stranger.words).await;
    }
    working.goes_on().await;
    drop(devices);
    for stranger in strangers {
        working.fault_of(stranger.serial, "not plugged in").await;
    }
    let ids = |links: &[LinkSnapshot]| links.iter().map(|link| link.id).collect::<Vec<_>>();
    assert_eq!(ids(&working.active()), ids(&good), "the good link is another one now");
    assert_eq!(good.len(), 1);
}

#[test]
fn devices_that_only_look_like_ours_are_named_and_the_good_cable_goes_on() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(5, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let working = Working::start(serve("dummy_udc.0")).await;
        let shapes = [
            Stranger::of_shape("only-in", "no bulk endpoint towards the device", &[(0x81, BULK)]),
            Stranger::of_shape("only-out", "no bulk endpoint towards the host", &[(0x01, BULK)]),
            Stranger::of_shape(
                "wrong-way",
                "no bulk endpoint towards the device",
                &[(0x81, BULK), (0x82, BULK)],
            ),
            Stranger::of_shape("no-bulk", "no bulk endpoint", &[(0x81, INTERRUPT), (0x02, INTERRUPT)]),
        ];
        meet(&working, &shapes).await;
        let programs = [
            Stranger::of_program("mute", "the device says nothing: ", |_| Ok(())),
            Stranger::of_program("text", "the device does not speak Bondwire ", |endpoints| {
                loop {
                    endpoints.receive()?;
                    endpoints.send(b"220 ready\r\n")?;
                }
            }),
            Stranger::of_program(
                "later",
                "speaks version 9 of the frame layer, this end version 1: update this end",
                |endpoints| loop {
                    endpoints.hello()?;
                    endpoints.send(&frame(Crc32c::new(), HELLO, 0, &[9; 31]))?;
                },
            ),
            Stranger::of_program("stalls", "refuses transfers (its endpoint is stalled)", |endpoints| {
                loop {
                    endpoints.stall()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }),
        ];
        meet(&working, &programs).await;
    });
}

/// HELLO with one bit wrong, half a frame, lengths that do not add up, nothing at all.
fn corrupt(endpoints: &Endpoints) -> io::Result<()> {
    loop {
        endpoints.hello()?;
        let good = frame(Crc32c::new(), HELLO, 0, &[1; 31]);
        let mut damaged = good.clone();
        damaged[20] ^= 4;
        for transfer in [&damaged[..], &good[..20], &[0xff; 700], &[0, 1, 2], &[]] {
            endpoints.send(transfer)?;
        }
    }
}

/// Sends nonsense as fast as the cable takes it.
fn flood(endpoints: &Endpoints) -> io::Result<()> {
    loop {
        flood_for(endpoints, PATIENCE)?;
    }
}

fn flood_for(endpoints: &Endpoints, time: Duration) -> io::Result<()> {
    let nonsense = [&[0, 9][..], &[0xa5; 9]].concat().repeat(1400);
    let begun = Instant::now();
    while begun.elapsed() < time {
        endpoints.send(&nonsense)?;
    }
    Ok(())
}

#[test]
fn devices_that_break_the_protocol_are_cut_off_and_the_good_cable_goes_on() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(5, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let working = Working::start(serve("dummy_udc.0")).await;
        let openings = [
            Stranger::of_program("corrupt", "the device does not speak Bondwire ", corrupt),
            Stranger::of_program("flood", "the device does not speak Bondwire ", flood),
        ];
        meet(&working, &openings).await;
        // These open a session as they should.
        let sessions = [
            Stranger::of_program("overrun", "it sent more than it had credit for", |endpoints| {
                loop {
                    let (_, epoch) = endpoints.establish()?;
                    endpoints.send(&frame(epoch, DATA, 1 << 20, b"too far"))?;
                }
            }),
            Stranger::of_program("overlong", "a packet longer than the agreed MTU", |endpoints| {
                loop {
                    let (_, epoch) = endpoints.establish()?;
                    endpoints.send(&frame(epoch, DATA, 0, &[7; 2000]))?;
                }
            }),
            Stranger::of_program(
                "silent",
                "silence: the cable is out, or the other end's program died",
                |endpoints| loop {
                    endpoints.establish()?;
                },
            ),
            Stranger::of_program(
                "babble",
                "silence: the cable is out, or the other end's program died",
                |endpoints| loop {
                    endpoints.establish()?;
                    flood_for(endpoints, Duration::from_secs(3))?;
                },
            ),
        ];
        meet(&working, &sessions).await;
    });
}

#[test]
fn what_fails_once_is_used_again_and_the_next_cable_serves_when_one_is_mute() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(2, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        // An endpoint of a good device is stalled, as by an error of its controller.
        let working = Working::start(serve("dummy_udc.0")).await;
        let id = working.active()[0].id;
        tokio::task::spawn_blocking(|| Endpoints::stall_ours("dummy_udc.0")).await.unwrap().unwrap();
        wait_for_async("another link", || working.active().iter().any(|link| link.id != id)).await;
        working.goes_on().await;
    });
    runtime().block_on(async {
        let mute = Stranger::of_program("mute", "", |_| Ok(())).plug_in("dummy_udc.0");
        our_cable().await;
        let mut good = serve("dummy_udc.1,serial=good");
        let mut dialer = UsbDialer::any_of("".parse().unwrap());
        while timeout(PATIENCE, our_cables()).await.unwrap().len() < 2 {}
        // A dial that is given up while the first of them is tried begins with the other one the next time.
        let given_up = timeout(Duration::from_millis(300), dialer.dial()).await;
        println!("{given_up:?}");
        let (dialled, accepted) = tokio::join!(timeout(PATIENCE, dialer.dial()), good.accept());
        assert_eq!(dialled.unwrap().unwrap().describe().name, "usb 1d6b:0104,serial=good");
        drop((accepted, good));
        // With none that works, each is named.
        let error = dialer.dial().await.unwrap_err().to_string();
        assert!(error.starts_with("1d6b:0104,serial=mute: the device says nothing: "), "{error}");
        drop(mute);
    });
}

async fn our_cables() -> Vec<Cable> {
    let listed = bondwire_usb::host::cables().await.unwrap();
    listed.into_iter().filter(|cable| cable.has_our_class).collect()
}

/// The one cable of ours that is plugged in.
async fn our_cable() -> Cable {
    let mut watch = CableWatch::new();
    let mut listed = watch.list().await.unwrap();
    loop {
        listed.retain(|cable| cable.has_our_class);
        if let Some(cable) = listed.pop() {
            return cable;
        }
        listed = timeout(PATIENCE, watch.plugged_in()).await.unwrap();
    }
}

/// What tells this program that it is a child.
const CHILD: &str = "BONDWIRE_TEST_CHILD";

/// Starts this program again as `test`.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").stdin(Stdio::null());
    command
}

/// What `test` prints as a user without rights.
fn told_to_user(test: &str) -> String {
    let output = child(test).uid(1000).gid(1000).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    text
}

/// As a user: dials the cable.
#[test]
fn child_dials() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    runtime().block_on(async {
        let cable = our_cable().await;
        match UsbDialer::new(cable.id()).dial().await {
            Ok(link) => println!("link: {}", link.describe().name),
            Err(e) => println!("{:?}: {e}", e.kind()),
        }
    });
}

/// Claims the cable and keeps it until it is killed.
#[test]
fn child_claims() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    runtime().block_on(async {
        let _link = UsbDialer::new(our_cable().await.id()).dial().await.unwrap();
        println!("claimed");
        std::future::pending::<()>().await;
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that claims the cable, and waits until it has.
fn claimant() -> Killed {
    let mut child = Killed(child("child_claims").stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("claimed")), "it has ended without a link");
    child
}

#[test]
fn who_keeps_a_cable_is_named_and_the_advice_frees_it() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(1, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let mut acceptor = serve("");
        tokio::spawn(async move {
            loop {
                let Ok(link) = acceptor.accept().await else { continue };
                // As long as its host has it.
                let (mut reader, _writer) = link.split();
                while reader.receive(&mut Vec::new()).await.is_ok() {}
            }
        });
        let cable = our_cable().await;
        guest.settle().unwrap();
        no_permission(&cable);
        in_use(&cable).await;
        has_a_driver(&guest, &cable).await;
        assert_eq!(cable.fault().await, None);
    });
}

/// The device file is root's, then a group's, then everybody's.
fn no_permission(cable: &Cable) {
    let (bus, _) = cable.port.split_once('-').unwrap();
    let number = fs::read_to_string(format!("/sys/bus/usb/devices/{}/devnum", cable.port)).unwrap();
    let file = format!("/dev/bus/usb/{:0>3}/{:0>3}", bus, number.trim());
    let allow = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    chown(&file, Some(0), Some(0)).unwrap();
    allow(0o664);
    let told = told_to_user("child_dials");
    let expected = format!(
        "PermissionDenied: no permission to open {file}: install the udev rule with `sudo bondwire udev install`, then plug the cable in again\n"
    );
    assert!(told.contains(&expected), "{told}");
    let groups = fs::read_to_string("/etc/group").unwrap();
    let plugdev = groups.lines().find_map(|line| line.strip_prefix("plugdev:x:")).unwrap();
    chown(&file, None, Some(plugdev.trim_end_matches(':').parse().unwrap())).unwrap();
    allow(0o660);
    let told = told_to_user("child_dials");
    assert!(
        told.contains(
            "again; or join the group that may: sudo usermod -aG plugdev $USER, and log in again\n"
        ),
        "{told}"
    );
    allow(0o666);
    let told = told_to_user("child_dials");
    assert!(told.contains("link: usb 1d6b:0104"), "{told}");
}

async fn in_use(cable: &Cable) {
    let claimant = claimant();
    let fault = cable.fault().await.unwrap().to_string();
    println!("{fault}");
    assert!(fault.starts_with("the interface is in use by vm_bad_input"), "{fault}");
    assert!(fault.ends_with(&format!(" (process {}); end it first", claimant.0.id())), "{fault}");
    // Who may not see other users' programs is told who can.
    let told = told_to_user("child_dials");
    assert!(told.contains("in use by another program (as root `bondwire devices` can see which)"), "{told}");
    drop(claimant);
    assert_eq!(cable.fault().await, None);
}

async fn has_a_driver(guest: &Guest, cable: &Cable) {
    let greedy = guest.greedy_driver("1d6b 0104").unwrap();
    wait_for("the driver", || cable.driver()).unwrap();
    let error = UsbDialer::new(cable.id()).dial().await.unwrap_err().to_string();
    println!("{error}");
    let advice = format!("echo {}:1.0 > /sys/bus/usb/drivers/usbserial_generic/unbind", cable.port);
    let expected = format!(
        "the interface belongs to the kernel driver `usbserial_generic`; free it with `{advice}` as root"
    );
    assert_eq!(error, expected);
    assert!(Command::new("sh").args(["-c", &advice]).status().unwrap().success());
    assert_eq!(cable.fault().await, None);
    drop(greedy);
}

/// Stops reading one link on the device while it is told to, as a program that hangs there would.
struct Stoppable {
    inner: GadgetAcceptor,
    stop: Arc<tokio::sync::watch::Sender<bool>>,
}

struct StoppableLink(UsbLink, tokio::sync::watch::Receiver<bool>);

struct StoppableReader(UsbReader, tokio::sync::watch::Receiver<bool>);

impl Acceptor for Stoppable {
    type Link = StoppableLink;

    fn name(&self) -> String {
        self.inner.name()
    }

    async fn accept(&mut self) -> io::Result<StoppableLink> {
        Ok(StoppableLink(self.inner.accept().await?, self.stop.subscribe()))
    }
}

impl PacketLink for StoppableLink {
    type Reader = StoppableReader;
    type Writer = UsbWriter;

    fn describe(&self) -> LinkDescription {
        self.0.describe()
    }

    fn split(self) -> (StoppableReader, UsbWriter) {
        let (reader, writer) = self.0.split();
        (StoppableReader(reader, self.1), writer)
    }
}

impl PacketReader for StoppableReader {
    async fn receive(&mut self, out: &mut Vec<BytesMut>) -> io::Result<()> {
        self.1.wait_for(|is_stopped| !is_stopped).await.map_err(io::Error::other)?;
        self.0.receive(out).await
    }

    fn authenticated(&mut self) {
        self.0.authenticated();
    }
}

#[test]
fn a_reader_on_the_device_that_stops_leaves_the_other_links_alone() {
    let Some(guest) = bondwire_vm::guest() else { return };
    let _cables = guest.cables(3, bondwire_vm::Speed::High).unwrap();
    runtime().block_on(async {
        let stop = Arc::new(tokio::sync::watch::Sender::new(false));
        let stoppable = Stoppable { inner: serve("dummy_udc.0,serial=stops"), stop: stop.clone() };
        let working = Working::start(stoppable).await;
        let _others =
            [1, 2].map(|number| working.listener.add_acceptor(serve(&format!("dummy_udc.{number}"))));
        working.links_are(3).await;
        stop.send_replace(true);
        // Until then some of it may have been on its way.
        let stops = |link: &LinkSnapshot| link.name.contains("stops");
        wait_for_async("the link to be noticed", || {
            working.near.links().into_iter().find(stops).is_none_or(|link| link.state != LinkState::Active)
        })
        .await;
        let before = working.near.links();
        let moved = working.moved.load(Ordering::Relaxed);
        for _ in 0..4 {
            working.goes_on().await;
        }
        let moved = working.moved.load(Ordering::Relaxed) - moved;
        let after = working.near.links();
        let sent = |links: &[LinkSnapshot], is_stopped: bool| -> u64 {
            links.iter().filter(|link| stops(link) == is_stopped).map(|link| link.stats.sent_data_bytes).sum()
        };
        let (stopped, others) =
            (sent(&after, true) - sent(&before, true), sent(&after, false) - sent(&before, false));
        println!("{moved} bytes came back; the stopped link took {stopped}, the others {others}");
        assert_eq!(stopped, 0);
        for link in after.iter().filter(|link| !stops(link)) {
            let then = before.iter().find(|then| then.id == link.id).unwrap();
            let lost = link.stats.lost_packets - then.stats.lost_packets;
            assert!(
                link.state == LinkState::Active && link.stats.suspects == then.stats.suspects && lost == 0,
                "{link:?}"
            );
            assert!(link.stats.sent_data_bytes > then.stats.sent_data_bytes, "{link:?}");
        }
        stop.send_replace(false);
        working.links_are(3).await;
        working.goes_on().await;
    });
}
