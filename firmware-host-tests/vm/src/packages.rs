//! Debian's packages, fetched and unpacked without being installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{During, SetUpError, read};

/// Names Debian's kernel of the day.
const KERNEL: &str = "linux-image-amd64";
/// What else the guest is made of: the shell, the module tools, udev and systemd, and what installs packages; with their
/// libraries.
const BASE: [&str; 8] =
    ["busybox-static", "kmod", "udev", "systemd", "dpkg", "tar", "init-system-helpers", "perl-base"];
/// A library whose package is not called so.
const LIBRARY: &str = "zlib1g";
/// Libraries that belong to the host's loader, and must be of one version with it.
const OF_THE_HOST: [&str; 2] = ["libc6", "libgcc-s1"];

/// A package's state in dpkg's records.
const INSTALLED: &str = "install ok installed";

/// The unpacked packages, by name.
#[derive(Debug)]
pub struct Packages {
    folders: BTreeMap<String, PathBuf>,
}

impl Packages {
    /// Takes them from `cache`, a folder that may be removed at any time, and fetches what is missing there.
    ///
    /// # Errors
    ///
    /// apt is not there, finds no such package, or fetched a broken one.
    pub fn fetch(cache: &Path) -> Result<Self, SetUpError> {
        let folder = cache.join("packages");
        fs::create_dir_all(&folder).during(format_args!("create {}", folder.display()))?;
        let list = folder.join("complete");
        if let Some(complete) = Self::complete(&folder, &list) {
            return Ok(complete);
        }
        if find_program("apt-get").is_none() {
            return Err(SetUpError::NotDebian("apt-get"));
        }
        let names = needed().or_else(|_| update().and_then(|()| needed()))?;
        let files =
            download(&folder, &names).or_else(|_| update().and_then(|()| download(&folder, &names)))?;
        let mut folders = BTreeMap::new();
        for (name, file) in files {
            folders.insert(name, unpack(&file)?);
        }
        let names: Vec<_> =
            folders.iter().map(|(name, path)| format!("{name} {}\n", file_name(path))).collect();
        fs::write(&list, names.concat()).during("write the list of packages")?;
        Ok(Self { folders })
    }

    /// What an earlier run fetched, if all of it is still there.
    fn complete(folder: &Path, list: &Path) -> Option<Self> {
        let text = fs::read_to_string(list).ok()?;
        let entries = text.lines().map(|line| {
            let (name, unpacked) = line.split_once(' ')?;
            let unpacked = folder.join(unpacked);
            unpacked.is_dir().then(|| (name.to_owned(), unpacked))
        });
        let folders: BTreeMap<_, _> = entries.collect::<Option<_>>()?;
        // An earlier version of this program may have needed less.
        BASE.iter().all(|name| folders.contains_key(*name)).then_some(Self { folders })
    }

    /// The folder of one package.
    ///
    /// # Errors
    ///
    /// It is not among them.
    pub fn folder(&self, name: &str) -> Result<&Path, SetUpError> {
        let missing = || SetUpError::Download { packages: name.to_owned(), detail: "not fetched".to_owned() };
        self.folders.get(name).map(PathBuf::as_path).ok_or_else(missing)
    }

    /// The folder of the kernel.
    ///
    /// # Errors
    ///
    /// It is not among them.
    pub fn kernel(&self) -> Result<&Path, SetUpError> {
        let name = self.folders.keys().find(|name| name.starts_with("linux-image-"));
        self.folder(name.map_or(KERNEL, String::as_str))
    }

    /// What dpkg would record of them, had it installed them, and of the host's packages whose files are in every guest: the name
    /// that its files have, and the paragraph in `status`.
    ///
    /// # Errors
    ///
    /// A package cannot be read; this is no Debian.
    pub fn records(&self) -> Result<Vec<(String, String)>, SetUpError> {
        let mut records = Vec::new();
        for folder in self.folders() {
            let control = read(Command::new("dpkg-deb").arg("--field").arg(folder.with_extension("deb")))?;
            records.push(record(&format!("{}\nStatus: {INSTALLED}\n", control.trim_end())));
        }
        for package in OF_THE_HOST {
            records.push(record(&read(Command::new("dpkg-query").args(["--status", package]))?));
        }
        Ok(records)
    }

