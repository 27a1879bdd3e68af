//! What a connecting command leads to: LINKs, the name of a remembered peer, or a host to log in.

use std::str::FromStr;

use crate::link_spec::{LinkSpec, LinkSpecError};
use crate::peers::PeerName;
use crate::ssh::SshTarget;

/// One positional argument of `connect` and `speed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Link(LinkSpec),
    Peer(PeerName),
    /// A host to log in, where the other end is started.
    Ssh(SshTarget),
}

impl FromStr for Target {
    type Err = LinkSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(target) = SshTarget::of(text) {
            return Ok(Self::Ssh(target?));
        }
        // Every LINK has a colon, and no name has one.
        match text.parse() {
            Ok(name) => Ok(Self::Peer(name)),
            Err(_) => text.parse().map(Self::Link),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_links_are_told_apart() {
        assert_eq!("laptop".parse(), Ok(Target::Peer("laptop".parse().unwrap())));
        assert!(matches!("tcp:laptop".parse(), Ok(Target::Link(_))));
        assert_eq!("tcp".parse::<Target>(), Err(LinkSpecError::NoAddress));
        for no_kind in ["10.0.0.1", "", "laptop.local"] {
            assert_eq!(no_kind.parse::<Target>(), Err(LinkSpecError::NoKind(no_kind.to_owned())));
        }
    }
}
