//! `bondwire listen`

use bondwire::PublicKey;
use bondwire::limits::PAIRING_TOKEN_VALID;
use clap::Args;

use crate::access::{Always, Grants};
use crate::config::{Config, General, ListenText};
use crate::control::{Control, ControlOption};
use crate::discovery::FilterOptions;
use crate::failure::{Exit, Failure};
use crate::forward::drain::Drain;
use crate::forward::permits::{Permit, Permits};
use crate::link_spec::LinkSpec;
use crate::listening::{ListenPlan, Listening};
use crate::medium::Media;
use crate::observers::ObserverOptions;
use crate::options::{CipherOptions, KeyOption, PeersOption};
use crate::pairing::{Invitation, looks_like_invitation};
use crate::peers::{PeerName, Peers};
use crate::signals::Interrupt;
use crate::tun::TunOptions;
use crate::{addresses, keys, output};

/// Arguments of `bondwire listen`.
#[derive(Args)]
#[command(after_help = "Examples:
  bondwire listen 'tcp:*' --pair                          prints the command for the other end
  bondwire listen 'tcp:*' --record today --metrics=127.0.0.1:9000
  bondwire listen 'tcp:*' --tun bond0 --addr 10.9.0.1/24  IP packets; the other end: --tun bond0 --addr 10.9.0.2/24")]
pub(crate) struct Listen {
    /// Where to take links: tcp:HOST[:PORT][,key=value...] (tcp:* is every address of this host), stdio: or exec:COMMAND
    #[arg(value_name = "LINK", required = true)]
    links: Vec<LinkSpec>,
    #[command(flatten)]
    key: KeyOption,
    #[command(flatten)]
    peers: PeersOption,
    /// Print the command that connects another host, once and within ten minutes, and remember that host as NAME
    /// [default: its host name]
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, value_parser = parse_pair)]
    pair: Option<Option<PeerName>>,
    /// Public key of a further peer that may open bonds; repeatable
    #[arg(long, value_name = "PUBKEY", value_parser = keys::parse_public_key)]
    allow: Vec<PublicKey>,
    /// Let anyone open bonds who reaches a link: encrypted, but nobody is checked
    #[arg(long, conflicts_with = "allow")]
    accept_any_peer: bool,
    /// Target that peers may reach through this host: HOST:PORT, each of which may be *, or a Unix socket; repeatable
    #[arg(long, value_name = "HOST:PORT|PATH", default_value = "localhost:*")]
    permit_open: Vec<Permit>,
    /// Address of this host that peers may listen on (connect -R), in the same form; repeatable [default: none]
    #[arg(long, value_name = "HOST:PORT|PATH")]
    permit_listen: Vec<Permit>,
    /// End when standard input ends: for a listen that another program has started
    #[arg(long)]
    until_eof: bool,
    #[command(flatten)]
    cipher: CipherOptions,
    /// Tell peers no other addresses of this host
    #[arg(long, help_heading = "Links that are found by themselves", conflicts_with_all = ["interfaces", "family", "network"])]
    no_discover: bool,
    #[command(flatten)]
    filter: FilterOptions,
    #[command(flatten)]
    tun: TunOptions,
    #[command(flatten)]
    control: ControlOption,
    #[command(flatten)]
    observers: ObserverOptions,
    /// Print the configuration file with which `bondwire up` does the same, and end
    #[arg(long, conflicts_with_all = ["pair", "until_eof"])]
    print_config: bool,
}

fn parse_pair(text: &str) -> Result<PeerName, String> {
    if looks_like_invitation(text) {
        return Err(
            "this is a token: use it at the other end, with connect; here --pair makes one".to_owned()
        );
    }
    text.parse().map_err(|error: <PeerName as std::str::FromStr>::Err| error.to_string())
}

