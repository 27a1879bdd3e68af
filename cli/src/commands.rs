//! The commands, one file each.

mod completions;
mod connect;
mod demo;
mod keygen;
mod listen;
mod peers;
mod pubkey;
mod speed;

use clap::Subcommand;

use crate::failure::Failure;
use crate::logging::Quietness;
use crate::signals::Interrupt;

/// What the program is to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a private key and print its public key
    Keygen(keygen::Keygen),
    /// Print the public key of a private key file
    Pubkey(pubkey::Pubkey),
    /// Take bonds from allowed peers, serve their forwards and answer their speed tests
    Listen(listen::Listen),
    /// Bond several links to a peer, and forward TCP ports through the bond
    Connect(connect::Connect),
    /// Measure a bond: how much arrives, verified, and over which links
    Speed(speed::Speed),
    /// List the remembered peers, forget or rename one
    Peers(peers::PeersCommand),
    /// Show a bond at work on this machine: links of different speed, cut and returned
    Demo(demo::Demo),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

impl Command {
    /// How much the command logs by itself.
    pub(crate) fn quietness(&self) -> Quietness {
        match self {
            Self::Connect(command) => command.quietness(),
            Self::Listen(_) | Self::Keygen(_) | Self::Peers(_) => Quietness::Events,
            Self::Pubkey(_) | Self::Speed(_) | Self::Demo(_) | Self::Completions(_) => Quietness::Results,
        }
    }
}

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Keygen(command) => command.run(),
        Command::Pubkey(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Peers(command) => command.run(),
        Command::Listen(command) => command.run(Interrupt::install()?).await,
        Command::Connect(command) => command.run(Interrupt::install()?).await,
        Command::Speed(command) => command.run(Interrupt::install()?).await,
        Command::Demo(command) => command.run(Interrupt::install()?).await,
    }
}
