//! The TCP link against the contract, and its options on real sockets.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bondwire::conformance;
use bondwire::link::{Acceptor, PacketBatch, PacketLink, PacketReader, PacketWriter};
use bondwire_tcp::{TcpAcceptor, TcpAddress, TcpDialer, TcpLink};

async fn pair() -> (TcpLink, TcpLink) {
    let mut acceptor = TcpAcceptor::bind(&TcpAddress::new("127.0.0.1", 0)).await.unwrap();
    let dialer = TcpDialer::new(TcpAddress::new("127.0.0.1", acceptor.local_addr().unwrap().port()));
    let (dialled, accepted) = tokio::join!(dialer.connect(), acceptor.accept());
    (dialled.unwrap(), accepted.unwrap())
}

#[tokio::test]
async fn tcp_link_conforms() {
    conformance::check(pair).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_link_conforms_on_threads() {
    conformance::check(pair).await.unwrap();
}

#[tokio::test]
async fn ready_waits_for_the_low_water_mark() {
    let (a, b) = pair().await;
    let ((_keep, mut writer), (mut reader, _keep_too)) = (a.split(), b.split());
    reader.authenticated();
    let mut batch = PacketBatch::new(writer.headroom_bytes());
    batch.push(&[7; 60_000]);
    let mut sent = 0;
    // Until the kernel's buffers are full: then `ready` must wait although nothing was refused yet.
    while tokio::time::timeout(Duration::from_millis(100), writer.ready()).await.is_ok() {
        writer.send(&mut batch).await.unwrap();
        sent += 1;
        assert!(sent < 2000, "ready never waits");
    }
    let mut received = Vec::new();
    while received.len() < sent {
        reader.receive(&mut received).await.unwrap();
    }
    writer.ready().await.unwrap();
}

#[tokio::test]
async fn every_address_serves_both_families() {
    let mut acceptor = TcpAcceptor::bind(&"*:0".parse().unwrap()).await.unwrap();
    let port = acceptor.local_addr().unwrap().port();
    let v6 = acceptor.local_addr().unwrap().is_ipv6();
    let hosts: &[&str] = if v6 { &["127.0.0.1", "::1", "localhost"] } else { &["127.0.0.1"] };
    for host in hosts {
        let dialer = TcpDialer::new(TcpAddress::new(*host, port));
        let (dialled, accepted) = tokio::join!(dialer.connect(), acceptor.accept());
        assert_eq!(dialled.unwrap().describe().name, format!("tcp {}", TcpAddress::new(*host, port)));
        assert!(accepted.unwrap().describe().name.starts_with("tcp "));
    }
}

#[tokio::test]
async fn failures_say_what_to_do() {
    async fn dial(text: &str) -> String {
        let dialer = TcpDialer::new(text.parse().unwrap()).with_timeout(Duration::from_secs(5));
        dialer.connect().await.unwrap_err().to_string()
    }
    assert!(dial("127.0.0.1:1").await.contains("refused"));
    assert!(dial("127.0.0.1:1,source=::1").await.contains("no IPv6 address"));
    assert!(dial("127.0.0.1:1,source=192.0.2.1").await.contains("source address 192.0.2.1"));
    if cfg!(target_os = "linux") {
        assert!(dial("127.0.0.1:1,iface=nosuch0").await.contains("no network interface `nosuch0`"));
        let message = dial("127.0.0.1:1,cc=nosuch").await;
        assert!(message.contains("available: ") && message.contains("cubic"), "{message}");
    }

    let taken = TcpAcceptor::bind(&TcpAddress::new("127.0.0.1", 0)).await.unwrap();
    let again = TcpAddress::new("127.0.0.1", taken.local_addr().unwrap().port());
    let message = TcpAcceptor::bind(&again).await.unwrap_err().to_string();
    assert!(message.contains("another program has this port"), "{message}");
    let message = TcpAcceptor::bind(&"*,source=10.0.0.1".parse().unwrap()).await.unwrap_err().to_string();
    assert!(message.contains("is for dialling"), "{message}");
}
