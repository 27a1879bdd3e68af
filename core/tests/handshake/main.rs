//! Handshakes between two endpoints over links with every kind of fault.
#![allow(clippy::unwrap_used, clippy::panic)]

mod pairing;
mod wire;

use std::sync::Mutex;

use bondwire_core::crypto::Suite;
use bondwire_core::endpoint::{AllowedPeers, Endpoint, EndpointConfig, PeerRules};
use bondwire_core::handshake::{
    EndpointAccess, HandshakeError, Intent, LinkOffer, Outcome, Refusal, Stage, Step,
};
use bondwire_core::id::{LinkId, Role};
use bondwire_core::limits::{
    BONDS_PER_PEER_MAX, HALF_OPEN_LINKS_MAX, HANDSHAKE_FIRST_MESSAGE_BYTES, HANDSHAKE_GRACE,
    HANDSHAKE_LINK_MAX_BYTES, HANDSHAKE_MESSAGE_MAX_BYTES, HANDSHAKE_TIMEOUT, OPENS_PER_SECOND_MAX,
};
use bondwire_core::time::Duration;
use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use wire::{Ends, Fate, Hosts, START, Wire, assert_match, drive, fates, key, offer, secret};

// ---- Loss, duplicates, order

#[test]
fn an_open_survives_every_fate_of_its_messages() {
    for fates in fates(5) {
        let mut hosts = Hosts::new();
        let mut attempt = hosts.attempt();
        let mut wire = Wire::new(hosts.open(&mut attempt), hosts.accept());
        wire.fates = fates.clone();
        let ends = wire.run(&mut hosts.far).unwrap_or_else(|error| panic!("{fates:?}: {error}"));
        assert!(ends.new_bond && ends.near.opened());
        assert_match(&ends);
        assert_eq!(hosts.stats().bonds_opened, 1, "{fates:?}");
        assert_eq!(hosts.stats().half_open_links, 0, "{fates:?}");
        let first_answered = wire.sent.iter().position(|(_, message)| message[0] == 0x82).unwrap_or(0);
        let repeated = wire.sent.iter().filter(|(_, message)| message[0] == 0x81).count() > 1;
        assert_eq!(ends.near.rtt.is_none(), repeated && first_answered > 0, "{fates:?}: {:?}", ends.near.rtt);
    }
}

#[test]
fn a_join_survives_every_fate_of_its_messages() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    for (n, fates) in fates(4).enumerate() {
        let mut wire = Wire::new(hosts.join(&mut attempt, &first.bond), hosts.accept());
        wire.fates = fates.clone();
        let ends = wire.run(&mut hosts.far).unwrap_or_else(|error| panic!("{fates:?}: {error}"));
        assert!(!ends.new_bond && !ends.near.opened());
        assert_eq!(ends.near.replaces, Some(LinkId(0)));
        assert_match(&ends);
        assert_eq!(hosts.stats().links_joined, n as u64 + 1, "{fates:?}");
    }
}

#[test]
fn repeats_are_the_same_bytes_and_their_intervals_double() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let mut initiator = hosts.open(&mut attempt);
    let first = initiator.poll_transmit(START).unwrap();
    let mut sent_at = vec![Duration::ZERO];
    let end = loop {
        let now = initiator.poll_timeout().unwrap();
        if let Err(error) = initiator.handle_timeout(now) {
            assert_eq!(error, HandshakeError::Timeout { stage: Stage::Open2 });
            break now;
        }
        assert_eq!(initiator.poll_transmit(now), Some(first.clone()));
        assert_eq!(initiator.poll_transmit(now), None);
        sent_at.push(now - START);
    };
    assert_eq!(sent_at.iter().map(Duration::as_millis).collect::<Vec<_>>(), [0, 250, 750, 1750, 3750, 7750]);
    assert_eq!(end, START + HANDSHAKE_TIMEOUT);
    assert_eq!(initiator.poll_timeout(), None);
    assert_eq!(initiator.poll_transmit(end), None);
}

#[test]
fn a_link_that_takes_nothing_is_not_asked_to_repeat() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let mut initiator = hosts.open(&mut attempt);
    assert_eq!(initiator.poll_timeout(), Some(START + HANDSHAKE_TIMEOUT));
    initiator.handle_timeout(START + HANDSHAKE_TIMEOUT / 2).unwrap();
    assert_eq!(initiator.poll_timeout(), Some(START + HANDSHAKE_TIMEOUT));
    assert!(initiator.poll_transmit(START).is_some());
}

#[test]
fn first_messages_are_long_and_answers_are_not_longer() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let mut open = Wire::new(hosts.open(&mut attempt), hosts.accept());
    let ends = open.run(&mut hosts.far).unwrap();
    let mut join = Wire::new(hosts.join(&mut attempt, &ends.near.bond), hosts.accept());
    join.run(&mut hosts.far).unwrap();
    for (_, message) in open.sent.iter().chain(&join.sent) {
        assert!(message.len() <= HANDSHAKE_FIRST_MESSAGE_BYTES);
        assert!(message.len() <= HANDSHAKE_MESSAGE_MAX_BYTES);
        if matches!(message[0], 0x81 | 0x85) {
            assert_eq!(message.len(), HANDSHAKE_FIRST_MESSAGE_BYTES);
        }
    }
}

