//! `bondwire connect`

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bondwire::error::CloseReason;
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::config::{Config, ConnectText, General};
use crate::connecting::{self, Connecting, Naming, REOPEN_PAUSE};
use crate::control::{Control, ControlOption};
use crate::failure::{Exit, Failure};
use crate::forward::drain::Drain;
use crate::forward::pipe;
use crate::forward::spec::{Forward, ForwardOption, PipeForward, SocksForward};
use crate::forward::table::LocalEnd;
use crate::logging::Quietness;
use crate::observers::ObserverOptions;
use crate::options::PeerOptions;
use crate::pairing::{Invitation, parse_invitation};
use crate::peers::{NewPeer, PeerName, PeersFile, WantedName};
use crate::service::close_code;
use crate::session::{self, DialledBond, Session};
use crate::signals::Interrupt;
use crate::ssh::Login;
use crate::tun::{TunError, TunOptions, Tunnel};
use crate::{keys, pairing, signals};

/// The option that names the peer, for messages.
const NAME_OPTION: &str = "--name NAME";

/// Time after a signal in which `-W` may end by itself.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);

/// Arguments of `bondwire connect`.
#[derive(Args)]
#[command(after_help = "Examples:
  bondwire connect server -L 8080:localhost:80            port 8080 here is port 80 there, over all paths to it
  bondwire connect server -D 1080 --record today          `bondwire plot today -o today.svg` draws what each link did
  bondwire connect server -D 1080 --metrics               for Prometheus: http://127.0.0.1:7701/metrics
  bondwire connect server --tun bond0 --addr 10.9.0.2/24  then `ping 10.9.0.1`; the server: --tun bond0 --addr 10.9.0.1/24")]
pub(crate) struct Connect {
    #[command(flatten)]
    peer: PeerOptions,
    /// Token that `bondwire listen LINK --pair` printed: get to know the peer, and remember it
    #[arg(long, value_name = "TOKEN", value_parser = parse_invitation, conflicts_with_all = ["peer", "accept_any_peer"])]
    pair: Option<Invitation>,
    /// Name under which to remember the peer [default: its host name]
    #[arg(long, value_name = "NAME")]
    name: Option<PeerName>,
    /// Forward a local port to the peer's side: [bind:]port:host:port[,class=interactive|bulk|redundant]; a /path in
    /// place of either end is a Unix socket, udp/ in front carries UDP; repeatable
    #[arg(short = 'L', value_name = "FORWARD")]
    local: Vec<Forward>,
    /// Forward a port of the peer to this side, in the same form; the peer needs --permit-listen; repeatable
    #[arg(short = 'R', value_name = "FORWARD")]
    remote: Vec<Forward>,
    /// Serve SOCKS5 on a local port, its connections leave from the peer: [bind:]port[,class=...]; repeatable
    #[arg(short = 'D', value_name = "[BIND:]PORT")]
    socks: Vec<SocksForward>,
    /// Forward standard input and output to a target at the peer's side, and end with it: host:port or a /path
    #[arg(short = 'W', value_name = "HOST:PORT", conflicts_with_all = ["local", "remote", "socks", "record", "metrics", "tun"])]
    pipe: Option<PipeForward>,
    #[command(flatten)]
    tun: TunOptions,
    #[command(flatten)]
    control: ControlOption,
    #[command(flatten)]
    observers: ObserverOptions,
    /// Print the configuration file with which `bondwire up` does the same, and end
    #[arg(long, conflicts_with_all = ["pair", "name", "pipe"])]
    print_config: bool,
}

impl Connect {
    /// With `-W` the program stands in for a connection, so nothing is said but what goes wrong.
    pub(crate) fn quietness(&self) -> Quietness {
        if self.pipe.is_some() { Quietness::Failures } else { Quietness::Events }
    }

