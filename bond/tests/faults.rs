//! Bad links, bad peers and bad luck, over links in memory and in virtual time.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bondwire::error::{AddLinkError, DialError, HandshakeError};
use bondwire::link::{
    Acceptor, Dialer, LinkDescription, PacketBatch, PacketLink, PacketReader, PacketWriter, StreamLink,
    memory,
};
use bondwire::{
    AllowedPeers, Bond, BondConfig, BondEvent, BondStream, Class, CloseReason, DialerHandle, Events,
    Identity, LinkId, LinkSnapshot, LinkState, ListenConfig, Listener, Suite,
};
use bytes::{Bytes, BytesMut};
use common::{Hosts, exchange};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};

fn handshake_error(result: Result<LinkId, AddLinkError>) -> HandshakeError {
    match result {
        Err(AddLinkError::Handshake { error, .. }) => error,
        other => panic!("not a failed handshake: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn lost_handshake_messages_are_repeated() {
    // From the listener the first message is OPEN2 and the second OPEN4, whose loss an attached link has to repair.
    for (passed, lost) in [(0, 1), (0, 3), (1, 1), (1, 2)] {
        for at_listener in [false, true] {
            let hosts = Hosts::new();
            let (near, far) = memory::pair(1500, 64 * 1024);
            let faults = if at_listener { far.faults() } else { near.faults() };
            faults.lose_after(passed, lost);
            hosts.listener.add_link(far);
            hosts.bond.add_link(near).await.unwrap();
            let accepted = hosts.listener.accept().await;
            exchange(&hosts.bond, &accepted, 10_000).await;
            assert_eq!(hosts.listener.bonds(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_packets_are_dropped_and_sent_again() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305, Suite::None] {
        let hosts = Hosts::with(BondConfig { suites: vec![suite], ..BondConfig::default() });
        let link = hosts.add_link().await;
        let accepted = hosts.listener.accept().await;
        for _ in 0..5 {
            link.damage_next(1);
            exchange(&hosts.bond, &accepted, 50_000).await;
        }
        assert!(accepted.dropped_packets() > 0, "{suite:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wrong_peer_is_named() {
    let hosts = Hosts::new();
    let stranger = Identity::generate().unwrap();
    let bond = Bond::connect(&hosts.here, stranger.public_key(), BondConfig::default()).unwrap();
    let (near, far) = memory::pair(1500, 64 * 1024);
    hosts.listener.add_link(far);
    let error = handshake_error(bond.add_link(near).await);
    assert!(
        matches!(error, HandshakeError::WrongPeer { got, .. } if got == hosts.there.public_key()),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_peer_is_refused_until_it_is_allowed() {
    let hosts = Hosts::new();
    let stranger = Identity::generate().unwrap();
    let bond = Bond::connect(&stranger, hosts.there.public_key(), BondConfig::default()).unwrap();
    let (near, far) = memory::pair(1500, 64 * 1024);
    hosts.listener.add_link(far);
    let refused = bond.add_link(near).await.unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("not among the allowed peers"), "{refused}");
    assert_eq!(hosts.listener.stats().refused_not_allowed, 1);

    hosts.listener.allow(stranger.public_key());
    let (near, far) = memory::pair(1500, 64 * 1024);
    hosts.listener.add_link(far);
    bond.add_link(near).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn plaintext_is_for_cables() {
    let config = BondConfig { suites: vec![Suite::None], ..BondConfig::default() };
    let hosts = Hosts::with(config.clone());
    hosts.add_link().await;
    let over_ip = |stream| {
        let mut description = LinkDescription::new("tcp", "tcp somewhere", 9000);
        description.over_ip = true;
        StreamLink::new(stream, description)
    };
    let bond = Bond::connect(&hosts.here, hosts.there.public_key(), config).unwrap();
    let (near, _far) = tokio::io::duplex(64 * 1024);
    let error = handshake_error(bond.add_link(over_ip(near)).await);
    assert_eq!(error, HandshakeError::NothingToOffer);
}

#[tokio::test(start_paused = true)]
async fn a_link_back_to_its_own_host_is_named() {
    let identity = Identity::generate().unwrap();
    let listen = ListenConfig { allowed: AllowedPeers::Any, bond: BondConfig::default() };
    let listener = Listener::new(&identity, listen).unwrap();
    let stranger = Identity::generate().unwrap().public_key();
    let bond = Bond::connect(&identity, stranger, BondConfig::default()).unwrap();
    let (near, far) = memory::pair(1500, 64 * 1024);
    listener.add_link(far);
    assert_eq!(handshake_error(bond.add_link(near).await), HandshakeError::Looped);
}

#[tokio::test(start_paused = true)]
async fn two_ends_that_dial_are_told_so() {
    let (a, b) = (Hosts::new(), Hosts::new());
    let (near, far) = memory::pair(1500, 64 * 1024);
    let (one, other) = tokio::join!(a.bond.add_link(near), b.bond.add_link(far));
    // The first to give up may take the link from the other.
    let errors = [one.unwrap_err(), other.unwrap_err()].map(|e| e.to_string());
    assert!(errors.iter().any(|e| e.contains("both ends of the link are the initiator")), "{errors:?}");
}

#[tokio::test(start_paused = true)]
async fn other_protocols_are_named_and_harm_nobody() {
    let hosts = Hosts::new();
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    let describe = || LinkDescription::new("pipe", "pipe", 9000);
    for junk in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x00\x00", b"\xff\xff\xff", b"\x00\x05abcde", b"\x81"]
    {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        hosts.listener.add_link(StreamLink::new(server, describe()));
        client.write_all(junk).await.unwrap();
        // And then silence: the listener lets go by itself.
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut rest).await;
    }
    let (mut server, client) = tokio::io::duplex(64 * 1024);
    server.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = handshake_error(hosts.bond.add_link(StreamLink::new(client, describe())).await);
    assert_eq!(error, HandshakeError::NotBondwire { looks_like: "an HTTP answer" });
    exchange(&hosts.bond, &accepted, 100_000).await;
    assert_eq!(hosts.listener.stats().half_open_links, 0);
}

#[tokio::test(start_paused = true)]
async fn half_open_links_are_bounded_and_time_out() {
    let hosts = Hosts::new();
    hosts.add_link().await;
    let accepted = hosts.listener.accept().await;
    let silent: Vec<_> = (0..10_000)
        .map(|_| {
            let (near, far) = memory::pair(300, 1000);
            hosts.listener.add_link(far);
            near
        })
        .collect();
    let stats = hosts.listener.stats();
    assert_eq!(stats.half_open_links, bondwire::limits::HALF_OPEN_LINKS_MAX as u64);
    assert_eq!(stats.refused_busy, 10_000 - stats.half_open_links);
    exchange(&hosts.bond, &accepted, 100_000).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(hosts.listener.stats().half_open_links, 0);
    hosts.add_link().await;
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn half_a_handshake_then_silence_times_out() {
    let hosts = Hosts::new();
    let (near, far) = memory::pair(1500, 64 * 1024);
    // The listener hears the first message, and then nothing it could use.
    far.faults().lose_next(u32::MAX);
    hosts.listener.add_link(far);
    let error = handshake_error(hosts.bond.add_link(near).await);
    assert!(matches!(error, HandshakeError::Timeout { .. }), "{error}");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(hosts.listener.stats().half_open_links, 0);
}

/// Dials links in memory, into whatever listener the test puts there.
struct MemoryDialer(mpsc::UnboundedSender<memory::MemoryLink>);

impl Dialer for MemoryDialer {
    type Link = memory::MemoryLink;

    fn name(&self) -> String {
        "memory".into()
    }

    async fn dial(&mut self) -> io::Result<memory::MemoryLink> {
        let (near, far) = memory::pair(1500, 64 * 1024);
        self.0.send(far).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(near)
    }

    fn renews_after_silence(&self) -> bool {
        true
    }
}

/// The task of the dialer and whoever stops it run at the same time here.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stopped_dialer_leaves_no_link_behind_whenever_it_is_stopped() {
    let hosts = Hosts::new();
    for round in 0..300 {
        let (sender, mut dialled) = mpsc::unbounded_channel();
        let dialer = hosts.bond.add_dialer(MemoryDialer(sender));
        hosts.listener.add_link(dialled.recv().await.unwrap());
        // Before, while and after the link comes up.
        if round % 3 > 0 {
            dialer.wait_for(|state| state.link.is_some()).await;
        }
        if round % 3 > 1 {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
        }
        dialer.stop();
        let gone = async {
            let is_open = |link: &LinkSnapshot| link.state != LinkState::Closed;
            while hosts.bond.links().iter().any(is_open) || dialer.state().link.is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap_or_else(|_| panic!("round {round}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hurried_dialer_finds_a_dead_link_that_was_idle_and_dials_at_once() {
    let engine = bondwire::Config { keep_alive: None, idle_timeout: None, ..Default::default() };
    let hosts = Hosts::with(BondConfig { engine, ..BondConfig::default() });
    let (sender, mut dialled) = mpsc::unbounded_channel();
    let dialer = hosts.bond.add_dialer(MemoryDialer(sender));
    let far = dialled.recv().await.unwrap();
    let faults = far.faults();
    hosts.listener.add_link(far);
    let first = dialer.wait_for(|state| state.link.is_some()).await.link.unwrap();
    let state = || hosts.bond.link(first).snapshot().map(|link| link.state);
    // It dies without a word when nobody has anything to say.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    faults.black_hole(true);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(state(), Some(LinkState::Active));

    dialer.hurry();
    let replacement = dialled.recv().await.unwrap();
    assert_ne!(state(), Some(LinkState::Active), "the probe was not answered");
    hosts.listener.add_link(replacement);
    dialer.wait_for(|state| state.link.is_some_and(|link| link != first)).await;

    // A link that lives stays as it is, and its keep-alive interval is what it was.
    let second = dialer.state().link.unwrap();
    dialer.hurry();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(dialer.state().link, Some(second));
    assert_eq!(hosts.bond.link(second).snapshot().map(|link| link.state), Some(LinkState::Active));
}

#[tokio::test(start_paused = true)]
async fn a_hurried_dialer_does_not_wait_for_its_next_turn() {
    struct Counting(mpsc::UnboundedSender<()>);
    impl Dialer for Counting {
        type Link = memory::MemoryLink;
        fn name(&self) -> String {
            "nowhere".into()
        }
        async fn dial(&mut self) -> io::Result<memory::MemoryLink> {
            self.0.send(()).map_err(io::Error::other)?;
            Err(io::ErrorKind::NotConnected.into())
        }
    }
    let hosts = Hosts::new();
    let (sender, mut dials) = mpsc::unbounded_channel();
    let dialer = hosts.bond.add_dialer(Counting(sender));
    // Long enough for the longest pauses between dials.
    let end = tokio::time::Instant::now() + Duration::from_secs(90);
    while tokio::time::timeout_at(end, dials.recv()).await.is_ok() {}
    dials.recv().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let before = tokio::time::Instant::now();
    dialer.hurry();
    dials.recv().await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO, "in virtual time");
}

#[tokio::test(start_paused = true)]
async fn a_dialer_redials_for_ever() {
    let hosts = Hosts::new();
    let (dialled, mut dials) = mpsc::unbounded_channel();
    let handle = hosts.bond.add_dialer(MemoryDialer(dialled));
    let mut accepted = None;
    for _ in 0..5 {
        let far = dials.recv().await.unwrap();
        let faults = far.faults();
        hosts.listener.add_link(far);
        hosts.bond.connected().await.unwrap();
        if accepted.is_none() {
            accepted = Some(hosts.listener.accept().await);
        }
        exchange(&hosts.bond, accepted.as_ref().unwrap(), 10_000).await;
        handle.wait_for(|state| state.link.is_some()).await;
        faults.cut();
        let ended = handle.wait_for(|state| state.link.is_none()).await;
        assert!(matches!(ended.fault, Some(DialError::LinkEnded { .. })));
    }
    dials.close();
    handle.wait_for(|state| matches!(state.fault, Some(DialError::Dial { .. }))).await;
    handle.stop();
}

/// A bond whose only link, made by a dialer, has fallen silent: bytes of a stream are under way on it.
struct Silent {
    hosts: Hosts,
    accepted: Bond,
    handle: DialerHandle,
    dials: mpsc::UnboundedReceiver<memory::MemoryLink>,
    faults: memory::Faults,
    link: LinkId,
    _stream: BondStream,
}

impl Silent {
    async fn new() -> Self {
        let hosts = Hosts::new();
        let (dialled, mut dials) = mpsc::unbounded_channel();
        let handle = hosts.bond.add_dialer(MemoryDialer(dialled));
        let far = dials.recv().await.unwrap();
        let faults = far.faults();
        hosts.listener.add_link(far);
        let accepted = hosts.listener.accept().await;
        exchange(&hosts.bond, &accepted, 10_000).await;
        let link = handle.state().link.unwrap();
        faults.black_hole(true);
        let mut stream = hosts.bond.open_stream(Class::Bulk).await.unwrap();
        stream.write_all(b"into the void").await.unwrap();
        Self { hosts, accepted, handle, dials, faults, link, _stream: stream }
    }

    /// The next dial, which reaches the peer.
    async fn reconnect(&mut self) {
        let dialled = tokio::time::timeout(Duration::from_secs(30), self.dials.recv()).await;
        self.hosts.listener.add_link(dialled.expect("nobody dials").unwrap());
    }

    /// Another link takes the place of the one that was silent, and the bytes arrive.
    async fn expect_replacement(self) {
        let mut far = self.accepted.accept_stream().await.unwrap();
        assert_eq!(far.read_chunk(100).await.unwrap().unwrap(), b"into the void"[..]);
        self.handle.wait_for(|state| state.link.is_some_and(|link| link != self.link)).await;
        let links = self.hosts.bond.links();
        let is_over = |link: &LinkSnapshot| link.id != self.link || link.state == LinkState::Closed;
        assert!(links.iter().all(is_over), "{links:?}");
    }
}

/// Waits until a link has changed so.
async fn becomes(events: &mut Events, wanted: LinkState) {
    loop {
        match events.next().await.unwrap() {
            BondEvent::Link { to, .. } if to == wanted => return,
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_only_late_is_not_replaced() {
    let mut silent = Silent::new().await;
    let mut events = silent.hosts.bond.events();
    becomes(&mut events, LinkState::Suspect).await;
    let late = tokio::time::timeout(Duration::from_millis(100), silent.dials.recv()).await;
    assert!(late.is_err(), "it was dialled anew at once");
    silent.faults.black_hole(false);
    becomes(&mut events, LinkState::Active).await;
    let later = tokio::time::timeout(Duration::from_secs(10), silent.dials.recv()).await;
    assert!(later.is_err(), "it was dialled anew though it is back");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_link_is_replaced() {
    let mut silent = Silent::new().await;
    // The replacement is dialled while the old link is suspect, and takes its place.
    silent.reconnect().await;
    silent.expect_replacement().await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_back_after_a_long_silence_is_renewed() {
    let mut silent = Silent::new().await;
    let mut events = silent.hosts.bond.events();
    becomes(&mut events, LinkState::Suspect).await;
    let back = tokio::time::Instant::now() + Duration::from_millis(1500);
    // The path is cut: no dial leads to anything.
    while tokio::time::timeout_at(back, silent.dials.recv()).await.is_ok() {}
    silent.faults.black_hole(false);
    becomes(&mut events, LinkState::Active).await;
    silent.reconnect().await;
    silent.expect_replacement().await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_peer_ends_the_bond_at_once() {
    let hosts = Hosts::new();
    let (dialled, mut dials) = mpsc::unbounded_channel();
    hosts.bond.add_dialer(MemoryDialer(dialled));
    let far = dials.recv().await.unwrap();
    let faults = far.faults();
    hosts.listener.add_link(far);
    hosts.bond.connected().await.unwrap();
    // Another process with the same key.
    let restarted = Listener::new(&hosts.there, ListenConfig::allow([hosts.here.public_key()])).unwrap();
    faults.cut();
    let serve = async {
        while let Some(far) = dials.recv().await {
            restarted.add_link(far);
        }
        std::future::pending::<()>().await;
    };
    let reason = tokio::select! {
        reason = hosts.bond.closed() => reason,
        () = serve => unreachable!(),
    };
    assert_eq!(reason, CloseReason::PeerRestarted);
}

/// Fails now and then, as a socket does when no descriptors are left.
struct FlakyAcceptor(VecDeque<io::Result<memory::MemoryLink>>);

impl Acceptor for FlakyAcceptor {
    type Link = memory::MemoryLink;

    fn name(&self) -> String {
        "flaky".into()
    }

    async fn accept(&mut self) -> io::Result<memory::MemoryLink> {
        match self.0.pop_front() {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_acceptor_goes_on() {
    let hosts = Hosts::new();
    let (near, far) = memory::pair(1500, 64 * 1024);
    let no_descriptors = || Err(io::Error::from_raw_os_error(24));
    let mut results: VecDeque<_> = std::iter::repeat_with(no_descriptors).take(50).collect();
    results.push_back(Ok(far));
    hosts.listener.add_acceptor(FlakyAcceptor(results));
    // Fifty failures take longer than one handshake is given.
    let late = hosts.bond.add_link(near);
    tokio::time::timeout(Duration::from_secs(5), std::future::pending::<()>()).await.unwrap_err();
    drop(late);
    let (near, far) = memory::pair(1500, 64 * 1024);
    hosts.listener.add_acceptor(FlakyAcceptor([no_descriptors(), no_descriptors(), Ok(far)].into()));
    hosts.bond.add_link(near).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_medium_that_never_takes_a_byte_is_given_up() {
    let hosts = Hosts::new();
    let (near, _far) = memory::pair(1500, 1);
    let (reader, mut writer) = near.split();
    let mut batch = PacketBatch::new(0);
    batch.push(&[0; 100]);
    writer.send(&mut batch).await.unwrap();
    let error = handshake_error(hosts.bond.add_link(Rejoined(reader, writer)).await);
    assert!(matches!(error, HandshakeError::Timeout { .. }), "{error}");
}

/// A link made of two halves.
struct Rejoined(memory::MemoryReader, memory::MemoryWriter);

impl PacketLink for Rejoined {
    type Reader = memory::MemoryReader;
    type Writer = memory::MemoryWriter;

    fn describe(&self) -> LinkDescription {
        LinkDescription::new("memory", "full", 1500)
    }

    fn split(self) -> (memory::MemoryReader, memory::MemoryWriter) {
        (self.0, self.1)
    }
}

/// A link whose reading the test can hold up, and whose writing it can break.
struct Breakable {
    link: memory::MemoryLink,
    may_read: watch::Receiver<bool>,
    /// Whether writing fails; the link answers when it has.
    broken: watch::Receiver<bool>,
    failed: mpsc::UnboundedSender<()>,
}

struct HeldReader(memory::MemoryReader, watch::Receiver<bool>);

impl PacketReader for HeldReader {
    async fn receive(&mut self, out: &mut Vec<BytesMut>) -> io::Result<()> {
        self.0.receive(out).await?;
        self.1.wait_for(|may| *may).await.map_err(io::Error::other)?;
        Ok(())
    }
}

struct BreakableWriter(memory::MemoryWriter, watch::Receiver<bool>, mpsc::UnboundedSender<()>);

impl PacketWriter for BreakableWriter {
    async fn ready(&mut self) -> io::Result<()> {
        self.0.ready().await
    }

    async fn send(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        if *self.1.borrow() {
            self.2.send(()).map_err(io::Error::other)?;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0.send(batch).await
    }
}

impl PacketLink for Breakable {
    type Reader = HeldReader;
    type Writer = BreakableWriter;

    fn describe(&self) -> LinkDescription {
        self.link.describe()
    }

    fn split(self) -> (HeldReader, BreakableWriter) {
        let (reader, writer) = self.link.split();
        (HeldReader(reader, self.may_read), BreakableWriter(writer, self.broken, self.failed))
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_peer_are_heard_when_nothing_can_be_sent_to_it() {
    let hosts = Hosts::new();
    let (may_read, broken) = (watch::Sender::new(true), watch::Sender::new(false));
    let (failed, mut has_failed) = mpsc::unbounded_channel();
    let (near, link) = memory::pair(1500, 64 * 1024);
    let far = Breakable { link, may_read: may_read.subscribe(), broken: broken.subscribe(), failed };
    hosts.listener.add_link(far);
    hosts.bond.add_link(near).await.unwrap();
    let accepted = hosts.listener.accept().await;
    exchange(&hosts.bond, &accepted, 10_000).await;
    // The peer says farewell and goes; here the answer fails before the farewell was read.
    may_read.send_replace(false);
    hosts.bond.close_now(0x123, "off").await;
    broken.send_replace(true);
    accepted.send_datagram(1, Bytes::from_static(b"anybody there?")).unwrap();
    has_failed.recv().await.unwrap();
    may_read.send_replace(true);
    let heard = tokio::time::timeout(Duration::from_secs(5), accepted.closed()).await;
    assert!(matches!(heard, Ok(CloseReason::Peer { code: 0x123, .. })), "{heard:?}");
}
