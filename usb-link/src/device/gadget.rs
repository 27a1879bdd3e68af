//! A USB gadget in configfs: set-up, removal, and what a crash left behind.
//!
//! The kernel wants it in this order (Documentation/usb/gadget_configfs.rst): gadget, strings, functions, configuration, links of
//! functions into it, FunctionFS mounted and described by a program, and only then the controller.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ring::digest::{SHA256, digest};
use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::address::Companion;
use super::{GadgetError, MaxSpeed};

/// Where the system has configfs if it is mounted at all.
const CONFIGFS: &str = "/sys/kernel/config";
/// Locks, mount points and marks, gone after a boot like the gadgets themselves.
const RUN_FOLDER: &str = "/run/bondwire";
/// In front of the controller's name, for our gadgets.
const PREFIX: &str = "bondwire.";
/// "Linux Foundation, Multifunction Composite Gadget". Hosts know the interface by its class, not by this.
const VENDOR: &str = "0x1d6b";
const PRODUCT: &str = "0x0104";
/// The languages' folder for US English.
const LANGUAGE: &str = "strings/0x409";
/// The one configuration.
const CONFIGURATION: &str = "configs/c.1";

/// What a gadget is to be.
#[derive(Clone, Debug)]
pub struct GadgetConfig {
    /// The controller's name.
    pub controller: String,
    /// What it has beside the link.
    pub with: Vec<Companion>,
    /// Serial number that hosts see; a number made from the machine's own unless given.
    pub serial: Option<String>,
    /// Highest speed that it offers.
    pub max_speed: Option<MaxSpeed>,
    /// User and group who may serve the link without further rights.
    pub owner: Option<(u32, u32)>,
}

/// A gadget that is set up, with its controller's lock.
#[derive(Debug)]
pub struct Gadget {
    controller: String,
    folder: PathBuf,
    mount_point: PathBuf,
    /// Stays when the program ends.
    keep: bool,
    _lock: File,
}

/// Whether a gadget of this name is one of ours.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Where configfs has its gadgets.
pub(super) fn gadgets_folder() -> Result<PathBuf, GadgetError> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let configfs = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, folder, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "configfs").then(|| PathBuf::from(folder))
    });
    let gadgets = configfs.ok_or(GadgetError::NoConfigfs)?.join("usb_gadget");
    if gadgets.is_dir() { Ok(gadgets) } else { Err(GadgetError::NoGadgets) }
}

/// The same, after an attempt to have it: the module is loaded and configfs mounted, as far as this process may.
fn ready_gadgets_folder() -> Result<PathBuf, GadgetError> {
    gadgets_folder().or_else(|_| {
        // Whatever goes wrong here shows in what is missing afterwards.
        let _ = Command::new("modprobe").arg("libcomposite").output();
        if gadgets_folder().is_err() && Path::new(CONFIGFS).is_dir() {
            let _ = mount(c"none", CONFIGFS, c"configfs", MountFlags::empty(), None);
        }
        gadgets_folder()
    })
}

fn run_path(controller: &str, what: &str) -> PathBuf {
    Path::new(RUN_FOLDER).join(format!("gadget.{controller}.{what}"))
}

