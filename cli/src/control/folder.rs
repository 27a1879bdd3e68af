//! Where control sockets lie, and whose they are.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;

use crate::socket_file::SocketFile;

/// Longest name of a running command: with the folder before it, a socket's path has at most 107 bytes.
const NAME_MAX_BYTES: usize = 64;
/// What follows the name in a socket's file name.
const SOCKET_SUFFIX: &str = ".sock";
/// What follows the name in the file whose lock says that the name is taken.
const LOCK_SUFFIX: &str = ".lock";

/// Where the system's own service has its sockets: XDG_RUNTIME_DIR of `udev/bondwire.service`.
const SERVICE_FOLDER: &str = "/run/bondwire-service/bondwire";

/// Why a running command has no control socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    #[error("{0:?} is no name for a running command: use up to 64 letters, digits, '.', '_' and '-'")]
    Name(String),
    #[error(
        "another bondwire runs under the name {0:?}; end it, or give this one another name with --control NAME"
    )]
    Taken(String),
    #[error("{0} is not a folder of this user alone; remove it, or set XDG_RUNTIME_DIR to one that is")]
    Unsafe(PathBuf),
    #[error("no control socket in {0}: {1}")]
    Io(PathBuf, io::Error),
}

/// A control socket to accept on. Its file goes when this is dropped, and the name is free again.
pub(crate) struct ControlSocket {
    pub(crate) listener: UnixListener,
    _file: SocketFile,
    _lock: fs::File,
}

/// The folder of this user's control sockets, which may not exist.
pub(crate) fn path() -> PathBuf {
    let user = rustix::process::geteuid();
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if !runtime.is_empty() => PathBuf::from(runtime).join("bondwire"),
        _ if user.is_root() => PathBuf::from("/run/bondwire"),
        _ => std::env::temp_dir().join(format!("bondwire-{}", user.as_raw())),
    }
}

/// Where clients look: among this user's own sockets, and among those of the system's service, which root may open.
pub(crate) fn to_look_in() -> Vec<PathBuf> {
    let (own, service) = (path(), PathBuf::from(SERVICE_FOLDER));
    let is_open = own != service && fs::read_dir(&service).is_ok();
    if is_open { vec![own, service] } else { vec![own] }
}

/// Opens the control socket `name` in `folder`, which is made when missing.
pub(crate) async fn open(folder: &Path, name: &str) -> Result<ControlSocket, FolderError> {
    check_name(name)?;
    let at_folder = |error| FolderError::Io(folder.to_owned(), error);
    prepare(folder)?;
    let lock = fs::File::create(folder.join(format!("{name}{LOCK_SUFFIX}"))).map_err(at_folder)?;
    // A lock ends with its process, however that ends.
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| FolderError::Taken(name.to_owned()))?;
    let (file, listener) = SocketFile::bind(&socket(folder, name)).await.map_err(at_folder)?;
    Ok(ControlSocket { listener, _file: file, _lock: lock })
}

/// The path of the control socket `name`.
pub(crate) fn socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{SOCKET_SUFFIX}"))
}

/// The names that have a socket in `folder`, in order; whoever made them may have died.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name();
        let name = file_name.to_str().and_then(|name| name.strip_suffix(SOCKET_SUFFIX));
        if let Some(name) = name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_socket())) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn check_name(name: &str) -> Result<(), FolderError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = !name.is_empty() && name.len() <= NAME_MAX_BYTES && !name.starts_with('.');
    if fits && name.bytes().all(is_plain) { Ok(()) } else { Err(FolderError::Name(name.to_owned())) }
}

/// Whoever can write to the folder could put another socket in place of ours.
fn prepare(folder: &Path) -> Result<(), FolderError> {
    let at_folder = |error| FolderError::Io(folder.to_owned(), error);
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at_folder(error)),
        _ => {}
    }
    let metadata = fs::symlink_metadata(folder).map_err(at_folder)?;
    let is_ours = metadata.is_dir()
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.mode() & 0o022 == 0;
    if is_ours { Ok(()) } else { Err(FolderError::Unsafe(folder.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_name_belongs_to_one_and_is_free_again_after_it() {
        let home = TempDir::new().unwrap();
        let folder = home.path().join("run");
        assert_eq!(names(&folder).unwrap(), [""; 0]);
        let first = open(&folder, "pc").await.unwrap();
        assert!(matches!(open(&folder, "pc").await, Err(FolderError::Taken(name)) if name == "pc"));
        let other = open(&folder, "board").await.unwrap();
        assert_eq!(names(&folder).unwrap(), ["board", "pc"]);
        drop(first);
        assert_eq!(names(&folder).unwrap(), ["board"]);
        open(&folder, "pc").await.unwrap();
        drop(other);
    }

    #[tokio::test]
    async fn what_a_dead_program_left_is_replaced() {
        let home = TempDir::new().unwrap();
        drop(std::os::unix::net::UnixListener::bind(socket(home.path(), "pc")).unwrap());
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        open(home.path(), "pc").await.unwrap();
    }

    #[tokio::test]
    async fn names_and_folders_that_are_not_safe_are_refused() {
        let home = TempDir::new().unwrap();
        for name in ["", "..", "a/b", ".hidden", "a b", &"a".repeat(65)] {
            assert!(matches!(open(home.path(), name).await, Err(FolderError::Name(_))), "{name:?}");
        }
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(open(home.path(), "pc").await, Err(FolderError::Unsafe(_))));
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(open(&file, "pc").await, Err(FolderError::Unsafe(_))));
    }
}
