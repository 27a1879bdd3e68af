//! The measuring pair over loopback: what it reports is what happened. Needs no root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bondwire_bench::traffic::server::{self, FILE_SEED};
use bondwire_bench::traffic::{PACED_BLOCK_BYTES, Transport, client, pattern};

/// A measuring server of its own for each test; it goes with the test's process.
fn serve() -> SocketAddr {
    // The kernel hands a port that was just released to nobody else for a while.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    std::thread::spawn(move || server::serve(address, Transport::Plain));
    client::wait_until_answering(address, Duration::from_secs(5)).unwrap();
    address
}

fn ask(address: SocketAddr, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn bulk_is_counted_for_the_window_asked_for() {
    let window = Duration::from_millis(500);
    let series = client::send_bulk(serve(), Transport::Plain, window).unwrap();
    assert!(series.total_bytes() > 1_000_000, "{} bytes over loopback", series.total_bytes());
    assert!(series.since_start(series.last_ns) <= window);
}

#[test]
fn changed_data_is_noticed() {
    let address = serve();
    client::send_checked(address, 1_000_000, 7).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut data = [0; 1000];
    pattern::fill(7, 0, &mut data);
    data[500] ^= 1;
    stream.write_all(b"PUT 1000 7\n").unwrap();
    stream.write_all(&data).unwrap();
    let mut verdict = String::new();
    stream.read_to_string(&mut verdict).unwrap();
    assert_eq!(verdict, "WRONG\n");
}

#[test]
fn a_paced_stream_keeps_its_schedule() {
    let bits_per_second = 8_000_000;
    let length = Duration::from_millis(500);
    let arrivals = client::send_paced(serve(), Transport::Plain, bits_per_second, length).unwrap();
    assert_eq!(arrivals.len(), 1_000_000 / 2 / PACED_BLOCK_BYTES);
    let steps = arrivals.windows(2).map(|pair| pair[1].scheduled_ns - pair[0].scheduled_ns);
    assert!(steps.into_iter().all(|step| step == 1_250_000));
    assert!(arrivals.iter().all(|block| block.arrived_ns > block.scheduled_ns));
}

#[test]
fn small_messages_come_back() {
    assert!(client::ping(serve(), Duration::from_millis(50), Duration::ZERO).unwrap().len() > 1);
}

#[test]
fn files_come_whole_and_in_part() {
    let address = serve();
    let mut expected = vec![0; 100_000];
    pattern::fill(FILE_SEED, 0, &mut expected);
    let body = |answer: &[u8]| {
        let start = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        (String::from_utf8(answer[..start].to_vec()).unwrap(), answer[start..].to_vec())
    };
    let (head, whole) = body(&ask(address, "GET /100000 HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"), "{head}");
    assert!(whole == expected);
    let (head, part) = body(&ask(address, "GET /100000 HTTP/1.1\r\nRange: bytes=1000-1999\r\n\r\n"));
    assert!(head.contains("206 Partial Content\r\nContent-Range: bytes 1000-1999/100000\r\n"), "{head}");
    assert!(part == expected[1000..2000]);
}

#[test]
fn bad_requests_are_dropped_and_others_served_on() {
    let address = serve();
    for bad in [
        "\n",
        "GET\n",
        "GET /x HTTP/1.1\n",
        "SINK\n",
        "SINK -1\n",
        "PUT 1 2 3\n",
        "PUT 99999999999999999999 1\n",
    ] {
        assert!(ask(address, bad).is_empty(), "{bad:?} was answered");
    }
    let range = "GET /10 HTTP/1.1\r\nRange: bytes=9-3\r\n\r\n";
    assert!(ask(address, range).is_empty());
    // A line without an end is not collected for ever.
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(&[b'x'; 100_000]);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0]);
    assert!(client::answers(address, Duration::from_secs(5)));
}
