//! Reading the peers file.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use bondwire::limits::BONDS_PER_PEER_MAX;
use bondwire_tcp::{Families, InterfaceFilter, NetworkFilter};
use etcetera::BaseStrategy;
use serde::{Deserialize, Deserializer};
use serde_spanned::Spanned;

use super::{Limits, Peer, PeerName, Peers};
use crate::discovery::PeerPaths;
use crate::failure::Failure;
use crate::forward::permits::Permit;
use crate::link_spec::LinkSpec;
use crate::ssh::SshTarget;
use crate::toml_file::{self, Key, PerPath, Text, TextError, some_texts, texts};

/// What this file is, for messages.
const KIND: toml_file::Kind =
    toml_file::Kind { name: "peers file", danger: "others can let themselves in", owner_matters: false };
/// Where peers stand in the file.
pub(super) const TABLE: &str = "peer";

/// Where the peers of a user stand.
#[derive(Debug, Clone)]
pub(crate) struct PeersFile {
    pub(super) path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    peer: BTreeMap<PeerName, Entry>,
}

/// One peer as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Entry {
    key: Spanned<Key>,
    #[serde(default, deserialize_with = "texts")]
    links: Vec<LinkSpec>,
    ssh: Option<Text<SshTarget>>,
    #[serde(default, deserialize_with = "some_texts")]
    permit_open: Option<Vec<Permit>>,
    #[serde(default, deserialize_with = "some_texts")]
    permit_listen: Option<Vec<Permit>>,
    #[serde(default, deserialize_with = "some_texts")]
    permit_links: Option<Vec<LinkSpec>>,
    permit_speed: Option<bool>,
    permit_tun: Option<bool>,
    bonds_max: Option<BondsMax>,
    streams_max: Option<NonZeroU64>,
    receive_buffer_bytes: Option<NonZeroU64>,
    send_buffer_bytes: Option<NonZeroU64>,
    discover: Option<bool>,
    interfaces: Option<Text<InterfaceFilter>>,
    family: Option<Text<Families>>,
    network: Option<Text<NetworkFilter>>,
    peer_network: Option<Text<NetworkFilter>>,
    per_path: Option<PerPath>,
}

impl PeersFile {
    /// The file at `path`, or else `bondwire/peers.toml` in the user's configuration folder.
    pub(crate) fn at(path: Option<PathBuf>) -> Result<Self, Failure> {
        let path = match path {
            Some(path) => path,
            None => etcetera::choose_base_strategy()
                .map(|folders| folders.config_dir().join("bondwire").join("peers.toml"))
                .map_err(|_| {
                    Failure::configuration(
                        "no home folder, so no place for peers; name a file with --peers FILE",
                    )
                })?,
        };
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The peers in the file; none if there is no file.
    pub(crate) fn load(&self) -> Result<Peers, Failure> {
        match self.read()? {
            Some(text) => self.parse(&text),
            None => Ok(Peers::default()),
        }
    }

    pub(super) fn parse(&self, text: &str) -> Result<Peers, Failure> {
        parse(text).map_err(|error| Failure::configuration(format!("{}{error}", self.path.display())))
    }

    /// The file's text, unless others could have written it. `None` if there is no file.
    pub(super) fn read(&self) -> Result<Option<String>, Failure> {
        toml_file::read(&self.path, &KIND)
    }
}

fn parse(text: &str) -> Result<Peers, TextError> {
    let document: Document =
        toml_edit::de::from_str(text).map_err(|error| TextError::from_toml(text, &error))?;
    Entry::peers(text, document.peer)
}

impl Entry {
    /// The peers that these entries of `text` describe.
    pub(crate) fn peers(text: &str, entries: BTreeMap<PeerName, Self>) -> Result<Peers, TextError> {
        let mut peers: Vec<Peer> = Vec::new();
        for (name, entry) in entries {
            let span = entry.key.span();
            let Key(key) = entry.key.into_inner();
            if let Some(other) = peers.iter().find(|peer| peer.key == key) {
                let what = format!("{name} has the key of {}; a key belongs to one peer", other.name);
                return Err(TextError::new(text, Some(span), what));
            }
            let limits = Limits {
                bonds_max: entry.bonds_max.map(|BondsMax(max)| max),
                streams_max: entry.streams_max.map(NonZeroU64::get),
                receive_buffer_bytes: entry.receive_buffer_bytes.map(NonZeroU64::get),
                send_buffer_bytes: entry.send_buffer_bytes.map(NonZeroU64::get),
            };
            let paths = PeerPaths {
                discover: entry.discover,
                interfaces: entry.interfaces.map(|Text(filter)| filter),
                family: entry.family.map(|Text(families)| families),
                network: entry.network.map(|Text(filter)| filter),
                peer_network: entry.peer_network.map(|Text(filter)| filter),
                per_path: entry.per_path.map(|PerPath(number)| number),
            };
            let Entry {
                links, ssh, permit_open, permit_listen, permit_links, permit_speed, permit_tun, ..
            } = entry;
            peers.push(Peer {
                name,
                key,
                links,
                ssh: ssh.map(|Text(target)| target),
                permit_open,
                permit_listen,
                permit_links,
                permit_speed,
                permit_tun,
                limits,
                paths,
            });
        }
        Ok(Peers(peers))
    }
}

/// A number of bonds that there can be.
struct BondsMax(usize);

impl<'de> Deserialize<'de> for BondsMax {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let max = usize::deserialize(deserializer)?;
        if (1..=BONDS_PER_PEER_MAX).contains(&max) {
            return Ok(Self(max));
        }
        Err(serde::de::Error::custom(format!("a peer has 1 to {BONDS_PER_PEER_MAX} bonds, not {max}")))
    }
}

