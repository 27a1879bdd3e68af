//! Pairing: two hosts that do not know each other's key, and a token.

use bondwire_core::endpoint::{AllowedPeers, Endpoint, EndpointConfig};
use bondwire_core::handshake::{
    Attempt, HandshakeError, Initiator, Intent, Outcome, PairingToken, Refusal, Responder, Step,
};
use bondwire_core::id::{PublicKey, Role};
use bondwire_core::limits::{
    HANDSHAKE_FIRST_MESSAGE_BYTES, HANDSHAKE_GRACE, HANDSHAKE_REPEAT, PAIRING_PROOFS_PER_SECOND_MAX,
    PAIRING_TOKEN_VALID,
};
use bondwire_core::time::{Duration, Instant};

use crate::wire::{Ends, Hosts, START, Wire, assert_match, drive, fates, key, offer, secret};

fn token() -> PairingToken {
    PairingToken::from_bytes([0x5a; 16])
}

/// Host 2 allows nobody, and has given out a token.
fn hosts() -> Hosts {
    let mut hosts = Hosts::with(|_, far| far.allowed = AllowedPeers::Only([].into()));
    hosts.far.add_pairing_token(START, &token(), PAIRING_TOKEN_VALID).unwrap();
    hosts
}

fn pair_as(near: &mut Endpoint, peer: Option<PublicKey>, token: PairingToken) -> (Attempt, Initiator) {
    let mut attempt = near.attempt_pairing(peer, token);
    let link = attempt.next_link().unwrap();
    let initiator = near.connect_open(START, &attempt, link, Intent::Open, offer()).unwrap();
    (attempt, initiator)
}

fn pair(hosts: &mut Hosts, token: PairingToken) -> Result<Ends, HandshakeError> {
    let (_, initiator) = pair_as(&mut hosts.near, None, token);
    let responder = hosts.accept();
    drive(&mut hosts.far, initiator, responder)
}

/// Another host that dials.
fn stranger(of: u8) -> Endpoint {
    Endpoint::new(EndpointConfig::new(secret(of)), [of; 32])
}

