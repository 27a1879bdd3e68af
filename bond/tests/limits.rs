//! What one peer may have at a listener.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use bondwire::error::{AddLinkError, HandshakeError, Refusal, code};
use bondwire::link::memory;
use bondwire::{Bond, BondConfig, Class, CloseReason, PeerLimits};
use common::{Hosts, exchange, send_pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Long enough for what can happen to happen, in virtual time.
const LONG: Duration = Duration::from_secs(5);

fn limited(limits: PeerLimits) -> Hosts {
    let hosts = Hosts::new();
    hosts.listener.set_limits(hosts.here.public_key(), limits);
    hosts
}

/// Opens streams until no more can be opened.
async fn openable(bond: &Bond) -> usize {
    let mut streams = Vec::new();
    while let Ok(stream) = timeout(LONG, bond.open_stream(Class::Bulk)).await {
        streams.push(stream.unwrap());
        assert!(streams.len() < 10_000);
    }
    streams.len()
}

#[tokio::test(start_paused = true)]
async fn one_bond_more_ends_the_oldest() {
    let hosts = limited(PeerLimits { bonds_max: Some(1), ..PeerLimits::default() });
    hosts.add_link().await;
    let first = hosts.listener.accept().await;
    let second = Bond::connect(&hosts.here, hosts.there.public_key(), BondConfig::default()).unwrap();
    let (near, far) = memory::pair(1500, 64 * 1024);
    hosts.listener.add_link(far);
    second.add_link(near).await.unwrap();
    assert!(matches!(hosts.bond.closed().await, CloseReason::Peer { code: code::EVICTED, .. }));
    assert!(first.close_reason().is_some());
    assert_eq!(hosts.listener.accept().await.close_reason(), None);
}

#[tokio::test(start_paused = true)]
async fn the_peer_opens_as_many_streams_as_it_may_and_others_as_before() {
    let hosts = limited(PeerLimits { streams_max: Some(3), ..PeerLimits::default() });
    hosts.add_link().await;
    let _accepted = hosts.listener.accept().await;
    assert_eq!(openable(&hosts.bond).await, 3);

    // Another peer is told as few at first, and may then open more.
    let other = bondwire::Identity::generate().unwrap();
    hosts.listener.allow(other.public_key());
    let bond = Bond::connect(&other, hosts.there.public_key(), BondConfig::default()).unwrap();
    let (near, far) = memory::pair(1500, 64 * 1024);
    hosts.listener.add_link(far);
    bond.add_link(near).await.unwrap();
    let _accepted = hosts.listener.accept().await;
    assert!(openable(&bond).await > 1000);
}

/// Moves data to the listener, and then back while nobody reads; answers what the listener grants and holds at most.
async fn fill(limits: PeerLimits) -> (u64, u64) {
    let hosts = limited(limits);
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    let mut near = hosts.bond.open_stream(Class::Bulk).await.unwrap();
    let writer = tokio::spawn(async move { send_pattern(&mut near, 4 << 20).await });
    let mut far = accepted.accept_stream().await.unwrap();
    let (mut granted, mut piece) = (0, vec![0; 10_000]);
    while far.read(&mut piece).await.unwrap() > 0 {
        granted = granted.max(accepted.stream_stats().receive_granted_bytes);
    }
    writer.await.unwrap();
    let mut unsent = accepted.open_stream(Class::Bulk).await.unwrap();
    while timeout(LONG, unsent.write_all(&[7; 10_000])).await.is_ok() {}
    (granted, accepted.stream_stats().send_buffered_bytes)
}

#[tokio::test(start_paused = true)]
async fn the_peer_fills_no_more_memory_than_it_may() {
    let buffer = 64 << 10;
    let limits = PeerLimits {
        receive_buffer_bytes: Some(buffer),
        send_buffer_bytes: Some(buffer),
        ..PeerLimits::default()
    };
    let (received, sent) = fill(limits).await;
    assert!(received <= buffer && sent <= buffer, "{received} {sent}");
    let (received, sent) = fill(PeerLimits::default()).await;
    assert!(received > buffer && sent > buffer, "without limits: {received} {sent}");
}

#[tokio::test]
async fn the_peer_comes_in_by_the_acceptors_that_it_may_use() {
    let hosts = limited(PeerLimits { acceptors: Some(vec![1]), ..PeerLimits::default() });
    let (near, far) = memory::pair(1500, 64 * 1024);
    hosts.listener.add_link(far);
    let error = hosts.bond.add_link(near).await.unwrap_err();
    let AddLinkError::Handshake { error: HandshakeError::Refused { code, .. }, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(code, Refusal::NotOnThisLink);
    hosts.listener.set_limits(
        hosts.here.public_key(),
        PeerLimits { acceptors: Some(vec![0]), ..PeerLimits::default() },
    );
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    exchange(&hosts.bond, &accepted, 10_000).await;
}
