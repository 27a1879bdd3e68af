//! Pairing tokens: what one end shows to its user, and the other end uses once.

use core::fmt;

use rand_core::RngCore;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::crypto::{Secret, expand, extract};
use crate::limits::PAIRING_TOKEN_BYTES;

/// A secret by which two hosts that do not know each other's key come to know it, once. It mixes into the handshake as
/// the pre-shared key of `Noise_XXpsk3`, so who does not have it can neither finish the handshake nor pose as either end.
///
/// ```
/// use bondwire_core::handshake::PairingToken;
/// // Random bytes come from the operating system; here they are fixed.
/// let token = PairingToken::from_bytes([7; 16]);
/// let again = PairingToken::from_bytes(*token.to_bytes());
/// assert_eq!(token.id(), again.id());
/// ```
#[derive(Clone, ZeroizeOnDrop)]
pub struct PairingToken([u8; PAIRING_TOKEN_BYTES]);

/// Public name of a pairing token: tells the responder which one to try. It says nothing of the token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 8]);

impl PairingToken {
    /// The token of these bytes, as [`Self::to_bytes`] gives them. All must be random.
    pub const fn from_bytes(bytes: [u8; PAIRING_TOKEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// A new token. `rng` must be a cryptographic generator seeded by the operating system.
    pub fn generate(rng: &mut impl RngCore) -> Self {
        let mut bytes = Zeroizing::new([0; PAIRING_TOKEN_BYTES]);
        rng.fill_bytes(&mut *bytes);
        Self(*bytes)
    }

    /// The bytes to carry to the other end, where only its user sees them.
    pub fn to_bytes(&self) -> Zeroizing<[u8; PAIRING_TOKEN_BYTES]> {
        Zeroizing::new(self.0)
    }

    /// The token's public name.
    pub fn id(&self) -> TokenId {
        TokenId(*expand(&self.root(), &[b"bondwire pair id"]))
    }

    /// The pre-shared key of the handshake.
    pub(crate) fn psk(&self) -> Secret {
        expand(&self.root(), &[b"bondwire pair psk"])
    }

    fn root(&self) -> Secret {
        extract(b"bondwire pair", &[&self.0])
    }
}

impl fmt::Debug for PairingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairingToken({})", self.id())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
