use std::fmt;

use bondwire_core::crypto::StaticSecret;
use bondwire_core::id::PublicKey;
use ring::rand::{SecureRandom, SystemRandom};

/// A host's static X25519 key pair: what the other end pins.
///
/// ```
/// let identity = bondwire::Identity::generate()?;
/// let again = bondwire::Identity::from_bytes(*identity.to_bytes());
/// assert_eq!(identity.public_key(), again.public_key());
/// # Ok::<_, bondwire::NoEntropy>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    secret: StaticSecret,
    public: PublicKey,
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the operating system gives no random bytes; see whether getrandom or /dev/urandom is kept from this process"
)]
pub struct NoEntropy;

impl Identity {
    /// A fresh identity from the operating system's random source.
    ///
    /// # Errors
    /// [`NoEntropy`] if there is none.
    pub fn generate() -> Result<Self, NoEntropy> {
        random().map(Self::from_bytes)
    }

    /// The identity with this private key, as [`to_bytes`](Self::to_bytes) gave it. Any 32 bytes are one.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let secret = StaticSecret::from_bytes(bytes);
        Self { public: secret.public_key(), secret }
    }

    /// The private key, for a file that only its owner can read. Wiped from memory when dropped.
    pub fn to_bytes(&self) -> impl std::ops::Deref<Target = [u8; 32]> + use<> {
        self.secret.to_bytes()
    }

    /// The key to give to others.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn secret(&self) -> &StaticSecret {
        &self.secret
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(bytes)
}
