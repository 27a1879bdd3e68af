//! `connect ssh:[user@]host[:port]`: starts the other end over an ssh login, and pairs with it.
//!
//! `bondwire listen` runs at the other host for as long as its standard input is open, which is that of the ssh session.
//! The line that it prints says where it listens, and how to pair.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bondwire::PublicKey;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::failure::{Exit, Failure, one_line};
use crate::link_spec::LinkSpec;
use crate::medium::{ChildIo, CommandLine, Fate, Medium};
use crate::pairing::{Invitation, parse_invitation};
use crate::peers::PeerName;

/// Time for the login and for the listener to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Time in which the listener ends with its session.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line that the listener may print, in bytes: a link for each of many addresses.
const LINE_MAX_BYTES: usize = 16 << 10;
/// Exit code of ssh when it fails by itself.
const SSH_FAILED: i32 = 255;
/// Exit code of a shell that does not find a command.
const NOT_FOUND: i32 = 127;

/// Where ssh logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshTarget {
    /// As ssh takes it: `[user@]host`.
    login: String,
    port: Option<u16>,
}

/// What is wrong with the address of `ssh:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write ssh:[user@]host[:port], for example ssh:pi@board.local")]
pub(crate) struct SshTargetError;

impl SshTarget {
    /// The target that `text` names, if it begins with `ssh:`.
    pub(crate) fn of(text: &str) -> Option<Result<Self, SshTargetError>> {
        let rest = text.strip_prefix("ssh:")?;
        Some(rest.strip_prefix("//").unwrap_or(rest).parse())
    }

    /// What stands behind `ssh:`, as it can be read again.
    pub(crate) fn address(&self) -> String {
        let login = match self.login.rsplit_once('@') {
            Some((user, host)) if host.contains(':') => format!("{user}@[{host}]"),
            None if self.login.contains(':') => format!("[{}]", self.login),
            _ => self.login.clone(),
        };
        match self.port {
            Some(port) => format!("{login}:{port}"),
            None => login,
        }
    }

    /// The host without its user.
    fn host(&self) -> &str {
        self.login.rsplit_once('@').map_or(&self.login, |(_, host)| host)
    }

    fn command(&self, options: &str) -> CommandLine {
        let port = self.port.map(|port| ["-p".to_owned(), port.to_string()]);
        // A shell at the other host splits it.
        let listen = format!("bondwire listen 'tcp:*:0' --pair --until-eof{options}");
        let words = ["ssh".to_owned()].into_iter().chain(port.into_iter().flatten());
        CommandLine::of_words(words.chain(["--".to_owned(), self.login.clone(), listen]).collect())
    }
}

impl FromStr for SshTarget {
    type Err = SshTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (login, port) = match text.strip_suffix(']').map(|inner| inner.replacen('[', "", 1)) {
            Some(bare) => (bare, None),
            None => match text.rsplit_once(':') {
                Some((login, port)) => {
                    let port = port.parse().ok().filter(|port| *port > 0).ok_or(SshTargetError)?;
                    (login.replacen('[', "", 1).replacen(']', "", 1), Some(port))
                }
                None => (text.to_owned(), None),
            },
        };
        // ssh would take what begins with a dash as an option.
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !"'\"\\,[]".contains(c);
        let target = Self { login, port };
        let host_given = !target.host().is_empty() && !target.host().starts_with('-');
        if host_given && !target.login.starts_with(['-', '@']) && target.login.chars().all(is_plain) {
            Ok(target)
        } else {
            Err(SshTargetError)
        }
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.login)
    }
}

/// A login that starts the other end of a bond.
pub(crate) struct Login {
    pub(crate) target: SshTarget,
    /// Who has to answer there, if it is known.
    pub(crate) peer: Option<(PeerName, PublicKey)>,
}

