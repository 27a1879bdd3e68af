//! `bondwire listen`

use std::sync::Arc;

use bondwire::{AllowedPeers, Bond, ListenConfig, Listener, PublicKey};
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::control::{Control, ControlOption};
use crate::failure::Failure;
use crate::forward::carrier::Carrier;
use crate::forward::permits::{Permit, Permits};
use crate::link_spec::LinkSpec;
use crate::medium::Media;
use crate::options::{CipherOptions, KeyOption};
use crate::service::{self, Services, close_code};
use crate::signals::Interrupt;
use crate::{events, keys, session};

/// Arguments of `bondwire listen`.
#[derive(Args)]
pub(crate) struct Listen {
    /// Where to take links: tcp:HOST[:PORT][,key=value...] (tcp:* is every address of this host), stdio: or exec:COMMAND
    #[arg(value_name = "LINK", required = true)]
    links: Vec<LinkSpec>,
    #[command(flatten)]
    key: KeyOption,
    /// Public key of a peer that may open bonds; repeatable
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
    #[command(flatten)]
    cipher: CipherOptions,
    #[command(flatten)]
    control: ControlOption,
}

impl Listen {
    pub(crate) async fn run(self, mut interrupt: Interrupt) -> Result<(), Failure> {
        let config = ListenConfig { allowed: self.allowed()?, bond: self.cipher.bond_config()? };
        Media::check(&self.links)?;
        let identity = self.key.load()?;
        let listener = Listener::new(&identity, config).map_err(Failure::configuration)?;
        let media = Media::default();
        for link in &self.links {
            accept(link, &listener, &media).await?;
        }
        let control = Arc::new(Control::open(&self.control, "listen").await?);
        tracing::info!("public key of this host: {}", keys::public_key_text(&identity.public_key()));
        let permits = Permits { open: self.permit_open, listen: self.permit_listen };
        let mut bonds = JoinSet::new();
        let end = watch::Sender::new(false);
        let ended = loop {
            tokio::select! {
                // Bonds first, so that those which wait when the program ends are closed like the others.
                biased;
                bond = listener.accept() => {
                    let services = Services { permits: permits.clone(), speed: true };
                    bonds.spawn(serve(bond, services, Arc::clone(&control), end.subscribe()));
                }
                () = interrupt.wait() => break Err(Failure::interrupted()),
                // Whoever started this program has had what it wanted.
                () = media.used_up(&self.links) => break Ok(()),
                Some(_) = bonds.join_next(), if !bonds.is_empty() => {}
            }
        };
        end.send_replace(true);
        drop(listener);
        bonds.join_all().await;
        if let Some(control) = Arc::into_inner(control) {
            control.close().await;
        }
        media.ended().await;
        ended
    }

    fn allowed(&self) -> Result<AllowedPeers, Failure> {
        if self.accept_any_peer {
            tracing::warn!("--accept-any-peer: whoever reaches a link is let in");
            return Ok(AllowedPeers::Any);
        }
        if self.allow.is_empty() {
            return Err(Failure::configuration(
                "nobody may connect: name peers with --allow PUBKEY (`bondwire pubkey` prints it there), or let \
                 everybody in with --accept-any-peer",
            ));
        }
        Ok(AllowedPeers::Keys(self.allow.clone()))
    }
}

async fn accept(link: &LinkSpec, listener: &Listener, media: &Media) -> Result<(), Failure> {
    if !link.options.is_default() {
        return Err(Failure::configuration(format!(
            "{link}: policy=, cap= and the like go with the end that connects"
        )));
    }
    let at_link = |error| Failure::configuration(format!("{link}: {error}"));
    let name = media.accept(&link.medium, listener).await.map_err(at_link)?;
    tracing::info!("listening on {name}");
    Ok(())
}

/// Serves one bond until it ends or this program does.
async fn serve(bond: Bond, services: Services, control: Arc<Control>, mut end: watch::Receiver<bool>) {
    let _registered = control.register(&bond, None, None);
    let peer = bond.peer().map(|peer| keys::public_key_text(&peer)).unwrap_or_default();
    let about = format!("{}: ", peer.chars().take(SHORT_KEY_CHARS).collect::<String>());
    tracing::info!("{about}new bond from {peer}");
    let carrier = Carrier::new(bond.clone());
    let end = async {
        tokio::select! {
            // It fails only with the program.
            () = async { drop(end.wait_for(|end| *end).await) } => {
                session::close(&bond, close_code::LISTENER_ENDS, "the listener ends").await;
            }
            _ = bond.closed() => {}
        }
    };
    tokio::join!(end, events::log(&bond, &about), service::serve(&carrier, services));
}

/// Characters of a public key that tell peers apart in the log: the prefix and eight more.
const SHORT_KEY_CHARS: usize = 14;
