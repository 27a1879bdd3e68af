//! Shared libraries of the programs that go into the guest.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{SetUpError, read};
use crate::packages::Packages;

/// Where libraries lie in a Debian package.
const FOLDERS: [&str; 5] = [
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/systemd",
    "usr/lib",
    "lib",
];

/// `LD_LIBRARY_PATH` for programs of the unpacked packages.
#[must_use]
pub fn search_path(packages: &Packages) -> OsString {
    let folders = packages.folders().flat_map(|folder| FOLDERS.map(|library| folder.join(library)));
    std::env::join_paths(folders.filter(|folder| folder.is_dir())).unwrap_or_default()
}

/// The files of all libraries that `program` loads, its loader among them.
///
/// # Errors
///
/// One is not to be found; ldd cannot read the program.
pub fn libraries_of(program: &Path, search_path: &OsString) -> Result<BTreeSet<PathBuf>, SetUpError> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program).env("LD_LIBRARY_PATH", search_path);
    match read(&mut ldd) {
        Ok(text) => libraries_in(&text)
            .map_err(|library| SetUpError::NoLibrary { program: program.display().to_string(), library }),
        // The way in which ldd says that a program is static.
        Err(SetUpError::Command { detail, .. }) if detail.contains("not a dynamic executable") => {
            Ok(BTreeSet::new())
        }
        Err(error) => Err(error),
    }
}

/// The files in the output of ldd; or the library that it did not find.
fn libraries_in(text: &str) -> Result<BTreeSet<PathBuf>, String> {
    let mut files = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        let (name, file) = line.split_once(" => ").unwrap_or((line, line));
        if file.starts_with("not found") {
            return Err(name.to_owned());
        }
        let file = file.split(" (").next().unwrap_or(file);
        if file.starts_with('/') {
            files.insert(PathBuf::from(file));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_understood() {
        let text = "\tlinux-vdso.so.1 (0x7ffc)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld-linux.so.2 (0x7f)\n";
        let files: Vec<_> = libraries_in(text).unwrap().into_iter().collect();
        assert_eq!(files, [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld-linux.so.2")]);
        assert_eq!(libraries_in("\tstatically linked\n").unwrap(), BTreeSet::new());
        assert_eq!(libraries_in("\tlibudev.so.1 => not found\n").unwrap_err(), "libudev.so.1");
    }
}
