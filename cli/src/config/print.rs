//! Writing a file: what a command line says, each key with a word about it.

use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bondwire::PublicKey;
use toml_edit::Value;

use crate::control::ControlOption;
use crate::discovery::{FilterOptions, PeerPaths};
use crate::failure::Failure;
use crate::forward::permits::Permit;
use crate::forward::spec::ForwardOption;
use crate::keys;
use crate::link_spec::LinkSpec;
use crate::metrics;
use crate::observers::ObserverOptions;
use crate::options::{CipherOptions, KeyOption, PeersOption};
use crate::tun::TunSpec;

/// What holds for the whole service.
pub(crate) struct General {
    pub(crate) key: Option<PathBuf>,
    pub(crate) peers: Option<PathBuf>,
    pub(crate) control: Option<String>,
    pub(crate) record: Option<PathBuf>,
    pub(crate) metrics: Option<SocketAddr>,
}

impl General {
    /// What the options of a command say. A service has no working folder, so paths become absolute.
    pub(crate) fn of(
        key: &KeyOption,
        peers: &PeersOption,
        control: &ControlOption,
        observers: &ObserverOptions,
    ) -> Result<Self, Failure> {
        let absolute =
            |file: Option<&Path>| file.map(std::path::absolute).transpose().map_err(Failure::configuration);
        Ok(Self {
            key: absolute(key.named())?,
            peers: absolute(peers.named())?,
            control: control.name().map(str::to_owned),
            record: absolute(observers.record())?,
            metrics: observers.metrics(),
        })
    }
}

/// What `connect` was given.
pub(crate) struct ConnectText<'a> {
    pub(crate) name: &'a str,
    pub(crate) links: &'a [LinkSpec],
    pub(crate) peer: Option<PublicKey>,
    pub(crate) accept_any_peer: bool,
    pub(crate) cipher: &'a CipherOptions,
    pub(crate) paths: &'a PeerPaths,
    pub(crate) forwards: &'a [ForwardOption],
    pub(crate) tun: Option<TunSpec>,
}

/// What `listen` was given.
pub(crate) struct ListenText<'a> {
    pub(crate) links: &'a [LinkSpec],
    pub(crate) allow: &'a [PublicKey],
    pub(crate) accept_any_peer: bool,
    pub(crate) permit_open: &'a [Permit],
    pub(crate) permit_listen: &'a [Permit],
    pub(crate) cipher: &'a CipherOptions,
    pub(crate) discover: bool,
    pub(crate) filter: &'a FilterOptions,
    pub(crate) tun: Option<TunSpec>,
}

/// A file that grows.
struct Text(String);

impl Text {
    /// The head of a file.
    fn new(general: &General) -> Self {
        let mut text = Self(String::from(
            "# Configuration of Bondwire, for `bondwire up FILE`; `bondwire check FILE` says whether it is right, and\n\
             # SIGHUP has the running service read it again. docs/CONFIG.md has all keys.\n\n",
        ));
        text.value("Private key of this host.", "key", path(&general.key), "\"/etc/bondwire/key\"");
        let about = "Remembered peers, those of `bondwire peers`.";
        text.value(about, "peers", path(&general.peers), "\"/etc/bondwire/peers.toml\"");
        let about = "Name for `bondwire status` and the like; without it that of this file.";
        text.value(about, "control", general.control.as_ref().map(quoted), "\"bondwire\"");
        let about = "Every link's figures and all messages, while it runs; `bondwire plot FILE` draws them.";
        text.value(about, "record", path(&general.record), "\"/var/log/bondwire.jsonl\"");
        let about = "Where metrics are served for Prometheus, over HTTP.";
        text.value(about, "metrics", general.metrics.map(quoted), &quoted(metrics::ADDRESS));
        text.value(
            "Time in which connections may end by themselves after SIGTERM.",
            "drain-seconds",
            None,
            "10",
        );
        text
    }

    fn section(&mut self, about: &str, name: &str) {
        // Writing to a string does not fail, here and below.
        let _ = write!(self.0, "\n# {about}\n[{name}]\n");
    }

    /// A key; one without a value stands there as a comment, with an example.
    fn value(&mut self, about: &str, key: &str, value: Option<String>, example: &str) {
        let _ = match value {
            Some(value) => writeln!(self.0, "# {about}\n{key} = {value}"),
            None => writeln!(self.0, "# {about}\n# {key} = {example}"),
        };
    }

    fn tun(&mut self, tun: Option<&TunSpec>) {
        let about = "A network interface whose packets go over the bond to that of the other end (Linux).";
        let example = "{ name = \"bond0\", addr = \"10.9.0.1/24,fd00::1/64\", mtu = 1400 }";
        self.value(about, "tun", tun.map(TunSpec::entry), example);
    }

