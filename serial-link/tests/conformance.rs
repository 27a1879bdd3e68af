//! Serial links on pseudo-terminals keep the contract of packet links.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use bondwire::conformance;
use bondwire::link::{Acceptor, Dialer};
use bondwire_line::{End, Noise, PtyLine};
use bondwire_serial::{SerialAcceptor, SerialAddress, SerialDialer, SerialLink};

/// Both ends of a good cable at a rate at which a megabyte does not take long.
async fn pair(lines: &mut Vec<PtyLine>, options: &str) -> (SerialLink, SerialLink) {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let address =
        |end| -> SerialAddress { format!("{}{options}", line.path(end).unwrap().display()).parse().unwrap() };
    let mut acceptor = SerialAcceptor::bind(&address(End::B)).await.unwrap();
    let mut dialer = SerialDialer::new(address(End::A));
    let (near, far) = tokio::join!(dialer.dial(), acceptor.accept());
    lines.push(line);
    (near.unwrap(), far.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serial_link_conforms() {
    let lines = std::sync::Arc::new(tokio::sync::Mutex::new(Vec::new()));
    let outcome = conformance::check(|| {
        let lines = lines.clone();
        async move { pair(&mut *lines.lock().await, ",baud=12000000").await }
    });
    outcome.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_climbs_before_it_is_used() {
    let mut lines = Vec::new();
    let (near, far) = pair(&mut lines, "").await;
    assert_eq!((near.baud(), far.baud()), (3_000_000, 3_000_000));
    let (near, far) = pair(&mut lines, ",baud-max=460800").await;
    assert_eq!((near.baud(), far.baud()), (460_800, 460_800));
    let (near, far) = pair(&mut lines, ",baud=57600").await;
    assert_eq!((near.baud(), far.baud()), (57_600, 57_600));
}
