//! The accepting end of a forward: connects to the target, and says so.

use std::io;
use std::time::Duration;

use bondwire::{RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::carry::{Answer, carry};
use super::spec::Target;
use crate::service::{self, Status};

/// Time that a target may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to `target` and carries the stream there.
pub(crate) async fn serve(target: &Target, reader: RecvStream, mut writer: SendStream) {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((target.host.as_str(), target.port))).await;
    let tcp = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(tcp) => tcp,
        Err(error) => {
            tracing::info!("forward to {target}: {error}");
            let (status, why) = explain(target, &error);
            return service::refuse(writer, status, &why).await;
        }
    };
    if service::accept(&mut writer).await.is_err() {
        return;
    }
    if let Err(error) = carry(tcp, reader, writer, Answer::Given).await {
        tracing::debug!("forward to {target}: {error}");
    }
}

fn explain(target: &Target, error: &io::Error) -> (Status, String) {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            (Status::TargetRefused, format!("{target} said connection refused; see that its server runs"))
        }
        io::ErrorKind::TimedOut => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            (Status::TargetUnreachable, format!("{target} did not answer within {seconds} s"))
        }
        _ => (Status::TargetUnreachable, format!("{target} cannot be reached: {error}")),
    }
}
