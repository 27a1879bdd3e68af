//! What the two ends of a speed test tell each other; PROTOCOL.md, "Applications", has the same table.
//!
//! A test is one or more streams labelled `speed`. The one who asks writes a [`Request`] on each; the acceptor answers
//! with a status. Then the sender writes test data until its time is up or the receiver stops it. On a stream whose
//! sender is the asker, the acceptor closes with a [`Verdict`].

use std::time::Duration;

/// Version of this protocol.
const VERSION: u8 = 1;
/// Longest warm-up or measurement, so that no peer keeps this end busy for days.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(3600);
/// Most streams of one test in one direction.
pub(crate) const STREAMS_MAX: u16 = 128;

/// Who sends the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The end that opened the stream.
    Asker,
    /// The end that accepted the stream.
    Acceptor,
}

/// The first bytes of a test stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) sender: Sender,
    /// Names the test within the bond: streams of one test and direction share one meter.
    pub(crate) test: u32,
    /// Time from the first byte that is not counted.
    pub(crate) omit: Duration,
    /// Time after that which is counted.
    pub(crate) measure: Duration,
    /// Names the data of this stream.
    pub(crate) seed: u64,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(
        "speed test protocol {0} is unknown here, this end speaks {VERSION}; use the same version of bondwire"
    )]
    Version(u8),
    #[error("a speed test without a known direction")]
    Direction,
    #[error("a speed test of no time, or of more than {} s", TIME_MAX.as_secs())]
    Time,
}

impl Request {
    /// Length on the wire.
    pub(crate) const BYTES: usize = 22;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = VERSION;
        bytes[1] = u8::from(self.sender == Sender::Acceptor);
        bytes[2..6].copy_from_slice(&self.test.to_be_bytes());
        bytes[6..10].copy_from_slice(&milliseconds(self.omit).to_be_bytes());
        bytes[10..14].copy_from_slice(&milliseconds(self.measure).to_be_bytes());
        bytes[14..].copy_from_slice(&self.seed.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, RequestError> {
        let [version, direction, rest @ ..] = bytes;
        if version != VERSION {
            return Err(RequestError::Version(version));
        }
        let sender = match direction {
            0 => Sender::Asker,
            1 => Sender::Acceptor,
            _ => return Err(RequestError::Direction),
        };
        let [t0, t1, t2, t3, o0, o1, o2, o3, m0, m1, m2, m3, seed @ ..] = rest;
        let request = Self {
            sender,
            test: u32::from_be_bytes([t0, t1, t2, t3]),
            omit: Duration::from_millis(u32::from_be_bytes([o0, o1, o2, o3]).into()),
            measure: Duration::from_millis(u32::from_be_bytes([m0, m1, m2, m3]).into()),
            seed: u64::from_be_bytes(seed),
        };
        let is_bounded = request.omit <= TIME_MAX && request.measure <= TIME_MAX;
        if is_bounded && !request.measure.is_zero() { Ok(request) } else { Err(RequestError::Time) }
    }
}

/// What the receiving acceptor found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Bytes within the window, of all streams of this test so far.
    pub(crate) bytes: u64,
    /// Length of the window.
    pub(crate) time: Duration,
    /// Position of the first wrong byte of this stream.
    pub(crate) wrong_at: Option<u64>,
}

impl Verdict {
    /// Length on the wire.
    pub(crate) const BYTES: usize = 25;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = u8::from(self.wrong_at.is_some());
        bytes[1..9].copy_from_slice(&self.bytes.to_be_bytes());
        let microseconds = u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX);
        bytes[9..17].copy_from_slice(&microseconds.to_be_bytes());
        bytes[17..].copy_from_slice(&self.wrong_at.unwrap_or_default().to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let [wrong, b0, b1, b2, b3, b4, b5, b6, b7, t0, t1, t2, t3, t4, t5, t6, t7, at @ ..] = bytes;
        Self {
            bytes: u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            time: Duration::from_micros(u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7])),
            wrong_at: (wrong != 0).then_some(u64::from_be_bytes(at)),
        }
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request {
        sender: Sender::Acceptor,
        test: 0x0102_0304,
        omit: Duration::from_millis(2000),
        measure: Duration::from_millis(10_000),
        seed: 0x1112_1314_1516_1718,
    };

    #[test]
    fn a_request_is_as_documented() {
        let bytes = REQUEST.encode();
        assert_eq!(
            bytes,
            *b"\x01\x01\x01\x02\x03\x04\0\0\x07\xd0\0\0\x27\x10\x11\x12\x13\x14\x15\x16\x17\x18"
        );
        assert_eq!(Request::decode(bytes), Ok(REQUEST));
    }

    #[test]
    fn bad_requests_are_refused() {
        let with = |place: usize, value: u8| {
            let mut bytes = REQUEST.encode();
            bytes[place] = value;
            Request::decode(bytes)
        };
        assert_eq!(with(0, 2), Err(RequestError::Version(2)));
        assert_eq!(with(1, 2), Err(RequestError::Direction));
        assert_eq!(with(6, 0xff), Err(RequestError::Time));
        assert_eq!(with(10, 0xff), Err(RequestError::Time));
        assert_eq!(
            Request::decode(Request { measure: Duration::ZERO, ..REQUEST }.encode()),
            Err(RequestError::Time)
        );
    }

    #[test]
    fn a_verdict_comes_back() {
        for wrong_at in [None, Some(0), Some(u64::MAX)] {
            let verdict = Verdict { bytes: 1 << 40, time: Duration::from_micros(10_000_001), wrong_at };
            assert_eq!(Verdict::decode(verdict.encode()), verdict);
        }
    }
}
