//! The guest's file system: an initramfs, written in the kernel's cpio format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{During, SetUpError};
use crate::kernel_modules::KernelModules;
use crate::libraries;
use crate::packages::{Packages, find_program};

const FOLDER_MODE: u32 = 0o040_755;
const LINK_MODE: u32 = 0o120_777;
const DEVICE_MODE: u32 = 0o020_600;
const FILE_MODE: u32 = 0o100_000;

/// Folders that the guest mounts something on, or writes in.
const FOLDERS: [&str; 9] = ["dev", "proc", "sys", "run", "tmp", "root", "var", "mnt", "etc/udev/rules.d"];
/// Groups that udev's rules name; without them it complains about each.
const GROUPS: [&str; 17] = [
    "adm", "audio", "bondwire", "cdrom", "dialout", "disk", "floppy", "input", "kmem", "kvm", "lp",
    "plugdev", "render", "sgx", "tape", "tty", "video",
];
/// `root`, and somebody who may do nothing.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n\
                     nobody:x:65534:65534:nobody:/tmp:/bin/false\n";

/// What of systemd is there.
const SYSTEMD: [&str; 9] = [
    "lib/systemd/systemd",
    "lib/systemd/systemd-journald",
    "lib/systemd/systemd-modules-load",
    "lib/systemd/systemd-shutdown",
    "lib/systemd/systemd-sysctl",
    "bin/journalctl",
    "bin/systemctl",
    "bin/systemd-sysusers",
    "bin/systemd-tmpfiles",
];
/// What installs Debian's packages: who brings each program, and where it lies.
const DPKG: [(&str, &str); 8] = [
    ("dpkg", "usr/bin/dpkg"),
    ("dpkg", "usr/bin/dpkg-deb"),
    ("dpkg", "usr/bin/dpkg-query"),
    ("dpkg", "usr/bin/dpkg-split"),
    ("dpkg", "sbin/start-stop-daemon"),
    ("tar", "bin/tar"),
    ("init-system-helpers", "usr/bin/deb-systemd-helper"),
    ("init-system-helpers", "usr/bin/deb-systemd-invoke"),
];
/// dpkg asks for it, and it is the host's like the libraries that it would look for.
const LDCONFIG: (&str, &str) = ("ldconfig", "libc-bin");
/// The folders of Perl's own modules begin so.
const PERL: &str = "usr/lib/x86_64-linux-gnu/perl-base";
/// What starts at boot, by who wants it.
const WANTED: [(&str, &str); 10] = [
    ("sockets.target", "systemd-journald.socket"),
    ("sockets.target", "systemd-journald-dev-log.socket"),
    ("sysinit.target", "systemd-journald.service"),
    ("sysinit.target", "systemd-modules-load.service"),
    ("sockets.target", "systemd-udevd-control.socket"),
    ("sockets.target", "systemd-udevd-kernel.socket"),
    ("sysinit.target", "systemd-udevd.service"),
    ("sysinit.target", "systemd-udev-trigger.service"),
    ("sysinit.target", "sys-kernel-config.mount"),
    ("multi-user.target", "bondwire-vm.service"),
];
/// Runs the jobs.
const JOBS_UNIT: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/init jobs\n";
/// Emulation is slow.
const SYSTEMD_SETTINGS: &str = "[Manager]\nDefaultTimeoutStartSec=120s\n";
/// What units say goes to the console, too.
const JOURNAL_SETTINGS: &str = "[Journal]\nStorage=volatile\nForwardToConsole=yes\nTTYPath=/dev/console\n";
/// Any number will do. An empty one would mean a first boot, with units for that.
const MACHINE_ID: &str = "b0d00000000000000000000000000001\n";

/// One entry of the file system.
#[derive(Debug)]
enum Entry {
    Folder,
    Link(String),
    Text(Vec<u8>, u32),
    File(PathBuf, u32),
    /// The console, which must be there before `/dev` is mounted.
    Device(u32, u32),
}

/// A file system under construction.
#[derive(Debug)]
pub struct Image {
    entries: BTreeMap<String, Entry>,
    search_path: std::ffi::OsString,
}

