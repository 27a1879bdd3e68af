//! Discovery between network namespaces, over the library. These need root, and say so when they are skipped.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::time::Duration;

use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener};
use bondwire_bench::namespace::Namespace;
use bondwire_tcp::{
    AddressFilter, Discovery, DiscoveryConfig, Families, LearnError, Listening, TcpAcceptor, TcpAddress,
    advertise,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// Far above what anything here takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this may make namespaces. Says loudly if not, and fails if it must not be so.
fn able() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    println!("SKIPPED: not root");
    let required = std::env::var_os("BONDWIRE_REQUIRE_ROOT_TESTS").is_some_and(|value| value == "1");
    assert!(!required, "BONDWIRE_REQUIRE_ROOT_TESTS=1, but: not root");
    false
}

/// A namespace with two interfaces that lead to another: `a0` to `b0`, `a1` to `b1`; each has IPv4 and IPv6.
fn hosts() -> [Namespace; 2] {
    let [near, far] = [(); 2].map(|()| Namespace::create().unwrap());
    for n in [0, 1] {
        near.ip(&format!("link add a{n} type veth peer name b{n} netns {}", far.name())).unwrap();
        for (host, name, end) in [(&near, "a", 1), (&far, "b", 2)] {
            host.ip(&format!("addr add 10.9.{n}.{end}/24 dev {name}{n}")).unwrap();
            host.ip(&format!("addr add fd00:9:{n}::{end}/64 dev {name}{n} nodad")).unwrap();
            host.ip(&format!("link set {name}{n} up")).unwrap();
        }
    }
    [near, far]
}

/// Runs `work` in the namespace, with a runtime of its own.
fn block_on<T: Send>(host: &Namespace, work: impl AsyncFnOnce() -> T + Send) -> T {
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(work()))
    })
    .unwrap()
}

