//! The demo's set-up: two ends, and the paths between them.

#[cfg(unix)]
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use bondwire::DialerHandle;
use bondwire::{Bond, BondConfig, Identity, ListenConfig, Listener};
#[cfg(unix)]
use bondwire_line::End;
#[cfg(unix)]
use bondwire_serial::{SerialAcceptor, SerialAddress, SerialDialer};
use bondwire_tcp::{TcpAcceptor, TcpAddress, TcpDialer};
use tokio::time::timeout;

use super::lane::Lane;
#[cfg(unix)]
use super::plan::SERIAL_BAUDS;
use super::plan::TCP_MBYTES_PER_SECOND;
use crate::failure::{Exit, Failure};

/// Time in which the two ends must find each other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Both ends of the bond, with paced paths between them.
pub(crate) struct Stage {
    pub(crate) near: Bond,
    pub(crate) far: Bond,
    /// Goes before the paths: a listener that is still there when its port goes says that it misses it.
    _listener: Listener,
    pub(crate) paths: Vec<Arc<Lane>>,
}

impl Stage {
    /// Builds both ends and waits until they are connected.
    pub(crate) async fn set() -> Result<Self, Failure> {
        let local =
            |error: io::Error| Failure::configuration(format!("the demo needs loopback sockets: {error}"));
        let near_key = Identity::generate().map_err(Failure::configuration)?;
        let far_key = Identity::generate().map_err(Failure::configuration)?;
        let config = ListenConfig::allow([near_key.public_key()]);
        let listener = Listener::new(&far_key, config).map_err(Failure::configuration)?;
        let acceptor = TcpAcceptor::bind(&TcpAddress::new("127.0.0.1", 0)).await.map_err(local)?;
        let target = acceptor.local_addr().map_err(local)?;
        listener.add_acceptor(acceptor);
        let near = Bond::connect(&near_key, far_key.public_key(), BondConfig::default())
            .map_err(Failure::configuration)?;
        let (mut paths, mut dialers) = (Vec::new(), Vec::new());
        for rate in TCP_MBYTES_PER_SECOND {
            let lane = Lane::tcp(target, rate * 1_000_000).await.map_err(local)?;
            if let Lane::Tcp(relay) = &lane {
                let address = TcpAddress::new("127.0.0.1", relay.address.port());
                dialers.push(near.add_dialer(TcpDialer::new(address)));
            }
            paths.push(Arc::new(lane));
        }
        #[cfg(unix)]
        for baud in SERIAL_BAUDS {
            let (lane, dialer) = serial(baud, &near, &listener).await?;
            dialers.push(dialer);
            paths.push(Arc::new(lane));
        }
        let far = timeout(CONNECT_TIMEOUT, listener.accept()).await.map_err(|_| {
            let faults: Vec<_> = dialers.iter().filter_map(|dialer| dialer.state().fault).collect();
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            Failure::new(
                Exit::NoLink,
                format!("the demo's ends do not find each other: {}", faults.join("; ")),
            )
        })?;
        Ok(Self { near, far, _listener: listener, paths })
    }

    /// The path that a link of this name leads over.
    pub(crate) fn path_of(&self, link: &str) -> Option<&Arc<Lane>> {
        self.paths.iter().find(|path| path.carries(link))
    }
}

/// A serial line between the two ends, each of which opens its terminal as it would open a real port.
#[cfg(unix)]
async fn serial(baud: u32, near: &Bond, listener: &Listener) -> Result<(Lane, DialerHandle), Failure> {
    let local =
        |error: &dyn Display| Failure::configuration(format!("the demo needs pseudo-terminals: {error}"));
    let lane = Lane::serial(baud).map_err(|error| local(&error))?;
    let Lane::Serial { line, .. } = &lane else { return Err(local(&"there is none")) };
    let [near_port, far_port] = [End::A, End::B].map(|end| SerialAddress {
        baud: Some(baud),
        ..SerialAddress::new(line.path(end).unwrap_or_default().to_string_lossy())
    });
    listener.add_acceptor(SerialAcceptor::bind(&far_port).await.map_err(|error| local(&error))?);
    let dialer = near.add_dialer(SerialDialer::new(near_port));
    Ok((lane, dialer))
}
