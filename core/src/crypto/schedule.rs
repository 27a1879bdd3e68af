//! Secrets, and how one follows from another.
//!
//! Everything is HKDF-SHA256 (RFC 5869) with outputs of at most one hash, written out on HMAC because in this form it
//! cannot fail. PROTOCOL.md, section "Handshake", has the labels and test vectors.

use core::fmt;

use curve25519_dalek::montgomery::MontgomeryPoint;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use rand_core::RngCore;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::Suite;
use crate::id::{BondId, PublicKey, Role};

/// 32 secret bytes that are wiped when they go.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// 32 fresh bytes from `rng`.
pub(crate) fn secret_from(rng: &mut impl RngCore) -> Secret {
    let mut secret = Secret::default();
    rng.fill_bytes(&mut *secret);
    secret
}

/// HMAC-SHA256 (RFC 2104) of `parts` one after another.
fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    // HMAC itself fills a short key up to the hash's block with zeros. Done here, the length is right by its type.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    parts.iter().for_each(|part| mac.update(part));
    Secret::new(mac.finalize().into_bytes().into())
}

/// HKDF-Extract with a salt of at most 32 bytes; the input keying material is `parts` one after another.
pub(crate) fn extract(salt: &[u8], parts: &[&[u8]]) -> Secret {
    let mut key = [0; 32];
    key.iter_mut().zip(salt).for_each(|(to, from)| *to = *from);
    hmac_sha256(&key, parts)
}

/// HKDF-Expand for at most one block; the info is `parts` one after another.
pub(crate) fn expand<const N: usize>(secret: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 32, "HKDF-Expand of more than one block is not written out here") };
    let mut mac_input = smallvec::SmallVec::<[&[u8]; 4]>::from_slice(parts);
    mac_input.push(&[1]);
    let block = hmac_sha256(secret, &mac_input);
    let mut out = Zeroizing::new([0; N]);
    out.copy_from_slice(&block[..N]);
    out
}

/// A host's static X25519 private key.
#[derive(Clone, ZeroizeOnDrop)]
pub struct StaticSecret([u8; 32]);

impl StaticSecret {
    /// The key of these bytes, as [`Self::to_bytes`] gives them. Any 32 bytes are a key (RFC 7748 section 5 clamps them).
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new key. `rng` must be a cryptographic generator seeded by the operating system.
    pub fn generate(rng: &mut impl RngCore) -> Self {
        Self(*secret_from(rng))
    }

    /// The bytes to store, where only their owner can read them.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    /// The public key: the host's identity.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(MontgomeryPoint::mul_base_clamped(self.0).to_bytes())
    }
}

impl fmt::Debug for StaticSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticSecret(of {:?})", self.public_key())
    }
}

/// The secrets of a bond: what a link needs to join it, and the keys that authenticate its end.
#[derive(Clone)]
pub struct BondKeys {
    id: BondId,
    join: Secret,
    close_initiator: Secret,
    close_responder: Secret,
}

/// What the secrets of a bond come from. The random values are those of the handshake that opened the bond.
pub(crate) struct BondOrigin<'a> {
    pub(crate) initiator_random: &'a [u8; 32],
    pub(crate) responder_random: &'a [u8; 32],
    pub(crate) initiator: PublicKey,
    pub(crate) responder: PublicKey,
}

impl BondKeys {
    /// Derives the secrets. The two public keys go in so that a peer that talks to two hosts cannot give both the same
    /// bond by passing on their random values.
    pub(crate) fn derive(origin: &BondOrigin<'_>) -> Self {
        let secret = extract(
            b"bondwire bond",
            &[origin.initiator_random, origin.responder_random, &origin.initiator.0, &origin.responder.0],
        );
        Self {
            id: BondId(*expand(&secret, &[b"bondwire bond id"])),
            join: expand(&secret, &[b"bondwire join"]),
            close_initiator: expand(&secret, &[b"bondwire close i"]),
            close_responder: expand(&secret, &[b"bondwire close r"]),
        }
    }

    /// Secrets for a program's own tests, which run no handshake. `secret` alone decides them; they protect nothing.
    pub fn for_tests(secret: [u8; 32]) -> Self {
        let (initiator, responder) = (PublicKey([0; 32]), PublicKey([1; 32]));
        Self::derive(&BondOrigin {
            initiator_random: &secret,
            responder_random: &secret,
            initiator,
            responder,
        })
    }

