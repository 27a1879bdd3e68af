use bondwire::PublicKey;
use ring::digest::{SHA256, digest};

use crate::limits::HINT_MAX_CHARS;

/// In front of the hint, in the name of the interface.
const NAME: &str = "Bondwire";
/// Bytes of the hash of a key that are told: enough to tell the peers of one host apart.
const KEY_HASH_BYTES: usize = 8;

/// Whose peer is at the device's end of a cable, as the name of its interface says it. A host that looks for another peer
/// need not claim it. It is a hint and no identity: that comes with the handshake.
///
/// ```
/// use bondwire_usb::Hint;
/// let key = bondwire::Identity::generate()?.public_key();
/// let name = Hint::of_key(&key).interface_name();
/// assert!(Hint::read(&name).may_be(&key));
/// assert!(!Hint::read(&name).may_be(&bondwire::Identity::generate()?.public_key()));
/// assert!(Hint::read("a name without a hint").may_be(&key));
/// # Ok::<_, bondwire::NoEntropy>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hint(Option<String>);

impl Hint {
    /// No hint: hosts have to ask.
    pub const NONE: Self = Self(None);

    /// The peer with this key. A part of its hash is told, so that who plugs a cable in does not learn the key.
    pub fn of_key(key: &PublicKey) -> Self {
        let hash = digest(&SHA256, &[b"bondwire usb hint", &key.0[..]].concat());
        Self(Some(hash.as_ref().iter().take(KEY_HASH_BYTES).map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Reads the name of an interface.
    pub fn read(interface_name: &str) -> Self {
        let hint = interface_name.strip_prefix(NAME).map(str::trim);
        let is_hint = |hint: &&str| {
            !hint.is_empty() && hint.len() <= HINT_MAX_CHARS && hint.bytes().all(|b| b.is_ascii_hexdigit())
        };
        Self(hint.filter(is_hint).map(str::to_ascii_lowercase))
    }

    /// Whether the peer with this key may be there.
    pub fn may_be(&self, key: &PublicKey) -> bool {
        self.0.is_none() || *self == Self::of_key(key)
    }

    /// The name of the interface that says it.
    pub fn interface_name(&self) -> String {
        match &self.0 {
            Some(hint) => format!("{NAME} {hint}"),
            None => NAME.to_owned(),
        }
    }
}
