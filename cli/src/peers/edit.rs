//! Changing the peers file: one program at a time, all or nothing, comments kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use bondwire::PublicKey;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, value};

use super::file::TABLE;
use super::{PeerName, Peers, PeersFile};
use crate::failure::Failure;
use crate::keys;
use crate::ssh::SshTarget;

/// What stands at the top of a new file.
const HEADER: &str = "\
# Peers of this host. A running `bondwire listen` takes changes up within two seconds.
# For each: key, links (where to dial it) or ssh (where to log in and start it); permit-open, permit-listen, permit-links, permit-speed,
# permit-tun; bonds-max, streams-max, receive-buffer-bytes, send-buffer-bytes.

";
/// Names tried for a peer that did not get the name it proposed.
const NUMBERS_MAX: u32 = 10_000;

/// A peer to be remembered.
pub(crate) struct NewPeer<'a> {
    pub(crate) key: PublicKey,
    pub(crate) name: WantedName<'a>,
    /// Where it was dialled.
    pub(crate) links: &'a [String],
    /// Where its end was started.
    pub(crate) ssh: Option<&'a SshTarget>,
}

/// How a peer is to be called.
pub(crate) enum WantedName<'a> {
    /// So and not otherwise; the option with which the user said so is for messages.
    Given { name: &'a PeerName, option: &'static str },
    /// So, or with a number behind it.
    Proposed(PeerName),
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) name: PeerName,
    /// Whether it was not known before.
    pub(crate) new: bool,
}

impl PeersFile {
    /// Writes a peer down. One that is there already, by its key, keeps its name and its permissions.
    pub(crate) fn remember(&self, new: &NewPeer<'_>) -> Result<Remembered, Failure> {
        self.edit(|peers, table| {
            let known = peers.with_key(&new.key);
            let name = match known {
                Some(peer) => {
                    same_name(&peer.name, &new.name)?;
                    peer.name.clone()
                }
                None => free_name(peers, &new.name)?,
            };
            let entry = table.entry(name.as_str()).or_insert_with(|| Item::Table(Table::new()));
            let entry = entry.as_table_like_mut().ok_or_else(|| not_a_table(name.as_str()))?;
            if known.is_none() {
                entry.insert("key", value(keys::public_key_text(&new.key)));
            }
            let known_links = known.map(|peer| peer.links.iter().map(ToString::to_string).collect());
            if let Some(target) = new.ssh {
                entry.insert("ssh", value(target.address()));
            }
            add_links(entry, known_links.unwrap_or_default(), new.links);
            Ok(Remembered { name, new: known.is_none() })
        })
    }

    /// Whether a new peer can be called so, before it is there.
    pub(crate) fn check_free(&self, name: &PeerName, option: &'static str) -> Result<(), Failure> {
        free_name(&self.load()?, &WantedName::Given { name, option }).map(drop)
    }

    pub(crate) fn remove(&self, name: &PeerName) -> Result<(), Failure> {
        self.edit(|peers, table| {
            peers.known(name)?;
            table.remove(name.as_str());
            Ok(())
        })
    }

    pub(crate) fn rename(&self, from: &PeerName, to: &PeerName) -> Result<(), Failure> {
        self.edit(|peers, table| {
            peers.known(from)?;
            if peers.named(to).is_some() {
                return Err(Failure::configuration(format!(
                    "there is a peer {to} already; choose another name"
                )));
            }
            if let Some(item) = table.remove(from.as_str()) {
                table.insert(to.as_str(), item);
            }
            Ok(())
        })
    }

