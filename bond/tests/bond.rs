//! Whole bonds over links in memory: what the library promises to its users.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use bondwire::error::{ReadError, WriteError};
use bondwire::link::memory;
use bondwire::{Bond, BondConfig, BondEvent, Class, CloseReason, Config, EventsError, LinkState, Policy};
use bytes::Bytes;
use common::{Hosts, exchange, expect_pattern, send_pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_goes_both_ways_over_several_links() {
    let hosts = Hosts::new();
    for _ in 0..3 {
        hosts.add_link().await;
    }
    let accepted = hosts.listener.accept().await;
    assert_eq!(accepted.peer(), Some(hosts.here.public_key()));
    exchange(&hosts.bond, &accepted, 8 << 20).await;
    assert_eq!(hosts.bond.links().len(), 3);
    assert_eq!(accepted.links().len(), 3);
    let reason = hosts.bond.close(0x123, "done").await;
    assert!(matches!(reason, CloseReason::Local { code: 0x123, .. }), "{reason}");
    assert_eq!(accepted.closed().await, CloseReason::Peer { code: 0x123, reason: "done".into() });
}

#[tokio::test]
async fn links_that_open_at_the_same_moment_make_one_bond() {
    let hosts = Hosts::new();
    let links: Vec<_> = (0..4).map(|_| memory::pair(1500, 64 * 1024)).collect();
    let added = links.into_iter().map(|(near, far)| {
        hosts.listener.add_link(far);
        let bond = hosts.bond.clone();
        tokio::spawn(async move { bond.add_link(near).await })
    });
    for add in added.collect::<Vec<_>>() {
        add.await.unwrap().unwrap();
    }
    let accepted = hosts.listener.accept().await;
    exchange(&hosts.bond, &accepted, 100_000).await;
    assert_eq!((hosts.listener.bonds(), accepted.links().len()), (1, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_costs_nothing_and_another_may_join() {
    let hosts = Hosts::new();
    let (one, _two) = (hosts.add_link().await, hosts.add_link().await);
    let accepted = hosts.listener.accept().await;
    let cut_and_add = async {
        tokio::task::yield_now().await;
        one.cut();
        hosts.add_link().await
    };
    tokio::join!(exchange(&hosts.bond, &accepted, 8 << 20), cut_and_add);
    let up = hosts.bond.links().iter().filter(|link| link.state == LinkState::Active).count();
    assert_eq!(up, 2);
}

#[tokio::test(start_paused = true)]
async fn a_bond_without_links_waits_and_goes_on() {
    let hosts = Hosts::new();
    let first = hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    let mut near = hosts.bond.open_stream(Class::Bulk).await.unwrap();
    first.cut();
    let sender = tokio::spawn(async move {
        send_pattern(&mut near, 3 << 20).await;
        near
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(hosts.bond.close_reason(), None);
    hosts.add_link().await;
    let mut far = accepted.accept_stream().await.unwrap();
    expect_pattern(&mut far, 3 << 20).await;
    sender.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bond_ends_when_no_link_comes_for_the_idle_timeout() {
    let config = Config { idle_timeout: Some(Duration::from_secs(30)), ..Config::default() };
    let hosts = Hosts::with(BondConfig { engine: config, ..BondConfig::default() });
    let link = hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    link.cut();
    assert!(matches!(hosts.bond.closed().await, CloseReason::IdleTimeout(_)));
    assert!(matches!(accepted.closed().await, CloseReason::IdleTimeout(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_pauses_holds_the_writer_back_and_nobody_else() {
    let config = Config { receive_buffer_bytes: 1 << 20, send_buffer_bytes: 1 << 20, ..Config::default() };
    let hosts = Hosts::with(BondConfig { engine: config, ..BondConfig::default() });
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    let mut paused = hosts.bond.open_stream(Class::Bulk).await.unwrap();
    let mut written = 0;
    while timeout(Duration::from_millis(300), paused.write_all(&[7; 10_000])).await.is_ok() {
        written += 10_000;
        assert!(written < 16 << 20, "nothing holds the writer back");
    }
    let _unread = accepted.accept_stream().await.unwrap();
    exchange(&hosts.bond, &accepted, 2 << 20).await;
}

#[tokio::test]
async fn resets_stops_and_half_closes_arrive() {
    let hosts = Hosts::new();
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;

    let mut near = hosts.bond.open_stream_with(Class::Interactive, 3, "tcp:localhost:80").await.unwrap();
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(near.write_chunk(&mut Bytes::from_static(b"more")).await, Err(WriteError::Finished));
    let mut far = accepted.accept_stream().await.unwrap();
    assert_eq!((far.label(), far.class(), far.priority()), ("tcp:localhost:80", Class::Interactive, 3));
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    far.write_all(b"answer").await.unwrap();
    drop(far);
    text.clear();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");

    let mut near = hosts.bond.open_stream(Class::Bulk).await.unwrap();
    near.write_all(b"x").await.unwrap();
    let mut far = accepted.accept_stream().await.unwrap();
    near.reset(77);
    let mut outcome = far.read_chunk(100).await;
    if matches!(outcome, Ok(Some(_))) {
        outcome = far.read_chunk(100).await;
    }
    assert_eq!(outcome, Err(ReadError::Reset(77)));

    let mut near = hosts.bond.open_stream(Class::Bulk).await.unwrap();
    near.write_all(b"x").await.unwrap();
    accepted.accept_stream().await.unwrap().stop(78);
    let stopped = loop {
        if let Err(e) = near.write_chunk(&mut Bytes::from(vec![0; 1000])).await {
            break e;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(stopped, WriteError::Stopped(78));
}

#[tokio::test]
async fn what_was_written_is_delivered_before_a_close() {
    let hosts = Hosts::new();
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    let mut near = hosts.bond.open_stream(Class::Bulk).await.unwrap();
    let reader = tokio::spawn(async move {
        let mut far = accepted.accept_stream().await.unwrap();
        expect_pattern(&mut far, 1 << 20).await;
        accepted.closed().await
    });
    send_pattern(&mut near, 1 << 20).await;
    hosts.bond.close(0x100, "").await;
    assert!(matches!(reader.await.unwrap(), CloseReason::Peer { code: 0x100, .. }));
    let error = hosts.bond.open_stream(Class::Bulk).await.unwrap_err();
    assert!(error.to_string().contains("bond has ended"), "{error}");
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_bond() {
    let hosts = Hosts::new();
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    let mut near = hosts.bond.open_stream(Class::Bulk).await.unwrap();
    drop(hosts.bond);
    // The stream keeps it alive.
    near.write_all(b"last words").await.unwrap();
    drop(near);
    let mut text = String::new();
    accepted.accept_stream().await.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "last words");
    assert!(matches!(accepted.closed().await, CloseReason::Peer { code: 0, .. }));
}

#[tokio::test]
async fn datagrams_arrive() {
    let hosts = Hosts::new();
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    for size in [0, 1, 1000, 60_000] {
        hosts.bond.send_datagram(5, Bytes::from(vec![9; size])).unwrap();
        let (flow, data) = timeout(Duration::from_secs(5), accepted.recv_datagram()).await.unwrap().unwrap();
        assert_eq!((flow, data.len()), (5, size));
    }
    assert!(hosts.bond.send_datagram(5, Bytes::from(vec![9; 70_000])).is_err());
}

#[tokio::test]
async fn events_tell_what_happens_to_links() {
    let hosts = Hosts::new();
    let mut events = hosts.bond.events();
    let link = hosts.add_link().await;
    hosts.bond.connected().await.unwrap();
    let BondEvent::Link { to, name, .. } = events.next().await.unwrap() else { panic!("not a link event") };
    assert_eq!((to, name.as_str()), (LinkState::Active, "memory a"));
    link.cut();
    let closed = events.next().await.unwrap();
    assert!(matches!(closed, BondEvent::Link { to: LinkState::Closed, .. }), "{closed:?}");
    hosts.bond.close_now(1, "x").await;
    assert!(matches!(events.next().await.unwrap(), BondEvent::Closed(CloseReason::Local { code: 1, .. })));
    // Who asks after the end hears of it, too.
    let mut late = hosts.bond.events();
    let told = timeout(Duration::from_secs(15), late.next()).await.unwrap();
    assert!(matches!(told, Ok(BondEvent::Closed(CloseReason::Local { code: 1, .. }))), "{told:?}");
    for events in [&mut events, &mut late] {
        assert_eq!(timeout(Duration::from_secs(15), events.next()).await.unwrap(), Err(EventsError::Over));
    }
}

#[tokio::test]
async fn policies_can_be_set_and_links_be_removed() {
    let hosts = Hosts::new();
    hosts.add_link().await;
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    let ids: Vec<_> = hosts.bond.links().iter().map(|link| link.id).collect();
    hosts.bond.link(ids[0]).set_policy(Policy::Paused).unwrap();
    exchange(&hosts.bond, &accepted, 1 << 20).await;
    assert_eq!(hosts.bond.link(ids[0]).snapshot().unwrap().policy, Policy::Paused.into());
    hosts.bond.link(ids[1]).close().unwrap();
    hosts.bond.link(ids[0]).set_policy(Policy::Active).unwrap();
    exchange(&hosts.bond, &accepted, 1 << 20).await;
    assert!(hosts.bond.link(ids[1]).close().is_err() || hosts.bond.links().len() == 1);
}

#[tokio::test]
async fn streams_that_are_over_leave_nothing() {
    let hosts = Hosts::new();
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    for round in 0..2000_u32 {
        let mut near = hosts.bond.open_stream(Class::Bulk).await.unwrap();
        near.write_all(&round.to_be_bytes()).await.unwrap();
        // Some are read to their end, others dropped with bytes in them.
        let mut far = accepted.accept_stream().await.unwrap();
        if round % 2 == 0 {
            drop(near);
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes, round.to_be_bytes());
        }
    }
    for bond in [&hosts.bond, &accepted] {
        while bond.stream_stats().open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn every_task_ends_with_its_bond() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for close in [true, false] {
        let hosts = Hosts::new();
        hosts.add_link().await;
        hosts.add_link().await;
        let accepted = hosts.listener.accept().await;
        exchange(&hosts.bond, &accepted, 100_000).await;
        assert!(tasks() > before);
        if close {
            hosts.bond.close(0x100, "").await;
        }
        drop((hosts, accepted));
        for _ in 0..600 {
            if tasks() == before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(tasks(), before, "tasks are left (closed first: {close})");
    }
}

#[tokio::test]
async fn an_unused_bond_ends_with_its_handle() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let hosts = Hosts::new();
    let bond: Bond = hosts.bond;
    drop(bond);
    for _ in 0..100 {
        if tasks() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} tasks are left", tasks());
}

/// Takes no link. Who else has the mark can tell when it is gone.
struct Held {
    _mark: std::sync::Arc<()>,
}

impl bondwire::link::Acceptor for Held {
    type Link = memory::MemoryLink;

    fn name(&self) -> String {
        "held".to_owned()
    }

    async fn accept(&mut self) -> std::io::Result<Self::Link> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_closed_listener_has_let_go_of_what_it_listened_on() {
    let hosts = Hosts::new();
    let held = std::sync::Arc::new(());
    hosts.listener.add_acceptor(Held { _mark: held.clone() });
    assert_eq!(std::sync::Arc::strong_count(&held), 2);
    hosts.listener.close().await;
    assert_eq!(std::sync::Arc::strong_count(&held), 1);
}
