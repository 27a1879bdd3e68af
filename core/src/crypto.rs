//! Packet protection: suites, the AEAD seam, the key schedule, and the sealing and opening of packets.
//!
//! A handshake ends with [`LinkKeys`] for one attachment of one link. The link's own tasks build a [`Sealer`] and an
//! [`Opener`] from them and run these outside every lock. The arithmetic itself sits behind [`AeadProvider`], so that
//! hosts can use an implementation with hardware support; [`PortableAead`] works everywhere.

mod checksum;
mod packet;
mod portable;
mod schedule;

pub use checksum::ChecksumKey;
pub use packet::{OpenError, Opened, Opener, SealError, Sealer};
pub use portable::{PortableAead, crc32c};
pub use schedule::{BondKeys, LinkKeys, StaticSecret};
pub(crate) use schedule::{BondOrigin, Secret, expand, extract, secret_from};

use alloc::boxed::Box;

/// How the packets of a link are protected. Both ends agree on one for each attachment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM: the fastest where the processor has AES instructions.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439): fast everywhere.
    ChaCha20Poly1305 = 2,
    /// No encryption and no authentication; a CRC-32C guards against noise. For trusted cables only: whoever holds the
    /// link can read and forge its contents.
    None = 3,
}

impl Suite {
    /// The suite of a wire value, if this version knows it.
    pub const fn from_wire(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            3 => Some(Self::None),
            _ => None,
        }
    }

    /// Bytes that sealing adds behind a packet's payload.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 16,
            Self::None => 4,
        }
    }

    /// Packets that one key may protect: the confidentiality limit of RFC 9001 section 6.6, which holds for packets of
    /// up to 2¹⁶ bytes. Key phases change at [`KEY_PHASE_PACKETS`](crate::limits::KEY_PHASE_PACKETS), before it.
    pub const fn packets_max(self) -> u64 {
        match self {
            Self::Aes256Gcm => 1 << 23,
            // Packet numbers end first.
            Self::ChaCha20Poly1305 | Self::None => u64::MAX,
        }
    }

    /// Packets that may fail to authenticate under the keys of one attachment before the link must end: the
    /// integrity limits of RFC 9001 section 6.6. A CRC has no such limit: noise may break any number of packets.
    pub const fn forgeries_max(self) -> u64 {
        match self {
            Self::Aes256Gcm => 1 << 52,
            Self::ChaCha20Poly1305 => 1 << 36,
            Self::None => u64::MAX,
        }
    }
}

/// A packet did not authenticate. There is nothing more to say about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the packet does not authenticate")]
pub struct NotAuthentic;

/// One suite under one key. Built once for each key phase, used for each packet.
pub trait AeadKey: Send {
    /// Encrypts `buf` in place and returns the tag; of it the first [`Suite::tag_len`] bytes travel, the rest is zero.
    /// The caller uses a nonce once.
    fn seal_in_place(&self, nonce: &[u8; 12], aad: &[u8], buf: &mut [u8]) -> [u8; 16];

    /// Checks `tag` and decrypts `buf` in place.
    ///
    /// # Errors
    /// [`NotAuthentic`] if the tag does not fit the key, the nonce, `aad` and `buf`, or has the wrong length. Then `buf`
    /// holds nothing of use.
    fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8],
    ) -> Result<(), NotAuthentic>;
}

/// An implementation of all suites. All implementations give the same answers.
pub trait AeadProvider: Send + Sync {
    /// Prepares `key` for use under `suite`. [`ChecksumKey`] is all that [`Suite::None`] needs.
    fn key(&self, suite: Suite, key: &[u8; 32]) -> Box<dyn AeadKey>;
}
