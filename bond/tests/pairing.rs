//! Pairing over links in memory.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use bondwire::error::{AddLinkError, HandshakeError, PairingTokenError, Refusal};
use bondwire::limits::{PAIRING_TOKEN_VALID, PAIRING_TOKENS_MAX};
use bondwire::link::memory;
use bondwire::{Bond, BondConfig, Identity, ListenConfig, Listener, PairingToken};
use common::exchange;

/// A listener that allows nobody, and its key.
fn listener() -> (Listener, Identity) {
    let identity = Identity::generate().unwrap();
    (Listener::new(&identity, ListenConfig::allow([])).unwrap(), identity)
}

fn paired(listener: &Identity, token: &PairingToken) -> (Bond, Identity) {
    let here = Identity::generate().unwrap();
    let peer = Some(listener.public_key());
    let bond = Bond::connect_paired(&here, peer, token.clone(), BondConfig::default()).unwrap();
    (bond, here)
}

async fn add_link(listener: &Listener, bond: &Bond) -> Result<(), AddLinkError> {
    let (near, far) = memory::pair(1500, 64 * 1024);
    listener.add_link(far);
    bond.add_link(near).await.map(drop)
}

fn error_of(result: Result<(), AddLinkError>) -> HandshakeError {
    let error = result.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    match error {
        AddLinkError::Handshake { error, .. } => error,
        other => panic!("{other}"),
    }
}

fn is_refused(result: Result<(), AddLinkError>, reason: Refusal) -> bool {
    matches!(error_of(result), HandshakeError::Refused { code, .. } if code == reason)
}

#[tokio::test]
async fn links_pair_at_once_and_later_bonds_need_no_token() {
    let (listener, there) = listener();
    let token = listener.new_pairing_token(PAIRING_TOKEN_VALID).unwrap();
    let (bond, here) = paired(&there, &token);
    let (one, two) = tokio::join!(add_link(&listener, &bond), add_link(&listener, &bond));
    one.unwrap();
    two.unwrap();
    add_link(&listener, &bond).await.unwrap();
    let accepted = listener.accept().await;
    assert_eq!((accepted.paired_by(), accepted.peer()), (Some(token.id()), Some(here.public_key())));
    exchange(&bond, &accepted, 100_000).await;
    assert_eq!((listener.bonds(), accepted.links().len()), (1, 3));

    let again = Bond::connect(&here, there.public_key(), BondConfig::default()).unwrap();
    add_link(&listener, &again).await.unwrap();
    assert_eq!(listener.accept().await.paired_by(), None);
}

#[tokio::test]
async fn a_token_without_the_listeners_key_pins_who_has_the_token() {
    let (listener, there) = listener();
    let token = listener.new_pairing_token(PAIRING_TOKEN_VALID).unwrap();
    let here = Identity::generate().unwrap();
    let bond = Bond::connect_paired(&here, None, token, BondConfig::default()).unwrap();
    assert_eq!(bond.peer(), None);
    add_link(&listener, &bond).await.unwrap();
    assert_eq!(bond.peer(), Some(there.public_key()));
}

#[tokio::test]
async fn a_token_serves_one_host_only() {
    let (listener, there) = listener();
    let token = listener.new_pairing_token(PAIRING_TOKEN_VALID).unwrap();
    let (first, second) = (paired(&there, &token).0, paired(&there, &token).0);
    add_link(&listener, &first).await.unwrap();
    assert!(is_refused(add_link(&listener, &second).await, Refusal::TokenUsed));
    assert_eq!(listener.stats().refused_pairing, 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_expires_and_may_be_withdrawn() {
    let (listener, there) = listener();
    let token = listener.new_pairing_token(PAIRING_TOKEN_VALID).unwrap();
    tokio::time::sleep(PAIRING_TOKEN_VALID).await;
    let (bond, _) = paired(&there, &token);
    assert!(is_refused(add_link(&listener, &bond).await, Refusal::TokenExpired));

    let token = listener.new_pairing_token(PAIRING_TOKEN_VALID).unwrap();
    listener.remove_pairing_token(token.id());
    let (bond, _) = paired(&there, &token);
    assert_eq!(error_of(add_link(&listener, &bond).await), HandshakeError::UnknownToken);
}

#[tokio::test(start_paused = true)]
async fn a_guess_is_refused_and_leaves_the_token_for_its_owner() {
    let (listener, there) = listener();
    let token = listener.new_pairing_token(Duration::from_secs(60)).unwrap();
    let (guesser, _) = paired(&there, &PairingToken::from_bytes([1; 16]));
    assert_eq!(error_of(add_link(&listener, &guesser).await), HandshakeError::UnknownToken);
    let (bond, _) = paired(&there, &token);
    add_link(&listener, &bond).await.unwrap();
}

#[tokio::test]
async fn an_impostor_with_another_key_gets_no_proof_of_the_token() {
    let (listener, there) = listener();
    let (impostor, its_key) = self::listener();
    let token = listener.new_pairing_token(PAIRING_TOKEN_VALID).unwrap();
    let (bond, _) = paired(&there, &token);
    // It does not know the token: a hint is all it has, and that is no refusal by the host that is wanted.
    assert_eq!(error_of(add_link(&impostor, &bond).await), HandshakeError::UnknownToken);
    assert_ne!(bond.peer(), Some(its_key.public_key()));
    add_link(&listener, &bond).await.unwrap();
}

#[tokio::test]
async fn nobody_makes_more_tokens_than_there_may_be() {
    let (listener, _) = listener();
    for _ in 0..PAIRING_TOKENS_MAX {
        listener.new_pairing_token(PAIRING_TOKEN_VALID).unwrap();
    }
    let error = listener.new_pairing_token(PAIRING_TOKEN_VALID).unwrap_err();
    assert!(matches!(error, PairingTokenError::TooMany(_)), "{error}");
}