    pub(crate) async fn run(self, mut interrupt: Interrupt) -> Result<(), Failure> {
        if self.print_config {
            return self.print();
        }
        let introduction = Introduction { file: self.peer.peers.file()?, name: self.name };
        let ssh = if self.pair.is_none() { self.peer.ssh_login()? } else { None };
        introduction.check(self.pair.is_some() || ssh.is_some())?;
        let peer_name = self.peer.peer_name();
        let session = match ssh {
            Some(login) => interrupt.or(Session::over_ssh(&self.peer, &login)).await?,
            None => Session::new(self.peer.plan(self.peer.destination(self.pair)?)?)?,
        };
        if let Some(forward) = self.pipe {
            let ended = run_pipe(&session, &introduction, &forward, interrupt).await;
            session.ended().await;
            return ended;
        }
        let observers = self.observers.open().await?;
        // Before any link: none must leave by it.
        let tunnel = self.tun.spec()?.map(Tunnel::open).transpose()?;
        let mut ends = Vec::new();
        for forward in self.local {
            ends.push(LocalEnd::forward(forward).await?);
        }
        for forward in &self.socks {
            ends.push(LocalEnd::socks(forward).await?);
        }
        let control = Control::open(&self.control, peer_name.as_deref(), "connect", interrupt.stop()).await?;
        let naming = Naming {
            peer: Arc::new(peer_name.map_or_else(OnceLock::new, OnceLock::from)),
            ..Naming::default()
        };
        let session = Arc::new(session);
        let program = Arc::clone(control.program());
        program.show_tunnel(tunnel.as_ref());
        let observers = observers.start(&program);
        let mut connecting =
            Connecting::start(Arc::clone(&session), program, naming.clone(), Drain::default())?;
        let running = Running { session: &session, introduction: &introduction, naming: &naming, tunnel };
        let ended = running.run(&mut connecting, ends, self.remote, &mut interrupt).await;
        connecting.end().await;
        observers.end().await;
        control.close().await;
        ended
    }
}

impl Connect {
    fn print(&self) -> Result<(), Failure> {
        if let Some(Login { target, .. }) = self.peer.ssh_login()? {
            let what =
                format!("ssh:{target} is for commands; pair once, and name the peer's links for a service");
            return Err(Failure::new(Exit::Usage, what));
        }
        // Says what is wrong with the arguments as such.
        self.peer.destination(None)?;
        let peers = self.peer.peers.file()?.load()?;
        let key = self.peer.peer_key();
        let of_key = key.and_then(|key| Some(peers.with_key(&key)?.name.to_string()));
        let name = self.peer.peer_name().or(of_key);
        let local = self.local.iter().cloned().map(ForwardOption::Local);
        let remote = self.remote.iter().cloned().map(ForwardOption::Remote);
        let socks = self.socks.iter().cloned().map(ForwardOption::Socks);
        let text = ConnectText {
            name: name.as_deref().unwrap_or(UNKNOWN_PEER),
            links: &self.peer.links(),
            peer: key,
            accept_any_peer: self.peer.accepts_any_peer(),
            cipher: &self.peer.cipher,
            paths: &self.peer.discovery.paths(),
            forwards: &local.chain(remote).chain(socks).collect::<Vec<_>>(),
            tun: self.tun.spec()?,
        };
        Config::print(&text.file(&General::of(
            &self.peer.key,
            &self.peer.peers,
            &self.control,
            &self.observers,
        )?))
    }
}

/// What the section of a peer is called that has no name.
const UNKNOWN_PEER: &str = "server";

/// What stays while one bond takes the place of another.
struct Running<'a> {
    session: &'a Session,
    introduction: &'a Introduction,
    naming: &'a Naming,
    tunnel: Option<Arc<Tunnel>>,
}

impl Running<'_> {
    /// Carries forwards until the bond ends for good or the user has enough.
    async fn run(
        self,
        connecting: &mut Connecting,
        ends: Vec<LocalEnd>,
        remote: Vec<Forward>,
        interrupt: &mut Interrupt,
    ) -> Result<(), Failure> {
        interrupt.or(self.first(connecting, ends, remote)).await?;
        loop {
            let closed = async {
                tokio::select! {
                    reason = connecting.closed() => Ok(reason),
                    failure = self.session.links_used_up() => Err(failure),
                }
            };
            match interrupt.or(closed).await? {
                reason if may_come_back(&reason) => {
                    tracing::warn!("opening a new bond, the last one ended: {reason}");
                    sleep(REOPEN_PAUSE).await;
                    connecting.reopen()?;
                }
                reason => return Err(session::ended(&reason)),
            }
        }
    }

    /// The first link, and all that waits for it.
    async fn first(
        &self,
        connecting: &mut Connecting,
        ends: Vec<LocalEnd>,
        remote: Vec<Forward>,
    ) -> Result<(), Failure> {
        let dialled = connecting.dialled();
        dialled.first_link().await?;
        if self.session.pairs() {
            if let Some(name) = self.introduction.run(self.session, dialled).await? {
                // A peer is paired with once.
                let _ = self.naming.peer.set(name.to_string());
            }
        } else if let Some(peer) = dialled.bond.peer() {
            tracing::info!("connected to {}", keys::public_key_text(&peer));
        }
        for end in ends {
            connecting.forwards().start(end);
        }
        for forward in remote {
            connecting.forwards().start_remote(forward).await?;
        }
        if let Some(tunnel) = &self.tunnel {
            let opened = tunnel.ask(&connecting.dialled().bond).await.map_err(no_tun)?;
            connecting.carry_packets(tunnel, Some(opened));
        }
        Ok(())
    }
}

