//! One connection of a program on this host.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::address::Address;

/// A TCP connection or one of a Unix socket.
#[derive(Debug)]
pub(crate) enum Connection {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Connection {
    /// Connects to a stream target.
    pub(crate) async fn open(target: &Address) -> io::Result<Self> {
        match target {
            Address::Tcp(to) => TcpStream::connect((to.host.as_str(), to.port)).await.map(Self::from),
            #[cfg(unix)]
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "this host has no such connections")),
        }
    }

    /// Makes the end of the connection a reset, as far as its kind has any, until [`end_well`](Self::end_well). The
    /// system sees to it even when this program dies.
    pub(crate) fn end_by_reset(&self) {
        self.linger(Some(Duration::ZERO));
    }

    /// Makes the end of the connection a good one again.
    pub(crate) fn end_well(&self) {
        self.linger(None);
    }

    fn linger(&self, linger: Option<Duration>) {
        if let Self::Tcp(tcp) = self {
            // An error means that the connection is gone.
            let _ = SockRef::from(tcp).set_linger(linger);
        }
    }
}

impl From<TcpStream> for Connection {
    fn from(tcp: TcpStream) -> Self {
        // Interactive programs suffer from Nagle's algorithm; an error means that the connection is gone.
        let _ = tcp.set_nodelay(true);
        Self::Tcp(tcp)
    }
}