#[test]
fn the_round_trip_is_that_of_the_first_message() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let (mut initiator, mut responder) = (hosts.open(&mut attempt), hosts.accept());
    let open1 = initiator.poll_transmit(START).unwrap();
    hosts.far.handle_packet(START, &mut responder, &open1).unwrap();
    let open2 = responder.poll_transmit(START).unwrap();
    let later = START + Duration::from_millis(30);
    initiator.handle_packet(later, &open2).unwrap();
    let open3 = initiator.poll_transmit(later).unwrap();
    let much_later = later + Duration::from_secs(1);
    hosts.far.handle_packet(much_later, &mut responder, &open3).unwrap();
    let open4 = responder.poll_transmit(much_later).unwrap();
    let Some(Outcome::Attached(near)) = initiator.handle_packet(much_later, &open4).unwrap() else {
        panic!()
    };
    assert_eq!(near.rtt, Some(Duration::from_millis(30)));
}

// ---- Who is at the other end

/// How an open ends between these hosts.
fn open_between(hosts: &mut Hosts) -> Result<Ends, HandshakeError> {
    let mut attempt = hosts.attempt();
    let (initiator, responder) = (hosts.open(&mut attempt), hosts.accept());
    drive(&mut hosts.far, initiator, responder)
}

#[test]
fn another_host_than_the_one_wanted_is_named() {
    let mut hosts = Hosts::with(|_, far| far.secret = secret(7));
    let error = open_between(&mut hosts).err();
    assert_eq!(error, Some(HandshakeError::WrongPeer { expected: key(2), got: key(7) }));
    assert_eq!(hosts.stats().bonds_opened, 0);
}

#[test]
fn any_peer_is_taken_only_where_that_is_asked_for() {
    let mut hosts = Hosts::with(|_, far| {
        far.secret = secret(7);
        far.allowed = AllowedPeers::Any;
    });
    let mut attempt = hosts.near.attempt(None);
    let (initiator, responder) = (hosts.open(&mut attempt), hosts.accept());
    let ends = drive(&mut hosts.far, initiator, responder).unwrap();
    assert_eq!((ends.near.peer, ends.far.peer), (key(7), key(1)));
}

#[test]
fn a_peer_that_is_not_allowed_learns_so() {
    let mut hosts = Hosts::with(|_, far| far.allowed = AllowedPeers::Only([key(9)].into()));
    let Some(HandshakeError::Refused { code, text }) = open_between(&mut hosts).err() else { panic!() };
    assert_eq!(code, Refusal::NotAllowed);
    assert_eq!(text, "your public key is not among the allowed peers here");
    assert_eq!(hosts.stats().refused_not_allowed, 1);
    hosts.far.allow(key(1));
    assert_match(&open_between(&mut hosts).unwrap());
    hosts.far.disallow(key(1));
    assert!(open_between(&mut hosts).is_err());
}

#[test]
fn a_lost_refusal_is_repeated() {
    let mut hosts = Hosts::with(|_, far| far.allowed = AllowedPeers::Only([key(9)].into()));
    let mut attempt = hosts.attempt();
    let mut wire = Wire::new(hosts.open(&mut attempt), hosts.accept());
    wire.fates = [Fate::Arrives, Fate::Arrives, Fate::Arrives, Fate::IsLost].into();
    assert!(matches!(
        wire.run(&mut hosts.far).err(),
        Some(HandshakeError::Refused { code: Refusal::NotAllowed, .. })
    ));
}

#[test]
fn a_cable_looped_back_to_its_own_host_is_named() {
    // Both ends of the cable are this program: its listener answers with its own key.
    let mut hosts = Hosts::with(|_, far| far.secret = secret(1));
    assert_eq!(open_between(&mut hosts).err(), Some(HandshakeError::Looped));
    // The cable's two conductors are joined: what goes out comes back.
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    for mut initiator in [hosts.open(&mut attempt), hosts.join(&mut attempt, &first.bond)] {
        let echo = initiator.poll_transmit(START).unwrap();
        assert!(initiator.handle_packet(START, &echo).unwrap().is_none());
        let end = initiator.poll_timeout().unwrap();
        assert_eq!(end, START + HANDSHAKE_GRACE);
        assert_eq!(initiator.handle_timeout(end), Err(HandshakeError::Looped));
    }
}

#[test]
fn two_ends_with_the_same_role_are_named() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    let same_role = |role| HandshakeError::SameRole { role };
    let mut one = hosts.open(&mut attempt);
    let mut other = hosts.join(&mut attempt, &first.bond);
    one.handle_packet(START, &other.poll_transmit(START).unwrap()).unwrap();
    assert_eq!(one.handle_timeout(START + HANDSHAKE_GRACE), Err(same_role(Role::Initiator)));
    other.handle_packet(START, &hosts.open(&mut attempt).poll_transmit(START).unwrap()).unwrap();
    assert_eq!(other.handle_timeout(START + HANDSHAKE_GRACE), Err(same_role(Role::Initiator)));

    let mut responder = hosts.accept();
    hosts.far.handle_packet(START, &mut responder, &[0x82; 100]).unwrap();
    assert_eq!(responder.handle_timeout(START + HANDSHAKE_GRACE), Err(same_role(Role::Responder)));
    assert_eq!(hosts.stats().same_role, 1);
}

