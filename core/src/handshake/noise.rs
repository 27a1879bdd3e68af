//! The Noise Protocol Framework (revision 34) as the handshakes use it, around `snow`.
//!
//! Ephemeral keys are handed in, so one can run an exchange again from the same entropy and get the same bytes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use curve25519_dalek::montgomery::MontgomeryPoint;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::{AeadKey, AeadProvider, PortableAead, Secret, StaticSecret, Suite, expand};
use crate::id::{PublicKey, Role};
use crate::limits::HANDSHAKE_MESSAGE_MAX_BYTES;

const OPEN_PATTERN: &str = "Noise_XX_25519_ChaChaPoly_SHA256";
/// The static keys are as well protected as without the token: it goes in behind the last of them.
const PAIR_PATTERN: &str = "Noise_XXpsk3_25519_ChaChaPoly_SHA256";
const JOIN_PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";

/// A message does not fit this exchange. Which part of it does not is nobody's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoiseFault;

impl From<snow::Error> for NoiseFault {
    fn from(_: snow::Error) -> Self {
        Self
    }
}

/// The two secrets of a finished exchange. They serve as HKDF secrets only, never as keys themselves.
pub(super) struct Split {
    pub(super) initiator: Secret,
    pub(super) responder: Secret,
}

impl Split {
    /// Seals OPEN4, behind its first byte. Its key serves for this one message, which is computed once and kept.
    pub(super) fn seal_verdict(&self, kind: u8, mut payload: Vec<u8>) -> Vec<u8> {
        let tag = self.verdict_key().seal_in_place(&[0; 12], &[kind], &mut payload);
        let mut message = alloc::vec![kind];
        message.append(&mut payload);
        message.extend_from_slice(&tag);
        message
    }

    /// The payload of OPEN4, if it is the responder's; `body` is what stands behind the first byte.
    pub(super) fn open_verdict(&self, kind: u8, body: &[u8]) -> Option<Vec<u8>> {
        let (sealed, tag) = body.split_at_checked(body.len().checked_sub(16)?)?;
        let mut payload = sealed.to_vec();
        self.verdict_key().open_in_place(&[0; 12], &[kind], &mut payload, tag).ok()?;
        Some(payload)
    }

    fn verdict_key(&self) -> Box<dyn AeadKey> {
        PortableAead.key(Suite::ChaCha20Poly1305, &expand(&self.responder, &[b"bondwire verdict"]))
    }
}

/// One end of one exchange.
pub(super) struct Noise(HandshakeState);

impl Noise {
    /// An exchange that opens a bond, and pairs its ends if there is a `psk`.
    pub(super) fn open(
        role: Role,
        secret: &StaticSecret,
        ephemeral: &Secret,
        prologue: &[&[u8]],
        psk: Option<&Secret>,
    ) -> Result<Self, NoiseFault> {
        let prologue = prologue.concat();
        let private = secret.to_bytes();
        let pattern = if psk.is_some() { PAIR_PATTERN } else { OPEN_PATTERN };
        let mut builder = Builder::with_resolver(pattern.parse()?, resolver(ephemeral))
            .local_private_key(&*private)?
            .prologue(&prologue)?;
        if let Some(psk) = psk {
            builder = builder.psk(3, psk)?;
        }
        Self::build(role, builder)
    }

    /// An exchange by which a link joins the bond with `join_secret`.
    pub(super) fn join(
        role: Role,
        join_secret: &[u8; 32],
        ephemeral: &Secret,
        prologue: &[&[u8]],
    ) -> Result<Self, NoiseFault> {
        let prologue = prologue.concat();
        let builder = Builder::with_resolver(JOIN_PATTERN.parse()?, resolver(ephemeral))
            .psk(0, join_secret)?
            .prologue(&prologue)?;
        Self::build(role, builder)
    }

    fn build(role: Role, builder: Builder<'_>) -> Result<Self, NoiseFault> {
        Ok(Self(match role {
            Role::Initiator => builder.build_initiator()?,
            Role::Responder => builder.build_responder()?,
        }))
    }

    /// Appends the next message, with `payload` in it, to `out`.
    pub(super) fn write(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), NoiseFault> {
        let mut message = [0; HANDSHAKE_MESSAGE_MAX_BYTES];
        let len = self.0.write_message(payload, &mut message)?;
        out.extend_from_slice(message.get(..len).ok_or(NoiseFault)?);
        Ok(())
    }

