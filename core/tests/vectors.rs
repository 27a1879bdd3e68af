//! The test vectors of PROTOCOL.md, in both directions.
//!
//! `vectors/packets.json` was not made by this implementation: a second one, written from PROTOCOL.md alone, can use
//! it the same way. Its integers need 64 bits.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use bondwire_core::config::{LinkPolicy, Policy};
use bondwire_core::id::{Class, LinkId, StreamId};
use bondwire_core::range_set::RangeSet;
use bondwire_core::wire::frame::{Frame, frames};
use bondwire_core::wire::header::{self, Header};
use bondwire_core::wire::packet::Packet;
use bondwire_core::wire::varint;
use bytes::Bytes;
use hmac::Mac;
use serde_json::{Value, json};

/// The records of one list of the file.
fn records(list: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("vectors/packets.json")).unwrap();
    let records = file[list].as_array().unwrap().clone();
    assert!(!records.is_empty());
    records
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text"))
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = text(value);
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn varints() {
    for record in records("varints") {
        let (value, encoded) = (number(&record["value"]), bytes(&record["encoded"]));
        let mut written = Vec::new();
        varint::encode(value, &mut written);
        assert_eq!(hex(&written), hex(&encoded));
        assert_eq!(varint::decode_slice(&mut &encoded[..]), Some(value));
    }
}

#[test]
fn headers() {
    for record in records("headers") {
        let header =
            Header { number: number(&record["number"]), phase_bit: number(&record["phase bit"]) == 1 };
        let encoded = bytes(&record["header"]);
        let mut written = Vec::new();
        header::encode(header, record["largest acknowledged"].as_u64(), &mut written);
        assert_eq!(hex(&written), hex(&encoded), "{record}");
        let largest_authenticated = record["largest authenticated"].as_u64();
        assert_eq!(header::decode(&encoded, largest_authenticated), Ok((header, encoded.len())), "{record}");
    }
}

#[test]
fn bad_headers() {
    for record in records("bad headers") {
        assert!(header::decode(&bytes(&record["packet"]), None).is_err(), "{record}");
    }
}

#[test]
fn frames_are_read() {
    for record in records("frames") {
        let read: Vec<Value> =
            frames(bytes(&record["payload"]).into()).map(|frame| described(&frame.unwrap())).collect();
        assert_eq!(Value::from(read), record["frames"], "{}", record["name"]);
    }
}

#[test]
fn frames_are_written() {
    for record in records("frames") {
        let payload = bytes(&record["payload"]);
        let mut packet = Packet::new();
        packet.begin(LinkId(0), 0, 0, None, 1200);
        if record["full"] == true {
            // The last frame goes without its length only where it fills the packet.
            let max_len = packet.header_len() + payload.len();
            packet.begin(LinkId(0), 0, 0, None, max_len);
        }
        for frame in record["frames"].as_array().unwrap() {
            assert!(push(&mut packet, frame), "{frame} does not fit");
        }
        let mut written = Vec::new();
        packet.gather(&mut written);
        assert_eq!(hex(&written[packet.header_len()..]), hex(&payload), "{}", record["name"]);
    }
}

#[test]
fn bad_frames_are_refused() {
    for record in records("bad frames") {
        let mut read = frames(bytes(&record["payload"]).into());
        assert!(read.any(|frame| frame.is_err()), "{record}");
    }
}

#[test]
fn close_is_proven_by_its_mac() {
    for record in records("frames").iter().filter(|record| record["close key"].is_string()) {
        let close = &record["frames"][0];
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&bytes(&record["close key"])).unwrap();
        mac.update(b"bondwire close");
        mac.update(&number(&close["code"]).to_be_bytes());
        mac.update(text(&close["reason"]).as_bytes());
        mac.verify_truncated_left(&bytes(&close["MAC"])).unwrap();
    }
}

#[test]
fn the_protocol_text_quotes_them() {
    let protocol = std::fs::read_to_string(repository().join("PROTOCOL.md")).unwrap();
    for (list, field) in
        [("varints", "encoded"), ("headers", "header"), ("frames", "payload"), ("bad frames", "payload")]
    {
        for record in records(list) {
            let quoted = format!("`{}`", text(&record[field]));
            assert!(quoted == "``" || protocol.contains(&quoted), "PROTOCOL.md lacks {quoted} of {record}");
        }
    }
}