#[test]
fn other_protocols_are_named() {
    let mut hosts = Hosts::new();
    let mut responder = hosts.accept();
    hosts.far.handle_packet(START, &mut responder, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(responder.poll_transmit(START), None);
    let error = responder.handle_timeout(START + HANDSHAKE_GRACE);
    assert_eq!(error, Err(HandshakeError::NotBondwire { looks_like: "an HTTP request" }));

    let mut attempt = hosts.attempt();
    let mut initiator = hosts.open(&mut attempt);
    initiator.handle_packet(START, b"SSH-2.0-OpenSSH_9.9\r\n").unwrap();
    let error = initiator.handle_timeout(START + HANDSHAKE_GRACE);
    assert_eq!(error, Err(HandshakeError::NotBondwire { looks_like: "an SSH banner" }));
}

// ---- Versions and suites

#[test]
fn another_version_is_answered_with_a_hint() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    for mut initiator in [hosts.open(&mut attempt), hosts.join(&mut attempt, &first.bond)] {
        let mut message = initiator.poll_transmit(START).unwrap().to_vec();
        message[1] = 2;
        let mut responder = hosts.accept();
        hosts.far.handle_packet(START, &mut responder, &message).unwrap();
        let hint = responder.poll_transmit(START).unwrap();
        assert_eq!(hint[..], [0x8f, 2, 1]);
        // The hint reaches an initiator of another version; as this one is of version 1, the answer is made up.
        initiator.handle_packet(START, &[0x8f, 2, 9]).unwrap();
        let error = initiator.handle_timeout(START + HANDSHAKE_GRACE);
        assert_eq!(error, Err(HandshakeError::Version { ours: 1, theirs: 9 }));
    }
    assert_eq!(hosts.stats().wrong_version, 2);
}

#[test]
fn a_hint_cannot_beat_an_answer() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    let mut unknown_bond = vec![0x8f, 1];
    unknown_bond.extend_from_slice(&first.bond.id().0);
    for forged in [&[0x8f, 2, 9][..], &unknown_bond, &[0x85; 192], b"HTTP/1.1 400 Bad Request\r\n"] {
        let mut wire = Wire::new(hosts.join(&mut attempt, &first.bond), hosts.accept());
        wire.initiator.handle_packet(START, forged).unwrap();
        assert_match(&wire.run(&mut hosts.far).unwrap());
        let mut wire = Wire::new(hosts.open(&mut attempt), hosts.accept());
        wire.initiator.handle_packet(START, forged).unwrap();
        assert_match(&wire.run(&mut hosts.far).unwrap());
    }
}

#[test]
fn an_answer_refutes_a_hint_and_a_proof_renews_the_time() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let (mut initiator, mut responder) = (hosts.open(&mut attempt), hosts.accept());
    hosts.far.handle_packet(START, &mut responder, &initiator.poll_transmit(START).unwrap()).unwrap();
    initiator.handle_packet(START, &[0x8f, 2, 9]).unwrap();
    initiator.handle_packet(START, &responder.poll_transmit(START).unwrap()).unwrap();
    initiator.handle_timeout(START + HANDSHAKE_GRACE).unwrap();

    let late = START + HANDSHAKE_TIMEOUT / 2;
    hosts.far.handle_packet(late, &mut responder, &initiator.poll_transmit(late).unwrap()).unwrap();
    assert_eq!(responder.poll_timeout(), Some(late + HANDSHAKE_TIMEOUT));
}

#[test]
fn the_ends_agree_on_a_suite_or_say_why_not() {
    use Suite::{Aes256Gcm as Aes, ChaCha20Poly1305 as ChaCha, None as Plain};
    let agree = |near_suites: &[Suite], far_suites: &[Suite], near_plain: bool, far_plain: bool| {
        let mut hosts = Hosts::with(|near, far| {
            near.suites = near_suites.to_vec();
            far.suites = far_suites.to_vec();
        });
        let mut attempt = hosts.attempt();
        let near_offer = LinkOffer { plaintext_allowed: near_plain, ..offer() };
        let far_offer = LinkOffer { plaintext_allowed: far_plain, ..offer() };
        let link = attempt.next_link().unwrap();
        let initiator = hosts.near.connect_open(START, &attempt, link, Intent::Open, near_offer)?;
        let responder = hosts.far.accept_link(START, far_offer).unwrap();
        let first = drive(&mut hosts.far, initiator, responder)?;
        assert_match(&first);
        let link = attempt.next_link().unwrap();
        let initiator = hosts.near.connect_join(START, key(2), &first.near.bond, link, None, near_offer)?;
        let responder = hosts.far.accept_link(START, far_offer).unwrap();
        let joined = drive(&mut hosts.far, initiator, responder)?;
        assert_match(&joined);
        assert_eq!(first.near.keys.suite(), joined.near.keys.suite());
        Ok(first.near.keys.suite())
    };
    assert_eq!(agree(&[Aes, ChaCha], &[Aes, ChaCha], false, false), Ok(Aes));
    assert_eq!(agree(&[Aes, ChaCha], &[ChaCha, Aes], false, false), Ok(ChaCha));
    assert_eq!(agree(&[Plain, Aes], &[Plain, Aes], true, true), Ok(Plain));
    assert_eq!(agree(&[Plain, Aes], &[Plain, Aes], true, false), Ok(Aes));
    assert_eq!(agree(&[Plain, Aes], &[Plain, Aes], false, true), Ok(Aes));
    assert_eq!(agree(&[Plain], &[Plain, Aes], true, false), Err(HandshakeError::PlaintextRefused));
    assert_eq!(agree(&[Plain], &[Plain, Aes], false, true), Err(HandshakeError::NothingToOffer));
    assert_eq!(agree(&[Aes], &[ChaCha], false, false), Err(HandshakeError::NoCommonSuite));
}