/// Serves bonds of anyone at the far host until it is dropped.
struct Far {
    key: bondwire::PublicKey,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Far {
    /// `serve` gets each accepted bond.
    fn start(host: Namespace, serve: impl AsyncFn(Bond) + Send + Sync + 'static) -> Self {
        let identity = Identity::generate().unwrap();
        let (key, (stop, stopped)) = (identity.public_key(), tokio::sync::oneshot::channel());
        let (ready, when_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            block_on(&host, async || {
                let config = ListenConfig { allowed: bondwire::AllowedPeers::Any, ..ListenConfig::allow([]) };
                let listener = Listener::new(&identity, config).unwrap();
                listener.add_acceptor(TcpAcceptor::bind(&"*".parse().unwrap()).await.unwrap());
                // Somebody else's service, which no bond is behind.
                let stranger = TcpListener::bind("[::]:7701").await.unwrap();
                ready.send(()).unwrap();
                let serve_all = async {
                    loop {
                        serve(listener.accept().await).await;
                    }
                };
                let strangers = async {
                    let mut kept = Vec::new();
                    loop {
                        kept.push(stranger.accept().await.unwrap());
                    }
                };
                tokio::select! {
                    () = serve_all => {}
                    () = strangers => {}
                    _ = stopped => {}
                }
            });
        });
        when_ready.recv().unwrap();
        Self { key, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn connect(far: &Far, config: DiscoveryConfig, known: &str) -> (Bond, Discovery) {
    let bond = Bond::connect(&Identity::generate().unwrap(), far.key, BondConfig::default()).unwrap();
    let known: TcpAddress = known.parse().unwrap();
    let discovery = Discovery::start(&bond, vec![known.into()], config).unwrap();
    (bond, discovery)
}

/// Waits until these links are up.
async fn up(discovery: &Discovery, wanted: &[&str]) {
    let wanted: BTreeSet<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let mut names = BTreeSet::new();
    let all_up = async {
        while names != wanted {
            sleep(Duration::from_millis(20)).await;
            let up = discovery.links().into_iter().filter(|link| link.dialer.state().link.is_some());
            names = up.map(|link| link.to_string()).collect();
        }
    };
    let in_time = timeout(PATIENCE, all_up).await.is_ok();
    assert!(in_time, "not {wanted:?} but {names:?}: {:#?}", discovery.links());
}

#[test]
fn both_families_are_one_path_unless_asked() {
    if !able() {
        return;
    }
    let [near, far] = hosts();
    let far = Far::start(far, async |bond: Bond| {
        let stream = bond.accept_stream().await.unwrap();
        let listening = [Listening { address: "[::]:7700".parse().unwrap(), interface: None }];
        let all = AddressFilter::default();
        let told = advertise(stream, &listening, &all);
        tokio::select! {
            told = told => told.unwrap(),
            _ = bond.closed() => {}
        }
    });
    let cases: [(Families, &[&str]); 4] = [
        // The first link goes on when IPv6 is found beside it.
        (Families::Any, &["tcp 10.9.0.2:7700,iface=a0", "tcp [fd00:9:1::2]:7700,iface=a1"]),
        (Families::V4, &["tcp 10.9.0.2:7700,iface=a0", "tcp 10.9.1.2:7700,iface=a1"]),
        (
            Families::Both,
            &[
                "tcp 10.9.0.2:7700,iface=a0",
                "tcp 10.9.1.2:7700,iface=a1",
                "tcp [fd00:9:0::2]:7700,iface=a0",
                "tcp [fd00:9:1::2]:7700,iface=a1",
            ],
        ),
        (Families::V6, &["tcp [fd00:9:0::2]:7700,iface=a0", "tcp [fd00:9:1::2]:7700,iface=a1"]),
    ];
    for (families, wanted) in cases {
        let filter = AddressFilter { families, ..AddressFilter::default() };
        let config = DiscoveryConfig { filter, ..DiscoveryConfig::default() };
        let known = if families == Families::V6 { "fd00:9:0::2" } else { "10.9.0.2" };
        let wanted: Vec<_> = wanted.iter().map(|name| name.replace("fd00:9:0::2", "fd00:9::2")).collect();
        block_on(&near, async || {
            let (bond, discovery) = connect(&far, config, known);
            bond.connected().await.unwrap();
            let stream = bond.open_stream(Class::Bulk).await.unwrap();
            let (reader, _writer) = stream.split();
            let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
            tokio::select! {
                () = up(&discovery, &wanted) => {}
                ended = discovery.learn(reader) => panic!("{ended:?}"),
            }
            bond.close_now(0, "").await;
        });
    }
}

/// An advertisement of one interface.
fn lie(addresses: &[([u8; 4], u16)]) -> Vec<u8> {
    let mut body = vec![1, 3];
    body.extend(b"lie");
    body.push(addresses.len() as u8);
    for (ip, port) in addresses {
        body.push(4);
        body.extend(ip);
        body.extend(port.to_be_bytes());
    }
    [&(body.len() as u16).to_be_bytes()[..], &body].concat()
}

#[test]
fn a_lying_advertisement_does_no_harm() {
    if !able() {
        return;
    }
    let [near, far] = hosts();
    let far = Far::start(far, async |bond: Bond| drop(bond.closed().await));
    block_on(&near, async || {
        // The usual port is that of the stranger here.
        let (bond, discovery) = connect(&far, DiscoveryConfig::default(), "10.9.0.2");
        discovery.add("10.9.0.2:7701".parse::<TcpAddress>().unwrap().into());
        up(&discovery, &["tcp 10.9.0.2:7700,iface=a0"]).await;
        let (mut writer, reader) = tokio::io::duplex(1 << 16);
        let told = [
            ([127, 0, 0, 1], 7700),
            ([10, 9, 0, 1], 7700),
            ([10, 9, 1, 2], 22),
            ([10, 9, 1, 2], 7701),
            ([224, 0, 0, 1], 7700),
            ([192, 0, 2, 1], 7700),
        ];
        writer.write_all(&lie(&told)).await.unwrap();
        let lying = async {
            // Of all that, the stranger alone can be dialled, and fails at the handshake.
            let failed = || {
                let links = discovery.links();
                let link = links.iter().find(|link| link.to_string() == "tcp 10.9.1.2:7701,iface=a1")?;
                link.dialer.state().fault
            };
            while failed().is_none() {
                sleep(Duration::from_millis(20)).await;
            }
            let dialled: BTreeSet<_> = discovery.links().iter().map(ToString::to_string).collect();
            let expected =
                ["tcp 10.9.0.2:7700,iface=a0", "tcp 10.9.0.2:7701,iface=a0", "tcp 10.9.1.2:7701,iface=a1"];
            assert_eq!(dialled, expected.map(str::to_owned).into());
            // What makes no sense ends the lesson, and nothing else.
            writer.write_all(&[0xff; 64]).await.unwrap();
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = discovery.learn(reader) => ended,
            () = lying => Ok(()),
            () = sleep(PATIENCE) => panic!("{:#?}", discovery.links()),
        };
        assert!(matches!(ended, Err(LearnError::Malformed(_))), "{ended:?}");
        up(&discovery, &["tcp 10.9.0.2:7700,iface=a0"]).await;
        bond.close_now(0, "").await;
    });
}
