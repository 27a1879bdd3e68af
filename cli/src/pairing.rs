//! Pairing: the word that one user gives to another, and how both ends then learn each other's name.
//!
//! The word holds a token and the listener's public key. The first bond, opened with the token, carries the names; then
//! both ends write each other down.

use std::fmt;

use bech32::{Bech32m, Hrp};
use bondwire::{Bond, Class, PairingToken, PublicKey, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};
use crate::keys;
use crate::peers::PeerName;
use crate::service::{self, Refusal};

/// Label of the stream on which the names travel.
pub(crate) const PAIR_LABEL: &str = "pair";
const PREFIX: Hrp = Hrp::parse_unchecked("bwpair");
const TOKEN_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// Characters of an invitation: prefix, separator, 77 of data, 6 of checksum.
const INVITATION_CHARS: usize = 90;
/// In the middle, as all forwards; nothing else is on the bond yet.
const PRIORITY: u8 = 128;

/// What one end gives to the other, so that they pair.
#[derive(Clone)]
pub(crate) struct Invitation {
    pub(crate) token: PairingToken,
    /// The listener's key: who stole the token cannot pose as it.
    pub(crate) listener: PublicKey,
}

/// What is wrong with the text of an [`Invitation`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvitationError {
    #[error("a pairing token is one word that starts with bwpair1; `bondwire listen LINK --pair` prints it")]
    Prefix,
    #[error(
        "this is a public key; give it with --peer, or a token that `bondwire listen LINK --pair` prints"
    )]
    PublicKey,
    #[error("too short: {0} of {INVITATION_CHARS} characters; copy the whole word")]
    TooShort(usize),
    #[error("too long: {0} characters, a token has {INVITATION_CHARS}; copy one word only")]
    TooLong(usize),
    #[error("the checksum is wrong: at least one character differs; copy the word again")]
    Checksum,
}

/// Parses what [`Invitation::text`] writes.
pub(crate) fn parse_invitation(text: &str) -> Result<Invitation, InvitationError> {
    let text = text.trim();
    if keys::parse_public_key(text).is_ok() {
        return Err(InvitationError::PublicKey);
    }
    if !looks_like_invitation(text) {
        return Err(InvitationError::Prefix);
    }
    match text.chars().count() {
        chars if chars < INVITATION_CHARS => return Err(InvitationError::TooShort(chars)),
        chars if chars > INVITATION_CHARS => return Err(InvitationError::TooLong(chars)),
        _ => {}
    }
    let bytes = keys::decode::<{ TOKEN_BYTES + KEY_BYTES }>(PREFIX, text).ok_or(InvitationError::Checksum)?;
    let (token, listener) = bytes.split_at(TOKEN_BYTES);
    match (token.try_into(), listener.try_into()) {
        (Ok(token), Ok(listener)) => {
            Ok(Invitation { token: PairingToken::from_bytes(token), listener: PublicKey(listener) })
        }
        _ => Err(InvitationError::Checksum),
    }
}

/// Whether `text` is meant to be an invitation.
pub(crate) fn looks_like_invitation(text: &str) -> bool {
    text.to_ascii_lowercase().starts_with("bwpair1")
}

impl Invitation {
    /// One word of letters and digits, with a checksum.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([&*self.token.to_bytes(), &self.listener.0[..]].concat());
        // Encoding fails only above 1,023 characters.
        Zeroizing::new(bech32::encode::<Bech32m>(PREFIX, &bytes).unwrap_or_default())
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation({})", self.token.id())
    }
}

/// What this host calls itself.
pub(crate) fn own_name() -> PeerName {
    #[cfg(unix)]
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let host = std::env::var("COMPUTERNAME").unwrap_or_default();
    PeerName::from_host(&host)
}

/// The connecting end: tells its name, and hears the listener's when that has written this end down.
pub(crate) async fn introduce(bond: &Bond) -> Result<PeerName, Failure> {
    let exchanged = async {
        let stream = bond
            .open_stream_with(Class::Interactive, PRIORITY, PAIR_LABEL)
            .await
            .map_err(|error| Refusal::Lost(std::io::Error::other(error)))?;
        let (mut reader, mut writer) = stream.split();
        send_name(&mut writer, &own_name()).await?;
        service::answer(&mut reader).await?;
        Ok(receive_name(&mut reader).await?)
    };
    exchanged.await.map_err(|error: Refusal| match error {
        Refusal::Refused { why, .. } => Failure::new(Exit::Refused, format!("the peer does not pair: {why}")),
        Refusal::Lost(error) => Failure::new(Exit::BondLost, format!("the pairing was cut short: {error}")),
    })
}

/// Sends a name and finishes.
pub(crate) async fn send_name(writer: &mut SendStream, name: &PeerName) -> std::io::Result<()> {
    let name = name.as_str().as_bytes();
    // A name has fewer than 256 characters.
    writer.write_u8(u8::try_from(name.len()).unwrap_or(u8::MAX)).await?;
    writer.write_all(name).await?;
    writer.shutdown().await
}

/// What a host says of itself, as a name that can be used here.
pub(crate) async fn receive_name(reader: &mut RecvStream) -> std::io::Result<PeerName> {
    let mut name = vec![0; usize::from(reader.read_u8().await?)];
    reader.read_exact(&mut name).await?;
    Ok(PeerName::from_host(&String::from_utf8_lossy(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation() -> Invitation {
        Invitation { token: PairingToken::from_bytes([3; 16]), listener: PublicKey([9; 32]) }
    }

    #[test]
    fn an_invitation_is_one_word_that_comes_back() {
        let text = invitation().text();
        assert_eq!(text.len(), INVITATION_CHARS);
        for shown in [text.to_string(), format!(" {}\n", text.to_ascii_uppercase())] {
            let again = parse_invitation(&shown).unwrap();
            assert_eq!((again.token.id(), again.listener), (invitation().token.id(), PublicKey([9; 32])));
        }
        assert!(!format!("{:?}", invitation()).contains(&text[8..20]));
    }

    #[test]
    fn every_bad_invitation_is_told_apart() {
        let text = invitation().text();
        let last = if text.ends_with('q') { 'p' } else { 'q' };
        let cases = [
            ("laptop".to_owned(), InvitationError::Prefix),
            (keys::public_key_text(&PublicKey([1; 32])), InvitationError::PublicKey),
            (text[..50].to_owned(), InvitationError::TooShort(50)),
            (format!("{}x", *text), InvitationError::TooLong(91)),
            (format!("{}{last}", &text[..89]), InvitationError::Checksum),
        ];
        for (text, error) in cases {
            assert_eq!(parse_invitation(&text).err(), Some(error), "{text}");
        }
    }
}