    fn cipher(&mut self, cipher: &CipherOptions) {
        let value = cipher.cipher().as_ref().map(quoted);
        self.value("aes, chacha or none; both ends have to agree.", "cipher", value, "\"aes\"");
        if cipher.plaintext_over_ip() {
            let about =
                "Lets cipher = \"none\" go over TCP, where anyone on the path can read and forge everything.";
            self.value(about, "plaintext-over-ip", Some("true".to_owned()), "false");
        }
    }
}

impl ConnectText<'_> {
    /// The file of a service that does what this `connect` does.
    pub(crate) fn file(&self, general: &General) -> String {
        let mut text = Text::new(general);
        text.section("A bond to open; a section for each.", &format!("connect.{}", self.name));
        let about = "Links to the peer, as LINK on the command line; without them those that are remembered.";
        let links = (!self.links.is_empty()).then(|| list(self.links));
        text.value(about, "links", links, "[\"tcp:192.0.2.1:7700\", \"tcp:10.0.0.5:7700,policy=backup\"]");
        let about = "Which cables join this bond as they are plugged in; docs/UDEV.md.";
        text.value(about, "attach", None, "[\"usb:\", \"serial:*\"]");
        if self.accept_any_peer {
            let about = "Takes whoever answers: anyone on the path can be the peer.";
            text.value(about, "accept-any-peer", Some("true".to_owned()), "false");
        } else {
            let about = "Public key of the peer; without it the section's name is that of a remembered peer.";
            text.value(
                about,
                "peer",
                self.peer.map(|key| quoted(keys::public_key_text(&key))),
                "\"bwpub1...\"",
            );
        }
        let about = "What is forwarded, as -L, -R and -D on the command line.";
        let forwards = (!self.forwards.is_empty()).then(|| list(self.forwards));
        text.value(about, "forwards", forwards, "[\"-L 8080:localhost:80\"]");
        text.tun(self.tun.as_ref());
        text.cipher(self.cipher);
        let PeerPaths { discover, interfaces, family, network, peer_network, per_path } = self.paths;
        let about = "Whether all paths to the peer are found from one tcp: link.";
        text.value(about, "discover", discover.map(|on| on.to_string()), "true");
        filters(&mut text, interfaces.as_ref(), family.as_ref(), network.as_ref());
        let about = "Networks of the peer's addresses that are used.";
        text.value(about, "peer-network", peer_network.as_ref().map(quoted), "\"10.0.0.0/8\"");
        text.value("Links over each path.", "per-path", per_path.map(|number| number.to_string()), "1");
        text.0
    }
}

impl ListenText<'_> {
    /// The file of a service that does what this `listen` does.
    pub(crate) fn file(&self, general: &General) -> String {
        let mut text = Text::new(general);
        text.section("Bonds that others open.", "listen");
        text.value(
            "Where links are taken, as LINK on the command line.",
            "links",
            Some(list(self.links)),
            "",
        );
        if self.accept_any_peer {
            let about = "Lets everybody in who reaches a link.";
            text.value(about, "accept-any-peer", Some("true".to_owned()), "false");
        } else {
            let allow: Vec<_> = self.allow.iter().map(keys::public_key_text).collect();
            let allow = (!allow.is_empty()).then(|| list(&allow));
            text.value(
                "Public keys that may come in, beside the remembered peers.",
                "allow",
                allow,
                "[\"bwpub1...\"]",
            );
        }
        let about = "What peers may reach through this host.";
        text.value(about, "permit-open", Some(list(self.permit_open)), "");
        let about = "Where peers may listen on this host (connect -R).";
        let permit_listen = (!self.permit_listen.is_empty()).then(|| list(self.permit_listen));
        text.value(about, "permit-listen", permit_listen, "[\"localhost:8022\"]");
        text.tun(self.tun.as_ref());
        text.cipher(self.cipher);
        let discover = (!self.discover).then(|| "false".to_owned());
        text.value("Whether peers are told the other addresses of this host.", "discover", discover, "true");
        let FilterOptions { interfaces, family, network } = self.filter;
        filters(&mut text, interfaces.as_ref(), family.as_ref(), network.as_ref());
        text.0
    }
}

fn filters(
    text: &mut Text,
    interfaces: Option<&impl Display>,
    family: Option<&impl Display>,
    network: Option<&impl Display>,
) {
    text.value("Network interfaces that are used.", "interfaces", interfaces.map(quoted), "\"eth*,!eth1\"");
    text.value("Address families: 4, 6, any or both.", "family", family.map(quoted), "\"any\"");
    text.value("Networks of this host's addresses.", "network", network.map(quoted), "\"10.0.0.0/8\"");
}

fn path(path: &Option<PathBuf>) -> Option<String> {
    path.as_ref().map(|path| quoted(path.display()))
}

/// As TOML has it.
fn quoted(value: impl Display) -> String {
    Value::from(value.to_string()).to_string()
}

fn list<T: Display>(values: &[T]) -> String {
    match values {
        [] => "[]".to_owned(),
        [only] => format!("[{}]", quoted(only)),
        values => {
            let lines: String = values.iter().map(|value| format!("    {},\n", quoted(value))).collect();
            format!("[\n{lines}]")
        }
    }
}
