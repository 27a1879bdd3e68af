//! `bondwire peers`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::peers::{PeerName, PeersFile};
use crate::{keys, output};

/// Arguments of `bondwire peers`.
#[derive(Args)]
pub(crate) struct PeersCommand {
    /// File with the peers [default: bondwire/peers.toml in the configuration folder]
    #[arg(long, value_name = "FILE", global = true)]
    peers: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Print name, public key and links of each peer (what `bondwire peers` does by itself)
    List,
    /// Forget a peer; a running listen ends its bonds
    Remove {
        /// Name of the peer
        #[arg(value_name = "NAME")]
        name: PeerName,
    },
    /// Call a peer something else
    Rename {
        /// Name of the peer now
        #[arg(value_name = "NAME")]
        name: PeerName,
        /// Its name from now on
        #[arg(value_name = "NEW_NAME")]
        new_name: PeerName,
    },
}

impl PeersCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let file = PeersFile::at(self.peers)?;
        match self.action.unwrap_or(Action::List) {
            Action::List => list(&file),
            Action::Remove { name } => file.remove(&name),
            Action::Rename { name, new_name } => file.rename(&name, &new_name),
        }
    }
}

fn list(file: &PeersFile) -> Result<(), Failure> {
    let peers = file.load()?;
    if peers.is_empty() {
        tracing::info!("no peers in {}; pair with one: bondwire listen LINK --pair", file.path().display());
    }
    let width = peers.iter().map(|peer| peer.name.as_str().len()).max().unwrap_or(0);
    peers.iter().try_for_each(|peer| {
        let ssh = peer.ssh.iter().map(|target| format!("ssh:{}", target.address()));
        let links: Vec<_> = peer.links.iter().map(ToString::to_string).chain(ssh).collect();
        let line = format!("{:width$}  {}  {}", peer.name, keys::public_key_text(&peer.key), links.join(" "));
        output::line(line.trim_end())
    })
}
