//! The payload of a HELLO: it is read or refused, what was read can be written, and a session survives it in each state.
#![no_main]

use bondwire_frame::crc::Crc32c;
use bondwire_frame::hello::Hello;
use bondwire_frame::{Config, FrameSink, Instant, NoRoom, Role, Session};
use libfuzzer_sys::fuzz_target;

/// Keeps the last frame as it is.
#[derive(Default)]
struct Plain(Vec<u8>);

impl FrameSink for Plain {
    fn put(&mut self, parts: [&[u8]; 3]) -> Result<(), NoRoom> {
        self.0 = parts.concat();
        Ok(())
    }
}

fuzz_target!(|payload: &[u8]| {
    let read = Hello::read(payload);
    if let Ok(hello) = read {
        assert_eq!(Hello::read(&hello.write()), read);
    }
    let mut frame = [&[1, 0, 0, 0, 0], payload].concat();
    frame.extend(Crc32c::new().with(&frame).value().to_le_bytes());

    let now = Instant::ZERO;
    for role in [Role::Dialer, Role::Acceptor] {
        let mut opening = Session::new(now, Config::serial(role), 7);
        let _ = opening.handle_frame(now, &frame);
        while opening.poll_control(now, &mut Plain::default()) == Ok(true) {}

        let mut ends = [
            Session::new(now, Config::serial(Role::Dialer), 7),
            Session::new(now, Config::serial(Role::Acceptor), 8),
        ];
        for turn in [0, 1, 0] {
            let mut line = Plain::default();
            assert_eq!(ends[turn].poll_control(now, &mut line), Ok(true));
            assert!(ends[1 - turn].handle_frame(now, &line.0).is_ok());
        }
        let end = &mut ends[usize::from(role == Role::Acceptor)];
        assert!(end.is_established());
        let _ = end.handle_frame(now, &frame);
        let _ = end.poll_control(now, &mut Plain::default());
    }
});
