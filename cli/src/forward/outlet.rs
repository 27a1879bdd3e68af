//! The far end of a forward: connects to the target, and says so.

use std::io;
use std::time::Duration;

use bondwire::{BondStream, SendStream};
use tokio::time::timeout;

use super::address::Address;
use super::carrier::Carrier;
use super::carry::{Answer, carry};
use super::connection::Connection;
use super::udp;
use crate::service::{self, Status};

/// Time that a target may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to `target` and carries the stream there.
pub(crate) async fn serve(target: &Address, carrier: &Carrier, stream: BondStream) {
    let (reader, mut writer) = stream.split();
    if let Address::Udp(target) = target {
        return udp::serve(target, carrier, reader, writer).await;
    }
    let _carried = carrier.drain.carry();
    let connected = timeout(CONNECT_TIMEOUT, Connection::open(target)).await;
    let connection = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(connection) => connection,
        Err(error) => return refuse(target, &error, writer).await,
    };
    if service::accept(&mut writer).await.is_err() {
        return;
    }
    if let Err(error) = carry(connection, reader, writer, Answer::Given).await {
        tracing::debug!("forward to {target}: {error}");
    }
}

async fn refuse(target: &Address, error: &io::Error, writer: SendStream) {
    tracing::info!("forward to {target}: {error}");
    let (status, why) = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            (Status::TargetRefused, format!("{target} said connection refused; see that its server runs"))
        }
        io::ErrorKind::TimedOut => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            (Status::TargetUnreachable, format!("{target} did not answer within {seconds} s"))
        }
        _ => (Status::TargetUnreachable, format!("{target} cannot be reached: {error}")),
    };
    service::refuse(writer, status, &why).await;
}
