//! Where connections and datagrams come in: open ports and Unix sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bondwire::Class;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::net::{TcpListener, UdpSocket, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::address::{Address, HostPort};
use super::carrier::{self, Carrier};
use super::carry::{Answer, carry};
use super::connection::Connection;
use super::drain::Drain;
use super::udp;
#[cfg(unix)]
use crate::socket_file::SocketFile;

/// Pause after a failed accept, such as when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Open ports, or an open Unix socket. They stay open when the bond is replaced by a new one.
pub(crate) struct Inlet {
    sockets: Sockets,
    /// Removed when the inlet is dropped.
    #[cfg(unix)]
    _file: Option<SocketFile>,
}

enum Sockets {
    Stream(Vec<StreamListener>),
    Udp(Vec<Arc<UdpSocket>>),
}

enum StreamListener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// The way from an inlet to its target.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) carrier: watch::Receiver<Carrier>,
    pub(crate) drain: Drain,
    /// Label of the streams.
    pub(crate) label: Arc<str>,
    pub(crate) class: Class,
    /// Names the target in the log.
    pub(crate) about: Arc<str>,
}

impl Inlet {
    /// Opens `address`.
    pub(crate) async fn bind(address: &Address) -> io::Result<Self> {
        let sockets = match address {
            Address::Tcp(at) => {
                let listeners = bind_all(at, TcpListener::bind, TcpListener::local_addr).await?;
                Sockets::Stream(listeners.into_iter().map(StreamListener::Tcp).collect())
            }
            Address::Udp(at) => {
                let sockets = bind_all(at, UdpSocket::bind, UdpSocket::local_addr).await?;
                Sockets::Udp(sockets.into_iter().map(Arc::new).collect())
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let (file, listener) = SocketFile::bind(path.as_ref()).await?;
                let sockets = Sockets::Stream(vec![StreamListener::Unix(listener)]);
                return Ok(Self { sockets, _file: Some(file) });
            }
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Self {
            sockets,
            #[cfg(unix)]
            _file: None,
        })
    }

    /// What is open, for people.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let stream = |listener: &StreamListener| match listener {
            StreamListener::Tcp(tcp) => tcp.local_addr().ok().map(|address| address.to_string()),
            #[cfg(unix)]
            StreamListener::Unix(unix) => {
                unix.local_addr().ok()?.as_pathname().map(|path| path.display().to_string())
            }
        };
        let udp = |socket: &Arc<UdpSocket>| socket.local_addr().ok().map(|address| format!("udp/{address}"));
        match &self.sockets {
            Sockets::Stream(listeners) => listeners.iter().filter_map(stream).collect(),
            Sockets::Udp(sockets) => sockets.iter().filter_map(udp).collect(),
        }
    }

    /// The port that is open; 0 for a Unix socket.
    pub(crate) fn port(&self) -> u16 {
        let address = match &self.sockets {
            Sockets::Stream(listeners) => match listeners.first() {
                Some(StreamListener::Tcp(tcp)) => tcp.local_addr().ok(),
                _ => None,
            },
            Sockets::Udp(sockets) => sockets.first().and_then(|socket| socket.local_addr().ok()),
        };
        address.map_or(0, |address| address.port())
    }

    /// Carries what comes in along `route` until `end`. Then everything is closed.
    pub(crate) async fn run(self, route: Route, end: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        match self.sockets {
            Sockets::Stream(listeners) => {
                for listener in listeners {
                    let (about, drain, route) =
                        (Arc::clone(&route.about), route.drain.clone(), route.clone());
                    tasks.spawn(accept(listener, about, drain, move |connection| {
                        carry_one(connection, route.clone())
                    }));
                }
            }
            Sockets::Udp(sockets) => {
                for socket in sockets {
                    tasks.spawn(udp::take(socket, route.clone()));
                }
            }
        }
        end.await;
        tasks.shutdown().await;
    }

    /// Hands every connection to `serve` until `end`, when all are closed; takes no more when it is time to drain. `about` is
    /// what is served, for the log.
    pub(crate) async fn serve<F>(
        self,
        about: &str,
        drain: &Drain,
        serve: impl Fn(Connection) -> F + Clone + Send + Sync + 'static,
        end: impl Future<Output = ()>,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        if let Sockets::Stream(listeners) = self.sockets {
            for listener in listeners {
                tasks.spawn(accept(listener, Arc::from(about), drain.clone(), serve.clone()));
            }
        }
        end.await;
        tasks.shutdown().await;
    }
}

/// Takes connections until it is time to drain, and lets those that were taken end.
async fn accept<F>(
    listener: StreamListener,
    about: Arc<str>,
    drain: Drain,
    serve: impl Fn(Connection) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.begun() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                let (carried, served) = (drain.carry(), serve(connection));
                connections.spawn(async move {
                    served.await;
                    drop(carried);
                });
            }
            Err(error) => {
                tracing::warn!("no connection taken for {about}: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

impl StreamListener {
    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(tcp) => tcp.accept().await.map(|(tcp, _)| tcp.into()),
            #[cfg(unix)]
            Self::Unix(unix) => unix.accept().await.map(|(unix, _)| Connection::Unix(unix)),
        }
    }
}

async fn carry_one(connection: Connection, mut route: Route) {
    let Some(carrier) = carrier::current(&mut route.carrier).await else {
        return;
    };
    let about = &route.about;
    let stream = match carrier.open(route.class, &route.label).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!("forward to {about}: {error}");
            return connection.end_by_reset();
        }
    };
    let (reader, writer) = stream.split();
    if let Err(error) = carry(connection, reader, writer, Answer::Awaited).await {
        tracing::warn!("forward to {about}: {error}");
    }
}

/// Binds a socket to each address that `at` stands for.
async fn bind_all<S, F>(
    at: &HostPort,
    bind: impl Fn(SocketAddr) -> F,
    local_addr: impl Fn(&S) -> io::Result<SocketAddr>,
) -> io::Result<Vec<S>>
where
    F: Future<Output = io::Result<S>>,
{
    let port = at.port;
    let addresses: Vec<SocketAddr> = match at.host.as_str() {
        "*" => vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()],
        // As ssh does: both loopback addresses, so that it matters not which of them `localhost` is.
        "localhost" => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
        host => lookup_host((host, port)).await?.collect(),
    };
    let mut bound: Vec<S> = Vec::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for mut address in addresses {
        if port == 0
            && let Some(first) = bound.first()
        {
            address.set_port(local_addr(first)?.port());
        }
        match bind(address).await {
            Ok(socket) => bound.push(socket),
            // A second family that is missing, or that the first one covers already, is no loss.
            Err(error) => failed = error,
        }
    }
    if bound.is_empty() { Err(failed) } else { Ok(bound) }
}
