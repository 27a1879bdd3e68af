//! What a connecting command leads to: LINKs, or the name of a remembered peer.

use std::str::FromStr;

use crate::link_spec::{LinkSpec, LinkSpecError};
use crate::peers::PeerName;

/// One positional argument of `connect` and `speed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Link(LinkSpec),
    Peer(PeerName),
}

impl FromStr for Target {
    type Err = LinkSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
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
