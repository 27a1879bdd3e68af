//! A TCP path on this machine that can go silent and break, as a real one does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// What the path does at the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Open,
    /// It carries nothing and says nothing, as behind a dead switch.
    Silent,
    /// Its connections end, and so do new ones.
    Closed,
}

/// A relay to one address.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    path: Mutex<Path>,
    changed: Condvar,
    /// Both ends of each connection.
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            path: Mutex::new(Path::Open),
            changed: Condvar::new(),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if *accepting.path.lock().unwrap() == Path::Closed {
                    continue;
                }
                let Ok(far) = TcpStream::connect(target) else { continue };
                accepting.open.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (from, to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    let shared = Arc::clone(&accepting);
                    thread::spawn(move || shared.pump(from, to));
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn set(&self, path: Path) {
        *self.shared.path.lock().unwrap() = path;
        self.shared.changed.notify_all();
        if path == Path::Closed {
            for stream in self.shared.open.lock().unwrap().drain(..) {
                // It may have ended already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Shared {
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let path = self.path.lock().unwrap();
            drop(self.changed.wait_while(path, |path| *path == Path::Silent).unwrap());
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
