//! Bytes through a connection and back, of which each is checked.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What is sent at a time, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// A connection whose far end sends back what it gets, under load until [`end`](Self::end).
#[derive(Debug)]
pub struct Load {
    goes_on: Arc<AtomicBool>,
    back_bytes: Arc<AtomicU64>,
    sender: JoinHandle<io::Result<u64>>,
    far_end: JoinHandle<io::Result<u64>>,
    checker: JoinHandle<io::Result<u64>>,
}

impl Load {
    /// Sends into `near`, which leads to `far`; `pause` follows each 16 KiB, and may be zero.
    ///
    /// # Errors
    ///
    /// The connection cannot be used by two threads.
    pub fn start(near: TcpStream, far: TcpListener, pause: Duration) -> io::Result<Self> {
        let (goes_on, back_bytes) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicU64>::default());
        let (goes, back, reader) = (Arc::clone(&goes_on), Arc::clone(&back_bytes), near.try_clone()?);
        Ok(Self {
            goes_on,
            back_bytes,
            sender: thread::spawn(move || send(near, &goes, pause)),
            far_end: thread::spawn(move || send_back(&far)),
            checker: thread::spawn(move || check(reader, &back)),
        })
    }

    /// How many bytes have come back, each of them right.
    #[must_use]
    pub fn back_bytes(&self) -> u64 {
        self.back_bytes.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is under way, and returns how many bytes went there and came back: all.
    ///
    /// # Errors
    ///
    /// A byte was wrong or missing, or the connection was lost.
    pub fn end(self) -> io::Result<u64> {
        self.goes_on.store(false, Ordering::Relaxed);
        let joined =
            |thread: JoinHandle<_>| thread.join().map_err(|_| io::Error::other("a thread panicked"))?;
        let [sent, there, back] = [joined(self.sender)?, joined(self.far_end)?, joined(self.checker)?];
        if (sent, sent) == (there, back) {
            return Ok(back);
        }
        Err(io::Error::other(format!("sent {sent} bytes, of which {there} arrived and {back} came back")))
    }
}

/// The byte at this position.
fn byte(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn send(mut connection: TcpStream, goes_on: &AtomicBool, pause: Duration) -> io::Result<u64> {
    let mut sent = 0;
    loop {
        let chunk: Vec<_> = (sent..).map(byte).take(CHUNK_BYTES).collect();
        connection.write_all(&chunk)?;
        sent += chunk.len() as u64;
        // After the first: a load that ends at once has shown that the connection works.
        if !goes_on.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(pause);
    }
    connection.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn send_back(listener: &TcpListener) -> io::Result<u64> {
    let connection = listener.accept()?.0;
    let count = io::copy(&mut &connection, &mut &connection)?;
    connection.shutdown(Shutdown::Write)?;
    Ok(count)
}

fn check(mut connection: TcpStream, back_bytes: &AtomicU64) -> io::Result<u64> {
    let (mut position, mut buffer) = (0, vec![0; CHUNK_BYTES]);
    loop {
        let length = connection.read(&mut buffer)?;
        if length == 0 {
            return Ok(position);
        }
        for read in &buffer[..length] {
            if *read != byte(position) {
                return Err(io::Error::other(format!("byte {position} is wrong")));
            }
            position += 1;
        }
        back_bytes.store(position, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_counted_and_checked() {
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(far.local_addr().unwrap()).unwrap();
        let load = Load::start(near, far, Duration::ZERO).unwrap();
        while load.back_bytes() < 100_000 {
            thread::yield_now();
        }
        assert!(load.end().unwrap() >= 100_000);
    }

    #[test]
    fn a_load_that_ends_at_once_has_sent_something() {
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(far.local_addr().unwrap()).unwrap();
        assert!(Load::start(near, far, Duration::ZERO).unwrap().end().unwrap() > 0);
    }

    #[test]
    fn a_wrong_byte_is_an_error() {
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(far.local_addr().unwrap()).unwrap();
        let connection = far.accept().unwrap().0;
        near.write_all(&[byte(0), byte(1), byte(2) ^ 1]).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let error = check(connection, &AtomicU64::new(0)).unwrap_err();
        assert_eq!(error.to_string(), "byte 2 is wrong");
    }
}