    /// The folders of all packages.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.values().map(PathBuf::as_path)
    }
}

/// The file of `program`, from PATH and the folders of the system.
#[must_use]
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Sees that `program` is there; root installs its package.
///
/// # Errors
///
/// It is not, and cannot be installed.
pub fn install(program: &'static str, package: &'static str) -> Result<(), SetUpError> {
    install_as(rustix::process::geteuid().is_root(), program, package)
}

fn install_as(root: bool, program: &'static str, package: &'static str) -> Result<(), SetUpError> {
    if find_program(program).is_some() {
        return Ok(());
    }
    let missing = SetUpError::ProgramMissing { program, package };
    if !root || find_program("apt-get").is_none() {
        return Err(missing);
    }
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["install", "-qq", "-y", "--no-install-recommends", package]);
    read(&mut command).or_else(|_| update().and_then(|()| read(&mut command)))?;
    if find_program(program).is_some() { Ok(()) } else { Err(missing) }
}

/// Brings apt's index up to date.
fn update() -> Result<(), SetUpError> {
    read(Command::new("apt-get").args(["update", "-qq"])).map(drop)
}

/// The names of all packages needed: the kernel's real one, the base, and the libraries of the base.
fn needed() -> Result<Vec<String>, SetUpError> {
    let kernels = dependencies(&[KERNEL])?;
    let kernel = kernels.into_iter().find(|name| name.starts_with("linux-image-"));
    let nothing =
        || SetUpError::Download { packages: KERNEL.to_owned(), detail: "names no kernel".to_owned() };
    let mut names = vec![kernel.ok_or_else(nothing)?];
    names.extend(BASE.map(str::to_owned));
    let mut new: Vec<_> = BASE.map(str::to_owned).into();
    let mut libraries = BTreeSet::new();
    while !new.is_empty() {
        let found = dependencies(&new)?;
        new = found.into_iter().filter(|name| is_library(name) && libraries.insert(name.clone())).collect();
    }
    names.extend(libraries);
    Ok(names)
}

fn is_library(package: &str) -> bool {
    (package.starts_with("lib") || package == LIBRARY) && !OF_THE_HOST.contains(&package)
}

/// What the packages depend on, by name.
fn dependencies(packages: &[impl AsRef<std::ffi::OsStr>]) -> Result<Vec<String>, SetUpError> {
    let text = read(Command::new("apt-cache").arg("depends").args(packages))?;
    Ok(dependencies_in(&text))
}

/// The names after `Depends:` and `PreDepends:`; those in angle brackets are of no real package.
fn dependencies_in(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches('|'));
    let names = lines.filter_map(|line| line.strip_prefix("Depends: ").or(line.strip_prefix("PreDepends: ")));
    names.filter(|name| !name.starts_with('<')).map(|name| name.trim().to_owned()).collect()
}

/// Downloads those packages that are not in `folder`; the file of each.
fn download(folder: &Path, names: &[String]) -> Result<Vec<(String, PathBuf)>, SetUpError> {
    let missing: Vec<_> = names.iter().filter(|name| downloaded(folder, name).is_none()).collect();
    let failed = |detail: String| {
        let names: Vec<_> = missing.iter().map(|name| name.as_str()).collect();
        SetUpError::Download { packages: names.join(" "), detail }
    };
    if !missing.is_empty() {
        // As root apt would go over to a user who may not write here.
        let mut command = Command::new("apt-get");
        command.args(["-o", "APT::Sandbox::User=root", "download", "-qq"]).args(&missing);
        read(command.current_dir(folder)).map_err(|error| failed(error.to_string()))?;
    }
    let file = |name: &String| downloaded(folder, name).map(|file| (name.clone(), file));
    let files: Option<Vec<_>> = names.iter().map(file).collect();
    files.ok_or_else(|| failed("apt-get left no file".to_owned()))
}

