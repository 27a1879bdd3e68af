//! A download that goes on while things happen to its bond.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::pair::{connect, server};
use crate::user::PATIENCE;

/// Time between two looks at how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A download that goes on until it is dropped.
pub(crate) struct Download {
    bytes: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Download {
    pub(crate) fn start(local: SocketAddr) -> Self {
        let (bytes, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&bytes), Arc::clone(&done));
        thread::spawn(move || {
            let mut stream = connect(local);
            let mut buffer = vec![0; 64 << 10];
            while !stopped.load(Ordering::Relaxed) {
                // Its end is noticed by whoever waits for more.
                let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
                counted.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        Self { bytes, done }
    }

    /// Waits until more has come.
    #[track_caller]
    pub(crate) fn assert_goes_on(&self) {
        let before = self.bytes.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while self.bytes.load(Ordering::Relaxed) <= before {
            assert!(Instant::now() < deadline, "nothing comes after {before} bytes");
            thread::sleep(LOOK_INTERVAL);
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn endless_server() -> SocketAddr {
    server(|mut stream| {
        loop {
            stream.write_all(&[7; 64 << 10])?;
        }
    })
}