impl Image {
    /// The base: busybox, udev, the tools for modules, and the modules of the kernel.
    ///
    /// # Errors
    ///
    /// Something of it is not in the packages.
    pub fn new(packages: &Packages, modules: &KernelModules) -> Result<Self, SetUpError> {
        let mut image = Self { entries: BTreeMap::new(), search_path: libraries::search_path(packages) };
        for folder in ["bin", "sbin", "lib", "lib64"] {
            image.entries.insert(format!("usr/{folder}"), Entry::Folder);
            image.entries.insert(folder.to_owned(), Entry::Link(format!("usr/{folder}")));
        }
        for folder in FOLDERS {
            image.insert(folder, Entry::Folder);
        }
        image.insert("dev/console", Entry::Device(5, 1));
        image.text("etc/passwd", USERS);
        image.text("etc/group", &groups());
        image.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
        image.text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        image.text("etc/os-release", "ID=debian\nNAME=\"Bondwire's test guest\"\n");
        image.program("bin/busybox", &packages.folder("busybox-static")?.join("bin/busybox"))?;
        image.insert("bin/sh", Entry::Link("busybox".to_owned()));
        image.program("bin/kmod", &packages.folder("kmod")?.join("bin/kmod"))?;
        for tool in ["depmod", "insmod", "lsmod", "modinfo", "modprobe", "rmmod"] {
            image.insert(&format!("sbin/{tool}"), Entry::Link("../bin/kmod".to_owned()));
        }
        image.udev(packages.folder("udev")?)?;
        image.tree("lib/modules", &modules.folder.join("lib/modules"))?;
        Ok(image)
    }

    /// udev with its rules, but without the database of hardware, which no test needs and which is large.
    fn udev(&mut self, package: &Path) -> Result<(), SetUpError> {
        self.program("bin/udevadm", &package.join("bin/udevadm"))?;
        self.insert("lib/systemd/systemd-udevd", Entry::Link("../../bin/udevadm".to_owned()));
        let (library, rules) = (package.join("lib/udev"), package.join("lib/udev/rules.d"));
        self.tree("lib/udev/rules.d", &rules)?;
        for file in files_in(&library)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.program(&format!("lib/udev/{name}"), &file)?;
        }
        Ok(())
    }

    /// systemd as the first program, with the jobs as its service.
    ///
    /// # Errors
    ///
    /// Something of it is not in the packages.
    pub fn systemd(&mut self, packages: &Packages) -> Result<(), SetUpError> {
        let (package, udev) = (packages.folder("systemd")?, packages.folder("udev")?);
        for program in SYSTEMD {
            self.program(program, &package.join(program))?;
        }
        for file in [package, udev].map(|package| files_in(&package.join("lib/systemd/system"))) {
            for file in file? {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.insert(&format!("lib/systemd/system/{name}"), Entry::File(file, 0o644));
            }
        }
        self.tree("lib/udev/rules.d", &package.join("lib/udev/rules.d"))?;
        for (by, unit) in WANTED {
            self.link(
                &format!("etc/systemd/system/{by}.wants/{unit}"),
                &format!("/usr/lib/systemd/system/{unit}"),
            );
        }
        self.text("lib/systemd/system/bondwire-vm.service", JOBS_UNIT);
        self.link("etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target");
        self.text("etc/systemd/system.conf", SYSTEMD_SETTINGS);
        self.text("etc/systemd/journald.conf", JOURNAL_SETTINGS);
        self.text("etc/machine-id", MACHINE_ID);
        self.link("var/run", "../run");
        // Units and systemd name them by these paths.
        for command in ["kill", "mount", "umount"] {
            self.link(&format!("bin/{command}"), "busybox");
        }
        Ok(())
    }

    /// dpkg, which knows what the guest is made of, and what maintainer scripts call.
    ///
    /// # Errors
    ///
    /// Something of it is not in the packages.
    pub fn dpkg(&mut self, packages: &Packages) -> Result<(), SetUpError> {
        for (package, program) in DPKG {
            self.program(program, &packages.folder(package)?.join(program))?;
        }
        let perl = packages.folder("perl-base")?;
        self.program("bin/perl", &perl.join("usr/bin/perl"))?;
        self.tree(PERL, &perl.join(PERL))?;
        let (program, package) = LDCONFIG;
        let ldconfig = find_program(program).ok_or(SetUpError::ProgramMissing { program, package })?;
        self.program("sbin/ldconfig", &ldconfig)?;
        let records = packages.records()?;
        for (name, _) in &records {
            // Their files stay with the image.
            self.text(&format!("var/lib/dpkg/info/{name}.list"), "");
        }
        self.text("var/lib/dpkg/status", &records.into_iter().map(|(_, record)| record).collect::<String>());
        self.text("var/lib/dpkg/info/format", "1\n");
        for folder in ["updates", "triggers", "parts", "alternatives"] {
            self.insert(&format!("var/lib/dpkg/{folder}"), Entry::Folder);
        }
        Ok(())
    }

    /// A program of the host, with the libraries that it needs.
    ///
    /// # Errors
    ///
    /// One of them is not there.
    pub fn program(&mut self, path: &str, source: &Path) -> Result<(), SetUpError> {
        self.insert(path, Entry::File(source.to_owned(), 0o755));
        for library in libraries::libraries_of(source, &self.search_path)? {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // The loader must be where programs look for it; all others where the loader looks.
            let path = if name.starts_with("ld-") { format!("lib64/{name}") } else { format!("lib/{name}") };
            self.insert(&path, Entry::File(library, 0o755));
        }
        Ok(())
    }

    /// A file of the host.
    pub fn file(&mut self, path: &str, source: &Path) {
        self.insert(path, Entry::File(source.to_owned(), 0o644));
    }

    /// A file with this text.
    pub fn text(&mut self, path: &str, text: &str) {
        self.insert(path, Entry::Text(text.into(), 0o644));
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.insert(path, Entry::Link(target.to_owned()));
    }

    /// All files below a folder of the host.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn tree(&mut self, path: &str, source: &Path) -> Result<(), SetUpError> {
        self.insert(path, Entry::Folder);
        for entry in fs::read_dir(source).during(format_args!("read {}", source.display()))?.flatten() {
            let (from, to) = (entry.path(), format!("{path}/{}", entry.file_name().to_string_lossy()));
            if from.is_dir() {
                self.tree(&to, &from)?;
            } else {
                let mode = entry.metadata().map_or(0o644, |metadata| metadata.permissions().mode() & 0o777);
                self.insert(&to, Entry::File(from, mode));
            }
        }
        Ok(())
    }

    /// Puts an entry in, and the folders above it.
    fn insert(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        let first = path.split('/').next().unwrap_or_default();
        let path = match first {
            "bin" | "sbin" | "lib" | "lib64" => format!("usr/{path}"),
            _ => path.to_owned(),
        };
        let slashes = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
        for folder in slashes.collect::<Vec<_>>() {
            self.entries.entry(folder).or_insert(Entry::Folder);
        }
        self.entries.insert(path, entry);
    }

    /// Writes it as a file that the kernel can unpack.
    ///
    /// # Errors
    ///
    /// A source cannot be read, or the file not be written.
    pub fn write(&self, file: &Path) -> Result<(), SetUpError> {
        let mut out = BufWriter::new(File::create(file).during(format_args!("create {}", file.display()))?);
        // The kernel makes a folder only after the one above it; the order of names sees to that.
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let (mode, data, device) = match entry {
                Entry::Folder => (FOLDER_MODE, Vec::new(), (0, 0)),
                Entry::Link(target) => (LINK_MODE, target.clone().into_bytes(), (0, 0)),
                Entry::Text(text, mode) => (FILE_MODE | mode, text.clone(), (0, 0)),
                Entry::File(source, mode) => {
                    let data = fs::read(source).during(format_args!("read {}", source.display()))?;
                    (FILE_MODE | mode, data, (0, 0))
                }
                Entry::Device(major, minor) => (DEVICE_MODE, Vec::new(), (*major, *minor)),
            };
            write_entry(&mut out, number, path, mode, &data, device)
                .during("write the guest's file system")?;
        }
        let end = write_entry(&mut out, 0, "TRAILER!!!", 0, &[], (0, 0)).and_then(|()| out.flush());
        end.during("write the guest's file system")
    }
}

