//! Sealing and opening of data packets: nonces, packet numbers, key phases.

use alloc::boxed::Box;

use super::{AeadKey, AeadProvider, LinkKeys, NotAuthentic, Secret, Suite, expand};
use crate::id::Role;
use crate::wire::header::{self, HeaderError};

/// Why a packet cannot be sealed. Each is a mistake of the caller; nothing was encrypted, and no nonce was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// A nonce would be used twice.
    #[error(
        "packet number {number} does not rise: {last} was sealed before it; end this link, the sender's state is wrong"
    )]
    NumberNotRising {
        /// The number asked for.
        number: u64,
        /// The last number sealed.
        last: u64,
    },
    /// Key phases go one by one.
    #[error(
        "key phase {asked} cannot follow key phase {current}; end this link, the sender's state is wrong"
    )]
    PhaseJumped {
        /// The phase asked for.
        asked: u64,
        /// The phase now in use.
        current: u64,
    },
    /// The suite protects no more packets under one key; the key phase must rise long before.
    #[error("{packets} packets were sealed in key phase {key_phase}; end this link and attach it anew")]
    KeyWornOut {
        /// The phase now in use.
        key_phase: u64,
        /// Packets sealed in it.
        packets: u64,
    },
    /// The buffer is shorter than header and tag.
    #[error(
        "a buffer of {len} bytes does not hold a header of {header_len} bytes and a tag; pass the whole packet"
    )]
    BufferTooShort {
        /// Length of the buffer.
        len: usize,
        /// Length of the header.
        header_len: usize,
    },
}

/// Why a packet was not taken. All but [`OpenError::TooManyForgeries`] cost only this packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// It has no header of a data packet; handshake messages go to the handshake.
    #[error("{0}; it is dropped")]
    Header(#[from] HeaderError),
    /// Shorter than its header and tag.
    #[error("the packet is cut short: {len} bytes; it is dropped")]
    TooShort {
        /// Length of the packet.
        len: usize,
    },
    /// The number was authenticated before, or is below one that was: a replay, or a link that reorders.
    #[error(
        "packet number {number} does not rise above {highest}: a replay, or the link reorders; it is dropped"
    )]
    NumberNotRising {
        /// The packet's number.
        number: u64,
        /// The highest number authenticated so far.
        highest: u64,
    },
    /// The tag is wrong: noise, or a forgery.
    #[error("the packet does not authenticate: noise or a forgery; it is dropped")]
    NotAuthentic,
    /// So many packets failed that the suite's integrity limit is reached.
    #[error("{count} packets failed to authenticate; end this link and attach it anew with fresh keys")]
    TooManyForgeries {
        /// Packets that failed under these keys.
        count: u64,
    },
}

/// Where the parts of an opened packet are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The packet number.
    pub number: u64,
    /// The key phase, as a counter.
    pub key_phase: u64,
    /// Bytes of header before the payload.
    pub header_len: usize,
    /// Bytes of decrypted payload behind the header.
    pub payload_len: usize,
}

/// One direction's protection in one key phase.
struct Phase {
    secret: Secret,
    iv: [u8; 12],
    key: Box<dyn AeadKey>,
}

impl Phase {
    fn new(suite: Suite, secret: Secret, provider: &dyn AeadProvider) -> Self {
        let key = provider.key(suite, &expand(&secret, &[b"bondwire key"]));
        Self { iv: *expand(&secret, &[b"bondwire iv"]), key, secret }
    }

    fn next(&self, suite: Suite, provider: &dyn AeadProvider) -> Self {
        Self::new(suite, expand(&self.secret, &[b"bondwire ku"]), provider)
    }

    /// RFC 9001 section 5.3: the number in network order, filled up with zeros on the left, XOR the IV.
    fn nonce(&self, number: u64) -> [u8; 12] {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(number.to_be_bytes()).for_each(|(byte, of_number)| *byte ^= of_number);
        nonce
    }

    fn seal(&self, number: u64, header: &[u8], payload: &mut [u8]) -> [u8; 16] {
        self.key.seal_in_place(&self.nonce(number), header, payload)
    }

    fn open(&self, number: u64, header: &[u8], payload: &mut [u8], tag: &[u8]) -> Result<(), NotAuthentic> {
        self.key.open_in_place(&self.nonce(number), header, payload, tag)
    }
}

/// Seals what one end sends on one attachment.
pub struct Sealer {
    suite: Suite,
    provider: &'static dyn AeadProvider,
    current: Phase,
    key_phase: u64,
    /// Packets sealed in this phase.
    packets: u64,
    last: Option<u64>,
}