/// The two interfaces cannot be connected.
fn no_tun(error: TunError) -> Failure {
    let exit = match error {
        TunError::Refused(_) => Exit::Refused,
        TunError::SharedAddress(_) => Exit::Configuration,
        _ => Exit::BondLost,
    };
    Failure::new(exit, error)
}

async fn run_pipe(
    session: &Session,
    introduction: &Introduction,
    forward: &PipeForward,
    mut interrupt: Interrupt,
) -> Result<(), Failure> {
    if session.uses_stdio() {
        return Err(Failure::new(
            Exit::Usage,
            "a stdio: link and -W both want standard input; use one of them",
        ));
    }
    let dialled = session.dial()?;
    let mut tasks = JoinSet::new();
    let carrier = connecting::serve(&mut tasks, &dialled, &Arc::default(), &Drain::default());
    let work = async {
        dialled.first_link().await?;
        if session.pairs() {
            introduction.run(session, &dialled).await?;
        }
        pipe::run(&carrier, forward).await?;
        // What was written is delivered first.
        dialled.bond.close(close_code::DONE, "").await;
        Ok(())
    };
    let mut work = std::pin::pin!(work);
    let mut ended = tokio::select! {
        ended = interrupt.or(&mut work) => ended,
        () = signals::hang_up() => Err(Failure::interrupted()),
    };
    if ended.as_ref().is_err_and(Failure::is_interruption) {
        // The program at the other end of the pipe may have said its last words just before: ssh does.
        ended = timeout(LAST_WORDS_TIMEOUT, work).await.unwrap_or(ended);
    }
    if ended.is_err() {
        session::close(&dialled.bond, close_code::DONE, "").await;
    }
    ended
}

/// How a peer that is new is to be remembered.
struct Introduction {
    file: PeersFile,
    name: Option<PeerName>,
}

impl Introduction {
    /// Whether the peer could be written down: that had better be known before its token is used.
    fn check(&self, pairs: bool) -> Result<(), Failure> {
        match &self.name {
            Some(_) if !pairs => {
                Err(Failure::new(Exit::Usage, "--name goes with --pair; later: bondwire peers rename"))
            }
            Some(name) => self.file.check_free(name, NAME_OPTION),
            None if pairs => self.file.load().map(drop),
            None => Ok(()),
        }
    }

    /// Gets to know the peer over its first bond, and writes it down; answers its name.
    async fn run(&self, session: &Session, dialled: &DialledBond) -> Result<Option<PeerName>, Failure> {
        let host = pairing::introduce(&dialled.bond).await?;
        let Some(key) = dialled.bond.peer() else { return Ok(None) };
        session.pin(key);
        let name = match &self.name {
            Some(name) => WantedName::Given { name, option: NAME_OPTION },
            None => WantedName::Proposed(host),
        };
        let (links, ssh) = (session.link_texts(), session.ssh_target());
        let remembered = self.file.remember(&NewPeer { key, name, links: &links, ssh: ssh.as_ref() })?;
        let (name, key) = (remembered.name, keys::public_key_text(&key));
        tracing::info!("paired with {name}: {key}; from now on: bondwire connect {name}");
        Ok(Some(name))
    }
}

/// Whether the peer ended only what it knew of the bond, so that a new bond can take its place.
fn may_come_back(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::PeerRestarted => true,
        CloseReason::Peer { code, .. } => *code == close_code::LISTENER_ENDS,
        _ => false,
    }
}
