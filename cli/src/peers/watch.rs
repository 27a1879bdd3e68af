//! The peers file of a running listener: taken up when it changes, kept as it was when it is broken.

use std::path::Path;
use std::time::SystemTime;

use super::{Peers, PeersFile};
use crate::failure::Failure;

/// Looks at the file whenever it is asked, and takes up changes that stood for one look: an editor that writes in
/// pieces must not remove peers for a moment.
///
/// Looking costs one system call, works on every file system, and cannot be overrun or lose track, as notifications can.
pub(crate) struct PeersWatch {
    file: PeersFile,
    /// What the present peers were read from, or what was found broken.
    settled: Option<Print>,
    /// What the last look saw.
    seen: Option<Print>,
}

/// What tells one version of a file from another; `None` is no file.
type Print = (Option<SystemTime>, u64, u64);

/// What a look found.
#[derive(Debug)]
pub(crate) enum Change {
    /// These are the peers now.
    Peers(Peers),
    /// The file is of no use; the peers are as before.
    Broken(String),
}

impl PeersWatch {
    /// Watches `file`, and answers the peers in it.
    pub(crate) fn start(file: PeersFile) -> Result<(Self, Peers), Failure> {
        let print = print_of(file.path());
        let peers = file.load()?;
        Ok((Self { file, settled: print, seen: print }, peers))
    }

    pub(crate) fn file(&self) -> &PeersFile {
        &self.file
    }

    /// Looks at the file. To be called every second or so.
    pub(crate) fn look(&mut self) -> Option<Change> {
        let print = print_of(self.file.path());
        let stands = print == self.seen;
        self.seen = print;
        if !stands || print == self.settled {
            return None;
        }
        self.settled = print;
        Some(self.read())
    }

    /// Reads the file at once: this program has changed it.
    pub(crate) fn reload(&mut self) -> Change {
        self.seen = print_of(self.file.path());
        self.settled = self.seen;
        self.read()
    }

    fn read(&self) -> Change {
        // Without the file nobody would be allowed any more; that is more likely an accident than meant.
        match self.file.read() {
            Ok(None) => Change::Broken(format!("{} is gone", self.file.path().display())),
            Ok(Some(text)) => match self.file.parse(&text) {
                Ok(peers) => Change::Peers(peers),
                Err(error) => Change::Broken(error.to_string()),
            },
            Err(error) => Change::Broken(error.to_string()),
        }
    }
}

fn print_of(path: &Path) -> Option<Print> {
    let metadata = path.metadata().ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some((metadata.modified().ok(), metadata.len(), inode))
}

#[cfg(test)]
mod tests {
    use bondwire::PublicKey;

    use super::*;
    use crate::keys;

    #[test]
    fn a_change_is_taken_up_when_it_stands_and_a_broken_file_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.toml");
        let write = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &path).unwrap();
        };
        let good = format!("[peer.a]\nkey = \"{}\"\n", keys::public_key_text(&PublicKey([1; 32])));
        let (mut watch, peers) = PeersWatch::start(PeersFile::at(Some(path.clone())).unwrap()).unwrap();
        assert!(peers.is_empty() && watch.look().is_none());

        write(&good);
        assert!(watch.look().is_none(), "it may not be complete");
        assert!(matches!(watch.look(), Some(Change::Peers(peers)) if peers.iter().count() == 1));
        assert!(watch.look().is_none());

        write("[peer.a\n");
        assert!(watch.look().is_none());
        assert!(matches!(watch.look(), Some(Change::Broken(why)) if why.contains("peers.toml:1:")));
        assert!(watch.look().is_none(), "told once");

        std::fs::remove_file(&path).unwrap();
        assert!(watch.look().is_none());
        assert!(matches!(watch.look(), Some(Change::Broken(why)) if why.ends_with("is gone")));
        write(&good);
        assert!(matches!(watch.reload(), Change::Peers(_)));
        assert!(watch.look().is_none());
    }
}