/// The file of a package, if it is in `folder`.
fn downloaded(folder: &Path, name: &str) -> Option<PathBuf> {
    let start = format!("{name}_");
    let entries = fs::read_dir(folder).ok()?.flatten();
    let is_it = |path: &PathBuf| {
        let name = file_name(path);
        name.starts_with(&start) && name.ends_with(".deb")
    };
    entries.map(|entry| entry.path()).find(is_it)
}

/// The name of a package's files in dpkg's records, and its paragraph there.
fn record(control: &str) -> (String, String) {
    let field = |name: &str| {
        let value = control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_default()
    };
    let (package, architecture) = (field("Package"), field("Architecture"));
    // Several architectures may have it at the same time.
    let name = match field("Multi-Arch") {
        "same" => format!("{package}:{architecture}"),
        _ => package.to_owned(),
    };
    (name, format!("{}\n\n", control.trim_end()))
}

/// Unpacks a package beside its file, all or nothing. A broken file is removed.
fn unpack(file: &Path) -> Result<PathBuf, SetUpError> {
    let (unpacked, partial) = (file.with_extension("unpacked"), file.with_extension("partial"));
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    if partial.exists() {
        fs::remove_dir_all(&partial).during(format_args!("remove {}", partial.display()))?;
    }
    if let Err(error) = read(Command::new("dpkg-deb").arg("--extract").args([file, &partial])) {
        fs::remove_file(file).during(format_args!("remove {}", file.display()))?;
        return Err(SetUpError::BrokenPackage { file: file.to_owned(), detail: error.to_string() });
    }
    fs::rename(&partial, &unpacked).during(format_args!("rename {}", partial.display()))?;
    Ok(unpacked)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_real_packages() {
        let text = "udev\n  PreDepends: libone1\n  Depends: libtwo2\n |Depends: libthree3\n  Depends: <virtual>\n  Breaks: four\n";
        assert_eq!(dependencies_in(text), ["libone1", "libtwo2", "libthree3"]);
        assert!(
            is_library("libudev1") && is_library("zlib1g") && !is_library("adduser") && !is_library("libc6")
        );
    }

    #[test]
    fn records_are_named_as_dpkg_names_them() {
        let control = "Package: libone1\nArchitecture: amd64\nMulti-Arch: same\n";
        assert_eq!(record(control), ("libone1:amd64".to_owned(), format!("{control}\n")));
        assert_eq!(record("Package: udev\nMulti-Arch: foreign\nDescription: it\n is\n").0, "udev");
    }

    #[test]
    fn who_may_not_install_is_told_what_to_install() {
        let error = install_as(false, "qemu-system-none", "qemu-none").unwrap_err();
        let words = "qemu-system-none is not installed; install it with: apt-get install qemu-none";
        assert_eq!(error.to_string(), words);
    }

    #[test]
    fn a_broken_package_is_named_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("udev_1_amd64.deb");
        fs::write(&file, "no archive").unwrap();
        let error = unpack(&file).unwrap_err();
        assert!(matches!(error, SetUpError::BrokenPackage { .. }), "{error}");
        assert!(error.to_string().contains("udev_1_amd64.deb is broken"), "{error}");
        assert!(!file.exists() && !folder.path().join("udev_1_amd64.unpacked").exists());
    }

    #[test]
    fn an_incomplete_cache_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("complete");
        assert!(Packages::complete(folder.path(), &list).is_none());
        let entry = |name: &str| format!("{name} {name}_1.unpacked\n");
        fs::write(&list, BASE.map(entry).concat()).unwrap();
        for name in BASE {
            assert!(Packages::complete(folder.path(), &list).is_none());
            fs::create_dir(folder.path().join(format!("{name}_1.unpacked"))).unwrap();
        }
        fs::write(&list, entry("udev")).unwrap();
        assert!(Packages::complete(folder.path(), &list).is_none(), "of a version that needed less");
        fs::write(&list, BASE.map(entry).concat()).unwrap();
        assert!(Packages::complete(folder.path(), &list).unwrap().folder("udev").is_ok());
    }
}
