//! What is installed, and whose text an installed file has.
//!
//! Each file names the version of this set. An installed one ends with a checksum of what stands before, so that the next
//! program knows whether somebody has changed it.

use std::path::{Path, PathBuf};

use crc::{CRC_32_ISCSI, Crc};

use super::serial_numbers::{self, SerialNumbers};

/// Version of the set: rises whenever one of its files changes.
pub(crate) const VERSION: u32 = 4;

const VERSION_PREFIX: &str = "# bondwire-files-version: ";
const CHECKSUM_PREFIX: &str = "# bondwire-files-checksum: ";
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// Checksums of the files of version 1, which did not say it.
const OF_VERSION_1: [u32; 1] = [0x1f89_9d31];
/// The program in the units.
pub(crate) const PROGRAM: &str = "/usr/bin/bondwire";

/// The files, below `/etc`.
const FILES: [(&str, &str); 6] = [
    ("udev/rules.d/70-bondwire.rules", include_str!("../../../udev/70-bondwire.rules")),
    ("systemd/system/bondwire.service", include_str!("../../../udev/bondwire.service")),
    ("systemd/system/bondwire-attach@.service", include_str!("../../../udev/bondwire-attach@.service")),
    ("systemd/system/bondwire-gadget.service", include_str!("../../../udev/bondwire-gadget.service")),
    ("sysusers.d/bondwire.conf", include_str!("../../../udev/sysusers.conf")),
    ("tmpfiles.d/bondwire.conf", include_str!("../../../udev/tmpfiles.conf")),
];
/// The serial ports that were opted in. The rules look at what it sets, so it comes before them.
const SERIAL_RULES: &str = "udev/rules.d/69-bondwire-serial.rules";

/// Where a package of a distribution has its units. Those in `/etc` go before them, and would hide what a newer package brings.
const PACKAGED_UNITS: [&str; 2] =
    ["usr/lib/systemd/system/bondwire.service", "lib/systemd/system/bondwire.service"];

/// A file of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Below `/etc`.
    pub(crate) path: &'static str,
    pub(crate) text: String,
}

/// Whose text a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// That of this version, unchanged.
    Version(u32),
    /// Somebody has changed it, or written it.
    Changed,
}

/// The set, with `program` in the units.
pub(crate) fn all(program: &Path, serial_numbers: &SerialNumbers) -> Vec<File> {
    let program = program.to_string_lossy();
    let file =
        |(path, text): &(&'static str, &str)| File { path, text: signed(&text.replace(PROGRAM, &program)) };
    FILES.iter().map(file).chain(beside_package(serial_numbers)).collect()
}

/// What a package does not have: it knows no serial numbers.
pub(crate) fn beside_package(serial_numbers: &SerialNumbers) -> Option<File> {
    let head = serial_numbers::HEAD;
    let text = || format!("{head}{VERSION_PREFIX}{VERSION}\n{}", serial_numbers::rules(serial_numbers));
    (!serial_numbers.is_empty()).then(|| File { path: SERIAL_RULES, text: signed(&text()) })
}

/// Whether a package has brought the rules and units below `root`.
pub(crate) fn is_packaged(root: &Path) -> bool {
    PACKAGED_UNITS.iter().any(|unit| root.join(unit).is_file())
}

/// Where files of the set may lie below `root`.
pub(crate) fn paths(root: &Path) -> impl Iterator<Item = PathBuf> {
    let etc = root.join("etc");
    FILES.iter().map(|(path, _)| *path).chain([SERIAL_RULES]).map(move |path| etc.join(path))
}

/// Where the serial ports stand that were opted in.
pub(crate) fn serial_rules(root: &Path) -> PathBuf {
    root.join("etc").join(SERIAL_RULES)
}

fn signed(text: &str) -> String {
    format!("{text}{CHECKSUM_PREFIX}{:08x}\n", CHECKSUM.checksum(text.as_bytes()))
}

/// Whose text this is.
pub(crate) fn origin(text: &str) -> Origin {
    if OF_VERSION_1.contains(&CHECKSUM.checksum(text.as_bytes())) {
        return Origin::Version(1);
    }
    let Some((signed, checksum)) = text.rsplit_once(CHECKSUM_PREFIX) else { return Origin::Changed };
    let is_right = u32::from_str_radix(checksum.trim_end(), 16) == Ok(CHECKSUM.checksum(signed.as_bytes()));
    let version = signed.lines().find_map(|line| line.strip_prefix(VERSION_PREFIX)?.trim().parse().ok());
    match version {
        Some(version) if is_right => Origin::Version(version),
        _ => Origin::Changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_knows_its_version_and_whether_it_was_changed() {
        let files = all(Path::new("/opt/bin/bondwire"), &["A1".parse().unwrap()].into());
        assert_eq!(files.len(), 7);
        for File { path, text } in &files {
            assert_eq!(origin(text), Origin::Version(VERSION), "{path}");
            assert_eq!(origin(&text.replacen("# ", "#  ", 1)), Origin::Changed, "{path}");
            assert_eq!(origin(&format!("{text}x")), Origin::Changed, "{path}");
            assert!(!text.contains(PROGRAM), "{path}");
        }
        let older = signed(&format!("{VERSION_PREFIX}1\nACTION==\"remove\"\n"));
        assert_eq!(origin(&older), Origin::Version(1));
        assert_eq!(origin(""), Origin::Changed);
        assert_eq!(origin(&format!("{CHECKSUM_PREFIX}zz\n")), Origin::Changed);
    }
}