impl Login {
    /// Whether the host that answered is the one that is known.
    pub(crate) fn check(&self, far: &FarEnd) -> Result<(), Failure> {
        match &self.peer {
            Some((name, key)) if *key != far.invitation.listener => Err(Failure::new(
                Exit::Refused,
                format!(
                    "ssh:{0}: the host there has another key than {name}; if that is right: bondwire peers remove {name}, \
                     then bondwire connect ssh:{0}",
                    self.target.address()
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// A listener at another host. It ends when this is dropped.
pub(crate) struct FarListener {
    target: SshTarget,
    _session: ChildIo,
    children: watch::Sender<usize>,
    fate: watch::Receiver<Option<Fate>>,
}

/// How to connect to it.
pub(crate) struct FarEnd {
    pub(crate) links: Vec<LinkSpec>,
    pub(crate) invitation: Invitation,
}

impl FarListener {
    /// Logs in, starts the listener and hears how to connect; `options` are further ones for it, each after a space.
    pub(crate) async fn start(target: &SshTarget, options: &str) -> Result<(Self, FarEnd), Failure> {
        let children = watch::Sender::new(0);
        let mut session = ChildIo::start(&target.command(options), children.clone()).map_err(|error| {
            Failure::configuration(format!("ssh:{target}: {error}; install an ssh client"))
        })?;
        let fate = session.fate();
        let line = match timeout(START_TIMEOUT, first_line(&mut session)).await {
            Ok(Some(line)) => line,
            Ok(None) => return Err(explain(target, fate.borrow().as_ref())),
            Err(_) => {
                let seconds = START_TIMEOUT.as_secs();
                let message = format!(
                    "ssh:{target}: nothing came within {seconds} s; see that `ssh {target}` logs in without a password"
                );
                return Err(Failure::new(Exit::NoLink, message));
            }
        };
        let mut far = parse_line(&line).ok_or_else(|| {
            let line = one_line(&line.chars().take(100).collect::<String>());
            let what = format!(
                "ssh:{target}: this is not what bondwire prints: {line:?}; use one version at both ends"
            );
            Failure::new(Exit::Refused, what)
        })?;
        far.links.extend(link_to_host(target.host(), &far.links).await);
        Ok((Self { target: target.clone(), _session: session, children, fate }, far))
    }

    /// Where it was started.
    pub(crate) fn target(&self) -> &SshTarget {
        &self.target
    }

    /// Hears when the session has ended, and with it the listener.
    pub(crate) fn ended(&self) -> impl Future<Output = Failure> + Send + use<> {
        let (mut fate, target) = (self.fate.clone(), self.target.clone());
        async move {
            let told = fate.wait_for(Option::is_some).await.ok().and_then(|fate| fate.clone());
            let why = told.map(|fate| format!(": {}", fate.text)).unwrap_or_default();
            Failure::new(
                Exit::BondLost,
                format!("the ssh session to {target} has ended, and with it the listener{why}"),
            )
        }
    }

    /// Ends the listener, and waits for that.
    pub(crate) async fn end(self) {
        let mut children = self.children.subscribe();
        drop(self);
        // Whoever is left then ignores even SIGKILL.
        let _ = timeout(END_TIMEOUT, children.wait_for(|count| *count == 0)).await;
    }
}

/// The first line of `from`; `None` if there is none, or it is too long for what is expected.
async fn first_line(from: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < LINE_MAX_BYTES {
        // The end of the child's output is an error.
        from.read_exact(&mut byte).await.ok()?;
        if byte == *b"\n" {
            return Some(String::from_utf8_lossy(&line).into_owned());
        }
        line.push(byte[0]);
    }
    None
}

/// Reads `bondwire connect LINK… --pair TOKEN …`. Only TCP links are taken: another host must not choose what runs here.
fn parse_line(line: &str) -> Option<FarEnd> {
    let rest = line.trim().strip_prefix("bondwire connect ")?;
    let (links, rest) = rest.split_once(" --pair ")?;
    let invitation = parse_invitation(rest.split(' ').next()?).ok()?;
    let links: Vec<LinkSpec> =
        links.split_whitespace().map(|link| link.parse().ok()).collect::<Option<_>>()?;
    let all_tcp = links.iter().all(|link| matches!(link.medium, Medium::Tcp(_)));
    (all_tcp && !links.is_empty()).then_some(FarEnd { links, invitation })
}

/// A link to the host as ssh knows it, unless one of `links` leads to one of its addresses.
async fn link_to_host(host: &str, links: &[LinkSpec]) -> Option<LinkSpec> {
    let addresses = links.iter().filter_map(|link| match &link.medium {
        Medium::Tcp(address) => Some(address),
        _ => None,
    });
    let known: Vec<SocketAddr> =
        addresses.clone().filter_map(|to| Some(SocketAddr::new(to.host.parse().ok()?, to.port))).collect();
    let port = addresses.map(|address| address.port).next()?;
    // A name that only ssh knows, from its own configuration, leads nowhere here.
    let found: Vec<_> = timeout(END_TIMEOUT, lookup_host((host, port))).await.ok()?.ok()?.collect();
    if found.is_empty() || found.iter().any(|address| known.contains(address)) {
        return None;
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("tcp:{host}:{port}").parse().ok()
}

/// Why ssh ended without a listener.
fn explain(target: &SshTarget, fate: Option<&Fate>) -> Failure {
    let words = fate.map(|fate| fate.last_line.as_str()).unwrap_or_default();
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    match fate.and_then(|fate| fate.code) {
        Some(NOT_FOUND) => Failure::new(
            Exit::Refused,
            format!("ssh:{target}: there is no bondwire on the path of that host; install it there{said}"),
        ),
        Some(SSH_FAILED) => {
            let advice = format!("see that `ssh {target}` logs in without a password");
            Failure::new(Exit::NoLink, format!("ssh:{target}: no login; {advice}{said}"))
        }
        _ => Failure::new(Exit::Refused, format!("ssh:{target}: bondwire did not start at that host{said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Option<(String, Option<u16>)> {
        let target = SshTarget::of(text)?.ok()?;
        Some((target.login, target.port))
    }

    #[test]
    fn targets_parse_as_for_ssh() {
        assert_eq!(target("ssh:board"), Some(("board".into(), None)));
        assert_eq!(target("ssh://pi@board.local:2222"), Some(("pi@board.local".into(), Some(2222))));
        assert_eq!(target("ssh:pi@[2001:db8::1]:22"), Some(("pi@2001:db8::1".into(), Some(22))));
        assert_eq!(target("ssh:[2001:db8::1]"), Some(("2001:db8::1".into(), None)));
        for address in
            ["board", "pi@board.local:2222", "pi@[2001:db8::1]:22", "[2001:db8::1]", "pi@[2001:db8::1]"]
        {
            assert_eq!(address.parse::<SshTarget>().unwrap().address(), address);
        }
        assert!(SshTarget::of("tcp:board").is_none());
        for bad in [
            "ssh:",
            "ssh:pi@",
            "ssh:@h",
            "ssh:-oProxyCommand=x",
            "ssh:pi@-x",
            "ssh:h:0",
            "ssh:h:x",
            "ssh:a b",
        ] {
            assert_eq!(SshTarget::of(bad), Some(Err(SshTargetError)), "{bad}");
        }
    }

    #[test]
    fn the_far_line_gives_tcp_links_only() {
        let invitation = Invitation {
            token: bondwire::PairingToken::from_bytes([1; 16]),
            listener: bondwire::PublicKey([2; 32]),
        };
        let word = invitation.text();
        let far =
            parse_line(&format!("bondwire connect tcp:10.0.0.5:7 tcp:h:8 --pair {} --cipher aes", *word));
        let far = far.unwrap();
        assert_eq!((far.links.len(), far.invitation.token.id()), (2, invitation.token.id()));
        for bad in [
            format!("bondwire connect exec:reboot --pair {}", *word),
            format!("bondwire connect --pair {}", *word),
            "bondwire connect tcp:h --pair bwpair1x".to_owned(),
            "Welcome to board".to_owned(),
            String::new(),
        ] {
            assert!(parse_line(&bad).is_none(), "{bad}");
        }
    }
}
