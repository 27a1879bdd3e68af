//! What is at the other end, if it is not Bondwire: read off what it says.

use std::fmt;

/// Bytes that are kept of what came before the other end was understood.
const SAMPLE_BYTES: usize = 160;
/// Part of the bytes that must be text for the whole to be text.
const TEXT_PART: usize = 8;

/// What came over a line before a session was established.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    sample: Vec<u8>,
    bytes: u64,
}

impl Heard {
    pub(crate) fn note(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        // The end of what came says most: a prompt stands there.
        let keep = bytes.len().min(SAMPLE_BYTES);
        self.sample.extend(&bytes[bytes.len() - keep..]);
        self.sample.drain(..self.sample.len().saturating_sub(SAMPLE_BYTES));
    }

    fn text(&self) -> Option<String> {
        let text: Vec<u8> = self.sample.iter().copied().filter(|b| *b != 0).collect();
        let readable = |byte: &&u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x1b);
        let is_text = !text.is_empty()
            && text.iter().filter(readable).count() * TEXT_PART >= text.len() * (TEXT_PART - 1);
        is_text.then(|| String::from_utf8_lossy(&text).into_owned())
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes == 0 {
            return f.write_str(
                "nothing came back: is the other end listening, and are the wires crossed (TX to RX)?",
            );
        }
        let Some(text) = self.text() else {
            return write!(
                f,
                "{} bytes came back that make no sense: the other end may have another baud rate",
                self.bytes
            );
        };
        let lower = text.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let last: String = last.chars().filter(|c| !c.is_control()).take(60).collect();
        if has(&["login:", "password:"]) {
            write!(
                f,
                "a login prompt answers ({last:?}): run `bondwire listen` there and stop its serial-getty"
            )
        } else if has(&["no carrier", "connect 9600"])
            || lower.trim_end().ends_with("ok")
            || has(&["\nerror"])
        {
            write!(f, "a modem answers ({last:?})")
        } else if last.ends_with(['#', '$', '>', '%']) || has(&["command not found", "not found", "sh:"]) {
            write!(f, "a shell answers ({last:?}): run `bondwire listen` there on this port")
        } else if lower.contains("] ") && lower.contains('[') {
            write!(f, "kernel messages come ({last:?}): the port is the other end's console")
        } else {
            write!(f, "text came back that is not Bondwire ({last:?})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(bytes: &[u8]) -> String {
        let mut heard = Heard::default();
        heard.note(bytes);
        heard.to_string()
    }

    #[test]
    fn the_other_end_is_named() {
        for (bytes, words) in [
            (&b""[..], "nothing came back"),
            (b"\x00\xff\x80\x91\x03", "another baud rate"),
            (
                b"\r\nDebian GNU/Linux 12 board ttyS0\r\n\r\nboard login: ",
                "a login prompt answers (\"board login:\")",
            ),
            (b"AT\r\r\nOK\r\n", "a modem answers (\"OK\")"),
            (b"\r\nNO CARRIER\r\n", "a modem answers"),
            (b"\x1b[0mroot@board:~# ", "a shell answers (\"[0mroot@board:~#\")"),
            (b"sh: ^B^A: not found\r\n", "a shell answers"),
            (b"[   12.345678] usb 1-1: new device\r\n[   12.4] scsi host0: uas\r\n", "kernel messages come"),
            (b"Hello from Arduino\r\n", "text came back that is not Bondwire (\"Hello from Arduino\")"),
        ] {
            assert!(verdict(bytes).contains(words), "{}", verdict(bytes));
        }
    }

    #[test]
    fn only_the_end_is_kept() {
        let mut heard = Heard::default();
        for _ in 0..1000 {
            heard.note(&[0x80; 1000]);
        }
        heard.note(b"\r\nlots of text that fills the sample from one end to the other, so that it is text ");
        heard.note(b"and a line that is long enough to push all of the binary out, and then board login: ");
        assert!(heard.sample.len() <= SAMPLE_BYTES && heard.bytes > 1_000_000);
        assert!(heard.to_string().contains("login prompt"), "{heard}");
    }
}