impl Sealer {
    /// For the end with `role`.
    pub fn new(keys: &LinkKeys, role: Role, provider: &'static dyn AeadProvider) -> Self {
        let suite = keys.suite();
        let current = Phase::new(suite, keys.secret_of(role), provider);
        Self { suite, provider, current, key_phase: 0, packets: 0, last: None }
    }

    /// The suite in use.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Seals one packet in place and returns its sealed length. `buf` is the header, then the payload, then 16 spare
    /// bytes for the tag, of which the suite may use fewer. `number` and `key_phase` are those the header was written
    /// with. The phase may stay or rise by one.
    ///
    /// # Errors
    /// See [`SealError`]: the numbers come from the engine, so an error means that its state is wrong.
    pub fn seal(
        &mut self,
        buf: &mut [u8],
        header_len: usize,
        number: u64,
        key_phase: u64,
    ) -> Result<usize, SealError> {
        if let Some(last) = self.last.filter(|last| number <= *last) {
            return Err(SealError::NumberNotRising { number, last });
        }
        let too_short = SealError::BufferTooShort { len: buf.len(), header_len };
        let payload_end = buf.len().checked_sub(SPARE_BYTES).ok_or(too_short)?;
        if header_len > payload_end {
            return Err(too_short);
        }
        self.enter(key_phase)?;
        if self.packets >= self.suite.packets_max() {
            return Err(SealError::KeyWornOut { key_phase, packets: self.packets });
        }
        self.packets += 1;
        self.last = Some(number);

        let (packet, spare) = buf.split_at_mut(payload_end);
        let (header, payload) = packet.split_at_mut(header_len);
        spare.copy_from_slice(&self.current.seal(number, header, payload));
        Ok(payload_end + self.suite.tag_len())
    }

    fn enter(&mut self, key_phase: u64) -> Result<(), SealError> {
        match key_phase.checked_sub(self.key_phase) {
            Some(0) => {}
            Some(1) => {
                self.current = self.current.next(self.suite, self.provider);
                self.key_phase = key_phase;
                self.packets = 0;
            }
            _ => return Err(SealError::PhaseJumped { asked: key_phase, current: self.key_phase }),
        }
        Ok(())
    }
}

/// Spare bytes behind the payload that [`Sealer::seal`] wants, for every suite the same.
const SPARE_BYTES: usize = crate::limits::TAG_MAX_BYTES;

/// Opens what the peer sends on one attachment.
pub struct Opener {
    suite: Suite,
    provider: &'static dyn AeadProvider,
    current: Phase,
    /// Made when a packet first claims the next phase, and kept, so that forgeries cost one derivation altogether.
    next: Option<Phase>,
    key_phase: u64,
    highest: Option<u64>,
    forgeries: u64,
}

impl Opener {
    /// For the end with `role`; it opens what the other end sealed.
    pub fn new(keys: &LinkKeys, role: Role, provider: &'static dyn AeadProvider) -> Self {
        let suite = keys.suite();
        let current = Phase::new(suite, keys.secret_of(role.peer()), provider);
        Self { suite, provider, current, next: None, key_phase: 0, highest: None, forgeries: 0 }
    }

    /// The suite in use.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Packets that did not authenticate so far.
    pub const fn forgeries(&self) -> u64 {
        self.forgeries
    }

    /// Checks and decrypts one packet in place. Only a packet that authenticates changes what this end expects next.
    ///
    /// # Errors
    /// The packet is to be dropped and counted; after [`OpenError::TooManyForgeries`] the link is to end. `packet` then
    /// holds nothing of use.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, OpenError> {
        if self.forgeries >= self.suite.forgeries_max() {
            return Err(OpenError::TooManyForgeries { count: self.forgeries });
        }
        let (header, header_len) = header::decode(packet, self.highest)?;
        let number = header.number;
        if let Some(highest) = self.highest.filter(|highest| number <= *highest) {
            return Err(OpenError::NumberNotRising { number, highest });
        }
        let too_short = OpenError::TooShort { len: packet.len() };
        let payload_end = packet.len().checked_sub(self.suite.tag_len()).ok_or(too_short)?;
        let payload_len = payload_end.checked_sub(header_len).ok_or(too_short)?;

        let (sealed, tag) = packet.split_at_mut(payload_end);
        let (head, payload) = sealed.split_at_mut(header_len);
        let rises = header.phase_bit != (self.key_phase & 1 == 1);
        if self.phase(rises).open(number, head, payload, tag).is_err() {
            self.forgeries += 1;
            return Err(OpenError::NotAuthentic);
        }

