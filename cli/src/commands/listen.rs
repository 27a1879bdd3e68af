//! `bondwire listen`

use std::sync::Arc;
use std::time::Duration;

use bondwire::limits::PAIRING_TOKEN_VALID;
use bondwire::{AllowedPeers, Bond, ListenConfig, Listener, PublicKey, TokenId};
use bondwire_tcp::Listening;
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::access::{Access, Always};
use crate::control::{Control, ControlOption};
use crate::discovery::{FilterOptions, Told};
use crate::failure::{Exit, Failure};
use crate::forward::carrier::Carrier;
use crate::forward::permits::{Permit, Permits};
use crate::link_spec::LinkSpec;
use crate::medium::{Accepting, Media};
use crate::options::{CipherOptions, KeyOption, PeersOption};
use crate::pairing::{Invitation, looks_like_invitation};
use crate::peers::{PeerName, Peers, PeersWatch};
use crate::service::{self, Services, close_code};
use crate::signals::Interrupt;
use crate::{addresses, events, keys, output, session};

/// How often the peers file is looked at.
const PEERS_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `bondwire listen`.
#[derive(Args)]
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
    control: ControlOption,
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
        Media::check(&self.links)?;
        if self.until_eof && self.links.iter().any(LinkSpec::is_stdio) {
            let message = "a stdio: link and --until-eof both want standard input; use one of them";
            return Err(Failure::new(Exit::Usage, message));
        }
        let file = self.peers.file()?;
        let (watch, peers) = PeersWatch::start(file.clone())?;
        if let Some(Some(name)) = &self.pair {
            file.check_free(name, "--pair=NAME")?;
        }
        let always = self.always(peers.is_empty())?;
        let allowed = match &always {
            Always::Anyone => AllowedPeers::Any,
            Always::Keys(keys) => {
                AllowedPeers::Keys(keys.iter().copied().chain(peers.iter().map(|peer| peer.key)).collect())
            }
        };
        let identity = if self.pair.is_some() { self.key.load_for_pairing()? } else { self.key.load()? };
        let config = ListenConfig { allowed, bond: self.cipher.bond_config()? };
        let listener = Listener::new(&identity, config).map_err(Failure::configuration)?;
        let media = Media::default();
        let defaults = Permits { open: self.permit_open.clone(), listen: self.permit_listen.clone() };
        let (links, pairing_name) = (self.links.clone(), self.pair.clone().flatten());
        let access = Arc::new(Access::new(always, defaults, links, (watch, peers), pairing_name));
        // Before anybody can come in.
        access.apply(&listener, &Peers::default(), &access.peers().borrow());
        let mut listening = Vec::new();
        for (number, link) in (0..).zip(&self.links) {
            listening.extend(
                accept(link, number, (&listener, &identity.public_key()), &media)
                    .await?
                    .map(|at| (number, at)),
            );
        }
        let filter = self.filter.filter();
        let cables = self.links.iter().any(|link| !link.medium.is_dialled()).then(|| "usb:".to_owned());
        let paths = listening.iter().flat_map(|(_, at)| addresses::links_to(at, &filter));
        let reachable: Vec<_> = cables.into_iter().chain(paths).collect();
        let control = Arc::new(Control::open(&self.control, None, "listen", interrupt.stop()).await?);
        tracing::info!("public key of this host: {}", keys::public_key_text(&identity.public_key()));
        let token = match &self.pair {
            Some(_) => Some(self.invite(&listener, identity.public_key(), &reachable)?),
            None => None,
        };
        let told = (!self.no_discover).then(|| Arc::new(Told { listening, filter }));
        let end = watch::Sender::new(false);
        let bonds = JoinSet::new();
        let serving =
            Serving { listener, access, token, media, links: self.links, told, end, control, bonds };
        serving.run(&mut interrupt, self.until_eof).await
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
    fn invite(&self, listener: &Listener, key: PublicKey, links: &[String]) -> Result<Pending, Failure> {
        let token = listener.new_pairing_token(PAIRING_TOKEN_VALID).map_err(Failure::configuration)?;
        let pending = Pending { id: token.id(), expires_at: Instant::now() + PAIRING_TOKEN_VALID };
        let word = Invitation { token, listener: key }.text();
        let minutes = PAIRING_TOKEN_VALID.as_secs() / 60;
        tracing::info!("run this at the other end, once and within {minutes} minutes:");
        output::line(&format!(
            "bondwire connect {} --pair {}{}",
            links.join(" "),
            *word,
            self.cipher.for_other_end()
        ))?;
        Ok(pending)
    }
}

/// A token that was given out and is not used yet.
struct Pending {
    id: TokenId,
    expires_at: Instant,
}

