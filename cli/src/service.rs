//! Services at the accepting end: the label of a stream names one, and the acceptor's first byte answers.
//!
//! PROTOCOL.md, "Applications", has the labels and the answers.

use std::str::FromStr;
use std::sync::Arc;

use bondwire::{Bond, BondStream, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::failure::one_line;
use crate::forward;
use crate::forward::spec::{Permit, Target};
use crate::speed::acceptor::SpeedService;

/// Label of a speed test's streams.
pub(crate) const SPEED_LABEL: &str = "speed";
/// Before the host and port of a forward's label.
pub(crate) const TCP_LABEL_PREFIX: &str = "tcp:";
/// Longest explanation of a refusal, in bytes.
const REFUSAL_MAX_BYTES: u64 = 512;

/// Codes of RESET_STREAM and STOP_SENDING.
pub(crate) mod code {
    /// Nothing is wrong, the data is just not wanted any more.
    pub(crate) const DONE: u64 = 0;
    /// The TCP connection behind the stream was reset.
    pub(crate) const CONNECTION_RESET: u64 = 1;
}

/// Codes of CLOSE; the engine keeps those below 0x100 for itself.
pub(crate) mod close_code {
    /// The program has done its work.
    pub(crate) const DONE: u64 = 0x100;
    /// The listener ends, and may come back: open a new bond.
    pub(crate) const LISTENER_ENDS: u64 = 0x101;
}

/// The acceptor's answer to a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Accepted = 0,
    /// A rule of this host forbids it.
    NotPermitted = 1,
    /// The target said no.
    TargetRefused = 2,
    /// The target did not answer, or has no address.
    TargetUnreachable = 3,
    /// The label names nothing that this end knows.
    UnknownService = 4,
    /// What followed the label makes no sense.
    BadRequest = 5,
}

/// A refusal, as the one who asked sees it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("refused by the peer: {0}")]
    Refused(String),
    #[error("no answer: {0}")]
    Lost(#[from] std::io::Error),
}

/// Tells the other end that its label is accepted.
pub(crate) async fn accept(writer: &mut SendStream) -> std::io::Result<()> {
    writer.write_all(&[Status::Accepted as u8]).await
}

/// Tells the other end why its label is refused, and finishes the stream.
pub(crate) async fn refuse(mut writer: SendStream, status: Status, why: &str) {
    let mut answer = vec![status as u8];
    answer.extend_from_slice(why.as_bytes());
    // When the stream is gone, nobody waits for the answer.
    let _ = writer.write_all(&answer).await;
    let _ = writer.shutdown().await;
}

/// Waits for the acceptor's answer.
pub(crate) async fn answer(reader: &mut RecvStream) -> Result<(), Refusal> {
    if reader.read_u8().await? == Status::Accepted as u8 {
        return Ok(());
    }
    let mut why = Vec::new();
    reader.take(REFUSAL_MAX_BYTES).read_to_end(&mut why).await?;
    Err(Refusal::Refused(one_line(&String::from_utf8_lossy(&why))))
}

/// What a listener offers to its peers.
pub(crate) struct Services {
    /// Targets that peers may reach through this host.
    pub(crate) permits: Vec<Permit>,
}

/// Serves the streams of one bond until it ends.
pub(crate) async fn serve(bond: &Bond, services: &Arc<Services>) {
    let mut streams = JoinSet::new();
    let speed = Arc::new(SpeedService::default());
    while let Ok(stream) = bond.accept_stream().await {
        streams.spawn(serve_stream(stream, Arc::clone(services), Arc::clone(&speed)));
        while streams.try_join_next().is_some() {}
    }
}

async fn serve_stream(stream: BondStream, services: Arc<Services>, speed: Arc<SpeedService>) {
    let label = stream.label().to_owned();
    if label == SPEED_LABEL {
        return speed.serve(stream).await;
    }
    let (reader, writer) = stream.split();
    let Some(target) = label.strip_prefix(TCP_LABEL_PREFIX).map(Target::from_str) else {
        let why = format!("no service {label:?}; use the same version of bondwire at both ends");
        return refuse(writer, Status::UnknownService, &why).await;
    };
    match target {
        Ok(target) if services.permits.iter().any(|permit| permit.allows(&target)) => {
            forward::acceptor::serve(&target, reader, writer).await;
        }
        Ok(target) => {
            tracing::warn!("refused a forward to {target}: no --permit-open allows it");
            let why = format!("{target} is not permitted; the peer's listen needs --permit-open {target}");
            refuse(writer, Status::NotPermitted, &why).await;
        }
        Err(error) => refuse(writer, Status::BadRequest, &error.to_string()).await,
    }
}