/// One header, name and content, each padded to a multiple of four bytes.
fn write_entry(
    out: &mut impl Write,
    number: u32,
    path: &str,
    mode: u32,
    data: &[u8],
    (major, minor): (u32, u32),
) -> io::Result<()> {
    let size =
        u32::try_from(data.len()).map_err(|_| io::Error::other(format!("{path}: larger than 4 GiB")))?;
    let name_size = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
    let (user, group, links, time, checksum) = (0, 0, 1, 0, 0);
    let fields = [number, mode, user, group, links, time, size, 0, 0, major, minor, name_size, checksum];
    out.write_all(b"070701")?;
    for field in fields {
        write!(out, "{field:08X}")?;
    }
    out.write_all(path.as_bytes())?;
    // The header has 110 bytes, the name ends with a zero.
    out.write_all(&[0; 4][..1 + padding(110 + path.len() + 1)])?;
    out.write_all(data)?;
    out.write_all(&[0; 4][..padding(data.len())])
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

fn groups() -> String {
    let fixed = "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n".to_owned();
    let rest = (100..).zip(GROUPS).map(|(number, name)| format!("{name}:x:{number}:\n"));
    std::iter::once(fixed).chain(rest).collect()
}

/// The plain files of one folder.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, SetUpError> {
    let entries = fs::read_dir(folder).during(format_args!("read {}", folder.display()))?.flatten();
    Ok(entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_the_kernel_wants_it() {
        let mut out = Vec::new();
        write_entry(&mut out, 1, "etc/hosts", 0o100_644, b"hello", (0, 0)).unwrap();
        let header = "070701000000010000 81A4".replace(' ', "");
        assert!(out.starts_with(header.as_bytes()));
        assert_eq!(out.len(), 120 + 8);
        assert_eq!(&out[110..120], b"etc/hosts\0");
        assert_eq!(&out[120..], b"hello\0\0\0");
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut image = Image { entries: BTreeMap::new(), search_path: Default::default() };
        image.text("/lib/udev/rules.d/1.rules", "");
        let paths: Vec<_> = image.entries.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            ["usr", "usr/lib", "usr/lib/udev", "usr/lib/udev/rules.d", "usr/lib/udev/rules.d/1.rules"]
        );
    }
}
