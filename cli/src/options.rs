//! Arguments that several commands share.

use std::path::PathBuf;

use bondwire::{BondConfig, Identity, PublicKey, Suite};
use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::keys;
use crate::link_spec::LinkSpec;

/// This host's key.
#[derive(Args)]
pub(crate) struct KeyOption {
    /// Private key file [default: bondwire/key in the configuration folder, made when missing]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl KeyOption {
    pub(crate) fn load(&self) -> Result<Identity, Failure> {
        keys::load_or_make(self.key.as_deref())
    }
}

/// How packets are protected.
#[derive(Args)]
pub(crate) struct CipherOptions {
    /// Cipher of the bond [default: aes where the processor has instructions for it, else chacha]
    #[arg(long, value_name = "CIPHER")]
    cipher: Option<Cipher>,
    /// Let --cipher none go over TCP, where anyone on the path can read and forge everything
    #[arg(long)]
    plaintext_over_ip: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cipher {
    /// AES-256-GCM
    Aes,
    /// ChaCha20-Poly1305
    Chacha,
    /// No encryption: for cables that you trust
    None,
}

impl CipherOptions {
    /// The settings of a bond whose links strangers may hold, as all links of this build.
    pub(crate) fn bond_config(&self) -> Result<BondConfig, Failure> {
        let mut config = BondConfig { plaintext_over_ip: self.plaintext_over_ip, ..BondConfig::default() };
        match self.cipher {
            None => {}
            Some(Cipher::Aes) => config.suites = vec![Suite::Aes256Gcm],
            Some(Cipher::Chacha) => config.suites = vec![Suite::ChaCha20Poly1305],
            Some(Cipher::None) if self.plaintext_over_ip => {
                tracing::warn!("no encryption: anyone on the path can read and forge everything");
                config.suites = vec![Suite::None];
            }
            Some(Cipher::None) => {
                return Err(Failure::configuration(
                    "--cipher none goes over TCP only with --plaintext-over-ip, at both ends: anyone on the path can \
                     then read and forge everything",
                ));
            }
        }
        Ok(config)
    }
}

/// The links to a peer, and who that is.
#[derive(Args)]
pub(crate) struct PeerOptions {
    /// Links to the peer: tcp:HOST[:PORT][,key=value...], stdio: or exec:COMMAND
    #[arg(value_name = "LINK", required = true)]
    pub(crate) links: Vec<LinkSpec>,
    /// Public key of the peer, as its `bondwire pubkey` prints it
    #[arg(long, value_name = "PUBKEY", value_parser = keys::parse_public_key, required_unless_present = "accept_any_peer")]
    pub(crate) peer: Option<PublicKey>,
    /// Take whoever answers: encrypted, but anyone on the path can be the peer
    #[arg(long, conflicts_with = "peer")]
    accept_any_peer: bool,
    /// Time in which the first link must come up, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) key: KeyOption,
    #[command(flatten)]
    pub(crate) cipher: CipherOptions,
}
