//! Reading the file: from text to what it means, with the place of whatever is wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bondwire::limits::LINKS_MAX;
use serde_spanned::Spanned;

use super::entries::{ConnectEntry, Document, ListenEntry, Placed, TunEntry};
use super::{Config, ConnectConfig, ListenConfig, Way, wrong};
use crate::access::{Always, Grants};
use crate::discovery::{DiscoveryOptions, PeerPaths};
use crate::failure::Failure;
use crate::forward::address::Address;
use crate::forward::permits::Permits;
use crate::forward::spec::ForwardOption;
use crate::link_spec::LinkSpec;
use crate::link_table::LinkTable;
use crate::listening;
use crate::medium::Media;
use crate::observers::ObserverOptions;
use crate::peers::{Entry, Peer, PeerName, Peers, PeersFile};
use crate::toml_file::{self, Key, Text, TextError};
use crate::tun::{TunName, TunSpec};

/// What this file is, for messages.
const KIND: toml_file::Kind = toml_file::Kind {
    name: "configuration file",
    danger: "others decide what this program runs and whom it lets in",
    owner_matters: true,
};
/// Time in which connections may end by themselves, if the file says nothing.
const DRAIN: Duration = Duration::from_secs(10);
/// What peers may reach if the file says nothing: as `listen --permit-open` has it.
const PERMIT_OPEN: &str = "localhost:*";

pub(super) fn load(path: &Path) -> Result<Config, Failure> {
    let Some(text) = toml_file::read(path, &KIND)? else {
        return Err(Failure::configuration(format!(
            "there is no file {}; `bondwire connect … --print-config` writes one",
            path.display()
        )));
    };
    parse(path, &text)
}

/// What `text` means, as the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Config, Failure> {
    let at_file = |error: TextError| wrong(path, error);
    let document: Document =
        toml_edit::de::from_str(text).map_err(|error| at_file(TextError::from_toml(text, &error)))?;
    let Document { key, peers, control, record, metrics, drain_seconds, listen, connect, peer } = document;
    // Paths are relative to the file, wherever the program was started.
    let from_here = |named: PathBuf| path.parent().unwrap_or(Path::new("")).join(named);
    let peers_file = PeersFile::at(peers.map(from_here))?;
    let configured = Entry::peers(text, peer).map_err(at_file)?;
    let all = configured.before(&peers_file.load()?);
    let mut reading =
        Reading { text, peers: all, ports: Vec::new(), binds: Vec::new(), interfaces: Vec::new() };
    if listen.is_none() && connect.is_empty() {
        let what = "it opens no bond and takes none; write [listen] or [connect.NAME]";
        return Err(at_file(TextError::new(text, None, what)));
    }
    let listen = listen.map(|listen| reading.listen(listen, configured)).transpose().map_err(at_file)?;
    let connect = connect.into_iter().map(|(name, entry)| reading.connect(name, entry));
    Ok(Config {
        key: key.map(from_here),
        peers_file,
        control,
        observers: ObserverOptions::new(record.map(from_here), metrics.map(|Text(address)| address)),
        drain: drain_seconds.map_or(DRAIN, |seconds| seconds.0),
        listen,
        connect: connect.collect::<Result<BTreeMap<_, _>, _>>().map_err(at_file)?,
    })
}

/// What is known while the sections are read.
struct Reading<'a> {
    text: &'a str,
    peers: Peers,
    /// What one link has to itself: serial ports.
    ports: Vec<String>,
    /// Where forwards listen on this host.
    binds: Vec<Address>,
    /// Interfaces that it makes.
    interfaces: Vec<TunName>,
}