#[test]
fn a_join_can_be_refused_for_its_link_alone() {
    let mut hosts = Hosts::with(|near, _| near.suites = vec![Suite::None, Suite::Aes256Gcm]);
    let (mut attempt, first) = hosts.bond();
    assert_eq!(first.keys.suite(), Suite::Aes256Gcm);
    // The same host asks for plaintext only.
    let config = EndpointConfig { suites: vec![Suite::None], ..EndpointConfig::new(secret(1)) };
    let mut near = Endpoint::new(config, [8; 32]);
    let plain = LinkOffer { plaintext_allowed: true, ..offer() };
    let link = attempt.next_link().unwrap();
    let initiator = near.connect_join(START, key(2), &first.bond, link, None, plain).unwrap();
    let responder = hosts.accept();
    assert_eq!(drive(&mut hosts.far, initiator, responder).err(), Some(HandshakeError::PlaintextRefused));
    assert_eq!(hosts.stats().no_common_suite, 1);
}

// ---- Several links at once

#[test]
fn links_that_open_at_once_lead_to_one_bond() {
    // Which OPEN3 comes first, and whether the opener's OPEN4 is lost.
    for (first, lost) in [(0, false), (0, true), (1, false), (1, true)] {
        let mut hosts = Hosts::new();
        let mut attempt = hosts.attempt();
        let mut wires: Vec<_> = (0..2).map(|_| Wire::new(hosts.open(&mut attempt), hosts.accept())).collect();
        let mut open3s = Vec::new();
        for wire in &mut wires {
            let open1 = wire.initiator.poll_transmit(START).unwrap();
            hosts.far.handle_packet(START, &mut wire.responder, &open1).unwrap();
            let open2 = wire.responder.poll_transmit(START).unwrap();
            wire.initiator.handle_packet(START, &open2).unwrap();
            open3s.push(wire.initiator.poll_transmit(START).unwrap());
        }
        let mut ids = Vec::new();
        for link in [first, 1 - first] {
            let wire = &mut wires[link];
            let far = match hosts.far.handle_packet(START, &mut wire.responder, &open3s[link]).unwrap() {
                Step::NewBond { attachment, evicted, .. } if link == first && evicted.is_empty() => {
                    attachment
                }
                Step::LinkJoined(attachment) if link != first => attachment,
                step => panic!("{step:?} on link {link}, opened by {first}"),
            };
            assert_eq!((far.link, far.opener), (LinkId(link as u32), LinkId(first as u32)));
            let open4 = wire.responder.poll_transmit(START).unwrap();
            if lost && link == first {
                continue;
            }
            let Some(Outcome::Attached(near)) = wire.initiator.handle_packet(START, &open4).unwrap() else {
                panic!()
            };
            let ends = Ends { near, far, new_bond: link == first };
            assert_match(&ends);
            ids.push(ends.near.bond.id());
        }
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!((hosts.stats().bonds_opened, hosts.stats().links_joined), (1, 1));
        // A third link joins what the two made, whatever was lost.
        assert_eq!(hosts.far.bonds_of(key(1)).map(|(id, _)| id).collect::<Vec<_>>(), ids[..1]);
    }
}

#[test]
fn a_link_number_opens_once() {
    let mut hosts = Hosts::new();
    let (attempt, _) = hosts.bond();
    let initiator = hosts.near.connect_open(START, &attempt, LinkId(0), Intent::Open, offer()).unwrap();
    let responder = hosts.accept();
    let refused = drive(&mut hosts.far, initiator, responder).err();
    assert!(matches!(refused, Some(HandshakeError::Refused { code: Refusal::LinkIdTaken, .. })));
}

#[test]
fn a_restarted_peer_gets_a_new_bond_in_place_of_its_stale_one() {
    let mut hosts = Hosts::new();
    let mut evictions = Vec::new();
    let mut bonds = Vec::new();
    for _ in 0..20 {
        let mut attempt = hosts.attempt();
        let mut wire = Wire::new(hosts.open(&mut attempt), hosts.accept());
        let outcome = wire.run_to_outcome(&mut hosts.far, |step| {
            if let Step::NewBond { attachment, evicted, .. } = step {
                bonds.push(attachment.bond.id());
                evictions.extend(evicted);
            }
        });
        outcome.unwrap();
        hosts.far.set_links(*bonds.last().unwrap(), 0);
    }
    assert_eq!(evictions, bonds[..19]);
    assert_eq!(hosts.far.bonds_of(key(1)).count(), 1);
}