/// The verdict on an initiator at `now`, without repeats or time-outs.
fn outcome_at(
    now: Instant,
    far: &mut Endpoint,
    initiator: &mut Initiator,
    responder: &mut Responder,
) -> Option<Result<Outcome, HandshakeError>> {
    while let Some(message) = initiator.poll_transmit(now) {
        far.handle_packet(now, responder, &message).unwrap();
        while let Some(answer) = responder.poll_transmit(now) {
            match initiator.handle_packet(now, &answer) {
                Ok(None) => {}
                Ok(Some(outcome)) => return Some(Ok(outcome)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
    None
}

fn refusal(result: Result<Ends, HandshakeError>) -> Refusal {
    match result.err() {
        Some(HandshakeError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_pairs_two_hosts_under_every_fate_of_its_messages() {
    for fates in fates(4) {
        let mut hosts = hosts();
        let (_, initiator) = pair_as(&mut hosts.near, None, token());
        let mut wire = Wire::new(initiator, hosts.accept());
        wire.fates = fates.clone();
        let ends = wire.run(&mut hosts.far).unwrap_or_else(|e| panic!("{fates:?}: {e}"));
        assert_match(&ends);
    }
}

#[test]
fn the_step_names_the_token_and_the_key_is_allowed_from_then_on() {
    let mut hosts = hosts();
    let (_, initiator) = pair_as(&mut hosts.near, Some(key(2)), token());
    let mut wire = Wire::new(initiator, hosts.accept());
    let mut named = None;
    let on_step = |step| {
        if let Step::NewBond { token, .. } = step {
            named = token;
        }
    };
    assert!(matches!(wire.run_to_outcome(&mut hosts.far, on_step), Ok(Outcome::Attached(_))));
    assert_eq!(named, Some(token().id()));

    let (_, near) = hosts.bond();
    assert_eq!(near.peer, key(2));
    assert_eq!(hosts.stats().bonds_opened, 2);
}

#[test]
fn first_messages_are_as_long_as_any_and_answers_no_longer() {
    let mut hosts = hosts();
    let (_, initiator) = pair_as(&mut hosts.near, None, token());
    let mut wire = Wire::new(initiator, hosts.accept());
    wire.run(&mut hosts.far).unwrap();
    assert_eq!(wire.sent[0].1.len(), HANDSHAKE_FIRST_MESSAGE_BYTES);
    for (role, message) in &wire.sent {
        assert!(*role == Role::Initiator || message.len() <= HANDSHAKE_FIRST_MESSAGE_BYTES);
    }
}

#[test]
fn links_of_one_attempt_pair_at_once_and_others_do_not() {
    let mut hosts = hosts();
    let (mut attempt, first) = pair_as(&mut hosts.near, None, token());
    let second = hosts.open(&mut attempt);
    let (far_first, far_second) = (hosts.accept(), hosts.accept());
    let opened = drive(&mut hosts.far, first, far_first).unwrap();
    let joined = drive(&mut hosts.far, second, far_second).unwrap();
    assert!(opened.new_bond && !joined.new_bond);
    assert_eq!(opened.near.bond.id(), joined.near.bond.id());

    assert_eq!(refusal(pair(&mut hosts, token())), Refusal::TokenUsed, "the same host, another attempt");
    let (_, thief) = pair_as(&mut stranger(7), None, token());
    let responder = hosts.accept();
    assert_eq!(refusal(drive(&mut hosts.far, thief, responder)), Refusal::TokenUsed);
    assert_eq!(hosts.stats().refused_pairing, 2);
}

#[test]
fn a_token_that_expired_is_refused_by_name() {
    let mut hosts = Hosts::with(|_, far| far.allowed = AllowedPeers::Only([].into()));
    hosts.far.add_pairing_token(START, &token(), Duration::ZERO).unwrap();
    assert_eq!(refusal(pair(&mut hosts, token())), Refusal::TokenExpired);
    assert_eq!(hosts.stats().refused_pairing, 1);
    // It is not allowed without the token either.
    assert_eq!(refusal(crate::open_between(&mut hosts)), Refusal::NotAllowed);
}

#[test]
fn a_token_that_nobody_gave_out_is_told_by_a_hint_after_a_grace() {
    let mut hosts = hosts();
    let (_, initiator) = pair_as(&mut hosts.near, None, PairingToken::from_bytes([1; 16]));
    let mut wire = Wire::new(initiator, hosts.accept());
    assert_eq!(wire.run(&mut hosts.far).err(), Some(HandshakeError::UnknownToken));
    assert!(wire.now - START <= HANDSHAKE_GRACE + HANDSHAKE_REPEAT);
    assert_eq!(hosts.stats().refused_pairing, 1);
    // A withdrawn token is as unknown as that.
    hosts.far.remove_pairing_token(token().id());
    assert_eq!(pair(&mut hosts, token()).err(), Some(HandshakeError::UnknownToken));
}

#[test]
fn a_hint_for_another_token_or_an_attempt_without_one_changes_nothing() {
    let mut hosts = hosts();
    let hint = |of: &PairingToken| [&[0x8f, 3][..], &of.id().0].concat();
    let (_, mut initiator) = pair_as(&mut hosts.near, None, token());
    initiator.handle_packet(START, &hint(&PairingToken::from_bytes([1; 16]))).unwrap();
    initiator.handle_timeout(START + HANDSHAKE_GRACE).unwrap();

    let mut attempt = hosts.attempt();
    let mut plain = hosts.open(&mut attempt);
    plain.handle_packet(START, &hint(&token())).unwrap();
    plain.handle_timeout(START + HANDSHAKE_GRACE).unwrap();
}

#[test]
fn the_listener_is_pinned_when_its_key_is_known() {
    let mut hosts = hosts();
    let (_, initiator) = pair_as(&mut hosts.near, Some(key(9)), token());
    let responder = hosts.accept();
    let expected = HandshakeError::WrongPeer { expected: key(9), got: key(2) };
    assert_eq!(drive(&mut hosts.far, initiator, responder).err(), Some(expected));
    // It did not use the token up.
    assert!(pair(&mut hosts, token()).is_ok());
}

/// A host in the middle that learned the name of the token from an OPEN1.
#[test]
fn who_has_the_name_and_not_the_token_poses_as_neither_end() {
    // As the initiator: a first message with the right name, but another token's key behind it.
    let mut hosts = hosts();
    let mut guesser = stranger(7);
    let (_, mut initiator) = pair_as(&mut guesser, None, PairingToken::from_bytes([1; 16]));
    let mut open1 = initiator.poll_transmit(START).unwrap().to_vec();
    open1[3..11].copy_from_slice(&token().id().0);
    let mut responder = hosts.accept();
    hosts.far.handle_packet(START, &mut responder, &open1).unwrap();
    assert!(responder.poll_transmit(START).is_none(), "the name is bound to the rest of the message");

    // As the responder: it cannot read OPEN3, nor seal OPEN4. Here it has no token at all.
    let mut impostor = stranger(2);
    let (_, mut initiator) = pair_as(&mut hosts.near, None, token());
    let mut responder = impostor.accept_link(START, offer()).unwrap();
    assert!(outcome_at(START, &mut impostor, &mut initiator, &mut responder).is_none());
}

#[test]
fn wrong_guesses_are_few_and_do_not_use_the_token_up() {
    let mut hosts = hosts();
    let mut proofs = 0;
    // Each guesser reaches OPEN3 with the genuine name, and spoils its proof, as who has another token would.
    let guess = |hosts: &mut Hosts, of: u8| {
        let (_, mut initiator) = pair_as(&mut stranger(of), None, token());
        let mut responder = hosts.accept();
        let open1 = initiator.poll_transmit(START).unwrap();
        hosts.far.handle_packet(START, &mut responder, &open1).unwrap();
        initiator.handle_packet(START, &responder.poll_transmit(START).unwrap()).unwrap();
        let mut open3 = initiator.poll_transmit(START).unwrap().to_vec();
        *open3.last_mut().unwrap() ^= 1;
        let step = hosts.far.handle_packet(START, &mut responder, &open3).unwrap();
        assert!(matches!(step, Step::Wait));
        assert!(responder.poll_transmit(START).is_none());
    };
    for of in 10..100 {
        guess(&mut hosts, of);
        proofs += 1;
    }
    let stats = hosts.stats();
    assert_eq!(stats.refused_pairing, u64::from(PAIRING_PROOFS_PER_SECOND_MAX));
    assert_eq!(stats.over_budget, proofs - u64::from(PAIRING_PROOFS_PER_SECOND_MAX));

    // The genuine host is dropped at first, too, but repeats its proof until the flood is over.
    let (_, initiator) = pair_as(&mut hosts.near, None, token());
    let mut wire = Wire::new(initiator, hosts.accept());
    assert_match(&wire.run(&mut hosts.far).unwrap());
    assert!(wire.now > START, "it had to wait");
}

#[test]
fn a_wrong_proof_does_not_keep_the_genuine_one_from_its_link() {
    let mut hosts = hosts();
    let (_, mut initiator) = pair_as(&mut hosts.near, None, token());
    let mut responder = hosts.accept();
    let open1 = initiator.poll_transmit(START).unwrap();
    hosts.far.handle_packet(START, &mut responder, &open1).unwrap();
    initiator.handle_packet(START, &responder.poll_transmit(START).unwrap()).unwrap();
    let open3 = initiator.poll_transmit(START).unwrap();
    let mut wrong = open3.to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    hosts.far.handle_packet(START, &mut responder, &wrong).unwrap();
    let step = hosts.far.handle_packet(START, &mut responder, &open3).unwrap();
    assert!(matches!(step, Step::NewBond { .. }));
}

#[test]
fn two_ends_that_both_dial_with_a_token_are_told_so() {
    let mut hosts = hosts();
    let (_, mut near) = pair_as(&mut hosts.near, None, token());
    let (_, mut far) = pair_as(&mut hosts.far, None, token());
    near.handle_packet(START, &far.poll_transmit(START).unwrap()).unwrap();
    let same_role = HandshakeError::SameRole { role: Role::Initiator };
    assert_eq!(near.handle_timeout(START + HANDSHAKE_GRACE), Err(same_role));
}

#[test]
fn other_flags_and_a_name_cut_short_are_dropped() {
    let mut hosts = hosts();
    let (_, mut initiator) = pair_as(&mut hosts.near, None, token());
    let open1 = initiator.poll_transmit(START).unwrap();
    for flags in [2, 3, 0x80] {
        let mut responder = hosts.accept();
        let mut other = open1.to_vec();
        other[2] = flags;
        hosts.far.handle_packet(START, &mut responder, &other).unwrap();
        assert!(responder.poll_transmit(START).is_none());
    }
    let mut responder = hosts.accept();
    hosts.far.handle_packet(START, &mut responder, &open1[..10]).unwrap();
    assert!(responder.poll_transmit(START).is_none());
    assert_eq!(hosts.stats().malformed, 4);
}

#[test]
fn tokens_do_not_show_in_debug_output() {
    let shown = format!("{:?}", token());
    assert!(!shown.contains("5a5a") && !shown.contains("90, 90"), "{shown}");
}
