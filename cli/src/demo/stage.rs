//! The demo's set-up: two ends, and the paths between them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bondwire::{Bond, BondConfig, Identity, ListenConfig, Listener};
use bondwire_tcp::{TcpAcceptor, TcpAddress, TcpDialer};
use tokio::time::timeout;

use super::plan::PATH_MBYTES_PER_SECOND;
use super::relay::Relay;
use crate::failure::{Exit, Failure};

/// Time in which the two ends must find each other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Both ends of the bond, with paced paths between them.
pub(crate) struct Stage {
    pub(crate) near: Bond,
    pub(crate) far: Bond,
    pub(crate) paths: Vec<Arc<Relay>>,
    _listener: Listener,
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
        for rate in PATH_MBYTES_PER_SECOND {
            let path = Relay::start(target, rate * 1_000_000).await.map_err(local)?;
            dialers.push(near.add_dialer(TcpDialer::new(TcpAddress::new("127.0.0.1", path.address.port()))));
            paths.push(Arc::new(path));
        }
        let far = timeout(CONNECT_TIMEOUT, listener.accept()).await.map_err(|_| {
            let faults: Vec<_> = dialers.iter().filter_map(|dialer| dialer.state().fault).collect();
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            Failure::new(
                Exit::NoLink,
                format!("the demo's ends do not find each other: {}", faults.join("; ")),
            )
        })?;
        Ok(Self { near, far, paths, _listener: listener })
    }

    /// The path that a link of this name leads over.
    pub(crate) fn path_of(&self, link: &str) -> Option<&Arc<Relay>> {
        self.paths.iter().find(|path| link.ends_with(&format!(":{}", path.address.port())))
    }
}