/// The fuzzers start from these vectors. `BONDWIRE_WRITE_CORPUS=1` writes the files again.
#[test]
fn the_fuzz_corpus_is_made_from_them() {
    let corpus = repository().join("fuzz/corpus");
    let mut seeds: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for (list, target, field) in [
        ("frames", "frames", "payload"),
        ("bad frames", "frames", "payload"),
        ("headers", "header", "header"),
        ("bad headers", "header", "packet"),
    ] {
        for record in records(list) {
            let name =
                text(&record["name"]).replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_lowercase();
            let mut seed = bytes(&record[field]);
            if target == "header" {
                // That target reads the largest authenticated number first, plus one, or 0 for none.
                let largest = record["largest authenticated"].as_u64().map_or(0, |largest| largest + 1);
                seed.splice(0..0, largest.to_be_bytes());
            }
            seeds.push((corpus.join(target).join(name), seed));
        }
    }
    for (path, seed) in seeds {
        if std::env::var_os("BONDWIRE_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &seed).unwrap();
        }
        let found = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(hex(&found), hex(&seed), "{}", path.display());
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A frame as the file describes it.
fn described(frame: &Frame) -> Value {
    let mut fields = match frame {
        Frame::Padding { bytes } => json!({ "bytes": bytes }),
        Frame::Ping => json!({}),
        Frame::Ack(ack) => {
            let ranges: Vec<_> = ack.ranges().map(|r| json!([r.start(), r.end()])).collect();
            json!({ "link": ack.link.0, "delay": ack.delay_us, "arrival": ack.arrival_us, "ranges": ranges })
        }
        Frame::ResetStream { id, code, final_size } => {
            json!({ "stream": id.0, "error code": code, "final size": final_size })
        }
        Frame::StopSending { id, code } => json!({ "stream": id.0, "error code": code }),
        Frame::Stream { id, offset, fin, data } => {
            json!({ "stream": id.0, "offset": offset, "fin": fin, "data": hex(data) })
        }
        Frame::OpenStream { id, class, priority, label } => {
            json!({ "stream": id.0, "class": *class as u64, "priority": priority, "label": label })
        }
        Frame::MaxStreamData { id, maximum } => json!({ "stream": id.0, "maximum offset": maximum }),
        Frame::MaxStreams { count } => json!({ "count": count }),
        Frame::WindowWanted { bytes } => json!({ "window": bytes }),
        Frame::Close { code, mac, reason } => json!({ "code": code, "MAC": hex(mac), "reason": reason }),
        Frame::Datagram { flow, sequence, offset, total, data } => json!({
            "flow": flow, "sequence": sequence, "offset": offset, "total length": total, "data": hex(data)
        }),
        Frame::OrderedDatagram { flow, number, offset, total, data } => json!({
            "flow": flow, "number": number, "offset": offset, "total length": total, "data": hex(data)
        }),
        Frame::LinkStatus { link, sequence, policy } => json!({
            "link": link.0, "sequence": sequence, "status": policy.usage as u64, "tier": policy.tier,
            "weight": policy.weight.map_or(0, NonZeroU8::get), "cap": policy.cap_bytes_per_second.unwrap_or(0)
        }),
        Frame::LinkClose { link, code } => json!({ "link": link.0, "code": code }),
    };
    fields["type"] = frame.name().into();
    fields
}

/// Appends a frame that the file describes.
fn push(packet: &mut Packet, frame: &Value) -> bool {
    let field = |name: &str| number(&frame[name]);
    let length = |name: &str| usize::try_from(field(name)).unwrap();
    let data = || Bytes::from(bytes(&frame["data"]));
    let stream = || StreamId(field("stream"));
    let link = || LinkId(u32::try_from(field("link")).unwrap());
    match text(&frame["type"]) {
        "PADDING" => packet.push_padding(length("bytes")),
        "PING" => packet.push_ping(),
        "ACK" => {
            let ranges = frame["ranges"].as_array().unwrap().iter();
            let received: RangeSet = ranges.map(|r| number(&r[0])..number(&r[1]) + 1).collect();
            packet.push_ack(link(), field("delay"), field("arrival"), &received)
        }
        "RESET_STREAM" => packet.push_reset_stream(stream(), field("error code"), field("final size")),
        "STOP_SENDING" => packet.push_stop_sending(stream(), field("error code")),
        "STREAM" => packet.push_stream(stream(), field("offset"), frame["fin"] == true, data()),
        "OPEN_STREAM" => {
            let priority = u8::try_from(field("priority")).unwrap();
            packet.push_open_stream(
                stream(),
                Class::from_wire(field("class")),
                priority,
                text(&frame["label"]),
            )
        }
        "MAX_STREAM_DATA" => packet.push_max_stream_data(stream(), field("maximum offset")),
        "MAX_STREAMS" => packet.push_max_streams(field("count")),
        "WINDOW_WANTED" => packet.push_window_wanted(field("window")),
        "CLOSE" => {
            let mac = bytes(&frame["MAC"]).try_into().unwrap();
            packet.push_close(field("code"), &mac, text(&frame["reason"]))
        }
        "DATAGRAM" => packet.push_datagram(
            field("flow"),
            field("sequence"),
            length("offset"),
            length("total length"),
            data(),
        ),
        "ORDERED_DATAGRAM" => packet.push_ordered_datagram(
            field("flow").try_into().unwrap(),
            field("number"),
            length("offset"),
            length("total length"),
            data(),
        ),
        "LINK_STATUS" => {
            let usages = [Policy::Active, Policy::Backup, Policy::Paused];
            let policy = LinkPolicy {
                usage: usages[length("status")],
                tier: u8::try_from(field("tier")).unwrap(),
                weight: NonZeroU8::new(u8::try_from(field("weight")).unwrap()),
                cap_bytes_per_second: Some(field("cap")).filter(|&cap| cap > 0),
            };
            packet.push_link_status(link(), field("sequence"), &policy)
        }
        "LINK_CLOSE" => packet.push_link_close(link(), field("code")),
        unknown => panic!("{unknown} is not a frame"),
    }
}
