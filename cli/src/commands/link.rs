//! `bondwire link`

use clap::{Args, Subcommand};

use crate::control::protocol::{Command, LinkChange, Select};
use crate::failure::Failure;
use crate::link_options::parse_rate;

use super::status::ask;

/// Arguments of `bondwire link`.
#[derive(Args)]
pub(crate) struct Link {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Dial one more link: tcp:HOST[:PORT][,key=value...]
    Add(Which),
    /// Take a link out of the bond, and dial it no more
    Remove(Which),
    /// Let a link carry nothing; it stays up
    Pause(Which),
    /// Let a link carry data again
    Resume(Which),
    /// Change what a link is used for
    Set(Set),
}

/// A link, and the running command it belongs to.
#[derive(Args)]
struct Which {
    /// Number, name or LINK, as `bondwire status` shows them; all for every link
    link: String,
    /// The running command, where there are several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Number of the bond, where a listener has several
    #[arg(long, value_name = "NUMBER")]
    bond: Option<u64>,
}

#[derive(Args)]
struct Set {
    #[command(flatten)]
    which: Which,
    /// active, backup or paused
    #[arg(long)]
    policy: Option<String>,
    /// Links of a tier carry data only while no link of a lower one is usable
    #[arg(long)]
    tier: Option<u8>,
    /// Share of bulk data in proportion to other links' weights; 0 takes it away
    #[arg(long)]
    weight: Option<u8>,
    /// Most to carry in each direction, such as 20Mbit or 2.5MB; 0 takes it away
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    cap: Option<u64>,
    /// Time without traffic after which the link is probed; 0 goes back to the bond's
    #[arg(long, value_name = "SECONDS")]
    keepalive: Option<f64>,
}

impl Link {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let (name, command) = match self.action {
            Action::Add(Which { link, name, bond }) => (name, Command::LinkAdd { bond, link }),
            Action::Remove(Which { link, name, bond }) => (name, Command::LinkRemove(Select { bond, link })),
            Action::Pause(which) => policy(which, "paused"),
            Action::Resume(which) => policy(which, "active"),
            Action::Set(set) => {
                let Set { which: Which { link, name, bond }, policy, tier, weight, cap, keepalive } = set;
                let change = LinkChange {
                    bond,
                    link,
                    policy,
                    tier,
                    weight,
                    cap_bytes_per_second: cap,
                    keep_alive_seconds: keepalive,
                };
                (name, Command::LinkSet(change))
            }
        };
        ask(name.as_deref(), &command).await.map(|_| ())
    }
}

fn policy(which: Which, policy: &str) -> (Option<String>, Command) {
    let Which { link, name, bond } = which;
    let change = LinkChange { bond, link, policy: Some(policy.to_owned()), ..LinkChange::default() };
    (name, Command::LinkSet(change))
}
