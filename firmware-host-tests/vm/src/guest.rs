//! What a test finds in the guest.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::report::{IN_GUEST, REBOOT_CODE, REBOOTS_FILE};

/// How long [`wait_for`] waits. Long, since emulation is slow; what works takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The guest in which this test runs. Outside of one, says loudly that the test is skipped, and gives `None`.
#[must_use]
pub fn guest() -> Option<Guest> {
    if std::env::var_os(IN_GUEST).is_some() {
        return Some(Guest { _private: () });
    }
    #[allow(clippy::print_stdout, reason = "tests talk to the terminal")]
    {
        println!("SKIPPED: runs in a virtual machine only: cargo xtask vm");
    }
    None
}

/// The guest in which this test runs, as root, alone, with udevd.
#[derive(Debug)]
pub struct Guest {
    _private: (),
}

/// How fast the cables are at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// 12 Mbit/s.
    Full,
    /// 480 Mbit/s.
    High,
    /// 5 Gbit/s.
    Super,
}

impl Speed {
    /// As sysfs has it, in Mbit/s: the attribute `speed` of a device.
    #[must_use]
    pub fn megabits(self) -> &'static str {
        match self {
            Self::Full => "12",
            Self::High => "480",
            Self::Super => "5000",
        }
    }

    fn parameters(self) -> [&'static str; 2] {
        match self {
            Self::Full => ["is_high_speed=0", "is_super_speed=0"],
            Self::High => ["is_high_speed=1", "is_super_speed=0"],
            Self::Super => ["is_high_speed=1", "is_super_speed=1"],
        }
    }
}

impl Guest {
    /// Plugs `count` cables (at most 32), each from a host controller to a gadget controller, both of this guest.
    ///
    /// Cables that an earlier test left are pulled first.
    ///
    /// # Errors
    ///
    /// The module cannot be loaded.
    pub fn cables(&self, count: usize, speed: Speed) -> io::Result<Cables> {
        self.unload("dummy_hcd")?;
        let count_parameter = format!("num={count}");
        let [high, super_] = speed.parameters();
        self.load("dummy_hcd", &[&count_parameter, high, super_])?;
        let cables = Cables { _private: () };
        wait_for("the gadget controllers", || {
            Some(cables.controllers().ok()?.len() == count).filter(|all| *all)
        })?;
        Ok(cables)
    }

    /// Loads a module of the kernel, and all that it needs.
    ///
    /// # Errors
    ///
    /// modprobe's last words.
    pub fn load(&self, module: &str, parameters: &[&str]) -> io::Result<()> {
        run(Command::new("modprobe").arg(module).args(parameters))
    }

    /// Unloads a module; fine if it is not there.
    ///
    /// # Errors
    ///
    /// modprobe's last words; it is in use.
    pub fn unload(&self, module: &str) -> io::Result<()> {
        if !Path::new("/sys/module").join(module.replace('-', "_")).exists() {
            return Ok(());
        }
        run(Command::new("rmmod").arg(module))
    }

    /// Has a driver of serial ports take every device with the numbers `VENDOR PRODUCT`, as somebody may have told it to.
    ///
    /// # Errors
    ///
    /// The module cannot be loaded, or does not know the numbers' form.
    pub fn greedy_driver(&self, numbers: &str) -> io::Result<GreedyDriver> {
        self.load("usbserial", &[])?;
        let driver = GreedyDriver { guest: Self { _private: () } };
        fs::write("/sys/bus/usb-serial/drivers/generic/new_id", numbers)?;
        Ok(driver)
    }

    /// How often this test has rebooted its guest.
    #[must_use]
    pub fn reboots(&self) -> u32 {
        fs::read_to_string(REBOOTS_FILE).ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Shuts the guest down as its owner would, and turns it on again; then the test begins anew. Only files outlast it, and
    /// only in a guest with systemd, which has a disk.
    ///
    /// # Errors
    ///
    /// Nothing can be written on the disk.
    pub fn reboot(&self) -> io::Result<std::convert::Infallible> {
        fs::write(REBOOTS_FILE, (self.reboots() + 1).to_string())?;
        std::process::exit(REBOOT_CODE)
    }

    /// Waits until udevd has dealt with all events so far.
    ///
    /// # Errors
    ///
    /// udevadm's last words.
    pub fn settle(&self) -> io::Result<()> {
        run(Command::new("udevadm").arg("settle"))
    }
}

/// A driver that takes devices which are not meant for it, `usbserial_generic`; gone when this value goes.
#[derive(Debug)]
pub struct GreedyDriver {
    guest: Guest,
}

impl GreedyDriver {
    /// It has no `remove_id`, so it has to be unloaded, and before it the driver of the guest's own adapter, which is built on
    /// it.
    fn forget(&self) -> io::Result<()> {
        self.guest.unload("ftdi_sio")?;
        self.guest.unload("usbserial")?;
        self.guest.load("ftdi_sio", &[])
    }
}

impl Drop for GreedyDriver {
    fn drop(&mut self) {
        // The next tests have devices of the same numbers.
        let forgotten = self.forget();
        assert!(forgotten.is_ok() || thread::panicking(), "{forgotten:?}");
    }
}

/// USB cables; pulled when this value goes.
#[derive(Debug)]
pub struct Cables {
    _private: (),
}

impl Cables {
    /// The names of their gadget controllers, for the attribute `UDC` of a gadget.
    ///
    /// # Errors
    ///
    /// sysfs cannot be read.
    pub fn controllers(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir("/sys/class/udc")?.flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // In the order of their numbers: dummy_udc.10 after dummy_udc.9.
        let mut names: Vec<_> = names.filter(|name| name.starts_with("dummy_udc.")).collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        Ok(names)
    }

    /// Makes a cable's far end a device's port again, or no longer, as the driver of a dual-role port does: the gadget controller
    /// of this number comes or goes.
    ///
    /// # Errors
    ///
    /// It is so already, or the driver refuses.
    pub fn role(&self, cable: usize, is_device: bool) -> io::Result<()> {
        let what = if is_device { "bind" } else { "unbind" };
        fs::write(format!("/sys/bus/platform/drivers/dummy_udc/{what}"), format!("dummy_udc.{cable}"))
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        // Still in use means that a gadget is bound; the next `cables` says so.
        let _ = run(Command::new("rmmod").arg("dummy_hcd"));
    }
}

/// Looks again and again until `look` finds something.
///
/// # Errors
///
/// It found nothing for a minute.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> io::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited in vain for {what}")));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Runs a command to its end; its complaint becomes the error.
fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{}: {complaint}", command.get_program().to_string_lossy())))
}
