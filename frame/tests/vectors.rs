//! The test vectors of PROTOCOL.md, section 12.
//!
//! `vectors/frame.json` was made by `vectors/frame.py`, a second implementation; `BONDWIRE_WRITE_CORPUS=1` makes the seeds of
//! the fuzzers from it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use bondwire_frame::crc::Crc32c;
use bondwire_frame::hello::Hello;
use bondwire_frame::{Config, Duration, FrameSink, Instant, Received, Role, Session, cobs, transfer};
use serde_json::Value;

fn file() -> Value {
    serde_json::from_str(include_str!("vectors/frame.json")).unwrap()
}

fn records(list: &str) -> Vec<Value> {
    let records = file()[list].as_array().unwrap().clone();
    assert!(!records.is_empty());
    records
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = value.as_str().unwrap_or_else(|| panic!("{value} is not a text"));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes one frame off a line.
fn unstuffed(line: &[u8]) -> Vec<u8> {
    let mut decoder = cobs::Decoder::new(vec![0; 1000]);
    decoder.next_frame(&mut &line[..]).unwrap().to_vec()
}

#[test]
fn checksums() {
    for record in records("crc32c") {
        let crc = Crc32c::new().with(&bytes(&record["data"])).value();
        assert_eq!(format!("{crc:08x}"), record["crc"].as_str().unwrap());
    }
}

#[test]
fn stuffing() {
    for record in records("cobs") {
        let (frame, line) = (bytes(&record["frame"]), bytes(&record["line"]));
        let mut out = vec![0; cobs::encoded_max_bytes(frame.len())];
        let mut writer = cobs::Writer::new(&mut out);
        writer.put([&frame, &[], &[]]).unwrap();
        let len = writer.len();
        assert_eq!(hex(&out[..len]), hex(&line));
        assert_eq!(hex(&unstuffed(&line)), hex(&frame));
    }
}

#[test]
fn transfers() {
    for record in records("transfers") {
        let frames: Vec<_> = record["frames"].as_array().unwrap().iter().map(bytes).collect();
        let expected = bytes(&record["transfer"]);
        let mut out = [0; 1024];
        let mut writer =
            transfer::Writer::new(&mut out, 1024, record["packet size"].as_u64().unwrap() as usize);
        frames.iter().for_each(|frame| writer.put([frame, &[], &[]]).unwrap());
        let len = writer.finish();
        assert_eq!(hex(&out[..len]), hex(&expected), "{}", record["name"]);
        let read: Vec<_> = transfer::frames(&expected).map(|frame| frame.unwrap().to_vec()).collect();
        assert_eq!(read, frames);
    }
}

#[test]
fn bad_hellos() {
    for record in records("bad hellos") {
        assert!(Hello::read(&bytes(&record["payload"])).is_err(), "{record}");
    }
}

/// A whole session: what each end writes is the vector, and what it reads is the vector.
#[test]
fn a_session_byte_by_byte() {
    let now = Instant::ZERO;
    let config = |role, buffer, read| Config {
        mtu_bytes: 631,
        receive_buffer_bytes: buffer,
        read_bytes: read,
        keep_alive: Duration::from_secs(1),
        ..Config::serial(role)
    };
    let nonce = |role: &str| u64::from_str_radix(file()["nonces"][role].as_str().unwrap(), 16).unwrap();
    let mut dialer = Session::new(now, config(Role::Dialer, 2048, 0), nonce("dialer"));
    let mut acceptor = Session::new(now, config(Role::Acceptor, 1024, 512), nonce("acceptor"));
    let big: Vec<u8> = (0..300).map(|n| (n * 7 % 256) as u8).collect();

    for (step, record) in records("session").iter().enumerate() {
        let is_dialer = record["from"] == "dialer";
        let (from, to) = if is_dialer { (&mut dialer, &mut acceptor) } else { (&mut acceptor, &mut dialer) };
        let mut out = [0; 1000];
        let mut writer = cobs::Writer::new(&mut out);
        let packet: &[u8] = match step {
            3 => b"first",
            4 => &big,
            7 => b"answer",
            _ => b"",
        };
        match step {
            3 | 4 | 7 => from.send_packet(packet, &mut writer).unwrap(),
            5 => from.send_message(b"aside", &mut writer).unwrap(),
            8 => {
                from.close();
                assert!(from.poll_control(now, &mut writer).unwrap());
            }
            _ => assert!(from.poll_control(now, &mut writer).unwrap()),
        }
        let len = writer.len();
        assert_eq!(hex(&out[..len]), hex(&bytes(&record["line"])), "{}", record["name"]);
        let frame = unstuffed(&out[..len]);
        assert_eq!(hex(&frame), hex(&bytes(&record["frame"])));
        match (step, to.handle_frame(now, &frame)) {
            (1 | 2, Ok(Received::Established)) | (0 | 6, Ok(Received::Nothing)) => {}
            (3 | 4 | 7, Ok(Received::Packet(got))) if got == packet => to.release(got.len()),
            (5, Ok(Received::Message(got))) => assert_eq!(got, b"aside"),
            (8, Err(end)) => assert_eq!(end.to_string(), "the peer closed the link (nothing is wrong)"),
            (_, other) => panic!("step {step}: {other:?}"),
        }
    }
}

/// The fuzzers start from these vectors. `BONDWIRE_WRITE_CORPUS=1` writes the files again.
#[test]
fn the_fuzz_corpus_is_made_from_them() {
    let mut seeds: Vec<(&str, String, Vec<u8>)> = Vec::new();
    let name = |record: &Value| {
        let name =
            format!("{} {}", record["from"].as_str().unwrap_or("any"), record["name"].as_str().unwrap());
        name.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_lowercase()
    };
    let mut session = Vec::new();
    for record in records("session") {
        let (frame, line) = (bytes(&record["frame"]), bytes(&record["line"]));
        if record["name"].as_str().unwrap().starts_with("HELLO") {
            seeds.push(("hello", name(&record), frame[5..frame.len() - 4].to_vec()));
        }
        session.extend(&line);
        // That target reads the length of the pieces first.
        seeds.push(("cobs", name(&record), [&[7], &line[..]].concat()));
    }
    seeds.push(("cobs", "whole-session".to_owned(), [&[50], &session[..]].concat()));
    for record in records("bad hellos") {
        seeds.push(("hello", name(&record), bytes(&record["payload"])));
    }
    for record in records("transfers") {
        seeds.push(("transfer", name(&record), bytes(&record["transfer"])));
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz/corpus");
    for (target, name, seed) in seeds {
        let path = corpus.join(target).join(name);
        if std::env::var_os("BONDWIRE_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &seed).unwrap();
        }
        let found = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(hex(&found), hex(&seed), "{}", path.display());
    }
}
