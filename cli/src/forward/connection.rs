//! One connection of a program on this host.

use std::io;

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

    /// Makes the end of the connection a reset, as far as its kind has any.
    pub(crate) fn reset(&self) {
        if let Self::Tcp(tcp) = self {
            // An error means that the connection is gone.
            let _ = tcp.set_zero_linger();
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
