//! What one peer may ask of this host, and who says so: every refusal names the line or the option that would permit it.

use std::fmt;

use crate::forward::address::Address;
use crate::forward::permits::{self, Permits};
use crate::peers::{Peer, PeerName};

/// What one peer may do at one moment.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    permits: Permits,
    /// The peer whose entry says what may be opened; else it is an option.
    open_entry: Option<PeerName>,
    /// The same for what may be listened on.
    listen_entry: Option<PeerName>,
    /// The peer whose entry forbids speed tests.
    no_speed_entry: Option<PeerName>,
    /// The peer whose entry forbids IP packets.
    no_tun_entry: Option<PeerName>,
}

/// Something is not permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denied {
    denied: permits::Denied,
    entry: Option<PeerName>,
}

impl Permissions {
    /// Those of `peer`; what its entry leaves open, `defaults` say.
    pub(crate) fn of(peer: Option<&Peer>, defaults: &Permits) -> Self {
        let Some(peer) = peer else {
            return Self { permits: defaults.clone(), ..Self::default() };
        };
        let entry = |own: &Option<_>| own.is_some().then(|| peer.name.clone());
        let forbidden = |own: Option<bool>| (own == Some(false)).then(|| peer.name.clone());
        Self {
            permits: Permits {
                open: peer.permit_open.as_ref().unwrap_or(&defaults.open).clone(),
                listen: peer.permit_listen.as_ref().unwrap_or(&defaults.listen).clone(),
            },
            open_entry: entry(&peer.permit_open),
            listen_entry: entry(&peer.permit_listen),
            no_speed_entry: forbidden(peer.permit_speed),
            no_tun_entry: forbidden(peer.permit_tun),
        }
    }

    /// Whether the peer may reach `target` through this host.
    pub(crate) fn may_open(&self, target: &Address) -> Result<(), Denied> {
        self.permits.may_open(target).map_err(|denied| Denied { denied, entry: self.open_entry.clone() })
    }

    /// Whether the peer may listen on `bind` of this host.
    pub(crate) fn may_listen(&self, bind: &Address) -> Result<(), Denied> {
        self.permits.may_listen(bind).map_err(|denied| Denied { denied, entry: self.listen_entry.clone() })
    }

    /// Whether the peer's speed tests are answered; if not, what says so.
    pub(crate) fn may_test_speed(&self) -> Result<(), String> {
        match &self.no_speed_entry {
            None => Ok(()),
            Some(name) => Err(format!(
                "not permitted; it needs permit-speed = true of [peer.{name}] in the listener's peers file"
            )),
        }
    }

    /// Whether the peer's IP packets are taken where this host has an interface for them; if not, what says so.
    pub(crate) fn may_use_tun(&self) -> Result<(), String> {
        match &self.no_tun_entry {
            None => Ok(()),
            Some(name) => Err(format!(
                "not permitted; it needs permit-tun = true of [peer.{name}] in the listener's peers file"
            )),
        }
    }
}

impl Denied {
    /// The key of an entry, or the name of an option without its dashes.
    fn key(&self) -> &'static str {
        match self.denied {
            permits::Denied::Open(..) => "permit-open",
            permits::Denied::Listen(..) => "permit-listen",
        }
    }

    /// The rule that would have to name it, for the log of this host.
    pub(crate) fn rule(&self) -> String {
        match &self.entry {
            Some(name) => format!("{} of [peer.{name}]", self.key()),
            None => format!("--{}", self.key()),
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(name) = &self.entry else {
            return write!(f, "{}", self.denied);
        };
        let (what, permit) = match &self.denied {
            permits::Denied::Open(target, permit) => (target.to_string(), permit),
            permits::Denied::Listen(bind, permit) => (format!("listening on {bind}"), permit),
        };
        let place = format!("{} of [peer.{name}] in the listener's peers file", self.key());
        write!(f, "{what} is not permitted; it needs {permit:?} in {place}")
    }
}

#[cfg(test)]
mod tests {
    use bondwire::PublicKey;

    use super::*;
    use crate::forward::permits::Permit;
    use crate::peers::Limits;

    fn permits(texts: &[&str]) -> Vec<Permit> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn peer(open: Option<&[&str]>, listen: Option<&[&str]>) -> Peer {
        Peer {
            name: "laptop".parse().unwrap(),
            key: PublicKey([1; 32]),
            links: Vec::new(),
            ssh: None,
            permit_open: open.map(permits),
            permit_listen: listen.map(permits),
            permit_links: None,
            permit_speed: None,
            permit_tun: None,
            limits: Limits::default(),
            paths: Default::default(),
        }
    }

    #[test]
    fn an_entry_goes_before_the_options_and_refusals_name_what_is_missing() {
        let defaults = Permits { open: permits(&["localhost:*"]), listen: Vec::new() };
        let target = Address::parse_target("10.0.0.9:443").unwrap();
        let local = Address::parse_target("localhost:80").unwrap();

        let unknown = Permissions::of(None, &defaults);
        assert_eq!(unknown.may_open(&local), Ok(()));
        let why = unknown.may_open(&target).unwrap_err().to_string();
        assert_eq!(why, "10.0.0.9:443 is not permitted; the peer's listen needs --permit-open 10.0.0.9:443");

        let entry = Permissions::of(Some(&peer(Some(&["10.0.0.9:443"]), Some(&[]))), &defaults);
        assert_eq!(entry.may_open(&target), Ok(()));
        let why = entry.may_open(&local).unwrap_err().to_string();
        assert!(
            why.ends_with("\"localhost:80\" in permit-open of [peer.laptop] in the listener's peers file"),
            "{why}"
        );
        let why = entry.may_listen(&local).unwrap_err().to_string();
        assert!(
            why.contains("listening on localhost:80") && why.contains("permit-listen of [peer.laptop]"),
            "{why}"
        );

        let no_tun = Peer { permit_tun: Some(false), ..peer(None, None) };
        let why = Permissions::of(Some(&no_tun), &defaults).may_use_tun().unwrap_err();
        assert!(why.contains("permit-tun = true of [peer.laptop]"), "{why}");
        assert_eq!(unknown.may_use_tun(), Ok(()));

        let silent = Permissions::of(Some(&peer(None, None)), &defaults);
        assert_eq!(silent.may_open(&local), Ok(()));
        assert!(silent.may_listen(&local).unwrap_err().to_string().ends_with("--permit-listen localhost:80"));
    }
}