/// A listener at work.
struct Serving {
    listener: Listener,
    access: Arc<Access>,
    token: Option<Pending>,
    media: Media,
    links: Vec<LinkSpec>,
    told: Option<Arc<Told>>,
    /// Tells the bonds that this program ends.
    end: watch::Sender<bool>,
    control: Arc<Control>,
    /// Each answers the key of its peer.
    bonds: JoinSet<Option<PublicKey>>,
}

impl Serving {
    async fn run(mut self, interrupt: &mut Interrupt, until_eof: bool) -> Result<(), Failure> {
        let mut input_end = std::pin::pin!(input_end(until_eof));
        let mut peers = self.access.peers();
        let mut applied = Arc::clone(&peers.borrow_and_update());
        let mut look = interval(PEERS_LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                // Bonds first, so that those which wait when the program ends are closed like the others.
                biased;
                bond = self.listener.accept() => {
                    self.token.take_if(|token| bond.paired_by() == Some(token.id));
                    let services = self.services_for(&bond);
                    let (access, peer) = (Arc::clone(&self.access), bond.peer());
                    let name = Box::new(move || access.known_name_of(&peer?));
                    let registered = self.control.register(&bond, name, None);
                    let served = serve(bond, services, Arc::clone(&self.access), self.end.subscribe());
                    self.bonds.spawn(async move {
                        let _registered = registered;
                        served.await
                    });
                }
                ended = interrupt.wait() => break Err(ended),
                // Whoever started this program has had what it wanted.
                () = self.media.used_up(&self.links) => break Ok(()),
                () = &mut input_end => break Ok(()),
                Ok(()) = peers.changed() => {
                    let new = Arc::clone(&peers.borrow_and_update());
                    self.access.apply(&self.listener, &applied, &new);
                    applied = new;
                }
                Some(ended) = self.bonds.join_next(), if !self.bonds.is_empty() => {
                    // One that paired and was never written down has to pair again.
                    if let Ok(Some(key)) = ended && !self.access.allows(&key) {
                        self.listener.disallow(key);
                    }
                }
                _ = look.tick() => self.access.look(),
                () = expired(self.token.as_ref()) => {
                    self.token = None;
                    tracing::warn!("the pairing token has expired unused; to make a new one, start again with --pair");
                }
            }
        };
        self.end.send_replace(true);
        drop(self.listener);
        self.bonds.join_all().await;
        if let Some(control) = Arc::into_inner(self.control) {
            control.close().await;
        }
        self.media.ended().await;
        ended
    }

    /// What the peer of `bond` is offered.
    fn services_for(&self, bond: &Bond) -> Services {
        Services {
            access: Some(Arc::clone(&self.access)),
            peer: bond.peer(),
            pairs: bond.paired_by().is_some(),
            speed: true,
            told: self.told.clone(),
        }
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

async fn expired(token: Option<&Pending>) {
    match token {
        Some(token) => sleep_until(token.expires_at).await,
        None => std::future::pending().await,
    }
}

/// Takes links for `listener` by its acceptor `number`, and answers where, if it is TCP.
async fn accept(
    link: &LinkSpec,
    number: u32,
    listener: (&Listener, &PublicKey),
    media: &Media,
) -> Result<Option<Listening>, Failure> {
    if !link.options.is_default() {
        return Err(Failure::configuration(format!(
            "{link}: policy=, cap= and the like go with the end that connects"
        )));
    }
    let at_link = |error| Failure::configuration(format!("{link}: {error}"));
    let Accepting { name, listening } =
        media.accept(&link.medium, listener, number).await.map_err(at_link)?;
    tracing::info!("listening on {name}");
    Ok(listening)
}

/// Serves one bond until it ends, this program does, or its peer may come in no longer.
async fn serve(
    bond: Bond,
    services: Services,
    access: Arc<Access>,
    mut end: watch::Receiver<bool>,
) -> Option<PublicKey> {
    let peer = bond.peer()?;
    let about = format!("{}: ", access.name_of(&peer));
    tracing::info!("{about}new bond from {}", keys::public_key_text(&peer));
    if !services.pairs && !access.allows(&peer) {
        // It came in just before it was removed.
        session::close(&bond, close_code::NOT_ALLOWED, NOT_ALLOWED).await;
        return Some(peer);
    }
    let carrier = Carrier::new(bond.clone());
    let end = async {
        tokio::select! {
            // It fails only with the program.
            () = async { drop(end.wait_for(|end| *end).await) } => {
                session::close(&bond, close_code::LISTENER_ENDS, "the listener ends").await;
            }
            () = access.removed(&peer) => {
                tracing::info!("{about}removed from the peers; its bond ends");
                session::close(&bond, close_code::NOT_ALLOWED, NOT_ALLOWED).await;
            }
            _ = bond.closed() => {}
        }
    };
    tokio::join!(end, events::log(&bond, &about), service::serve(&carrier, services));
    Some(peer)
}

/// What a peer reads that may come in no longer.
const NOT_ALLOWED: &str = "your key was removed from the peers of this host; pair again";
