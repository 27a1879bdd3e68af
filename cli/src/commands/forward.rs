//! `bondwire forward`

use clap::{Args, Subcommand};

use crate::control::protocol::{Command, ForwardKind};
use crate::failure::Failure;
use crate::output;

use super::status::ask;

/// Arguments of `bondwire forward`.
#[derive(Args)]
pub(crate) struct Forward {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Open a forward, and print its number
    Add(Add),
    /// Close a forward and what it carries
    Remove {
        /// Its number, as `bondwire status` shows it
        number: u64,
        /// The running command, where there are several
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// From a local port to the peer's side: [bind:]port:host:port[,class=...]
    #[arg(short = 'L', value_name = "FORWARD")]
    local: Option<String>,
    /// From a port of the peer to this side
    #[arg(short = 'R', value_name = "FORWARD")]
    remote: Option<String>,
    /// A SOCKS5 server on a local port: [bind:]port[,class=...]
    #[arg(short = 'D', value_name = "[BIND:]PORT")]
    socks: Option<String>,
}

#[derive(Args)]
struct Add {
    #[command(flatten)]
    which: Which,
    /// The running command, where there are several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Forward {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Add(Add { which, name }) => {
                let kinds = [
                    (ForwardKind::Local, which.local),
                    (ForwardKind::Remote, which.remote),
                    (ForwardKind::Socks, which.socks),
                ];
                for (kind, forward) in kinds {
                    let Some(forward) = forward else { continue };
                    let command = Command::ForwardAdd { bond: None, kind, forward };
                    let added = ask(name.as_deref(), &command).await?;
                    output::line(&added["number"].to_string())?;
                }
                Ok(())
            }
            Action::Remove { number, name } => {
                let command = Command::ForwardRemove { bond: None, number };
                ask(name.as_deref(), &command).await.map(|_| ())
            }
        }
    }
}