/// Takes the lock of a controller, which no two programs have.
fn lock(controller: &str) -> Result<File, GadgetError> {
    let path = run_path(controller, "lock");
    let opened = DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(RUN_FOLDER)
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    let file = opened.map_err(|e| GadgetError::io(format!("open {}", path.display()), e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(GadgetError::Served(controller.to_owned())),
        Err(e) => Err(GadgetError::io(format!("lock {}", path.display()), e.into())),
    }
}

impl Gadget {
    /// Sets a gadget up, or takes the one that was [kept](Self::keep) for this controller. What a crash left of others is
    /// removed first. The controller is not bound before [`bind`](Self::bind).
    pub fn create(config: &GadgetConfig) -> Result<Self, GadgetError> {
        let gadgets = ready_gadgets_folder()?;
        let folder = gadgets.join(format!("{PREFIX}{}", config.controller));
        let keep = run_path(&config.controller, "kept").exists();
        if !keep {
            // Before the lock: whoever may set it up must not find that taken.
            access(&gadgets, Access::WRITE_OK)
                .map_err(|e| GadgetError::io(format!("create {}", folder.display()), e.into()))?;
        }
        remove_leftovers(&gadgets);
        let lock = lock(&config.controller)?;
        let mut gadget = Self {
            folder,
            mount_point: run_path(&config.controller, "ffs"),
            keep,
            controller: config.controller.clone(),
            _lock: lock,
        };
        if gadget.folder.is_dir() && gadget.keep {
            return Ok(gadget);
        }
        gadget.remove();
        // From here on a failure takes back what was done, as the gadget is dropped.
        gadget.keep = false;
        gadget.set_up(config)?;
        Ok(gadget)
    }

    fn set_up(&self, config: &GadgetConfig) -> Result<(), GadgetError> {
        self.make_folder("")?;
        self.write("idVendor", VENDOR)?;
        self.write("idProduct", PRODUCT)?;
        if !config.with.is_empty() {
            // "Interface association": hosts group the interfaces of one function by it.
            for (attribute, value) in
                [("bDeviceClass", "0xef"), ("bDeviceSubClass", "2"), ("bDeviceProtocol", "1")]
            {
                self.write(attribute, value)?;
            }
        }
        if let Some(speed) = config.max_speed {
            self.write("max_speed", speed.kernel_name())?;
        }
        self.make_folder(LANGUAGE)?;
        self.write(&format!("{LANGUAGE}/manufacturer"), "Bondwire")?;
        self.write(&format!("{LANGUAGE}/product"), "Bondwire link")?;
        let serial = config.serial.clone().unwrap_or_else(|| machine_serial(&config.controller));
        self.write(&format!("{LANGUAGE}/serialnumber"), &serial)?;

        self.make_folder(CONFIGURATION)?;
        self.make_folder(&format!("{CONFIGURATION}/{LANGUAGE}"))?;
        self.write(&format!("{CONFIGURATION}/{LANGUAGE}/configuration"), "Bondwire")?;
        self.add_function(&self.functionfs_name(), "usb_f_fs")?;
        for companion in &config.with {
            self.add_function(&format!("{companion}.{}", self.controller), companion.module())?;
        }
        self.write("os_desc/use", "1")?;
        self.write("os_desc/b_vendor_code", "0xbd")?;
        self.write("os_desc/qw_sign", "MSFT100")?;
        self.link(CONFIGURATION, "os_desc/c.1")?;
        self.mount(config.owner)
    }

    fn functionfs_name(&self) -> String {
        format!("ffs.{}", self.instance())
    }

    /// Name of the FunctionFS instance, which the whole system shares.
    fn instance(&self) -> String {
        format!("{PREFIX}{}", self.controller)
    }

    fn add_function(&self, name: &str, module: &'static str) -> Result<(), GadgetError> {
        let path = self.folder.join("functions").join(name);
        fs::create_dir(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => GadgetError::NoFunction { function: name.to_owned(), module, source },
            _ => GadgetError::io(format!("create {}", path.display()), source),
        })?;
        self.link(&format!("functions/{name}"), &format!("{CONFIGURATION}/{name}"))
    }

    fn mount(&self, owner: Option<(u32, u32)>) -> Result<(), GadgetError> {
        let what = || format!("mount FunctionFS on {}", self.mount_point.display());
        let (uid, gid) = owner.unwrap_or((0, 0));
        let options = std::ffi::CString::new(format!("uid={uid},gid={gid},rmode=0550,fmode=0660"))
            .map_err(|e| GadgetError::io(what(), e.into()))?;
        let mounted =
            DirBuilder::new().recursive(true).mode(0o755).create(&self.mount_point).and_then(|()| {
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                Ok(mount(self.instance(), &self.mount_point, c"functionfs", flags, Some(options.as_c_str()))?)
            });
        mounted.map_err(|e| GadgetError::io(what(), e))?;
        if let Some((uid, gid)) = owner {
            let attribute = self.folder.join("UDC");
            chown(&attribute, Some(uid), Some(gid))
                .map_err(|e| GadgetError::io(format!("give {} away", attribute.display()), e))?;
            let lock = run_path(&self.controller, "lock");
            chown(&lock, Some(uid), Some(gid))
                .map_err(|e| GadgetError::io(format!("give {} away", lock.display()), e))?;
        }
        Ok(())
    }

    /// The folder where FunctionFS is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Gives the gadget to the controller: hosts see it from now on. Its function must have been described before.
    pub fn bind(&self) -> Result<(), GadgetError> {
        match self.write("UDC", &self.controller) {
            Err(GadgetError::Io { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {
                let busy =
                    super::controllers().into_iter().find(|controller| controller.name == self.controller);
                Err(busy.and_then(|controller| controller.obstacle()).unwrap_or(GadgetError::Io {
                    what: format!("bind controller {}", self.controller),
                    source,
                }))
            }
            result => result,
        }
    }

    /// Leaves the gadget in place when this value is dropped, for a program with fewer rights to serve it.
    pub fn keep(mut self) -> Result<(), GadgetError> {
        let mark = run_path(&self.controller, "kept");
        File::create(&mark).map_err(|e| GadgetError::io(format!("create {}", mark.display()), e))?;
        self.keep = true;
        Ok(())
    }

    fn make_folder(&self, path: &str) -> Result<(), GadgetError> {
        let path = self.folder.join(path);
        match fs::create_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(GadgetError::io(format!("create {}", path.display()), e))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, path: &str, value: &str) -> Result<(), GadgetError> {
        let path = self.folder.join(path);
        fs::write(&path, value)
            .map_err(|e| GadgetError::io(format!("write {value} to {}", path.display()), e))
    }

    fn link(&self, from: &str, to: &str) -> Result<(), GadgetError> {
        let to = self.folder.join(to);
        symlink(self.folder.join(from), &to)
            .map_err(|e| GadgetError::io(format!("create {}", to.display()), e))
    }

    /// Takes everything away, in the reverse order. What is not there is no failure.
    fn remove(&self) {
        remove_gadget(&self.folder);
        // After the program's files are closed; else the kernel does it when they are.
        let _ = unmount(&self.mount_point, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.mount_point);
    }
}

impl Drop for Gadget {
    fn drop(&mut self) {
        if self.keep {
            // Another program may serve it; hosts see nothing meanwhile.
            let _ = fs::write(self.folder.join("UDC"), "\n");
        } else {
            self.remove();
        }
    }
}

/// Removes a gadget that was [kept](Gadget::keep), or left by a crash. Answers whether there was one.
pub fn remove(controller: &str) -> Result<bool, GadgetError> {
    let Ok(gadgets) = gadgets_folder() else { return Ok(false) };
    let lock = lock(controller)?;
    let folder = gadgets.join(format!("{PREFIX}{controller}"));
    let was_there = folder.is_dir();
    let _ = fs::remove_file(run_path(controller, "kept"));
    drop(Gadget {
        controller: controller.to_owned(),
        mount_point: run_path(controller, "ffs"),
        keep: false,
        _lock: lock,
        folder: folder.clone(),
    });
    if folder.is_dir() {
        return Err(GadgetError::Permission(format!("cannot remove {}", folder.display())));
    }
    Ok(was_there)
}

/// Controllers for which a gadget was [kept](Gadget::keep).
pub fn kept() -> Vec<String> {
    ours().into_iter().filter(|controller| run_path(controller, "kept").exists()).collect()
}

/// Controllers for which there is a gadget of Bondwire, served or not.
pub fn ours() -> Vec<String> {
    let gadgets = gadgets_folder().and_then(|folder| {
        fs::read_dir(&folder).map_err(|e| GadgetError::io(format!("list {}", folder.display()), e))
    });
    let names = gadgets.into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut ours: Vec<String> =
        names.filter_map(|name| Some(name.to_str()?.strip_prefix(PREFIX)?.to_owned())).collect();
    ours.sort();
    ours
}

/// Removes gadgets of programs that ended without doing so. Nobody has their lock.
fn remove_leftovers(gadgets: &Path) {
    for controller in ours() {
        let kept = run_path(&controller, "kept").exists();
        if let (false, Ok(lock)) = (kept, lock(&controller)) {
            tracing::info!(target: "bondwire", "gadget {controller}: removed what an earlier run left behind");
            drop(Gadget {
                folder: gadgets.join(format!("{PREFIX}{controller}")),
                mount_point: run_path(&controller, "ffs"),
                controller,
                keep: false,
                _lock: lock,
            });
        }
    }
}

fn remove_gadget(folder: &Path) {
    let entries = |path: &str| fs::read_dir(folder.join(path)).into_iter().flatten().flatten();
    // It may be bound or not.
    let _ = fs::write(folder.join("UDC"), "\n");
    let _ = fs::remove_file(folder.join("os_desc/c.1"));
    for entry in entries(CONFIGURATION).filter(|entry| entry.path().is_symlink()) {
        let _ = fs::remove_file(entry.path());
    }
    for path in [&format!("{CONFIGURATION}/{LANGUAGE}"), CONFIGURATION] {
        let _ = fs::remove_dir(folder.join(path));
    }
    for function in entries("functions") {
        let _ = fs::remove_dir(function.path());
    }
    let _ = fs::remove_dir(folder.join(LANGUAGE));
    let _ = fs::remove_dir(folder);
}

/// The same number at each boot, which does not tell the machine's own.
fn machine_serial(controller: &str) -> String {
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let hash = digest(&SHA256, format!("bondwire gadget {} {controller}", machine.trim()).as_bytes());
    hash.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
