//! The asking end of `-L`: local ports, each of whose connections becomes a stream.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bondwire::Bond;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::carry::{Answer, carry};
use super::spec::LocalForward;
use crate::failure::Failure;
use crate::service::TCP_LABEL_PREFIX;

/// All forwards have the same priority: the middle.
const PRIORITY: u8 = 128;
/// Pause after a failed accept, such as when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A forward with its ports open. They stay open when the bond is replaced by a new one.
pub(crate) struct OpenForward {
    forward: Arc<LocalForward>,
    listeners: Vec<TcpListener>,
}

impl OpenForward {
    /// Opens the local ports of `forward`.
    pub(crate) async fn bind(forward: LocalForward) -> Result<Self, Failure> {
        let listeners = bind(&forward).await.map_err(|error| {
            let place = forward.bind.as_deref().unwrap_or("localhost");
            Failure::configuration(format!("cannot listen on {place}:{} for -L: {error}", forward.port))
        })?;
        for listener in &listeners {
            if let Ok(address) = listener.local_addr() {
                tracing::info!("forwarding {address} to {}", forward.target);
            }
        }
        Ok(Self { forward: Arc::new(forward), listeners })
    }

    /// Carries connections over whichever bond `bond` holds, for ever.
    pub(crate) async fn run(self, bond: watch::Receiver<Bond>) {
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept(listener, Arc::clone(&self.forward), bond.clone()));
        }
        accepting.join_all().await;
    }
}

async fn bind(forward: &LocalForward) -> io::Result<Vec<TcpListener>> {
    let port = forward.port;
    let addresses: Vec<SocketAddr> = match forward.bind.as_deref() {
        Some("*") => vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()],
        Some(host) => lookup_host((host, port)).await?.collect(),
        // As ssh does: both loopback addresses, so that it matters not which of them `localhost` is.
        None => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
    };
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut failed = None;
    for mut address in addresses {
        if port == 0
            && let Some(first) = listeners.first()
        {
            address.set_port(first.local_addr()?.port());
        }
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            // A second family that is missing, or that the first one covers already, is no loss.
            Err(_) if !listeners.is_empty() => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

async fn accept(listener: TcpListener, forward: Arc<LocalForward>, bond: watch::Receiver<Bond>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                connections.spawn(carry_one(tcp, Arc::clone(&forward), bond.clone()));
            }
            Err(error) => {
                tracing::warn!("no connection taken for {}: {error}", forward.target);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn carry_one(tcp: TcpStream, forward: Arc<LocalForward>, mut bond: watch::Receiver<Bond>) {
    let target = &forward.target;
    // Between an ended bond and the next one a connection waits for a moment.
    let open = bond.wait_for(|bond| bond.close_reason().is_none()).await.map(|bond| bond.clone());
    let Ok(bond) = open else {
        return;
    };
    let label = format!("{TCP_LABEL_PREFIX}{target}");
    let stream = match bond.open_stream_with(forward.class, PRIORITY, &label).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!("forward to {target}: {error}");
            let _ = tcp.set_zero_linger();
            return;
        }
    };
    let (reader, writer) = stream.split();
    if let Err(error) = carry(tcp, reader, writer, Answer::Awaited).await {
        tracing::warn!("forward to {target}: {error}");
    }
}
