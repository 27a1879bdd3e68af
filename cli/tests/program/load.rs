//! Many short connections: all answered, and nothing left behind.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Instant;

use crate::pair::{Pair, connect, echo_server};
use crate::user::{PATIENCE, Running};

const CONNECTIONS: u32 = 10_000;
const AT_ONCE: u32 = 8;
/// What may remain of 8,000 connections: far below one KiB each.
const GROWTH_MAX_KIB: u64 = 6 << 10;

fn connections(local: SocketAddr, count: u32) {
    let client = |worker: u32| {
        for number in 0..count / AT_ONCE {
            let mut stream = connect(local);
            let question = [worker.to_be_bytes(), number.to_be_bytes()].concat();
            stream.write_all(&question).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, question);
        }
    };
    thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            scope.spawn(move || client(worker));
        }
    });
}

fn descriptors(program: &Running) -> usize {
    fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap().count()
}

fn memory_kib(program: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn ten_thousand_connections_are_answered_and_leave_nothing() {
    let (pair, local) = Pair::forwarding(&echo_server().to_string(), &[], "");
    let ends = [&pair.listening, &pair.connecting];
    let idle = ends.map(descriptors);
    connections(local, CONNECTIONS / 5);
    let warm = ends.map(memory_kib);
    connections(local, CONNECTIONS * 4 / 5);
    for (index, end) in ends.into_iter().enumerate() {
        let deadline = Instant::now() + PATIENCE;
        while descriptors(end) > idle[index] {
            assert!(Instant::now() < deadline, "{} descriptors, {} before", descriptors(end), idle[index]);
            thread::yield_now();
        }
        let now = memory_kib(end);
        assert!(now < warm[index] + GROWTH_MAX_KIB, "{now} KiB, {} KiB after the first 2,000", warm[index]);
    }
}
