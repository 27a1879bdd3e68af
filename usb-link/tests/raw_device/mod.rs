//! A device that does what it should not: descriptors of any kind and raw bytes, through FunctionFS. So the host's side meets it as
//! it meets real ones, through the kernel.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bondwire_frame::crc::Crc32c;
use bondwire_frame::hello::Hello;
use bondwire_frame::{Config, Instant, Role, Session, transfer};
use bondwire_usb::INTERFACE_CLASS;
use bondwire_usb::device::{Gadget, GadgetConfig};

/// An endpoint's address, where 0x80 is the direction to the host, and its transfer type.
pub(crate) type Endpoint = (u8, u8);
pub(crate) const BULK: u8 = 2;
pub(crate) const INTERRUPT: u8 = 3;
/// What Bondwire's function has.
pub(crate) const GOOD: &[Endpoint] = &[(0x81, BULK), (0x02, BULK)];

/// Types of frames (PROTOCOL.md, 12.1).
pub(crate) const HELLO: u8 = 1;
pub(crate) const DATA: u8 = 2;

/// `linux/usb/functionfs.h`.
const DESCRIPTORS_MAGIC_V2: u32 = 3;
const STRINGS_MAGIC: u32 = 2;
const FULL_AND_HIGH_SPEED: u32 = 1 | 2;
/// Longest transfer of the host.
const READ_BYTES: usize = 16 << 10;
/// Wait before an endpoint is tried again that no host has configured.
const RETRY: Duration = Duration::from_millis(5);

/// A device with an interface of our class, plugged in until it is dropped.
pub(crate) struct RawDevice {
    gadget: Option<Gadget>,
    _ep0: File,
    stopped: Arc<AtomicBool>,
    program: Option<JoinHandle<()>>,
}

/// The endpoints, as the program of a device has them. Everything fails when the device goes.
pub(crate) struct Endpoints {
    to_host: File,
    from_host: File,
    stopped: Arc<AtomicBool>,
}

impl RawDevice {
    /// With no program behind its endpoints.
    pub(crate) fn plug_in(controller: &str, serial: &str, endpoints: &[Endpoint]) -> Self {
        let config = GadgetConfig {
            controller: controller.to_owned(),
            with: Vec::new(),
            serial: Some(serial.to_owned()),
            max_speed: None,
            owner: None,
        };
        let gadget = Gadget::create(&config).unwrap();
        let mut ep0 =
            OpenOptions::new().read(true).write(true).open(gadget.mount_point().join("ep0")).unwrap();
        ep0.write_all(&descriptors(endpoints)).unwrap();
        ep0.write_all(&strings()).unwrap();
        gadget.bind().unwrap();
        Self { gadget: Some(gadget), _ep0: ep0, stopped: Arc::default(), program: None }
    }

    /// With a program, which runs until an endpoint fails.
    pub(crate) fn with_program(
        controller: &str,
        serial: &str,
        program: impl FnOnce(&Endpoints) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let mut device = Self::plug_in(controller, serial, GOOD);
        let folder = device.gadget.as_ref().unwrap().mount_point().to_owned();
        let endpoints = Endpoints::open(&folder, device.stopped.clone());
        let name = serial.to_owned();
        device.program = Some(thread::spawn(move || {
            let end = program(&endpoints);
            println!("the program of {name} has ended: {end:?}");
        }));
        device
    }
}

impl Drop for RawDevice {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // What waits on the endpoints ends as the gadget leaves its controller.
        drop(self.gadget.take());
        if let Some(program) = self.program.take() {
            program.join().unwrap();
        }
    }
}