    /// The bond's public name.
    pub const fn id(&self) -> BondId {
        self.id
    }

    pub(crate) fn join_secret(&self) -> &[u8; 32] {
        &self.join
    }

    /// The authenticator of a CLOSE frame that `sender` sends. It holds under [`Suite::None`] too, where anyone on the
    /// cable can forge frames: a bond ends only by an end that knows its secrets.
    pub fn close_mac(&self, sender: Role, code: u64, reason: &[u8]) -> [u8; 16] {
        let key = match sender {
            Role::Initiator => &self.close_initiator,
            Role::Responder => &self.close_responder,
        };
        let mac = hmac_sha256(key, &[b"bondwire close", &code.to_be_bytes(), reason]);
        core::array::from_fn(|i| mac[i])
    }

    /// Whether `mac` authenticates a CLOSE frame of `sender`. Takes the same time for every answer.
    pub fn verify_close_mac(&self, sender: Role, code: u64, reason: &[u8], mac: &[u8; 16]) -> bool {
        self.close_mac(sender, code, reason).ct_eq(mac).into()
    }
}

impl fmt::Debug for BondKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BondKeys({})", self.id)
    }
}

/// The keys of one attachment of one link, fresh from its handshake.
#[derive(Clone)]
pub struct LinkKeys {
    suite: Suite,
    initiator: Secret,
    responder: Secret,
}

impl LinkKeys {
    /// From the two halves of a Noise split: `initiator` protects what the initiator sends.
    pub(crate) fn new(suite: Suite, initiator: Secret, responder: Secret) -> Self {
        Self { suite, initiator, responder }
    }

    /// Keys for a program's own tests, which run no handshake. `secret` alone decides them; they protect nothing.
    pub fn for_tests(suite: Suite, secret: [u8; 32]) -> Self {
        Self { suite, initiator: expand(&secret, &[b"test i"]), responder: expand(&secret, &[b"test r"]) }
    }

    /// The suite both ends agreed on.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The secret of key phase 0 for packets that `sender` sends.
    pub(super) fn secret_of(&self, sender: Role) -> Secret {
        match sender {
            Role::Initiator => self.initiator.clone(),
            Role::Responder => self.responder.clone(),
        }
    }
}

impl fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkKeys({:?})", self.suite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> std::vec::Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn hkdf_gives_the_answers_of_rfc_5869_appendix_a_1() {
        let salt = hex("000102030405060708090a0b0c");
        let secret = extract(&salt, &[&[0x0b; 11], &[0x0b; 11]]);
        assert_eq!(secret.to_vec(), hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"));
        let info = hex("f0f1f2f3f4f5f6f7f8f9");
        let first_block = hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
        assert_eq!(expand::<32>(&secret, &[&info]).to_vec(), first_block);
        assert_eq!(expand::<12>(&secret, &[&info[..3], &info[3..]]).to_vec(), first_block[..12]);
    }

    #[test]
    fn the_public_key_is_that_of_rfc_7748_section_6_1() {
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let public = StaticSecret::from_bytes(alice.try_into().unwrap()).public_key();
        assert_eq!(
            public.0.to_vec(),
            hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        );
    }

    #[test]
    fn a_close_mac_holds_for_its_sender_code_and_reason_only() {
        let origin = BondOrigin {
            initiator_random: &[1; 32],
            responder_random: &[2; 32],
            initiator: PublicKey([3; 32]),
            responder: PublicKey([4; 32]),
        };
        let keys = BondKeys::derive(&origin);
        let mac = keys.close_mac(Role::Initiator, 7, b"done");
        assert!(keys.verify_close_mac(Role::Initiator, 7, b"done", &mac));
        assert!(!keys.verify_close_mac(Role::Responder, 7, b"done", &mac));
        assert!(!keys.verify_close_mac(Role::Initiator, 8, b"done", &mac));
        assert!(!keys.verify_close_mac(Role::Initiator, 7, b"gone", &mac));
        let other = BondKeys::derive(&BondOrigin { responder: PublicKey([5; 32]), ..origin });
        assert_ne!(other.id(), keys.id());
        assert!(!other.verify_close_mac(Role::Initiator, 7, b"done", &mac));
    }
}
