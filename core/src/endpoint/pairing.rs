//! Pairing tokens that this end gave out: which may be used, which were, and by whom.

use alloc::collections::BTreeMap;

use super::budget::Budget;
use crate::crypto::Secret;
use crate::handshake::{PairingToken, Refusal, TokenId};
use crate::id::PublicKey;
use crate::limits::{
    PAIRING_PROOFS_PER_SECOND_MAX, PAIRING_TOKEN_REMEMBERED, PAIRING_TOKEN_VALID_MAX, PAIRING_TOKENS_MAX,
};
use crate::time::{Duration, Instant};

/// No further token can be given out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{PAIRING_TOKENS_MAX} pairing tokens wait to be used; wait until one is used or expires")]
pub struct TooManyTokens;

/// What a responder needs to read the OPEN3 of a pairing.
pub(crate) struct PairingTicket {
    pub(crate) id: TokenId,
    pub(crate) psk: Secret,
}

/// All tokens, dead ones included for a while: who comes late or second is to be told so.
pub(super) struct PairingTable {
    tokens: BTreeMap<TokenId, Token>,
    proofs: Budget,
}

struct Token {
    psk: Secret,
    expires_at: Instant,
    /// The attempt that used it. Further links of that attempt may, too.
    used_by: Option<(PublicKey, [u8; 16])>,
}

impl Token {
    fn is_dead(&self, now: Instant) -> bool {
        self.used_by.is_some() || self.expires_at <= now
    }
}

impl Default for PairingTable {
    fn default() -> Self {
        Self { tokens: BTreeMap::new(), proofs: Budget::new(PAIRING_PROOFS_PER_SECOND_MAX) }
    }
}

impl PairingTable {
    pub(super) fn add(
        &mut self,
        now: Instant,
        token: &PairingToken,
        valid_for: Duration,
    ) -> Result<(), TooManyTokens> {
        self.tokens.retain(|_, token| now < token.expires_at + PAIRING_TOKEN_REMEMBERED);
        if self.tokens.len() >= PAIRING_TOKENS_MAX {
            let dead = self.tokens.iter().filter(|(_, token)| token.is_dead(now));
            let oldest = dead.min_by_key(|(_, token)| token.expires_at).map(|(id, _)| *id);
            self.tokens.remove(&oldest.ok_or(TooManyTokens)?);
        }
        let expires_at = now + valid_for.min(PAIRING_TOKEN_VALID_MAX);
        self.tokens.insert(token.id(), Token { psk: token.psk(), expires_at, used_by: None });
        Ok(())
    }

    pub(super) fn remove(&mut self, id: TokenId) {
        self.tokens.remove(&id);
    }

    pub(super) fn ticket(&self, id: TokenId) -> Option<PairingTicket> {
        self.tokens.get(&id).map(|token| PairingTicket { id, psk: token.psk.clone() })
    }

    /// Takes leave to see whether one initiator has the token that it names; `false` if there were too many of late.
    pub(super) fn spend_proof(&mut self, now: Instant) -> bool {
        self.proofs.spend(now)
    }

    /// Whether an initiator that has proved the token may use it now.
    pub(super) fn check(
        &self,
        now: Instant,
        id: TokenId,
        attempt: (PublicKey, [u8; 16]),
    ) -> Result<(), Refusal> {
        match self.tokens.get(&id) {
            Some(token) if token.used_by == Some(attempt) => Ok(()),
            Some(token) if token.used_by.is_some() => Err(Refusal::TokenUsed),
            Some(token) if now < token.expires_at => Ok(()),
            // Expired, or withdrawn meanwhile.
            _ => Err(Refusal::TokenExpired),
        }
    }

    pub(super) fn use_up(&mut self, id: TokenId, attempt: (PublicKey, [u8; 16])) {
        if let Some(token) = self.tokens.get_mut(&id) {
            token.used_by = Some(attempt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: Duration = Duration::from_secs(600);

    fn token(n: u8) -> PairingToken {
        PairingToken::from_bytes([n; 16])
    }

    #[test]
    fn a_token_serves_one_attempt_in_time() {
        let (mut table, start) = (PairingTable::default(), Instant::ZERO);
        table.add(start, &token(1), VALID).unwrap();
        let (id, first, second) =
            (token(1).id(), (PublicKey([1; 32]), [1; 16]), (PublicKey([1; 32]), [2; 16]));
        let end = start + VALID;
        assert_eq!(table.check(end, id, first), Err(Refusal::TokenExpired));
        assert_eq!(table.check(end - Duration::from_nanos(1), id, first), Ok(()));
        table.use_up(id, first);
        assert_eq!(table.check(start, id, second), Err(Refusal::TokenUsed));
        assert_eq!(table.check(end, id, first), Ok(()), "further links of the attempt that used it");
        table.remove(id);
        assert_eq!(table.check(start, id, first), Err(Refusal::TokenExpired));
    }

    #[test]
    fn there_are_few_tokens_and_dead_ones_give_way() {
        let (mut table, start) = (PairingTable::default(), Instant::ZERO);
        let count = u8::try_from(PAIRING_TOKENS_MAX).unwrap();
        for n in 0..count {
            table.add(start, &token(n), VALID).unwrap();
        }
        assert_eq!(table.add(start, &token(count), VALID), Err(TooManyTokens));
        table.use_up(token(3).id(), (PublicKey([1; 32]), [1; 16]));
        table.add(start, &token(count), VALID).unwrap();
        assert!(table.ticket(token(3).id()).is_none());
        assert_eq!(table.tokens.len(), PAIRING_TOKENS_MAX);
        table.add(start + VALID + PAIRING_TOKEN_REMEMBERED, &token(200), VALID).unwrap();
        assert_eq!(table.tokens.len(), 1, "the others were forgotten");
    }

    #[test]
    fn nobody_gives_out_a_token_for_ever() {
        let mut table = PairingTable::default();
        table.add(Instant::ZERO, &token(1), Duration::MAX).unwrap();
        let attempt = (PublicKey([1; 32]), [1; 16]);
        let end = Instant::ZERO + PAIRING_TOKEN_VALID_MAX;
        assert_eq!(table.check(end, token(1).id(), attempt), Err(Refusal::TokenExpired));
    }
}