impl Reading<'_> {
    fn error(&self, span: Range<usize>, what: impl std::fmt::Display) -> TextError {
        TextError::new(self.text, Some(span), what)
    }

    fn listen(&mut self, entry: Spanned<ListenEntry>, configured: Peers) -> Result<ListenConfig, TextError> {
        let span = entry.span();
        let entry = entry.into_inner();
        let (cipher, filter) = (entry.cipher(), entry.filter());
        let (at_links, links) = self.links(entry.links)?;
        listening::check(&links).map_err(|error| self.error(at_links, error))?;
        cipher.bond_config().map_err(|error| self.error(span.clone(), error))?;
        if entry.accept_any_peer && !entry.allow.is_empty() {
            let what = "accept-any-peer lets everybody in, and allow names some; leave one out";
            return Err(self.error(span, what));
        }
        if !entry.accept_any_peer && entry.allow.is_empty() && self.peers.is_empty() {
            let what = "nobody may connect: pair with a peer with `bondwire listen LINK --pair`, or name peers with allow = \
                        [\"bwpub1...\"] or [peer.NAME], or let everybody in with accept-any-peer = true";
            return Err(self.error(span, what));
        }
        let always = match entry.accept_any_peer {
            true => Always::Anyone,
            false => Always::Keys(entry.allow.into_iter().map(|Key(key)| key).collect()),
        };
        let usual = || PERMIT_OPEN.parse().map(|permit| vec![permit]).unwrap_or_default();
        let open = entry.permit_open.unwrap_or_else(usual);
        let defaults = Permits { open, listen: entry.permit_listen.unwrap_or_default() };
        let told = entry.discover.unwrap_or(true).then(|| filter.filter());
        let tun = self.tun(entry.tun)?;
        Ok(ListenConfig { links, cipher, grants: Grants { always, defaults, configured }, told, tun })
    }

    fn connect(
        &mut self,
        name: Spanned<PeerName>,
        entry: ConnectEntry,
    ) -> Result<(PeerName, ConnectConfig), TextError> {
        let span = name.span();
        let name = name.into_inner();
        let (cipher, own_paths) = (entry.cipher(), entry.paths());
        cipher.bond_config().map_err(|error| self.error(span.clone(), error))?;
        let remembered = match (&entry.peer, entry.accept_any_peer) {
            (Some(_), true) => {
                let what = "accept-any-peer takes everybody, and peer names one; leave one out";
                return Err(self.error(span, what));
            }
            (None, false) => Some(self.remembered(&name, span.clone())?),
            _ => None,
        };
        let attach = entry.attach.map(|patterns| self.attach(patterns)).transpose()?;
        // What is attached is enough for a bond.
        let attaches = attach.as_ref().is_some_and(|patterns| !patterns.is_empty());
        let (at_links, links) = match entry.links {
            Some(links) if links.get_ref().is_empty() && attaches => (links.span(), Vec::new()),
            Some(links) => self.links(links)?,
            None => match self.links_of(&name, remembered.as_ref(), span.clone()) {
                Err(_) if attaches => (span.clone(), Vec::new()),
                links => (span.clone(), links?),
            },
        };
        Media::check_dialled(&links).map_err(|error| self.error(at_links.clone(), error))?;
        let paths = match &remembered {
            Some(peer) => own_paths.into_wishes().or(&peer.paths).or(&PeerPaths::found()),
            None => own_paths.into_wishes(),
        };
        let found = DiscoveryOptions::default().config(&paths);
        LinkTable::check(&links, found.as_ref()).map_err(|error| self.error(at_links, error))?;
        let peer = entry.peer.map(|Key(key)| key).or(remembered.map(|peer| peer.key));
        let forwards = self.forwards(entry.forwards)?;
        let tun = self.tun(entry.tun)?;
        Ok((name, ConnectConfig { way: Way { peer, cipher, paths }, links, attach, forwards, tun }))
    }

    fn tun(&mut self, entry: Option<Spanned<TunEntry>>) -> Result<Option<TunSpec>, TextError> {
        let Some(entry) = entry else { return Ok(None) };
        let span = entry.span();
        let spec = entry.into_inner().spec().map_err(|error| self.error(span.clone(), error))?;
        if self.interfaces.contains(&spec.name) {
            let what = format!("another section of this file makes the interface {} already", spec.name);
            return Err(self.error(span, what));
        }
        self.interfaces.push(spec.name.clone());
        Ok(Some(spec))
    }

    fn remembered(&self, name: &PeerName, span: Range<usize>) -> Result<Peer, TextError> {
        let known = self.peers.known(name).cloned();
        known.map_err(|error| {
            let what = format!("{error}; or say who it is: peer = \"bwpub1...\"");
            self.error(span, what)
        })
    }

    fn links_of(
        &self,
        name: &PeerName,
        peer: Option<&Peer>,
        span: Range<usize>,
    ) -> Result<Vec<LinkSpec>, TextError> {
        match peer {
            Some(peer) if !peer.links.is_empty() => Ok(peer.links.clone()),
            Some(peer) if peer.ssh.is_some() => {
                let what =
                    format!("{name} is reached over ssh only, which needs `bondwire connect`; name links");
                Err(self.error(span, what))
            }
            _ => Err(self.error(span, format!("no link to {name}; name some: links = [\"tcp:HOST\"]"))),
        }
    }

    /// The links of a section, and where they stand.
    fn links(
        &mut self,
        links: Spanned<Vec<Placed<LinkSpec>>>,
    ) -> Result<(Range<usize>, Vec<LinkSpec>), TextError> {
        let at = links.span();
        let mut known: Vec<LinkSpec> = Vec::new();
        for link in links.into_inner() {
            let span = link.span();
            let Text(link) = link.into_inner();
            if known.contains(&link) {
                let what = format!(
                    "{link} stands there twice; more links over one path get different options, such as source="
                );
                return Err(self.error(span, what));
            }
            if link.is_stdio() {
                return Err(self.error(span, "stdio: is for commands; a service has no standard input"));
            }
            if let Some(port) = link.medium.port() {
                if self.ports.contains(&port) {
                    let what = format!("serial port {port} stands there twice; a port carries one link");
                    return Err(self.error(span, what));
                }
                self.ports.push(port);
            }
            known.push(link);
        }
        if known.is_empty() {
            return Err(self.error(at, "no link; name at least one, such as \"tcp:192.0.2.1:7700\""));
        }
        if known.len() > LINKS_MAX {
            return Err(self.error(at, format!("{} links; a bond has at most {LINKS_MAX}", known.len())));
        }
        Ok((at, known))
    }

    /// Which devices may be attached.
    fn attach(&self, patterns: Vec<Placed<LinkSpec>>) -> Result<Vec<LinkSpec>, TextError> {
        let mut known: Vec<LinkSpec> = Vec::new();
        for pattern in patterns {
            let span = pattern.span();
            let Text(pattern) = pattern.into_inner();
            if !pattern.medium.is_attached() {
                let what = format!("{pattern}: only cables are attached; write \"usb:\" or \"serial:*\"");
                return Err(self.error(span, what));
            }
            if pattern.options.quota_bytes.is_some() {
                let what = format!("{pattern}: quota= counts what one link carries; name that in links");
                return Err(self.error(span, what));
            }
            known.push(pattern);
        }
        Ok(known)
    }

    fn forwards(&mut self, forwards: Vec<Placed<ForwardOption>>) -> Result<Vec<ForwardOption>, TextError> {
        let mut known = Vec::new();
        for forward in forwards {
            let span = forward.span();
            let Text(forward) = forward.into_inner();
            if known.contains(&forward) {
                return Err(self.error(span, format!("{forward} stands there twice")));
            }
            if let Some(bind) = forward.bind().filter(|bind| !bind.is_any_port()) {
                if self.binds.contains(&bind) {
                    let what = format!("{forward}: another forward of this file listens on {bind} already");
                    return Err(self.error(span, what));
                }
                self.binds.push(bind);
            }
            known.push(forward);
        }
        Ok(known)
    }
}