#[test]
fn an_open3_that_comes_after_the_end_of_its_bond_makes_no_other() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let mut wires = [(); 2].map(|()| Wire::new(hosts.open(&mut attempt), hosts.accept()));
    let [open3, late] = [0, 1].map(|link| {
        let wire = &mut wires[link];
        let open1 = wire.initiator.poll_transmit(START).unwrap();
        hosts.far.handle_packet(START, &mut wire.responder, &open1).unwrap();
        wire.initiator.handle_packet(START, &wire.responder.poll_transmit(START).unwrap()).unwrap();
        wire.initiator.poll_transmit(START).unwrap()
    });
    let [first, second] = &mut wires;
    let step = hosts.far.handle_packet(START, &mut first.responder, &open3).unwrap();
    let Step::NewBond { attachment, .. } = step else { panic!("{step:?}") };
    hosts.far.forget(START, attachment.bond.id());

    let step = hosts.far.handle_packet(START, &mut second.responder, &late).unwrap();
    assert!(matches!(step, Step::Refused { reason: Refusal::AttemptEnded, .. }), "{step:?}");
    assert_eq!(hosts.far.bonds_of(key(1)).count(), 0);
    let refused = second.initiator.handle_packet(START, &second.responder.poll_transmit(START).unwrap());
    assert!(matches!(refused, Err(HandshakeError::Refused { code: Refusal::AttemptEnded, .. })));
    // A new attempt of the same peer is welcome.
    assert_match(&open_between(&mut hosts).unwrap());
}

#[test]
fn a_peer_has_as_many_bonds_as_its_rules_allow() {
    let mut hosts = Hosts::new();
    hosts.far.set_rules(key(1), PeerRules { bonds_max: 2, ..PeerRules::default() });
    let bonds: Vec<_> = (0..3).map(|_| hosts.bond().1.bond.id()).collect();
    let left: Vec<_> = hosts.far.bonds_of(key(1)).map(|(id, _)| id).collect();
    assert_eq!(left, bonds[1..], "the oldest went");
}

#[test]
fn nobody_has_no_bond_at_all_or_more_than_the_bound() {
    for (asked, had) in [(0, 1), (usize::MAX, BONDS_PER_PEER_MAX)] {
        let mut hosts = Hosts::new();
        hosts.far.set_rules(key(1), PeerRules { bonds_max: asked, ..PeerRules::default() });
        (0..=BONDS_PER_PEER_MAX).for_each(|_| drop(hosts.bond()));
        assert_eq!(hosts.far.bonds_of(key(1)).count(), had);
    }
}

#[test]
fn a_peer_comes_in_by_the_listening_points_of_its_rules_only() {
    let mut hosts = Hosts::new();
    hosts.far.set_rules(key(1), PeerRules { vias: Some([7].into()), ..PeerRules::default() });
    let mut attempt = hosts.attempt();
    let refused = |result: Result<Ends, HandshakeError>| {
        matches!(result.err(), Some(HandshakeError::Refused { code: Refusal::NotOnThisLink, .. }))
    };
    let at = |hosts: &mut Hosts, via| hosts.far.accept_link(START, LinkOffer { via, ..offer() }).unwrap();
    let (first, by_eight) = (hosts.open(&mut attempt), at(&mut hosts, 8));
    assert!(refused(drive(&mut hosts.far, first, by_eight)));
    let (second, by_seven) = (hosts.open(&mut attempt), at(&mut hosts, 7));
    let bond = drive(&mut hosts.far, second, by_seven).unwrap().near.bond;
    let (third, by_eight) = (hosts.join(&mut attempt, &bond), at(&mut hosts, 8));
    assert!(refused(drive(&mut hosts.far, third, by_eight)));
    let (fourth, by_seven) = (hosts.join(&mut attempt, &bond), at(&mut hosts, 7));
    assert!(drive(&mut hosts.far, fourth, by_seven).is_ok());
}

// ---- Replays

#[test]
fn a_replay_on_the_same_link_gets_the_same_answer() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    for initiator in [hosts.open(&mut attempt), hosts.join(&mut attempt, &first.bond)] {
        let mut wire = Wire::new(initiator, hosts.accept());
        wire.run(&mut hosts.far).unwrap();
        wire.responder.confirm();
        let before = hosts.stats();
        for pair in wire.sent.chunks(2) {
            let [(Role::Initiator, request), (Role::Responder, answer)] = pair else { panic!() };
            let step = hosts.far.handle_packet(START, &mut wire.responder, request).unwrap();
            assert!(matches!(step, Step::Wait));
            assert_eq!(wire.responder.poll_transmit(START).as_ref(), Some(answer));
        }
        assert_eq!(hosts.stats(), before);
    }
}