#[cfg(test)]
mod tests {
    use bondwire::PublicKey;

    use super::*;
    use crate::keys;

    fn key(of: u8) -> String {
        keys::public_key_text(&PublicKey([of; 32]))
    }

    #[test]
    fn a_file_is_read_with_all_its_keys() {
        let (one, two) = (key(1), key(2));
        let text = format!(
            "# mine\n[peer.laptop]\nkey = \"{one}\"\nlinks = [\"tcp:10.0.0.5:7700\", \"tcp:h,policy=backup\"]\n\
             permit-open = [\"localhost:22\"]\npermit-listen = []\n\
             permit-links = [\"tcp:*\"]\npermit-speed = false\npermit-tun = false\nbonds-max = 2\nstreams-max = 9\nreceive-buffer-bytes = 65536\n\
             send-buffer-bytes = 65537\n\n[peer.board]\nkey = \"{two}\"\n"
        );
        let peers = parse(&text).unwrap();
        let laptop = peers.named(&"laptop".parse().unwrap()).unwrap();
        assert_eq!((laptop.key, laptop.links.len()), (PublicKey([1; 32]), 2));
        assert_eq!(laptop.permit_open.as_deref(), Some(&["localhost:22".parse().unwrap()][..]));
        assert_eq!(laptop.permit_listen.as_deref(), Some(&[][..]));
        let limits = Limits {
            bonds_max: Some(2),
            streams_max: Some(9),
            receive_buffer_bytes: Some(65536),
            send_buffer_bytes: Some(65537),
        };
        assert_eq!(laptop.limits, limits);
        assert_eq!((laptop.permit_speed, laptop.permit_tun), (Some(false), Some(false)));
        assert_eq!(laptop.permit_links.as_deref(), Some(&["tcp:*".parse().unwrap()][..]));
        let board = peers.with_key(&PublicKey([2; 32])).unwrap();
        assert_eq!((board.name.as_str(), &board.permit_open), ("board", &None));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn paths_to_a_peer_are_read_and_their_faults_named() {
        let start = format!("[peer.a]\nkey = \"{}\"\n", key(1));
        let paths = |lines: &str| {
            let peers = parse(&format!("{start}{lines}\n"))?;
            Ok::<_, TextError>(peers.named(&"a".parse().unwrap()).unwrap().paths.clone())
        };
        assert_eq!(paths("").unwrap(), PeerPaths::default());
        let all = "discover = false\ninterfaces = \"eth*,!eth1\"\nfamily = \"both\"\nnetwork = \"10.0.0.0/8\"\n\
                   peer-network = \"!10.9.0.0/16\"\nper-path = 2";
        let expected = PeerPaths {
            discover: Some(false),
            interfaces: Some("eth*,!eth1".parse().unwrap()),
            family: Some(Families::Both),
            network: Some("10.0.0.0/8".parse().unwrap()),
            peer_network: Some("!10.9.0.0/16".parse().unwrap()),
            per_path: Some(2),
        };
        assert_eq!(paths(all).unwrap(), expected);
        for (line, fault) in [
            ("interfaces = \"eth0,\"", "has an empty entry"),
            ("family = \"5\"", "not an address family"),
            ("network = \"10.0.0.1/8\"", "the network is 10.0.0.0/8"),
            ("per-path = 0", "a path has 1 to 8 links, not 0"),
            ("discover = \"no\"", "boolean"),
        ] {
            let message = paths(line).unwrap_err().to_string();
            assert!(message.starts_with(":3:") && message.contains(fault), "{message}");
        }
    }

    #[test]
    fn errors_name_line_column_and_what_was_meant() {
        let one = key(1);
        let cases = [
            (
                format!("[peer.a]\nkey = \"{one}\"\npermit-opne = []\n"),
                ":3:1: unknown key \"permit-opne\"; did you mean \"permit-open\"?",
            ),
            (
                format!("[peer.a]\nkey = \"{one}\"\nzzz = 1\n"),
                ":3:1: unknown key \"zzz\"; keys are key, links, ssh, permit-open, permit-listen, permit-links, permit-speed, permit-tun, ",
            ),
            ("[pear.a]\n".to_owned(), ":1:2: unknown key \"pear\"; did you mean \"peer\"?"),
            (
                format!("[peer.a]\nkey = \"{one}\"\nlinks = [\"tcp:h\",\n  \"10.0.0.1:7\"]\n"),
                ":4:3: \"10.0.0.1:7\": no kind of link",
            ),
            (format!("[peer.a]\nkey = \"{one}\"\npermit-open = [\"x\"]\n"), ":3:16: \"x\": write HOST:PORT"),
            (
                format!("[peer.a]\nkey = \"{one}\"\nbonds-max = 17\n"),
                ":3:13: a peer has 1 to 16 bonds, not 17",
            ),
            (
                format!("[peer.a]\nkey = \"{one}\"\nssh = \"-x\"\n"),
                ":3:7: \"-x\": write ssh:[user@]host[:port]",
            ),
            (format!("[peer.a]\nkey = \"{one}\"\nstreams-max = 0\n"), ":3:15: invalid value: integer `0`"),
            (format!("[peer.a]\nkey = \"{one}\"\nlinks = 3\n"), ":3:9: invalid type: integer `3`"),
            ("[peer.a]\nkey = \"bwpub1x\"\n".to_owned(), ":2:7: too short"),
            ("[peer.a]\n".to_owned(), ":1:1: missing field `key`"),
            ("[peer.\"a b\"]\n".to_owned(), ":1:7: a name is made of letters"),
            ("[peer.a]\nkey = \n".to_owned(), ":2:"),
            (
                format!("[peer.a]\nkey = \"{one}\"\n[peer.b]\nkey = \"{one}\"\n"),
                ":4:7: b has the key of a; a key belongs to one peer",
            ),
            (format!("[peer.a]\nkey = \"{one}\"\n[peer.a]\n"), ":3:"),
        ];
        for (text, message) in cases {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = PeersFile::at(Some(folder.path().join("peers.toml"))).unwrap();
        assert!(file.load().unwrap().is_empty(), "no file, no peers");
        std::fs::write(file.path(), "").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o664)).unwrap();
        let message = file.load().unwrap_err().to_string();
        assert!(message.contains("mode 0664") && message.contains("chmod 600"), "{message}");
    }
}
