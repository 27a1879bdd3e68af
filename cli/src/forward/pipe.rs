//! `-W`: standard input and output as one forwarded connection.

use std::io;

use tokio::io::stdin;

use super::carrier::Carrier;
use super::carry::{Answer, CarryError, carry_halves};
use super::spec::PipeForward;
use crate::failure::{Exit, Failure};
use crate::medium::ClosingStdout;
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
    let carried = carry_halves(stdin(), ClosingStdout::new(), reader, writer, Answer::Awaited).await;
    match (carried, carrier.bond.close_reason()) {
        (Ok(()), _) => Ok(()),
        // A reader that has seen enough is no failure.
        (Err(CarryError::Broken(error)), _) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        (Err(_), Some(reason)) => Err(session::ended(&reason)),
        (Err(error), None) => Err(failed(Exit::Refused, &error)),
    }
}
