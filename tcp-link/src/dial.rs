use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bondwire::link::Dialer;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::link::TcpLink;
use crate::{TcpAddress, options, tunnels};

/// Time for a dial, all addresses of the host together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Head start of one address of the host before the next is tried beside it (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 16;

/// Dials TCP links to one [`TcpAddress`]. Names are looked up afresh each time; IPv6 and IPv4 addresses are
/// tried in turn, a quarter of a second apart, and the first to answer is taken.
#[derive(Clone, Debug)]
pub struct TcpDialer {
    address: TcpAddress,
    timeout: Duration,
}

impl TcpDialer {
    /// A dialer for `address` that gives each dial ten seconds.
    pub fn new(address: TcpAddress) -> Self {
        Self { address, timeout: CONNECT_TIMEOUT }
    }

    /// The same with another time for each dial.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Dials once. Cancel safe.
    pub async fn connect(&self) -> io::Result<TcpLink> {
        let stream = timeout(self.timeout, connect_any(&self.address)).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.timeout)))
        })?;
        TcpLink::with_name(stream, self.name())
    }
}

impl Dialer for TcpDialer {
    type Link = TcpLink;

    fn name(&self) -> String {
        format!("tcp {}", self.address)
    }

    async fn dial(&mut self) -> io::Result<TcpLink> {
        self.connect().await
    }

    fn renews_after_silence(&self) -> bool {
        true
    }
}

async fn connect_any(address: &TcpAddress) -> io::Result<TcpStream> {
    let found = look_up(address).await?;
    let targets = in_turn(found.into_iter().filter(|target| fits(address.source, target)).collect());
    let dial = |target| {
        let address = address.clone();
        async move { connect_one(&address, target).await }
    };
    first(targets, dial).await.unwrap_or_else(|| Err(no_address(address)))
}

/// The addresses of a host.
pub(crate) async fn look_up(address: &TcpAddress) -> io::Result<Vec<SocketAddr>> {
    let found = lookup_host((address.host.as_str(), address.port)).await;
    let found = found
        .map_err(|e| io::Error::new(e.kind(), format!("cannot look up host `{}`: {e}", address.host)))?;
    Ok(found.collect())
}

/// Dials `targets` one after the other, each with a head start, and answers the first that connects; `None` if there is
/// none to dial. Cancel safe.
pub(crate) async fn first<T, C, D>(targets: Vec<T>, dial: impl Fn(T) -> D) -> Option<io::Result<C>>
where
    C: Send + 'static,
    D: Future<Output = io::Result<C>> + Send + 'static,
{
    let mut waiting = targets.into_iter();
    let mut under_way = JoinSet::new();
    let mut last_error = None;
    loop {
        if let Some(target) = waiting.next() {
            under_way.spawn(dial(target));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            done = under_way.join_next() => match done {
                Some(Ok(Ok(connected))) => return Some(Ok(connected)),
                Some(Ok(Err(e))) => last_error = Some(e),
                Some(Err(e)) => last_error = Some(io::Error::other(e)),
                None => return last_error.map(Err),
            },
            () = sleep(ATTEMPT_DELAY), if more => {}
        }
    }
}

fn fits(source: Option<IpAddr>, target: &SocketAddr) -> bool {
    source.is_none_or(|source| source.is_ipv4() == target.is_ipv4())
}

fn no_address(address: &TcpAddress) -> io::Error {
    let family = match address.source {
        Some(source) if source.is_ipv4() => "no IPv4 address, which source= asks for",
        Some(_) => "no IPv6 address, which source= asks for",
        None => "no address",
    };
    io::Error::new(io::ErrorKind::AddrNotAvailable, format!("host `{}` has {family}", address.host))
}

/// The families by turns, beginning with the one the system put first (RFC 8305 section 4).
fn in_turn(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut order = Vec::new();
    for address in first {
        order.push(address);
        order.extend(second.next());
    }
    order.extend(second);
    order.truncate(ADDRESSES_MAX);
    order
}

pub(crate) async fn connect_one(address: &TcpAddress, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let way_out = tunnels::way_out(address.iface.as_deref(), address.source, target.ip())?;
    if let Some(iface) = address.iface.as_deref().or(way_out.as_deref()) {
        options::use_interface(&socket, iface)?;
    }
    if let Some(cc) = &address.cc {
        options::use_congestion_control(&socket, cc)?;
    }
    if let Some(source) = address.source {
        socket
            .bind(SocketAddr::new(source, 0))
            .map_err(|e| io::Error::new(e.kind(), format!("cannot use source address {source}: {e}")))?;
    }
    socket.connect(target).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let a = |text: &str| text.parse::<SocketAddr>().unwrap();
        let found = ["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"].map(a).to_vec();
        assert_eq!(in_turn(found), ["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"].map(a));
        assert_eq!(in_turn(vec![]), []);
    }
}