    /// Runs `change` on the file as it is now, while no other program changes it, and writes the result.
    fn edit<T>(
        &self,
        change: impl FnOnce(&Peers, &mut dyn TableLike) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // A link to a file stays one.
        let file = Self { path: self.path.canonicalize().unwrap_or_else(|_| self.path.clone()) };
        let unwritable = |error: io::Error| {
            Failure::configuration(format!("cannot write the peers file {}: {error}", self.path.display()))
        };
        let folder = keys::folder_of(&file.path);
        keys::make_folder(folder).map_err(unwritable)?;
        let _lock = Lock::take(&file.path).map_err(unwritable)?;
        let text = file.read()?.unwrap_or_else(|| HEADER.to_owned());
        let peers = file.parse(&text)?;
        let mut document: DocumentMut = text
            .parse()
            .map_err(|error| Failure::configuration(format!("{}: {error}", self.path.display())))?;
        let table = document.entry(TABLE).or_insert_with(|| {
            let mut table = Table::new();
            // Only its peers show: `[peer.laptop]`.
            table.set_implicit(true);
            Item::Table(table)
        });
        let table = table.as_table_like_mut().ok_or_else(|| not_a_table(TABLE))?;
        let result = change(&peers, table)?;
        let text = document.to_string();
        // What could not be read again must not be written.
        file.parse(&text)?;
        replace(&file.path, folder, &text).map_err(unwritable)?;
        Ok(result)
    }
}

impl Peers {
    /// The peer of that name, or an error that names those there are.
    pub(crate) fn known(&self, name: &PeerName) -> Result<&super::Peer, Failure> {
        self.named(name).ok_or_else(|| {
            let names: Vec<_> = self.iter().map(|peer| peer.name.as_str()).collect();
            let there_are = match names.is_empty() {
                true => "no peers are remembered here; pair with one: connect LINK --pair TOKEN".to_owned(),
                false => format!("there are {}", names.join(", ")),
            };
            Failure::configuration(format!("no peer is called {name}; {there_are}"))
        })
    }
}

fn same_name(known: &PeerName, wanted: &WantedName<'_>) -> Result<(), Failure> {
    match wanted {
        WantedName::Given { name, .. } if *name != known => Err(Failure::configuration(format!(
            "this peer is known as {known}; to call it {name}: bondwire peers rename {known} {name}"
        ))),
        _ => Ok(()),
    }
}

fn free_name(peers: &Peers, wanted: &WantedName<'_>) -> Result<PeerName, Failure> {
    match wanted {
        WantedName::Given { name, option } if peers.named(name).is_some() => {
            Err(Failure::configuration(format!(
                "there is a peer {name} already; take another name with {option}, or: bondwire peers remove {name}"
            )))
        }
        WantedName::Given { name, .. } => Ok((*name).clone()),
        WantedName::Proposed(name) => std::iter::once(name.clone())
            .chain((2..NUMBERS_MAX).map(|number| name.numbered(number)))
            .find(|name| peers.named(name).is_none())
            .ok_or_else(|| Failure::configuration(format!("all names like {name} are taken; remove peers"))),
    }
}

fn add_links(entry: &mut dyn TableLike, mut known: Vec<String>, links: &[String]) {
    let before = known.len();
    for link in links {
        if !known.contains(link) {
            known.push(link.clone());
        }
    }
    if known.len() > before {
        // New ones go behind those there are, whose comments stay.
        let item = entry.entry("links").or_insert_with(|| value(Array::new()));
        if let Some(array) = item.as_array_mut() {
            known[before..].iter().for_each(|link| array.push(link.as_str()));
        }
    }
}

fn not_a_table(name: &str) -> Failure {
    Failure::configuration(format!("{name} in the peers file is no table; write [peer.NAME]"))
}

