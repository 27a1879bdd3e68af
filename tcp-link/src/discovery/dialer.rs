//! Dials one path.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bondwire::link::Dialer;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::paths::{Path, Route};
use crate::link::TcpLink;
use crate::{TcpAddress, dial};

/// Time for a dial, all routes of the path together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a path's dialer and the discovery share.
#[derive(Debug)]
pub(super) struct PathState {
    inner: Mutex<Ways>,
    cc: Option<String>,
}

#[derive(Debug)]
struct Ways {
    routes: Vec<Route>,
    /// The one that connected last.
    connected: Option<Route>,
}

impl PathState {
    /// `cc` is the congestion control of its links.
    pub(super) fn new(routes: &[Route], cc: Option<String>) -> Self {
        Self { inner: Mutex::new(Ways { routes: routes.to_vec(), connected: None }), cc }
    }

    pub(super) fn set_routes(&self, routes: &[Route]) {
        self.lock().routes = routes.to_vec();
    }

    pub(super) fn connected(&self) -> Option<Route> {
        self.lock().connected
    }

    fn lock(&self) -> MutexGuard<'_, Ways> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dials the routes of a path, a quarter of a second apart, and takes the first that answers.
#[derive(Debug)]
pub(super) struct PathDialer {
    interface: String,
    number: u8,
    name: String,
    /// Whether the link must leave by the interface, or not be.
    strict: bool,
    state: Arc<PathState>,
}

impl PathDialer {
    pub(super) fn new(path: &Path, strict: bool, state: Arc<PathState>) -> Self {
        let (interface, number) = (path.interface.clone(), path.number);
        let name = path.routes.first().map(|route| link_name(&interface, number, route)).unwrap_or_default();
        Self { interface, number, name, strict, state }
    }
}

/// The name of the link by that route: `tcp 10.0.0.2:7700,iface=eth0`.
pub(super) fn link_name(interface: &str, number: u8, route: &Route) -> String {
    let nth = if number == 0 { String::new() } else { format!(" #{}", number + 1) };
    format!("tcp {},iface={interface}{nth}", route.target)
}

impl Dialer for PathDialer {
    type Link = TcpLink;

    fn name(&self) -> String {
        self.name.clone()
    }

    async fn dial(&mut self) -> io::Result<TcpLink> {
        let routes = self.state.lock().routes.clone();
        let dial = |route: Route| {
            let address = TcpAddress {
                iface: cfg!(target_os = "linux").then(|| self.interface.clone()),
                source: Some(route.source),
                cc: self.state.cc.clone(),
                ..TcpAddress::new("", 0)
            };
            connect(address, route, self.strict)
        };
        let (stream, route) = timeout(CONNECT_TIMEOUT, dial::first(routes, dial))
            .await
            .map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {CONNECT_TIMEOUT:?}"))
            })?
            .unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::NetworkUnreachable, "its path is gone")))?;
        self.state.lock().connected = Some(route);
        TcpLink::with_name(stream, link_name(&self.interface, self.number, &route))
    }
}

async fn connect(mut address: TcpAddress, route: Route, strict: bool) -> io::Result<(TcpStream, Route)> {
    let stream = match dial::connect_one(&address, route.target).await {
        // Kernels before 5.7 let only root bind a socket to an interface; most often the source is enough.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !strict => {
            address.iface = None;
            dial::connect_one(&address, route.target).await?
        }
        connected => connected?,
    };
    Ok((stream, route))
}
