//! `-W`: standard input and output as one forwarded connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Stdout, stdin, stdout};

use super::carrier::Carrier;
use super::carry::{Answer, CarryError, carry_halves};
use super::spec::PipeForward;
use crate::failure::{Exit, Failure};
use crate::session;

/// Carries standard input and output until both directions have ended.
pub(crate) async fn run(carrier: &Carrier, forward: &PipeForward) -> Result<(), Failure> {
    let target = &forward.target;
    let failed =
        |exit, what: &dyn std::fmt::Display| Failure::new(exit, format!("forward to {target}: {what}"));
    let stream = match carrier.open(forward.class, &target.label()).await {
        Ok(stream) => stream,
        Err(error) => return Err(failed(Exit::BondLost, &error)),
    };
    let (reader, writer) = stream.split();
    let carried = carry_halves(stdin(), ClosingStdout(stdout()), reader, writer, Answer::Awaited).await;
    match (carried, carrier.bond.close_reason()) {
        (Ok(()), _) => Ok(()),
        // A reader that has seen enough is no failure.
        (Err(CarryError::Broken(error)), _) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        (Err(_), Some(reason)) => Err(session::ended(&reason)),
        (Err(error), None) => Err(failed(Exit::Refused, &error)),
    }
}

/// Standard output that is really closed at its end, so that a program which reads it sees the end of the connection
/// while it still writes.
struct ClosingStdout(Stdout);

impl AsyncWrite for ClosingStdout {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Poll::Ready(close_stdout())
    }
}

#[cfg(unix)]
fn close_stdout() -> io::Result<()> {
    // The descriptor itself must stay taken: a file that got its number would receive what is printed.
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(nowhere)?)
}

#[cfg(not(unix))]
fn close_stdout() -> io::Result<()> {
    Ok(())
}
