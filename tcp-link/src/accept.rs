use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bondwire::link::Acceptor;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use crate::link::TcpLink;
use crate::{TcpAddress, options, tunnels};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 1024;

/// Takes TCP links on one address. Every address of the machine (`*` or `[::]`) serves IPv6 and IPv4 alike.
#[derive(Debug)]
pub struct TcpAcceptor {
    listener: TcpListener,
    name: String,
}

impl TcpAcceptor {
    /// Listens on `address`. Its `source` has no meaning here and is an error.
    pub async fn bind(address: &TcpAddress) -> io::Result<Self> {
        if address.source.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "`source` in `{address}` is for dialling; to listen on one address give it as the host"
                ),
            ));
        }
        let listener = bind_first(address).await.map_err(|e| {
            io::Error::new(e.kind(), format!("cannot listen on {address}: {e}{}", advice(&e)))
        })?;
        Ok(Self { name: format!("tcp {address}"), listener })
    }

    /// The address listened on, with the port the system chose if 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has this port, name another one",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need rights, name a higher one",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

async fn bind_first(address: &TcpAddress) -> io::Result<TcpListener> {
    if address.is_any() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port));
        return match listen(address, any) {
            // A system without IPv6.
            Err(e) if e.kind() != io::ErrorKind::AddrInUse => {
                listen(address, SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port))).map_err(|_| e)
            }
            result => result,
        };
    }
    let mut last_error = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for candidate in lookup_host((address.host.as_str(), address.port)).await? {
        match listen(address, candidate) {
            Ok(listener) => return Ok(listener),
            Err(e) => last_error = e,
        }
    }
    Err(last_error)
}

fn listen(address: &TcpAddress, at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if at.is_ipv6() && address.is_any() {
        socket2::SockRef::from(&socket).set_only_v6(false)?;
    }
    // A listener that restarts must not wait for the connections of its past to time out. Elsewhere than on Unix the
    // option means something else.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    if let Some(iface) = &address.iface {
        options::use_interface(&socket, iface)?;
    }
    if let Some(cc) = &address.cc {
        options::use_congestion_control(&socket, cc)?;
    }
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Keeps a connection on the interface by which it came, if there is a tunnel that could take it.
fn stay_off_tunnels(stream: &TcpStream, peer: IpAddr) -> io::Result<()> {
    let source = stream.local_addr()?.ip().to_canonical();
    if let Some(iface) = tunnels::way_out(None, Some(source), peer)? {
        options::keep_on_interface(stream, &iface)?;
    }
    Ok(())
}

impl Acceptor for TcpAcceptor {
    type Link = TcpLink;

    fn name(&self) -> String {
        self.name.clone()
    }

    async fn accept(&mut self) -> io::Result<TcpLink> {
        loop {
            let (stream, peer) = self.listener.accept().await?;
            match stay_off_tunnels(&stream, peer.ip().to_canonical()) {
                Ok(()) => return TcpLink::from_stream(stream),
                Err(refused) => {
                    tracing::warn!(target: "bondwire", "{}: no link from {peer}: {refused}", self.name);
                }
            }
        }
    }
}
