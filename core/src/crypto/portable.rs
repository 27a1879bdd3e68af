//! The suites in portable Rust.

use aes_gcm::Aes256Gcm;
use alloc::boxed::Box;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use crc::{CRC_32_ISCSI, Crc, Table};

use super::{AeadKey, AeadProvider, ChecksumKey, NotAuthentic, Suite};

/// The suites in portable Rust; they use the processor's AES instructions where the compiler or the processor offers
/// them.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortableAead;

impl AeadProvider for PortableAead {
    fn key(&self, suite: Suite, key: &[u8; 32]) -> Box<dyn AeadKey> {
        match suite {
            Suite::Aes256Gcm => Box::new(Keyed(Aes256Gcm::new(key.into()))),
            Suite::ChaCha20Poly1305 => Box::new(Keyed(ChaCha20Poly1305::new(key.into()))),
            Suite::None => Box::new(ChecksumKey::new(key, crc32c)),
        }
    }
}

struct Keyed<A>(A);

impl<A: Send + AeadInPlace<NonceSize = N12, TagSize = N16>> AeadKey for Keyed<A> {
    fn seal_in_place(&self, nonce: &[u8; 12], aad: &[u8], buf: &mut [u8]) -> [u8; 16] {
        let sealed = self.0.encrypt_in_place_detached(nonce.into(), aad, buf);
        debug_assert!(sealed.is_ok(), "a packet is far shorter than an AEAD's limit");
        sealed.map_or_else(
            |_| {
                // Out of reach, but what stands in `buf` must then not leave as plaintext.
                buf.fill(0);
                [0; 16]
            },
            Into::into,
        )
    }

    fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8],
    ) -> Result<(), NotAuthentic> {
        let tag: &[u8; 16] = tag.try_into().map_err(|_| NotAuthentic)?;
        self.0.decrypt_in_place_detached(nonce.into(), aad, buf, tag.into()).map_err(|_| NotAuthentic)
    }
}

type N12 = chacha20poly1305::consts::U12;
type N16 = chacha20poly1305::consts::U16;

/// CRC-32C (Castagnoli; CRC-32/ISCSI in the catalogue) of `parts` one after another.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    static TABLE: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
    let mut digest = TABLE.digest();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_answers_of_rfc_3720_appendix_b_4() {
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 16], &[0xff; 16]]), 0x62a8_ab43);
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
    }

    #[test]
    fn chacha20_poly1305_gives_the_answer_of_rfc_8439_section_2_8_2() {
        let key: [u8; 32] = core::array::from_fn(|i| 0x80 + u8::try_from(i).unwrap());
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let text =
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
sunscreen would be it.";
        let mut buf = *text;
        let aead = PortableAead.key(Suite::ChaCha20Poly1305, &key);
        let tag = aead.seal_in_place(&nonce, &aad, &mut buf);
        assert_eq!(
            tag,
            [0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a, 0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60, 0x06, 0x91]
        );
        aead.open_in_place(&nonce, &aad, &mut buf, &tag).unwrap();
        assert_eq!(&buf, text);
    }

    #[test]
    fn aes_256_gcm_gives_the_answer_of_the_gcm_specification_test_case_14() {
        let mut buf = [0; 16];
        let tag = PortableAead.key(Suite::Aes256Gcm, &[0; 32]).seal_in_place(&[0; 12], &[], &mut buf);
        assert_eq!(
            buf,
            [0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18]
        );
        assert_eq!(
            tag,
            [0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19]
        );
    }

    #[test]
    fn every_suite_notices_each_changed_byte() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305, Suite::None] {
            let key = PortableAead.key(suite, &[9; 32]);
            let mut sealed = *b"payload";
            let tag = key.seal_in_place(&[3; 12], b"head", &mut sealed);
            let tag = &tag[..suite.tag_len()];
            for at in 0..sealed.len() {
                let mut changed = sealed;
                changed[at] ^= 0x10;
                assert_eq!(key.open_in_place(&[3; 12], b"head", &mut changed, tag), Err(NotAuthentic));
            }
            assert_eq!(key.open_in_place(&[3; 12], b"heap", &mut sealed.clone(), tag), Err(NotAuthentic));
            for at in 0..12 {
                let mut nonce = [3; 12];
                nonce[at] ^= 0x10;
                assert_eq!(key.open_in_place(&nonce, b"head", &mut sealed.clone(), tag), Err(NotAuthentic));
            }
            assert_eq!(
                key.open_in_place(&[3; 12], b"head", &mut sealed.clone(), &tag[1..]),
                Err(NotAuthentic)
            );
            key.open_in_place(&[3; 12], b"head", &mut sealed, tag).unwrap();
            assert_eq!(&sealed, b"payload");
        }
    }
}
