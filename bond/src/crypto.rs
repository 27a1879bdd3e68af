//! The suites on `ring` and `crc-fast`, which use what the processor has.

use bondwire_core::crypto::{AeadKey, AeadProvider, ChecksumKey, NotAuthentic, PortableAead, Suite};
use crc_fast::{CrcAlgorithm, Digest};
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

/// The suites on `ring` and `crc-fast`: the same answers as [`PortableAead`], in a fraction of its time.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingAead;

impl AeadProvider for RingAead {
    fn key(&self, suite: Suite, key: &[u8; 32]) -> Box<dyn AeadKey> {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Suite::None => return Box::new(ChecksumKey::new(key, crc32c)),
        };
        match UnboundKey::new(algorithm, key) {
            Ok(key) => Box::new(RingKey(LessSafeKey::new(key))),
            // Both algorithms take keys of 32 bytes, so this is out of reach; if it is not, it must still be right.
            Err(_) => PortableAead.key(suite, key),
        }
    }
}

struct RingKey(LessSafeKey);

impl AeadKey for RingKey {
    fn seal_in_place(&self, nonce: &[u8; 12], aad: &[u8], buf: &mut [u8]) -> [u8; 16] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), buf);
        debug_assert!(tag.is_ok(), "a packet is far shorter than an AEAD's limit");
        let mut bytes = [0; 16];
        match tag {
            Ok(tag) => bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from),
            // Out of reach, but what stands in `buf` must then not leave as plaintext.
            Err(_) => buf.fill(0),
        }
        bytes
    }

    fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8],
    ) -> Result<(), NotAuthentic> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = Tag::try_from(tag).map_err(|_| NotAuthentic)?;
        match self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, buf, 0..) {
            Ok(_) => Ok(()),
            Err(_) => Err(NotAuthentic),
        }
    }
}

/// CRC-32C of `parts` one after another: the same as [`bondwire_core::crypto::crc32c`], by the processor's own
/// instructions where it has them.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    // The algorithm's 32 bits stand in the low half.
    digest.finalize() as u32
}

/// The suites that encrypt, the faster first: AES-256-GCM where the processor has AES instructions.
pub fn preferred_suites() -> Vec<Suite> {
    if has_aes_instructions() {
        vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
    } else {
        vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm]
    }
}

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has =
        std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

#[cfg(test)]
mod tests {
    use super::*;
    use bondwire_core::crypto::{LinkKeys, Opener, Sealer};
    use bondwire_core::id::Role;

    const SUITES: [Suite; 3] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305, Suite::None];

    /// Bytes that differ from place to place, enough to cross every block size in use.
    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn both_providers_give_the_same_answers() {
        for suite in SUITES {
            let key: [u8; 32] = sample(32).try_into().unwrap();
            let (ours, portable) = (RingAead.key(suite, &key), PortableAead.key(suite, &key));
            for len in (0..300).chain([1400, 16_384, 65_535]) {
                let (nonce, aad) = ([len as u8; 12], sample(len % 6));
                let (mut one, mut other) = (sample(len), sample(len));
                let tag = ours.seal_in_place(&nonce, &aad, &mut one);
                assert_eq!(tag, portable.seal_in_place(&nonce, &aad, &mut other), "{suite:?} of {len} bytes");
                assert_eq!(one, other);
                let tag = &tag[..suite.tag_len()];
                portable.open_in_place(&nonce, &aad, &mut one, tag).unwrap();
                ours.open_in_place(&nonce, &aad, &mut other, tag).unwrap();
                assert_eq!((one, other), (sample(len), sample(len)));
            }
        }
    }

    #[test]
    fn both_crcs_give_the_same_answers() {
        for len in (0..600).chain([4096, 65_535]) {
            let data = sample(len);
            let cut = len / 3;
            assert_eq!(crc32c(&[&data]), bondwire_core::crypto::crc32c(&[&data[..cut], &data[cut..]]));
        }
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
    }

    #[test]
    fn what_does_not_authenticate_is_refused() {
        for suite in SUITES {
            let key = RingAead.key(suite, &[1; 32]);
            let mut sealed = sample(50);
            let tag = key.seal_in_place(&[2; 12], b"head", &mut sealed);
            let tag = &tag[..suite.tag_len()];
            let mut changed = sealed.clone();
            changed[49] ^= 1;
            assert_eq!(key.open_in_place(&[2; 12], b"head", &mut changed, tag), Err(NotAuthentic));
            assert_eq!(key.open_in_place(&[2; 12], b"heap", &mut sealed.clone(), tag), Err(NotAuthentic));
            assert_eq!(key.open_in_place(&[3; 12], b"head", &mut sealed.clone(), tag), Err(NotAuthentic));
            assert_eq!(
                key.open_in_place(&[2; 12], b"head", &mut sealed.clone(), &tag[1..]),
                Err(NotAuthentic)
            );
            assert_eq!(key.open_in_place(&[2; 12], b"head", &mut sealed.clone(), &[]), Err(NotAuthentic));
        }
    }

    #[test]
    fn a_link_can_have_one_provider_at_each_end() {
        for suite in SUITES {
            let keys = LinkKeys::for_tests(suite, [5; 32]);
            let mut sealer = Sealer::new(&keys, Role::Initiator, &RingAead);
            let mut opener = Opener::new(&keys, Role::Responder, &PortableAead);
            for key_phase in 0..3 {
                let mut packet = sample(2 + 100 + 16);
                packet[..2].copy_from_slice(&[if key_phase == 1 { 4 } else { 0 }, key_phase as u8]);
                let len = sealer.seal(&mut packet, 2, key_phase, key_phase).unwrap();
                let opened = opener.open(&mut packet[..len]).unwrap();
                assert_eq!(
                    (opened.number, opened.key_phase, opened.payload_len),
                    (key_phase, key_phase, 100)
                );
                assert_eq!(packet[2..102], sample(118)[2..102]);
            }
        }
    }

    #[test]
    fn both_suites_that_encrypt_are_on_offer() {
        let mut suites = preferred_suites();
        suites.sort_unstable();
        assert_eq!(suites, [Suite::Aes256Gcm, Suite::ChaCha20Poly1305]);
    }
}
