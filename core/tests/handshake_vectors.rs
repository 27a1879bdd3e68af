//! The test vectors of PROTOCOL.md, section "Handshake".
//!
//! `vectors/handshake.json` was not made by this implementation: the messages and keys in it were computed from its
//! inputs by a second one, written from PROTOCOL.md alone.
#![allow(clippy::unwrap_used, clippy::panic)]

use bondwire_core::crypto::{LinkKeys, Opener, PortableAead, Sealer, StaticSecret, Suite};
use bondwire_core::endpoint::{AllowedPeers, Endpoint, EndpointConfig};
use bondwire_core::handshake::{
    Attachment, Attempt, Initiator, Intent, LinkOffer, Outcome, PairingToken, Parameters, Responder, Step,
};
use bondwire_core::id::{LinkId, PublicKey, Role};
use bondwire_core::time::{Duration, Instant};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::Value;

const NOW: Instant = Instant::ZERO;
const INITIATOR_SEED: [u8; 32] = [0x11; 32];
const RESPONDER_SEED: [u8; 32] = [0x22; 32];
const OPEN: [(&str, &str); 2] = [("OPEN1", "OPEN2"), ("OPEN3", "OPEN4")];

struct Vectors(Value);

impl Vectors {
    fn load() -> Self {
        Self(serde_json::from_str(include_str!("vectors/handshake.json")).unwrap())
    }

    fn bytes<const N: usize>(&self, part: &str, name: &str) -> [u8; N] {
        let text = self.0[part][name].as_str().unwrap_or_else(|| panic!("no {name} in {part}"));
        let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
        assert_eq!(text.len(), 2 * N, "length of {name} in {part}");
        std::array::from_fn(byte)
    }

