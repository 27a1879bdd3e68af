//! TOML files that people write for this program: read unless others could have written them, with the place of every
//! error.

mod error;
mod values;

pub(crate) use error::TextError;
pub(crate) use values::{Key, PerPath, Text, some_texts, texts};

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use crate::failure::Failure;

/// Largest file in bytes: thousands of peers.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What a file is, for messages.
pub(crate) struct Kind {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What others could do who can write it.
    pub(crate) danger: &'static str,
    /// Whether it must belong to root or to whoever runs the program, as ssh asks of its configuration.
    pub(crate) owner_matters: bool,
}

/// The text of the file at `path`, unless others could have written it. `None` if there is no file.
pub(crate) fn read(path: &Path, kind: &Kind) -> Result<Option<String>, Failure> {
    let (shown, name) = (path.display(), kind.name);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::configuration(format!("cannot open the {name} {shown}: {error}")));
        }
    };
    let unreadable = |error| Failure::configuration(format!("cannot read the {name} {shown}: {error}"));
    let metadata = file.metadata().map_err(unreadable)?;
    check_permissions(path, &metadata, kind)?;
    if metadata.len() > FILE_MAX_BYTES {
        return Err(Failure::configuration(format!(
            "the {name} {shown} has {} bytes, more than {FILE_MAX_BYTES}; remove entries from it",
            metadata.len()
        )));
    }
    let mut text = String::new();
    file.take(FILE_MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    Ok(Some(text))
}

/// Whoever can write the file decides what this program does.
#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &Metadata, kind: &Kind) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let (shown, Kind { name, danger, .. }) = (path.display(), kind);
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    if mode & 0o022 != 0 {
        return Err(Failure::configuration(format!(
            "the {name} {shown} has mode {mode:04o}, so {danger}; run: chmod 600 {shown}"
        )));
    }
    let own = rustix::process::geteuid();
    if kind.owner_matters && owner != 0 && owner != own.as_raw() {
        return Err(Failure::configuration(format!(
            "the {name} {shown} belongs to user {owner}, so {danger}; run: chown {} {shown}",
            own.as_raw()
        )));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_permissions(_path: &Path, _metadata: &Metadata, _kind: &Kind) -> Result<(), Failure> {
    Ok(())
}
