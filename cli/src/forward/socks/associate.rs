//! UDP ASSOCIATE: datagrams of one client to any target, while its TCP connection lasts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;

use super::protocol::{self, Reply};
use crate::forward::carrier::Carrier;
use crate::forward::flows::FlowTasks;
use crate::forward::udp::{self, Client, DATAGRAM_MAX_BYTES};

/// Serves one association.
pub(super) async fn serve(mut client: TcpStream, carrier: watch::Receiver<Carrier>) {
    let opened = async {
        let (local, from) = (client.local_addr()?, client.peer_addr()?);
        let socket = UdpSocket::bind((local.ip(), 0)).await?;
        let bound = socket.local_addr()?;
        client.write_all(&Reply::Succeeded.encode_with(bound)).await?;
        Ok::<_, io::Error>((socket, from))
    };
    let (socket, from) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!("SOCKS: no UDP socket: {error}");
            return super::say(client, &Reply::Failure.encode()).await;
        }
    };
    tokio::select! {
        () = relay(Arc::new(socket), from, carrier) => {}
        () = ended(&mut client) => {}
    }
}

/// Waits for the end of the TCP connection; whatever comes before that means nothing.
async fn ended(client: &mut TcpStream) {
    while client.read(&mut [0; 64]).await.is_ok_and(|length| length > 0) {}
}

/// Makes every target of the client a flow, for ever.
async fn relay(socket: Arc<UdpSocket>, from: SocketAddr, carrier: watch::Receiver<Carrier>) {
    let mut flows = FlowTasks::new();
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    // The port that the client sends from; nobody else may use its association.
    let mut only: Option<SocketAddr> = None;
    loop {
        let (length, address) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => return tracing::warn!("SOCKS: {error}"),
        };
        if address.ip() != from.ip() || only.is_some_and(|only| only != address) {
            tracing::debug!("SOCKS: datagram of a stranger dropped ({address})");
            continue;
        }
        let (header, target, data) = match protocol::split_datagram(&buffer[..length]).await {
            Ok(parts) => parts,
            Err(error) => {
                tracing::debug!("SOCKS: datagram of {address} dropped: {error}");
                continue;
            }
        };
        only = Some(address);
        let header = Bytes::copy_from_slice(header);
        let taken = flows.deliver(&target, Bytes::copy_from_slice(data), |queue| {
            let client = Client { queue, socket: Arc::clone(&socket), address, header };
            let (label, about) = (Arc::from(target.label()), Arc::from(target.to_string()));
            udp::open(client, carrier.clone(), label, about)
        });
        if !taken {
            tracing::debug!("SOCKS: datagram to {target} dropped: too many UDP flows at once");
        }
    }
}
