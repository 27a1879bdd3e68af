//! Unix sockets to listen on: for their owner only, in place of a dead one, removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::{UnixListener, UnixStream};

/// The mask of the process is changed by one at a time.
static UMASK: Mutex<()> = Mutex::new(());

/// The file of a socket, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode, to tell it from what another program has put in its place.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`. A socket whose program has died is replaced; one that lives is an error.
    pub(crate) async fn bind(path: &Path) -> io::Result<(Self, UnixListener)> {
        let listener = match bind_private(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                check_dead(path).await?;
                fs::remove_file(path)?;
                bind_private(path)?
            }
            bound => bound?,
        };
        let metadata = fs::symlink_metadata(path)?;
        Ok((Self { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) }, listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The socket must never be open to others, not even for a moment, so its mode comes from the mask. Files that other
/// threads make meanwhile get less rights, which harms none of those that this program makes.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let _one = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = umask(Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// Whether what stands at `path` is a socket that nobody serves.
async fn check_dead(path: &Path) -> io::Result<()> {
    let in_use = |what| Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return in_use("there is a file of that name; remove it or name another path");
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => in_use("another program listens there; end it or name another path"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.sock");
        // A listener of the standard library leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (file, _listener) = SocketFile::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        let error = SocketFile::bind(&path).await.unwrap_err();
        assert!(error.to_string().contains("another program listens"), "{error}");
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn other_files_stay() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "keep").unwrap();
        assert_eq!(SocketFile::bind(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"keep");
        // A socket that another program put in the place of ours is left alone.
        let path = folder.path().join("b.sock");
        let (file, _listener) = SocketFile::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
