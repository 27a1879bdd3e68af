//! `bondwire stop`

use clap::Args;

use crate::control::client::{self, ClientError};
use crate::control::protocol::Command;
use crate::failure::Failure;

/// Arguments of `bondwire stop`.
#[derive(Args)]
pub(crate) struct Stop {
    /// The running command, where there are several
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Stop {
    /// Asks for the end, and waits until the bonds are closed and the ports free.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut client = client::one(self.name.as_deref()).await?;
        match client.ask(&Command::Stop {}).await {
            // It was so quick that its answer was cut off.
            Err(ClientError::Ended(_)) => return Ok(()),
            asked => asked?,
        };
        while client.next().await?.is_some() {}
        Ok(())
    }
}