#[test]
fn a_replayed_open_leads_nowhere_on_another_link() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let mut wire = Wire::new(hosts.open(&mut attempt), hosts.accept());
    wire.run(&mut hosts.far).unwrap();
    let (open1, open2, open3) = (&wire.sent[0].1, &wire.sent[1].1, &wire.sent[2].1);

    let mut other = hosts.accept();
    hosts.far.handle_packet(START, &mut other, open3).unwrap();
    assert_eq!(other.poll_transmit(START), None, "an OPEN3 without its OPEN1");
    hosts.far.handle_packet(START, &mut other, open1).unwrap();
    assert_ne!(other.poll_transmit(START).as_ref(), Some(open2), "fresh keys for each exchange");
    let step = hosts.far.handle_packet(START, &mut other, open3).unwrap();
    assert!(matches!(step, Step::Wait));
    assert_eq!(other.poll_transmit(START), None);
    assert_eq!(
        other.handle_timeout(START + HANDSHAKE_TIMEOUT),
        Err(HandshakeError::Timeout { stage: Stage::Open3 })
    );
    assert_eq!((hosts.stats().bonds_opened, hosts.stats().malformed), (1, 2));
}

#[test]
fn a_replayed_join_gets_no_answer_on_another_link() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    let mut wire = Wire::new(hosts.join(&mut attempt, &first.bond), hosts.accept());
    wire.run(&mut hosts.far).unwrap();
    let mut other = hosts.accept();
    for _ in 0..3 {
        let step = hosts.far.handle_packet(START, &mut other, &wire.sent[0].1).unwrap();
        assert!(matches!(step, Step::Wait));
        assert_eq!(other.poll_transmit(START), None);
    }
    assert_eq!((hosts.stats().replayed_joins, hosts.stats().links_joined), (3, 1));
}

#[test]
fn a_join_that_was_held_back_waits_for_a_first_packet_in_vain() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    let held_back = hosts.join(&mut attempt, &first.bond).poll_transmit(START).unwrap();
    let mut responder = hosts.accept();
    let step = hosts.far.handle_packet(START, &mut responder, &held_back).unwrap();
    assert!(matches!(step, Step::LinkJoined(_)));
    let end = responder.poll_timeout().unwrap();
    assert_eq!(responder.handle_timeout(end), Err(HandshakeError::Timeout { stage: Stage::FirstPacket }));
    responder.confirm();
    assert_eq!(responder.poll_timeout(), None);
    responder.handle_timeout(end).unwrap();
}

// ---- Bonds that are not there

#[test]
fn an_unknown_bond_is_hinted_at_then_checked() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    let id = first.bond.id();
    hosts.far = Hosts::new().far;

    let mut responder = hosts.accept();
    let mut wire = Wire::new(hosts.join(&mut attempt, &first.bond), responder);
    assert_eq!(wire.run(&mut hosts.far).err(), Some(HandshakeError::UnknownBond { bond: id }));
    assert_eq!(wire.now, START + HANDSHAKE_GRACE);
    assert!(hosts.stats().unknown_bond > 0);

    // On the same link, the truth.
    responder = wire.responder;
    let link = attempt.next_link().unwrap();
    let check = hosts.near.connect_open(wire.now, &attempt, link, Intent::Check(id), offer()).unwrap();
    let mut wire = Wire { now: wire.now, ..Wire::new(check, responder) };
    assert_eq!(wire.run(&mut hosts.far).err(), Some(HandshakeError::PeerRestarted { bond: id }));
    assert_eq!(hosts.stats().bonds_opened, 0);

    // And on the same link again, a new bond.
    let mut attempt = hosts.attempt();
    let mut wire = Wire { now: wire.now, ..Wire::new(hosts.open(&mut attempt), wire.responder) };
    let ends = wire.run(&mut hosts.far).unwrap();
    assert_match(&ends);
    assert_ne!(ends.near.bond.id(), id);
}

#[test]
fn a_bond_that_lives_is_known_to_its_peer_only() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    let id = first.bond.id();
    let link = attempt.next_link().unwrap();
    let check = hosts.near.connect_open(START, &attempt, link, Intent::Check(id), offer()).unwrap();
    let mut wire = Wire::new(check, hosts.accept());
    wire.fates = [Fate::IsLost, Fate::Arrives, Fate::IsLost, Fate::Arrives, Fate::IsLost].into();
    let mut checked = 0;
    let outcome = wire.run_to_outcome(&mut hosts.far, |step| {
        if let Step::Checked { bond, known } = step {
            assert_eq!((bond, known), (id, true));
            checked += 1;
        }
    });
    assert!(matches!(outcome, Ok(Outcome::Known(bond)) if bond == id));
    assert_eq!(checked, 1);
    let join = hosts.join(&mut attempt, &first.bond);
    assert_match(&drive(&mut hosts.far, join, wire.responder).unwrap());

    hosts.far.allow(key(5));
    let mut stranger = Endpoint::new(EndpointConfig::new(secret(5)), [6; 32]);
    let mut attempt = stranger.attempt(Some(key(2)));
    let link = attempt.next_link().unwrap();
    let check = stranger.connect_open(START, &attempt, link, Intent::Check(id), offer()).unwrap();
    let responder = hosts.accept();
    let error = drive(&mut hosts.far, check, responder).err();
    assert_eq!(error, Some(HandshakeError::PeerRestarted { bond: id }));
}

