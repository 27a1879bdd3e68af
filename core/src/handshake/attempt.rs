//! An intention to have a bond, shared by the handshakes of several links.

use core::fmt;

use rand_core::RngCore;

use super::token::PairingToken;
use crate::crypto::{Secret, secret_from};
use crate::id::{LinkId, PublicKey};
use crate::limits::LINK_ID_MAX;

/// One intention to have a bond with a peer. All OPENs of one attempt, on however many links at once, lead to one bond.
///
/// Keep it as long as the bond lives: it also counts the bond's links.
#[derive(Clone)]
pub struct Attempt {
    peer: Option<PublicKey>,
    pub(super) id: [u8; 16],
    pub(super) random: Secret,
    /// What pairs the two hosts, until they know each other's key.
    pub(super) token: Option<PairingToken>,
    next_link: u32,
}

impl Attempt {
    /// An attempt to bond with `peer`, or with whoever answers if that is `None`: then any host on the way can be the
    /// peer, and the caller must say so to its user.
    pub fn new(rng: &mut impl RngCore, peer: Option<PublicKey>) -> Self {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        Self { peer, id, random: secret_from(rng), token: None, next_link: 0 }
    }

    /// An attempt to bond with the host that gave out `token`, and has the key `peer` if that is known.
    pub fn pairing(rng: &mut impl RngCore, peer: Option<PublicKey>, token: PairingToken) -> Self {
        Self { token: Some(token), ..Self::new(rng, peer) }
    }

    /// The peer wanted.
    pub const fn peer(&self) -> Option<PublicKey> {
        self.peer
    }

    /// A link number that this bond has not used. Take one for each handshake, also after a failed one. `None` after
    /// 2³⁰ of them.
    pub fn next_link(&mut self) -> Option<LinkId> {
        let link = LinkId(self.next_link);
        self.next_link = self.next_link.checked_add(1)?;
        (link.0 <= LINK_ID_MAX).then_some(link)
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attempt(to bond with {:?}, next link {})", self.peer, self.next_link)
    }
}