        self.highest = Some(number);
        if let Some(next) = self.next.take_if(|_| rises) {
            self.current = next;
            self.key_phase += 1;
        }
        Ok(Opened { number, key_phase: self.key_phase, header_len, payload_len })
    }

    fn phase(&mut self, next: bool) -> &Phase {
        if next {
            self.next.get_or_insert_with(|| self.current.next(self.suite, self.provider))
        } else {
            &self.current
        }
    }
}

impl core::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { suite, key_phase, last, .. } = self;
        write!(f, "Sealer({suite:?}, phase {key_phase}, last {last:?})")
    }
}

impl core::fmt::Debug for Opener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { suite, key_phase, highest, forgeries, .. } = self;
        write!(f, "Opener({suite:?}, phase {key_phase}, highest {highest:?}, forgeries {forgeries})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::PortableAead;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const SUITES: [Suite; 3] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305, Suite::None];

    fn pair(suite: Suite) -> (Sealer, Opener) {
        let keys = LinkKeys::for_tests(suite, [7; 32]);
        (
            Sealer::new(&keys, Role::Initiator, &PortableAead),
            Opener::new(&keys, Role::Responder, &PortableAead),
        )
    }

    fn sealed(sealer: &mut Sealer, number: u64, key_phase: u64, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let header = header::Header { number, phase_bit: key_phase & 1 == 1 };
        let header_len = header::encode(header, None, &mut packet);
        packet.extend_from_slice(payload);
        packet.extend_from_slice(&[0; SPARE_BYTES]);
        let len = sealer.seal(&mut packet, header_len, number, key_phase).unwrap();
        packet.truncate(len);
        packet
    }

    #[test]
    fn what_is_sealed_opens() {
        for suite in SUITES {
            let (mut sealer, mut opener) = pair(suite);
            for (number, key_phase) in [(0, 0), (1, 0), (5, 0), (6, 1), (7, 1), (900, 2), (901, 3)] {
                let mut packet = sealed(&mut sealer, number, key_phase, b"hello");
                let opened = opener.open(&mut packet).unwrap();
                let Opened { header_len, payload_len, .. } = opened;
                assert_eq!((opened.number, opened.key_phase), (number, key_phase));
                assert_eq!(&packet[header_len..header_len + payload_len], b"hello");
                assert_eq!(packet.len(), header_len + payload_len + suite.tag_len());
            }
            assert_eq!(opener.forgeries(), 0);
        }
    }

    #[test]
    fn an_encrypted_packet_hides_its_payload_and_a_plain_one_does_not() {
        for suite in SUITES {
            let packet = sealed(&mut pair(suite).0, 0, 0, b"hello hello hello");
            let shows = packet.windows(17).any(|window| window == b"hello hello hello");
            assert_eq!(shows, suite == Suite::None);
        }
    }

    #[test]
    fn a_packet_opens_once_and_in_order_only() {
        for suite in SUITES {
            let (mut sealer, mut opener) = pair(suite);
            let packets: Vec<_> = (0..4).map(|number| sealed(&mut sealer, number, 0, b"x")).collect();
            opener.open(&mut packets[2].clone()).unwrap();
            for late in [0, 1, 2] {
                let refused = opener.open(&mut packets[late].clone());
                assert_eq!(refused, Err(OpenError::NumberNotRising { number: late as u64, highest: 2 }));
            }
            assert_eq!(opener.open(&mut packets[3].clone()).unwrap().number, 3);
        }
    }

    #[test]
    fn an_old_packet_whose_short_number_looks_new_is_refused() {
        for suite in SUITES {
            let (mut sealer, mut opener) = pair(suite);
            let old = sealed(&mut sealer, 5, 0, b"old");
            opener.open(&mut old.clone()).unwrap();
            opener.open(&mut sealed(&mut sealer, 0x104, 0, b"new")).unwrap();
            // Its one byte of packet number is now read as 0x105, which would rise.
            assert_eq!(header::decode(&old, Some(0x104)).unwrap().0.number, 0x105);
            assert_eq!(opener.open(&mut old.clone()), Err(OpenError::NotAuthentic), "{suite:?}");
            assert_eq!(opener.open(&mut sealed(&mut sealer, 0x105, 0, b"new")).unwrap().number, 0x105);
        }
    }

    #[test]
    fn a_changed_packet_changes_nothing_at_the_receiver() {
        for suite in SUITES {
            let (mut sealer, mut opener) = pair(suite);
            let packet = sealed(&mut sealer, 0, 0, b"payload");
            for bit in 0..packet.len() * 8 {
                let mut changed = packet.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    opener.open(&mut changed).is_err(),
                    "{suite:?} takes a packet with bit {bit} changed"
                );
            }
            for len in 0..packet.len() {
                assert!(
                    opener.open(&mut packet[..len].to_vec()).is_err(),
                    "{suite:?} takes {len} bytes of a packet"
                );
            }
            assert!(opener.forgeries() > 0);
            assert_eq!(opener.open(&mut packet.clone()).unwrap().key_phase, 0);
        }
    }

    #[test]
    fn the_two_directions_have_different_keys() {
        for suite in SUITES {
            let keys = LinkKeys::for_tests(suite, [7; 32]);
            let mut own = Opener::new(&keys, Role::Initiator, &PortableAead);
            let mut packet = sealed(&mut pair(suite).0, 0, 0, b"to the responder");
            assert_eq!(own.open(&mut packet), Err(OpenError::NotAuthentic), "{suite:?}: a packet reflected");
        }
    }

    #[test]
    fn a_number_is_sealed_once() {
        let (mut sealer, _) = pair(Suite::Aes256Gcm);
        sealed(&mut sealer, 5, 0, b"");
        let mut packet = [0; 40];
        for number in [0, 4, 5] {
            let refused = sealer.seal(&mut packet, 2, number, 0);
            assert_eq!(refused, Err(SealError::NumberNotRising { number, last: 5 }));
        }
        assert_eq!(packet, [0; 40]);
        assert_eq!(sealer.seal(&mut packet, 2, 6, 2), Err(SealError::PhaseJumped { asked: 2, current: 0 }));
        assert_eq!(
            sealer.seal(&mut packet, 25, 6, 0),
            Err(SealError::BufferTooShort { len: 40, header_len: 25 })
        );
        assert_eq!(
            sealer.seal(&mut packet[..15], 0, 6, 0),
            Err(SealError::BufferTooShort { len: 15, header_len: 0 })
        );
        sealer.seal(&mut packet, 2, 6, 1).unwrap();
        assert_eq!(sealer.seal(&mut packet, 2, 7, 0), Err(SealError::PhaseJumped { asked: 0, current: 1 }));
    }

    #[test]
    fn a_key_wears_out_and_the_next_phase_renews_it() {
        let (mut sealer, _) = pair(Suite::Aes256Gcm);
        sealer.packets = Suite::Aes256Gcm.packets_max();
        let mut packet = [0; 40];
        let refused = sealer.seal(&mut packet, 2, 0, 0);
        assert_eq!(refused, Err(SealError::KeyWornOut { key_phase: 0, packets: 1 << 23 }));
        sealer.seal(&mut packet, 2, 0, 1).unwrap();
    }

    #[test]
    fn too_many_forgeries_end_the_keys() {
        let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
        opener.forgeries = Suite::ChaCha20Poly1305.forgeries_max() - 1;
        assert_eq!(opener.open(&mut [0; 40]), Err(OpenError::NotAuthentic));
        let refused = opener.open(&mut sealed(&mut sealer, 0, 0, b"good"));
        assert_eq!(refused, Err(OpenError::TooManyForgeries { count: 1 << 36 }));
    }

    #[test]
    fn a_forged_phase_bit_does_not_move_the_phase() {
        let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
        let mut forged = sealed(&mut sealer, 0, 0, b"x");
        forged[0] ^= 0x04;
        assert_eq!(opener.open(&mut forged), Err(OpenError::NotAuthentic));
        assert_eq!(opener.open(&mut sealed(&mut sealer, 1, 0, b"x")).unwrap().key_phase, 0);
        assert_eq!(opener.open(&mut sealed(&mut sealer, 2, 1, b"x")).unwrap().key_phase, 1);
        assert_eq!(opener.open(&mut sealed(&mut sealer, 3, 1, b"x")).unwrap().key_phase, 1);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut packet in proptest::collection::vec(any::<u8>(), 0..64), suite in 0..3_usize) {
            let (_, mut opener) = pair(SUITES[suite]);
            let _ = opener.open(&mut packet);
        }

        #[test]
        fn a_receiver_takes_each_packet_once_whatever_the_order(order in proptest::collection::vec(0..40_u64, 1..200)) {
            let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
            let packets: Vec<_> = (0..40).map(|number| sealed(&mut sealer, number, number / 10, b"data")).collect();
            let mut highest = None;
            for number in order {
                let opened = opener.open(&mut packets[number as usize].clone());
                let phase = |number: Option<u64>| number.unwrap_or(0) / 10;
                // A receiver that missed a whole phase cannot follow; the sender waits for acknowledgements instead.
                let reachable = Some(number) > highest && phase(Some(number)) - phase(highest) <= 1;
                prop_assert_eq!(opened.is_ok(), reachable, "{} after {:?}", number, highest);
                if reachable {
                    highest = Some(number);
                }
            }
        }
    }
}