#[test]
fn a_join_needs_the_secret_of_its_bond() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    let (_, second) = hosts.bond();
    let mut join1 = hosts.join(&mut attempt, &first.bond).poll_transmit(START).unwrap().to_vec();
    join1[2..18].copy_from_slice(&second.bond.id().0);
    let mut responder = hosts.accept();
    let step = hosts.far.handle_packet(START, &mut responder, &join1).unwrap();
    assert!(matches!(step, Step::Wait));
    assert_eq!(responder.poll_transmit(START), None);
    assert_eq!((hosts.stats().links_joined, hosts.stats().malformed), (0, 1));
}

#[test]
fn a_forgotten_bond_takes_no_links() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    hosts.far.forget(START, first.bond.id());
    let (join, responder) = (hosts.join(&mut attempt, &first.bond), hosts.accept());
    let error = drive(&mut hosts.far, join, responder).err();
    assert_eq!(error, Some(HandshakeError::UnknownBond { bond: first.bond.id() }));
}

#[test]
fn a_bond_with_all_its_links_refuses_one_more() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    hosts.far.set_links(first.bond.id(), 64);
    let (join, responder) = (hosts.join(&mut attempt, &first.bond), hosts.accept());
    let refused = drive(&mut hosts.far, join, responder).err();
    assert!(matches!(refused, Some(HandshakeError::Refused { code: Refusal::TooManyLinks, .. })));
    assert_eq!(hosts.stats().refused_other, 1);
}

// ---- Noise and forgery

#[test]
fn a_forged_message_before_each_genuine_one_changes_nothing() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    // One byte of each region of each message; the exchanges a link may begin bound the number of tries.
    for at in [0, 1, 2, 5, 33, 35, 60, 81, 90, 130, 170, 191] {
        for open in [true, false] {
            let initiator =
                if open { hosts.open(&mut attempt) } else { hosts.join(&mut attempt, &first.bond) };
            let mut wire = Wire::new(initiator, hosts.accept());
            let forge = |message: &Bytes| {
                let mut forged = message.to_vec();
                let at = at % forged.len();
                forged[at] ^= 0x40;
                forged
            };
            let mut far = None;
            let near = loop {
                let message = wire.initiator.poll_transmit(START).expect("the genuine message moves it on");
                let step = hosts.far.handle_packet(START, &mut wire.responder, &forge(&message)).unwrap();
                assert!(matches!(step, Step::Wait), "byte {at}: {step:?}");
                wire.responder.poll_transmit(START);
                match hosts.far.handle_packet(START, &mut wire.responder, &message).unwrap() {
                    Step::NewBond { attachment, .. } | Step::LinkJoined(attachment) => far = Some(attachment),
                    _ => {}
                }
                let answer =
                    wire.responder.poll_transmit(START).unwrap_or_else(|| panic!("byte {at} of {message:?}"));
                assert!(wire.initiator.handle_packet(START, &forge(&answer)).unwrap().is_none(), "byte {at}");
                if let Some(Outcome::Attached(near)) = wire.initiator.handle_packet(START, &answer).unwrap() {
                    break near;
                }
            };
            assert_match(&Ends { near, far: far.unwrap(), new_bond: open });
        }
    }
}

#[test]
fn garbage_is_dropped_until_there_is_too_much_of_it() {
    let mut rng = ChaCha20Rng::from_seed([42; 32]);
    let mut garbage = move || {
        let mut packet = vec![0; (rng.next_u32() % 300) as usize];
        rng.fill_bytes(&mut packet);
        if let [first, second, ..] = &mut packet[..] {
            // Half of it looks like a handshake.
            if rng.next_u32() % 2 == 0 {
                (*first, *second) = (0x80 | (*first % 8), 1);
            }
        }
        packet
    };
    for _ in 0..50 {
        let mut hosts = Hosts::new();
        let mut attempt = hosts.attempt();
        let mut wire = Wire::new(hosts.open(&mut attempt), hosts.accept());
        for _ in 0..4 {
            wire.initiator.handle_packet(START, &garbage()).unwrap();
            hosts.far.handle_packet(START, &mut wire.responder, &garbage()).unwrap();
            wire.responder.poll_transmit(START);
        }
        assert_match(&wire.run(&mut hosts.far).unwrap());
    }

    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let (mut initiator, mut responder) = (hosts.open(&mut attempt), hosts.accept());
    let is_too_noisy =
        |error| matches!(error, HandshakeError::TooNoisy { bytes } if bytes > HANDSHAKE_LINK_MAX_BYTES);
    assert!(
        (0..1000).find_map(|_| initiator.handle_packet(START, &garbage()).err()).is_some_and(is_too_noisy)
    );
    let error = (0..1000).find_map(|_| hosts.far.handle_packet(START, &mut responder, &garbage()).err());
    assert!(error.is_some_and(is_too_noisy));
    assert_eq!(hosts.stats().too_noisy, 1);
}