impl Listen {
    pub(crate) async fn run(self, mut interrupt: Interrupt) -> Result<(), Failure> {
        if self.print_config {
            return self.print();
        }
        Media::check(&self.links)?;
        if self.until_eof && self.links.iter().any(LinkSpec::is_stdio) {
            let message = "a stdio: link and --until-eof both want standard input; use one of them";
            return Err(Failure::new(Exit::Usage, message));
        }
        let plan = self.plan()?;
        let key = plan.identity.public_key();
        let observers = self.observers.open().await?;
        let mut listening = Listening::start(plan, Drain::default()).await?;
        let control = Control::open(&self.control, None, "listen", interrupt.stop()).await?;
        control.program().show_tunnel(listening.tunnel());
        let observers = observers.start(control.program());
        tracing::info!("public key of this host: {}", keys::public_key_text(&key));
        if self.pair.is_some() {
            self.invite(&mut listening, key)?;
        }
        let used_up = listening.used_up();
        let ended = tokio::select! {
            biased;
            () = listening.run(control.program()) => Ok(()),
            ended = interrupt.wait() => Err(ended),
            // Whoever started this program has had what it wanted.
            () = used_up => Ok(()),
            () = input_end(self.until_eof) => Ok(()),
        };
        listening.end().await;
        observers.end().await;
        control.close().await;
        ended
    }

    fn print(&self) -> Result<(), Failure> {
        let text = ListenText {
            links: &self.links,
            allow: &self.allow,
            accept_any_peer: self.accept_any_peer,
            permit_open: &self.permit_open,
            permit_listen: &self.permit_listen,
            cipher: &self.cipher,
            discover: !self.no_discover,
            filter: &self.filter,
            tun: self.tun.spec()?,
        };
        Config::print(&text.file(&General::of(&self.key, &self.peers, &self.control, &self.observers)?))
    }

    fn plan(&self) -> Result<ListenPlan, Failure> {
        let peers_file = self.peers.file()?;
        let no_peers = peers_file.load()?.is_empty();
        let pairing_name = self.pair.clone().flatten();
        if let Some(name) = &pairing_name {
            peers_file.check_free(name, "--pair=NAME")?;
        }
        let grants = Grants {
            always: self.always(no_peers)?,
            defaults: Permits { open: self.permit_open.clone(), listen: self.permit_listen.clone() },
            configured: Peers::default(),
        };
        Ok(ListenPlan {
            identity: if self.pair.is_some() { self.key.load_for_pairing()? } else { self.key.load()? },
            links: self.links.clone(),
            config: self.cipher.bond_config()?,
            grants,
            peers_file,
            pairing_name,
            told: (!self.no_discover).then(|| self.filter.filter()),
            tun: self.tun.spec()?,
            waits: false,
        })
    }

    /// Who is let in by an option.
    fn always(&self, no_peers: bool) -> Result<Always, Failure> {
        if self.accept_any_peer {
            tracing::warn!("--accept-any-peer: whoever reaches a link is let in");
            return Ok(Always::Anyone);
        }
        if self.allow.is_empty() && no_peers && self.pair.is_none() {
            return Err(Failure::configuration(
                "nobody may connect: pair with a peer with --pair, or name peers with --allow PUBKEY (`bondwire pubkey` \
                 prints it there), or let everybody in with --accept-any-peer",
            ));
        }
        Ok(Always::Keys(self.allow.clone()))
    }

    /// Prints the command for the other end.
    fn invite(&self, listening: &mut Listening, key: PublicKey) -> Result<(), Failure> {
        let filter = self.filter.filter();
        let cables = self.links.iter().any(|link| !link.medium.is_dialled()).then(|| "usb:".to_owned());
        let paths = listening.listening().flat_map(|(_, at)| addresses::links_to(at, &filter));
        let links: Vec<_> = cables.into_iter().chain(paths).collect();
        let token = listening.new_token(PAIRING_TOKEN_VALID)?;
        let word = Invitation { token, listener: key }.text();
        let minutes = PAIRING_TOKEN_VALID.as_secs() / 60;
        tracing::info!("run this at the other end, once and within {minutes} minutes:");
        output::line(&format!(
            "bondwire connect {} --pair {}{}",
            links.join(" "),
            *word,
            self.cipher.for_other_end()
        ))
    }
}

/// Waits for the end of standard input, if that is to be the end.
async fn input_end(until_eof: bool) {
    if !until_eof {
        return std::future::pending().await;
    }
    // What stands there means nothing, and an error is an end.
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
}
