//! Writes the set of files below a root, and removes it: all of it or nothing.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::files::{self, File, Origin, VERSION};
use super::serial_numbers::{self, SerialNumbers};

/// Mode of the files: everybody may read what runs here.
const FILE_MODE: u32 = 0o644;
/// Mode of their folders, as far as they are missing.
const FOLDER_MODE: u32 = 0o755;

/// Why nothing was written or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error(
        "{}: changed since it was installed, and left alone; what you want otherwise goes into a drop-in (systemctl edit) or a \
         rules file of your own, and --force gives this one up", listed(.0)
    )]
    Changed(Vec<PathBuf>),
    #[error(
        "{path}: of version {1}, and this program has {VERSION}; use the newer bondwire, or go back with --force",
        path = .0.display()
    )]
    Newer(PathBuf, u32),
    #[error("{path}: {1}{advice}", path = .0.display(), advice = advice(.1))]
    Io(PathBuf, io::Error),
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root, or write elsewhere with --root",
        _ => "",
    }
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Installed(PathBuf),
    /// In place of one of this version; of its own it has another program or other serial numbers.
    Replaced(PathBuf, u32),
    /// In place of one that somebody had changed.
    Overwritten(PathBuf),
    /// It was as it must be.
    Same(PathBuf),
    Removed(PathBuf),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed(path) => write!(f, "installed {}", path.display()),
            Self::Replaced(path, VERSION) => write!(f, "replaced {}", path.display()),
            Self::Replaced(path, version) => {
                write!(f, "replaced {}, which was of version {version}", path.display())
            }
            Self::Overwritten(path) => write!(f, "overwrote {}, which had been changed", path.display()),
            Self::Same(path) => write!(f, "{} is up to date", path.display()),
            Self::Removed(path) => write!(f, "removed {}", path.display()),
        }
    }
}

/// What stands at a path.
enum Present {
    Nothing,
    Text(String, Origin),
    /// A link, as of a unit that is masked.
    Other,
}

fn present(path: &Path) -> Result<Present, InstallError> {
    let at = |error| InstallError::Io(path.to_owned(), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Present::Nothing),
        Err(error) => return Err(at(error)),
        Ok(metadata) if !metadata.is_file() => return Ok(Present::Other),
        Ok(_) => {}
    }
    let text = String::from_utf8_lossy(&fs::read(path).map_err(at)?).into_owned();
    let origin = files::origin(&text);
    Ok(Present::Text(text, origin))
}

/// The serial numbers that are opted in below `root`.
pub(crate) fn serial_numbers(root: &Path) -> Result<SerialNumbers, InstallError> {
    Ok(match present(&files::serial_rules(root))? {
        Present::Text(text, _) => serial_numbers::read(&text),
        _ => SerialNumbers::new(),
    })
}

/// Writes the files below `root`, and removes what is no longer one of them.
pub(crate) fn install(root: &Path, set: &[File], force: bool) -> Result<Vec<Outcome>, InstallError> {
    let (mut outcomes, mut changed) = (Vec::new(), Vec::new());
    let is_packaged = files::is_packaged(root);
    // First all that can be wrong.
    for path in files::paths(root) {
        let wanted = set.iter().find(|file| root.join("etc").join(file.path) == path);
        match (present(&path)?, wanted) {
            (Present::Nothing, Some(file)) => outcomes.push((Outcome::Installed(path), Some(file))),
            (Present::Nothing, None) => {}
            (Present::Text(text, _), Some(file)) if text == file.text => {
                outcomes.push((Outcome::Same(path), None));
            }
            (Present::Text(_, Origin::Version(newer)), _) if newer > VERSION && !force => {
                return Err(InstallError::Newer(path, newer));
            }
            (Present::Text(_, Origin::Version(version)), Some(file)) => {
                outcomes.push((Outcome::Replaced(path, version), Some(file)));
            }
            (Present::Text(_, Origin::Version(_)), None) => outcomes.push((Outcome::Removed(path), None)),
            // Somebody wants it otherwise than the package has it.
            (_, None) if is_packaged => {}
            (_, Some(file)) if force => outcomes.push((Outcome::Overwritten(path), Some(file))),
            (_, None) if force => outcomes.push((Outcome::Removed(path), None)),
            _ => changed.push(path),
        }
    }
    if !changed.is_empty() {
        return Err(InstallError::Changed(changed));
    }
    for (outcome, file) in &outcomes {
        match (outcome, file) {
            (Outcome::Removed(path), _) => remove(path)?,
            (_, Some(file)) => write(&root.join("etc").join(file.path), &file.text)?,
            (_, None) => {}
        }
    }
    Ok(outcomes.into_iter().map(|(outcome, _)| outcome).collect())
}

/// The files of the set that are there below `root`, of whichever version: what [`uninstall`] removes.
pub(crate) fn present_below(root: &Path, force: bool) -> Result<Vec<PathBuf>, InstallError> {
    let (mut ours, mut changed) = (Vec::new(), Vec::new());
    for path in files::paths(root) {
        match present(&path)? {
            Present::Nothing => {}
            Present::Text(_, Origin::Version(_)) => ours.push(path),
            _ if files::is_packaged(root) => {}
            _ if force => ours.push(path),
            _ => changed.push(path),
        }
    }
    if changed.is_empty() { Ok(ours) } else { Err(InstallError::Changed(changed)) }
}

/// Removes these files.
pub(crate) fn uninstall(files: Vec<PathBuf>) -> Result<Vec<Outcome>, InstallError> {
    files.into_iter().map(|path| remove(&path).map(|()| Outcome::Removed(path))).collect()
}

fn remove(path: &Path) -> Result<(), InstallError> {
    fs::remove_file(path).map_err(|error| InstallError::Io(path.to_owned(), error))
}

/// Whole, or not at all: udev and systemd may read it at any time.
fn write(path: &Path, text: &str) -> Result<(), InstallError> {
    let at = |error| InstallError::Io(path.to_owned(), error);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), FOLDER_MODE);
    builder.create(folder).map_err(at)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(at)?;
    file.write_all(text.as_bytes()).map_err(at)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(FILE_MODE)).map_err(at)?;
    file.as_file().sync_all().map_err(at)?;
    file.persist(path).map_err(|error| at(error.error))?;
    Ok(())
}