    fn check(&self, part: &str, name: &str, ours: &[u8]) {
        let theirs = self.0[part][name].as_str().unwrap_or_else(|| panic!("no {name} in {part}"));
        assert_eq!(hex(ours), theirs, "{name} in {part}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an endpoint draws from its seed, in its order.
struct Draws(ChaCha20Rng);

impl Draws {
    fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    fn next<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

fn endpoint(secret: [u8; 32], seed: [u8; 32], peer: PublicKey, suites: &[Suite]) -> Endpoint {
    let config = EndpointConfig {
        secret: StaticSecret::from_bytes(secret),
        allowed: AllowedPeers::Only([peer].into()),
        suites: suites.to_vec(),
    };
    Endpoint::new(config, seed)
}

fn offer(mtu_bytes: usize, idle_timeout: Option<Duration>) -> LinkOffer {
    let parameters = Parameters {
        mtu_bytes,
        ack_delay_max: Duration::from_millis(5),
        streams_max: 100,
        idle_timeout,
        stream_window_bytes: 4096,
    };
    LinkOffer { parameters, ..LinkOffer::default() }
}

/// Runs a handshake without faults, and checks its messages by their names.
fn run(
    vectors: &Vectors,
    (part, names): (&str, &[(&str, &str)]),
    far: &mut Endpoint,
    mut initiator: Initiator,
    mut responder: Responder,
) -> (Attachment, Attachment) {
    let mut accepted = None;
    for (request_name, answer_name) in names {
        let request = initiator.poll_transmit(NOW).unwrap();
        vectors.check(part, request_name, &request);
        match far.handle_packet(NOW, &mut responder, &request).unwrap() {
            Step::NewBond { attachment, .. } | Step::LinkJoined(attachment) => accepted = Some(attachment),
            Step::Wait => {}
            step => panic!("{step:?}"),
        }
        let answer = responder.poll_transmit(NOW).unwrap();
        vectors.check(part, answer_name, &answer);
        if let Some(Outcome::Attached(attachment)) = initiator.handle_packet(NOW, &answer).unwrap() {
            return (*attachment, *accepted.unwrap());
        }
    }
    panic!("no attachment after all messages");
}

/// The first packets of both key phases, in both directions.
fn check_packets(vectors: &Vectors, part: &str, near: &LinkKeys, far: &LinkKeys) {
    for (sender, keys, peer_keys) in [(Role::Initiator, near, far), (Role::Responder, far, near)] {
        let name = if sender == Role::Initiator { "initiator" } else { "responder" };
        let mut sealer = Sealer::new(keys, sender, &PortableAead);
        let mut opener = Opener::new(peer_keys, sender.peer(), &PortableAead);
        // Packet 0 of phase 0 and packet 1 of phase 1, each with a PING.
        for (number, flags) in [(0, 0x00), (1, 0x04)] {
            let mut packet = [0; 3 + 16];
            packet[..3].copy_from_slice(&[flags, number, 0x01]);
            let len = sealer.seal(&mut packet, 2, number.into(), number.into()).unwrap();
            vectors.check(part, &format!("{name} packet {number}"), &packet[..len]);
            let opened = opener.open(&mut packet[..len]).unwrap();
            assert_eq!((opened.payload_len, packet[2]), (1, 0x01));
        }
    }
}

#[test]
fn the_handshakes_give_the_bytes_of_the_vectors() {
    let vectors = Vectors::load();
    let near_secret = vectors.bytes("inputs", "initiator static private");
    let far_secret = vectors.bytes("inputs", "responder static private");
    let public = |secret| StaticSecret::from_bytes(secret).public_key();
    let suites = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let mut near = endpoint(near_secret, INITIATOR_SEED, public(far_secret), &suites);
    let mut far = endpoint(far_secret, RESPONDER_SEED, public(near_secret), &suites);
    let mut near_draws = Draws::new(INITIATOR_SEED);
    let mut far_draws = Draws::new(RESPONDER_SEED);

    let mut attempt: Attempt = near.attempt(Some(public(far_secret)));
    vectors.check("inputs", "attempt id", &near_draws.next::<16>());
    vectors.check("inputs", "initiator random", &near_draws.next::<32>());
    let near_offer = offer(1400, Some(Duration::from_secs(120)));
    let far_offer = offer(65_535, None);

    let link = attempt.next_link().unwrap();
    let initiator = near.connect_open(NOW, &attempt, link, Intent::Open, near_offer).unwrap();
    vectors.check("inputs", "OPEN initiator ephemeral private", &near_draws.next::<32>());
    let responder = far.accept_link(NOW, far_offer).unwrap();
    let mut link_draws = Draws::new(far_draws.next());
    vectors.check("inputs", "OPEN responder ephemeral private", &link_draws.next::<32>());
    vectors.check("inputs", "responder random", &link_draws.next::<32>());
    let (opened, accepted) = run(&vectors, ("open", &OPEN), &mut far, initiator, responder);
    vectors.check("open", "bond id", &opened.bond.id().0);
    vectors.check("open", "CLOSE MAC of the initiator, code 7, reason bye", &{
        opened.bond.close_mac(Role::Initiator, 7, b"bye")
    });
    vectors.check("open", "CLOSE MAC of the responder, code 7, reason bye", &{
        accepted.bond.close_mac(Role::Responder, 7, b"bye")
    });
    assert_eq!(opened.peer_parameters, far_offer.parameters);
    assert_eq!(accepted.peer_parameters, near_offer.parameters);
    check_packets(&vectors, "open", &opened.keys, &accepted.keys);

    // The second link replaces the first, and its ends prefer the other suite.
    let suites = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];
    let mut near = endpoint(near_secret, [0x33; 32], public(far_secret), &suites);
    let mut near_draws = Draws::new([0x33; 32]);
    let link = attempt.next_link().unwrap();
    let peer = public(far_secret);
    let initiator = near.connect_join(NOW, peer, &opened.bond, link, Some(LinkId(0)), near_offer).unwrap();
    vectors.check("inputs", "JOIN initiator ephemeral private", &near_draws.next::<32>());
    let responder = far.accept_link(NOW, far_offer).unwrap();
    let mut link_draws = Draws::new(far_draws.next());
    vectors.check("inputs", "JOIN responder ephemeral private", &link_draws.next::<32>());
    let (joined, admitted) = run(&vectors, ("join", &[("JOIN1", "JOIN2")]), &mut far, initiator, responder);
    assert_eq!((joined.link, joined.opener, admitted.replaces), (LinkId(1), LinkId(0), Some(LinkId(0))));
    check_packets(&vectors, "join", &joined.keys, &admitted.keys);
}

#[test]
fn a_pairing_gives_the_bytes_of_the_vectors() {
    let vectors = Vectors::load();
    let near_secret = vectors.bytes("inputs", "initiator static private");
    let far_secret = vectors.bytes("inputs", "responder static private");
    let token = PairingToken::from_bytes(vectors.bytes("inputs", "pairing token"));
    vectors.check("pair", "token id", &token.id().0);
    let suites = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    // It allows itself, that is nobody: the token alone opens the door.
    let far_public = StaticSecret::from_bytes(far_secret).public_key();
    let mut near = endpoint(near_secret, INITIATOR_SEED, far_public, &suites);
    let mut far = endpoint(far_secret, RESPONDER_SEED, far_public, &suites);
    far.add_pairing_token(NOW, &token, Duration::from_secs(1)).unwrap();

    let mut attempt = near.attempt_pairing(Some(far_public), token);
    let link = attempt.next_link().unwrap();
    let near_offer = offer(1400, Some(Duration::from_secs(120)));
    let initiator = near.connect_open(NOW, &attempt, link, Intent::Open, near_offer).unwrap();
    let responder = far.accept_link(NOW, offer(65_535, None)).unwrap();
    let (opened, accepted) = run(&vectors, ("pair", &OPEN), &mut far, initiator, responder);
    vectors.check("pair", "bond id", &opened.bond.id().0);
    check_packets(&vectors, "pair", &opened.keys, &accepted.keys);
}

#[test]
fn suite_none_seals_with_the_crc_of_the_vectors() {
    // The keys of a test stand in for those of a handshake, which must not end up in plaintext.
    let vectors = Vectors::load();
    let key = vectors.bytes::<32>("none", "key");
    let (header, payload) = (vectors.bytes::<2>("none", "header"), vectors.bytes::<1>("none", "payload"));
    let aead = bondwire_core::crypto::AeadProvider::key(&PortableAead, Suite::None, &key);
    let tag = aead.seal_in_place(&vectors.bytes("none", "nonce"), &header, &mut payload.clone());
    vectors.check("none", "tag", &tag[..4]);
}