#[test]
fn half_a_handshake_and_then_silence_times_out() {
    let mut hosts = Hosts::new();
    let mut silent = hosts.accept();
    let end = silent.poll_timeout().unwrap();
    assert_eq!(silent.handle_timeout(end), Err(HandshakeError::Timeout { stage: Stage::FirstMessage }));

    let mut attempt = hosts.attempt();
    let (mut initiator, mut responder) = (hosts.open(&mut attempt), hosts.accept());
    hosts.far.handle_packet(START, &mut responder, &initiator.poll_transmit(START).unwrap()).unwrap();
    initiator.handle_packet(START, &responder.poll_transmit(START).unwrap()).unwrap();
    let end = START + HANDSHAKE_TIMEOUT;
    assert_eq!(responder.handle_timeout(end), Err(HandshakeError::Timeout { stage: Stage::Open3 }));
    assert_eq!(initiator.handle_timeout(end), Err(HandshakeError::Timeout { stage: Stage::Open4 }));
    assert_eq!(hosts.stats().timed_out, 2);
}

#[test]
fn data_packets_are_ignored_until_the_link_is_attached() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let mut wire = Wire::new(hosts.open(&mut attempt), hosts.accept());
    for packet in [&[0x00, 1, 2, 3][..], &[], &[0x07; 200]] {
        assert!(wire.initiator.handle_packet(START, packet).unwrap().is_none());
        assert!(matches!(hosts.far.handle_packet(START, &mut wire.responder, packet), Ok(Step::Wait)));
    }
    assert_eq!((wire.initiator.ignored_packets(), wire.responder.ignored_packets()), (3, 3));
    assert_match(&wire.run(&mut hosts.far).unwrap());
}

// ---- Floods

#[test]
fn ten_thousand_half_open_links_leave_room_for_nobody_until_they_go() {
    let mut hosts = Hosts::new();
    let mut links: Vec<_> = (0..10_000).filter_map(|_| hosts.far.accept_link(START, offer()).ok()).collect();
    assert_eq!(links.len(), HALF_OPEN_LINKS_MAX);
    assert_eq!(hosts.stats().half_open_links, HALF_OPEN_LINKS_MAX as u64);
    assert_eq!(hosts.stats().refused_busy, 10_000 - HALF_OPEN_LINKS_MAX as u64);
    links.retain_mut(|link| link.handle_timeout(START + HANDSHAKE_TIMEOUT).is_ok());
    assert_eq!(hosts.stats().half_open_links, 0);
    assert_match(&open_between(&mut hosts).unwrap());
}

#[test]
fn a_flood_of_opens_is_answered_at_a_bounded_rate_and_joins_get_through() {
    let mut hosts = Hosts::new();
    let (mut attempt, first) = hosts.bond();
    let open1 = hosts.open(&mut attempt).poll_transmit(START).unwrap();
    let mut answers = 0;
    for _ in 0..OPENS_PER_SECOND_MAX + 100 {
        let mut responder = hosts.accept();
        hosts.far.handle_packet(START, &mut responder, &open1).unwrap();
        answers += u32::from(responder.poll_transmit(START).is_some());
    }
    assert!((OPENS_PER_SECOND_MAX - 2..=OPENS_PER_SECOND_MAX).contains(&answers), "{answers}");
    assert!(hosts.stats().over_budget >= 100);
    let (join, responder) = (hosts.join(&mut attempt, &first.bond), hosts.accept());
    assert_match(&drive(&mut hosts.far, join, responder).unwrap());
    // An OPEN gets through a little later, by its repeats.
    assert_match(&open_between(&mut hosts).unwrap());
}

#[test]
fn one_link_begins_few_exchanges() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let mut responder = hosts.accept();
    let mut answers = 0;
    for _ in 0..20 {
        let open1 = hosts.open(&mut attempt).poll_transmit(START).unwrap();
        hosts.far.handle_packet(START, &mut responder, &open1).unwrap();
        answers += u32::from(responder.poll_transmit(START).is_some());
    }
    assert_eq!(answers, 8);
}

// ---- A shared endpoint

/// As a driver shares it between the tasks of its links.
struct Shared<'a>(&'a Mutex<Endpoint>);

impl EndpointAccess for Shared<'_> {
    fn with<R>(&mut self, f: impl FnOnce(&mut Endpoint) -> R) -> R {
        f(&mut self.0.lock().unwrap())
    }
}

#[test]
fn the_endpoint_is_free_while_a_responder_computes() {
    let mut hosts = Hosts::new();
    let mut attempt = hosts.attempt();
    let (mut initiator, mut responder) = (hosts.open(&mut attempt), hosts.accept());
    let far = Mutex::new(hosts.far);
    let mut attached = false;
    let outcome = loop {
        let message = initiator.poll_transmit(START).unwrap();
        let step = responder.handle_packet(START, &message, &mut Shared(&far)).unwrap();
        attached |= matches!(step, Step::NewBond { .. });
        let answer = responder.poll_transmit(START).unwrap();
        if let Some(outcome) = initiator.handle_packet(START, &answer).unwrap() {
            break outcome;
        }
    };
    assert!(attached && matches!(outcome, Outcome::Attached(_)));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let mut hosts = Hosts::new();
    let (attempt, near) = hosts.bond();
    let shown = format!("{near:?} {attempt:?} {:?} {:?}", hosts.near, secret(1));
    assert!(shown.len() < 700, "{shown}");
    assert!(shown.contains("LinkKeys(Aes256Gcm)") && shown.contains("BondKeys("), "{shown}");
}