    /// The payload of the peer's next message.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, NoiseFault> {
        if message.len() > HANDSHAKE_MESSAGE_MAX_BYTES {
            return Err(NoiseFault);
        }
        let mut payload = Zeroizing::new(alloc::vec![0; message.len()]);
        let len = self.0.read_message(message, &mut payload)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// The peer's static key, once it has proved it.
    pub(super) fn peer(&self) -> Option<PublicKey> {
        self.0.get_remote_static()?.try_into().ok().map(PublicKey)
    }

    /// Ends the exchange. Only after its last message.
    pub(super) fn split(mut self) -> Result<Split, NoiseFault> {
        if !self.0.is_handshake_finished() {
            return Err(NoiseFault);
        }
        let (initiator, responder) = self.0.dangerously_get_raw_split();
        Ok(Split { initiator: Secret::new(initiator), responder: Secret::new(responder) })
    }
}

fn resolver(ephemeral: &Secret) -> BoxedCryptoResolver {
    Box::new(Resolver { ephemeral: ephemeral.clone() })
}

/// `snow`'s own primitives, but with entropy handed in and with [`X25519`].
struct Resolver {
    ephemeral: Secret,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Ephemeral(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// The one draw of entropy an exchange makes at each end: its ephemeral private key.
struct Ephemeral(Option<Secret>);

impl Random for Ephemeral {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let secret = self.0.take().filter(|secret| secret.len() == dest.len()).ok_or(snow::Error::Rng)?;
        dest.copy_from_slice(&*secret);
        Ok(())
    }
}

/// X25519 that wipes its private key and refuses points of low order, which would make the result known to all
/// (RFC 7748 section 6.1). The X25519 of `snow` does neither.
#[derive(Default)]
struct X25519 {
    private: Secret,
    public: [u8; 32],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, private: &[u8]) {
        self.private.iter_mut().zip(private).for_each(|(to, from)| *to = *from);
        self.public = MontgomeryPoint::mul_base_clamped(*self.private).to_bytes();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = Secret::default();
        rng.try_fill_bytes(&mut *private)?;
        self.set(&*private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.private
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let point = public.get(..32).and_then(|point| point.try_into().ok()).ok_or(snow::Error::Dh)?;
        let shared = Secret::new(MontgomeryPoint(point).mul_clamped(*self.private).to_bytes());
        if shared.ct_eq(&[0; 32]).into() {
            return Err(snow::Error::Dh);
        }
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&*shared);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining(role: Role, ephemeral: u8) -> Noise {
        Noise::join(role, &[1; 32], &Secret::new([ephemeral; 32]), &[b"a", b"b"]).unwrap()
    }

    #[test]
    fn the_same_entropy_gives_the_same_bytes() {
        let message = |ephemeral| {
            let mut out = Vec::new();
            joining(Role::Initiator, ephemeral).write(b"payload", &mut out).unwrap();
            out
        };
        assert_eq!(message(2), message(2));
        assert_ne!(message(2), message(3));
    }

    #[test]
    fn points_of_low_order_are_refused() {
        // 0 and 1, and a point of order 8 (RFC 7748 section 7 points to the list).
        let order_8 = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        let mut one = [0; 32];
        one[0] = 1;
        let mut x25519 = X25519::default();
        x25519.set(&[7; 32]);
        for point in [[0; 32], one, order_8] {
            assert_eq!(x25519.dh(&point, &mut [0; 32]), Err(snow::Error::Dh));
        }
        let mut shared = [0; 32];
        x25519.dh(&StaticSecret::from_bytes([8; 32]).public_key().0, &mut shared).unwrap();
        let mut other = X25519::default();
        other.set(&[8; 32]);
        let mut same = [0; 32];
        other.dh(x25519.pubkey(), &mut same).unwrap();
        assert_eq!(shared, same);
    }

    #[test]
    fn a_message_too_long_is_refused_before_it_is_read() {
        let mut responder = joining(Role::Responder, 3);
        assert_eq!(responder.read(&[0; HANDSHAKE_MESSAGE_MAX_BYTES + 1]).err(), Some(NoiseFault));
        assert_eq!(joining(Role::Initiator, 2).write(&[0; 256], &mut Vec::new()), Err(NoiseFault));
    }

    #[test]
    fn an_unfinished_exchange_gives_no_keys() {
        assert!(joining(Role::Initiator, 2).split().is_err());
    }
}