impl Endpoints {
    fn open(folder: &Path, stopped: Arc<AtomicBool>) -> Self {
        // Without a host, requests fail and do not wait.
        let open = |name: &str| {
            let path: PathBuf = folder.join(name);
            let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).unwrap()
        };
        Self { to_host: open("ep1"), from_host: open("ep2"), stopped }
    }

    fn again<T>(&self, mut request: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match request() {
                _ if self.stopped.load(Ordering::Relaxed) => return Err(ErrorKind::BrokenPipe.into()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                // The host went for a moment, or gave the transfer up.
                Err(e) if is_hosts_doing(&e) => thread::sleep(RETRY),
                result => return result,
            }
        }
    }

    /// Refuses what a host sends to our own gadget on this controller.
    pub(crate) fn stall_ours(controller: &str) -> io::Result<()> {
        let folder = format!("/run/bondwire/gadget.{controller}.ffs");
        let endpoints = Self::open(Path::new(&folder), Arc::default());
        is_stalled(endpoints.again(|| (&endpoints.from_host).write(&[0])))
    }

    /// Sends one transfer.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.again(|| (&self.to_host).write(bytes)).map(drop)
    }

    /// Receives one transfer.
    pub(crate) fn receive(&self) -> io::Result<Vec<u8>> {
        let mut transfer = vec![0; READ_BYTES];
        let len = self.again(|| (&self.from_host).read(&mut transfer))?;
        transfer.truncate(len);
        Ok(transfer)
    }

    /// Receives transfers until one holds a HELLO, and answers that.
    pub(crate) fn hello(&self) -> io::Result<Hello> {
        loop {
            let transfer = self.receive()?;
            let frames = transfer::frames(&transfer).flatten();
            let payloads = frames.filter(|frame| frame.first() == Some(&HELLO) && frame.len() > 9);
            if let Some(hello) =
                payloads.filter_map(|frame| Hello::read(&frame[5..frame.len() - 4]).ok()).last()
            {
                return Ok(hello);
            }
        }
    }

    /// Refuses what the host reads, for as long as it does not say otherwise: a step in the wrong direction stalls an endpoint.
    pub(crate) fn stall(&self) -> io::Result<()> {
        is_stalled(self.again(|| (&self.to_host).read(&mut [0])))
    }

    /// Opens a session as a good device does. Answers the host's HELLO, and what the checksums of frames begin with.
    pub(crate) fn establish(&self) -> io::Result<(Hello, Crc32c)> {
        let nonce = 0x0123_4567_89ab_cdef;
        let config = Config {
            read_bytes: READ_BYTES as u32,
            keep_alive: bondwire_frame::Duration::from_millis(200),
            ..Config::serial(Role::Acceptor)
        };
        let mut session = Session::new(Instant::ZERO, config, nonce);
        loop {
            let heard = self.receive()?;
            let mut peer = None;
            for frame in transfer::frames(&heard).flatten() {
                peer = Hello::read(&frame[5..frame.len() - 4]).ok().or(peer);
                session.handle_frame(Instant::ZERO, frame).map_err(io::Error::other)?;
            }
            let mut answer = [0; 512];
            let mut writer = transfer::Writer::new(&mut answer, READ_BYTES, 512);
            let is_something = session.poll_control(Instant::ZERO, &mut writer).unwrap();
            let len = writer.finish();
            if is_something {
                self.send(&answer[..len])?;
            }
            if let (true, Some(peer)) = (session.is_established(), peer) {
                let epoch = Crc32c::new().with(&peer.nonce.to_be_bytes()).with(&nonce.to_be_bytes());
                return Ok((peer, epoch));
            }
        }
    }
}

/// Whether a step in the wrong direction did what it should.
fn is_stalled(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::BADMSG.raw_os_error()) => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::other("the kernel took a step in the wrong direction")),
    }
}

fn is_hosts_doing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errors = [Errno::SHUTDOWN, Errno::NODEV, Errno::CONNRESET, Errno::INTR];
    errors.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A frame in a transfer of its own, with a checksum that begins with `seed`.
pub(crate) fn frame(seed: Crc32c, kind: u8, count: u32, payload: &[u8]) -> Vec<u8> {
    let body = [&[kind][..], &count.to_be_bytes(), payload].concat();
    let crc = seed.with(&body).value().to_le_bytes();
    let len = (body.len() + crc.len()) as u16;
    [&len.to_be_bytes()[..], &body, &crc].concat()
}

/// One interface with these endpoints, at full and at high speed.
fn descriptors(endpoints: &[Endpoint]) -> Vec<u8> {
    let [class, subclass, protocol] = INTERFACE_CLASS;
    let speed = |packet_bytes: u16| {
        let [low, high] = packet_bytes.to_le_bytes();
        let mut all = vec![9, 4, 0, 0, endpoints.len() as u8, class, subclass, protocol, 1];
        for (address, kind) in endpoints {
            all.extend([7, 5, *address, *kind, low, high, u8::from(*kind == INTERRUPT)]);
        }
        all
    };
    let counts = [1 + endpoints.len() as u32; 2].map(u32::to_le_bytes).concat();
    let body = [counts, speed(64), speed(512)].concat();
    let head = [DESCRIPTORS_MAGIC_V2, 12 + body.len() as u32, FULL_AND_HIGH_SPEED];
    [head.map(u32::to_le_bytes).concat(), body].concat()
}

fn strings() -> Vec<u8> {
    let body = [&0x409_u16.to_le_bytes()[..], b"Bondwire\0"].concat();
    let head = [STRINGS_MAGIC, 16 + body.len() as u32, 1, 1];
    [head.map(u32::to_le_bytes).concat(), body].concat()
}
