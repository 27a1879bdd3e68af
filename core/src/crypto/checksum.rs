//! The suite that does not encrypt: a CRC-32C where the others have their tag.

use super::{AeadKey, NotAuthentic};

/// [`Suite::None`](super::Suite::None) under one key, on any implementation of CRC-32C.
///
/// The checksum covers what an AEAD would bind: key, nonce, header and payload. The nonce holds the whole packet
/// number, of which only the low bytes travel; without it an old packet could pass as a new one.
pub struct ChecksumKey {
    seed: [u8; 4],
    crc32c: fn(&[&[u8]]) -> u32,
}

impl ChecksumKey {
    /// For `key`, with a function that computes the CRC-32C of parts one after another, as [`super::crc32c`] does.
    pub const fn new(key: &[u8; 32], crc32c: fn(&[&[u8]]) -> u32) -> Self {
        let [a, b, c, d, ..] = *key;
        Self { seed: [a, b, c, d], crc32c }
    }

    fn checksum(&self, nonce: &[u8; 12], aad: &[u8], buf: &[u8]) -> [u8; 4] {
        (self.crc32c)(&[&self.seed, nonce, aad, buf]).to_le_bytes()
    }
}

impl AeadKey for ChecksumKey {
    fn seal_in_place(&self, nonce: &[u8; 12], aad: &[u8], buf: &mut [u8]) -> [u8; 16] {
        let mut tag = [0; 16];
        tag[..4].copy_from_slice(&self.checksum(nonce, aad, buf));
        tag
    }

    fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8],
    ) -> Result<(), NotAuthentic> {
        if tag == self.checksum(nonce, aad, buf) { Ok(()) } else { Err(NotAuthentic) }
    }
}