/// Puts `text` in the file's place, with mode 0600.
fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The right to change the file. It is a lock on a file beside it, because the file itself is replaced.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(path: &Path) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(name)?;
        #[cfg(unix)]
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder {
        _folder: tempfile::TempDir,
        file: PeersFile,
    }

    fn folder() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let file = PeersFile::at(Some(folder.path().join("sub").join("peers.toml"))).unwrap();
        Folder { _folder: folder, file }
    }

    fn name(text: &str) -> PeerName {
        text.parse().unwrap()
    }

    fn proposed(of: u8, text: &str, links: &[String]) -> impl Fn(&PeersFile) -> Remembered {
        let (text, links) = (text.to_owned(), links.to_vec());
        move |file| {
            let name = WantedName::Proposed(name(&text));
            file.remember(&NewPeer { key: PublicKey([of; 32]), name, links: &links, ssh: None }).unwrap()
        }
    }

    #[test]
    fn a_peer_is_remembered_once_and_gets_new_links() {
        let Folder { file, .. } = &folder();
        let links = |names: &[&str]| names.iter().map(|name| format!("tcp:{name}:7700")).collect::<Vec<_>>();
        assert_eq!(
            proposed(1, "laptop", &links(&["a"]))(file),
            Remembered { name: name("laptop"), new: true }
        );
        let again = proposed(1, "other", &links(&["b", "a"]))(file);
        assert_eq!(again, Remembered { name: name("laptop"), new: false });
        let second = proposed(2, "laptop", &[])(file);
        assert_eq!(second.name.as_str(), "laptop-2");
        let peers = file.load().unwrap();
        let laptop = peers.named(&name("laptop")).unwrap();
        assert_eq!(laptop.links.iter().map(ToString::to_string).collect::<Vec<_>>(), links(&["a", "b"]));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(file.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_name_that_is_given_is_taken_or_refused() {
        let Folder { file, .. } = &folder();
        let give = |of: u8, text: &str| {
            let name = name(text);
            let name = WantedName::Given { name: &name, option: "--name" };
            file.remember(&NewPeer { key: PublicKey([of; 32]), name, links: &[], ssh: None })
        };
        give(1, "a").unwrap();
        let taken = give(2, "a").unwrap_err().to_string();
        assert!(taken.contains("--name") && taken.contains("bondwire peers remove a"), "{taken}");
        let other = give(1, "b").unwrap_err().to_string();
        assert!(other.contains("bondwire peers rename a b"), "{other}");
        give(1, "a").unwrap();
        assert!(file.check_free(&name("a"), "--pair=NAME").unwrap_err().to_string().contains("--pair=NAME"));
        file.check_free(&name("c"), "--pair=NAME").unwrap();
    }

    #[test]
    fn comments_and_order_stay() {
        let Folder { file, .. } = &folder();
        proposed(1, "a", &[])(file);
        let key = keys::public_key_text(&PublicKey([7; 32]));
        let text = format!(
            "# top\n\n# about b\n[peer.b] # here\nkey = \"{key}\"\npermit-open = [\n  \"h:1\", # why\n]\n# end\n"
        );
        std::fs::write(file.path(), &text).unwrap();
        proposed(2, "z", &["tcp:h:1".to_owned()])(file);
        let written = std::fs::read_to_string(file.path()).unwrap();
        for part in ["# top", "# about b\n[peer.b] # here", "\"h:1\", # why", "# end", "[peer.z]"] {
            assert!(written.contains(part), "{written}");
        }
        file.rename(&name("b"), &name("c")).unwrap();
        let written = std::fs::read_to_string(file.path()).unwrap();
        assert!(written.contains("# about b\n[peer.c]") && written.contains("# why"), "{written}");
        file.remove(&name("c")).unwrap();
        assert_eq!(file.load().unwrap().iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["z"]);
    }

    #[test]
    fn unknown_and_taken_names_are_explained() {
        let Folder { file, .. } = &folder();
        assert!(file.remove(&name("x")).unwrap_err().to_string().contains("no peers are remembered"));
        proposed(1, "a", &[])(file);
        proposed(2, "b", &[])(file);
        assert!(file.remove(&name("x")).unwrap_err().to_string().contains("there are a, b"));
        assert!(file.rename(&name("a"), &name("b")).unwrap_err().to_string().contains("already"));
    }

    #[test]
    fn a_broken_file_is_not_written() {
        let Folder { file, .. } = &folder();
        proposed(1, "a", &[])(file);
        std::fs::write(file.path(), "[peer.a]\nkye = 1\n").unwrap();
        let error = file.remove(&name("a")).unwrap_err().to_string();
        assert!(error.contains("peers.toml:2:1: ") && error.contains("did you mean \"key\""), "{error}");
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "[peer.a]\nkye = 1\n");
    }

    #[test]
    fn many_at_once_lose_nothing_and_no_two_share_a_name() {
        let Folder { file, .. } = &folder();
        std::thread::scope(|scope| {
            for of in 0..16 {
                scope.spawn(move || proposed(of, "host", &[])(file));
            }
        });
        let peers = file.load().unwrap();
        let mut names: Vec<_> = peers.iter().map(|peer| peer.name.as_str().to_owned()).collect();
        names.dedup();
        assert_eq!((names.len(), peers.iter().count()), (16, 16));
    }
}
