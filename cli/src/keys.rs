//! Keys as text: the private key file, and the public key as one word to paste.
//!
//! Both are Bech32m words (BIP 350): letters and digits only, so a double click selects all of it, with a checksum that
//! finds up to four wrong characters. The prefix tells a public key from a private one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bech32::primitives::decode::{CheckedHrpstring, UncheckedHrpstring};
use bech32::{Bech32m, Hrp};
use bondwire::{Identity, PublicKey};
use etcetera::BaseStrategy;
use zeroize::Zeroizing;

use crate::failure::Failure;

const PUBLIC_PREFIX: Hrp = Hrp::parse_unchecked("bwpub");
const SECRET_PREFIX: Hrp = Hrp::parse_unchecked("bwsecret");
const KEY_BYTES: usize = 32;
/// Characters of a public key's text: prefix, separator, 52 of data, 6 of checksum.
const PUBLIC_KEY_CHARS: usize = 64;
/// Characters of a public key in the log.
const SHORT_KEY_CHARS: usize = 14;
/// A key file is two lines; anything larger is some other file.
const KEY_FILE_MAX_BYTES: u64 = 4096;

/// What is wrong with the text of a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublicKeyError {
    #[error("no public key; it is one word that starts with bwpub1")]
    Empty,
    #[error("this is a PRIVATE key: keep it secret, and give the word that `bondwire pubkey` prints")]
    Private,
    #[error("this is a file name; give the word that `bondwire pubkey FILE` prints")]
    File,
    #[error("a public key starts with bwpub1; `bondwire pubkey` prints it")]
    Prefix,
    #[error("too short: {0} of {PUBLIC_KEY_CHARS} characters; copy the whole word")]
    TooShort(usize),
    #[error("too long: {0} characters, a public key has {PUBLIC_KEY_CHARS}; copy one word only")]
    TooLong(usize),
    #[error("the checksum is wrong: at least one character differs; copy the word again")]
    Checksum,
}

/// Parses what [`public_key_text`] writes.
pub(crate) fn parse_public_key(text: &str) -> Result<PublicKey, PublicKeyError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(PublicKeyError::Empty);
    }
    let lower = text.to_ascii_lowercase();
    if lower.starts_with(SECRET_PREFIX.as_str()) {
        return Err(PublicKeyError::Private);
    }
    if !lower.starts_with(&format!("{PUBLIC_PREFIX}1")) {
        return Err(if Path::new(text).exists() { PublicKeyError::File } else { PublicKeyError::Prefix });
    }
    match text.chars().count() {
        chars if chars < PUBLIC_KEY_CHARS => return Err(PublicKeyError::TooShort(chars)),
        chars if chars > PUBLIC_KEY_CHARS => return Err(PublicKeyError::TooLong(chars)),
        _ => {}
    }
    decode::<KEY_BYTES>(PUBLIC_PREFIX, text).map(|bytes| PublicKey(*bytes)).ok_or(PublicKeyError::Checksum)
}

/// The public key as one word.
pub(crate) fn public_key_text(key: &PublicKey) -> String {
    // Encoding fails only above 1,023 characters.
    bech32::encode::<Bech32m>(PUBLIC_PREFIX, &key.0).unwrap_or_default()
}

/// Enough of a public key to tell peers apart in the log: the prefix and eight more characters.
pub(crate) fn short_key_text(key: &PublicKey) -> String {
    public_key_text(key).chars().take(SHORT_KEY_CHARS).collect()
}

/// The key file that commands use when none is named: `bondwire/key` in the user's configuration folder.
pub(crate) fn default_path() -> Result<PathBuf, Failure> {
    etcetera::choose_base_strategy()
        .map(|folders| folders.config_dir().join("bondwire").join("key"))
        .map_err(|_| Failure::configuration("no home folder, so no place for a key; name a file"))
}

/// The key of a command: that of `file` if one is named, else the default one, which is made when it is missing.
pub(crate) fn load_or_make(file: Option<&Path>) -> Result<Identity, Failure> {
    match file {
        Some(file) => load(file),
        None => load_or_make_at(&default_path()?),
    }
}

/// The same for a command that makes a key where one is named, too: one that pairs, so that nobody knows a key yet.
pub(crate) fn load_or_make_for_pairing(file: Option<&Path>) -> Result<Identity, Failure> {
    match file {
        Some(file) => load_or_make_at(file),
        None => load_or_make_at(&default_path()?),
    }
}

fn load_or_make_at(file: &Path) -> Result<Identity, Failure> {
    match make(file, false) {
        Ok(identity) => {
            tracing::info!("made the key {}", file.display());
            Ok(identity)
        }
        Err(MakeError::Exists) => load(file),
        Err(error) => Err(error.about(file)),
    }
}

/// Reads a private key file, unless others could have read it too.
pub(crate) fn load(path: &Path) -> Result<Identity, Failure> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::configuration(format!("no key file {shown}; make it with: bondwire keygen -o {shown}"))
        }
        _ => Failure::configuration(format!("cannot open the key file {shown}: {error}")),
    })?;
    let unreadable = |error| Failure::configuration(format!("cannot read the key file {shown}: {error}"));
    check_permissions(path, &file.metadata().map_err(unreadable)?)?;
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_FILE_MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    parse_file(&text).map_err(|what| {
        Failure::configuration(format!(
            "{shown} is not a private key file: {what}; bondwire keygen makes one"
        ))
    })
}

/// Makes a new private key file with mode 0600 and its folder with mode 0700.
///
/// The file appears complete or not at all, and of two programs that make it at once, one gets [`MakeError::Exists`].
pub(crate) fn make(path: &Path, replace: bool) -> Result<Identity, MakeError> {
    if !replace && path.try_exists()? {
        return Err(MakeError::Exists);
    }
    let folder = folder_of(path);
    make_folder(folder)?;
    let identity = Identity::generate().map_err(io::Error::other)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(file_text(&identity).as_bytes())?;
    file.as_file().sync_all()?;
    let persisted = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    match persisted {
        Ok(_) => Ok(identity),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(MakeError::Exists),
        Err(error) => Err(error.error.into()),
    }
}

/// Why no key file was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error("it exists already; --force replaces it, and peers that know the old key must learn the new one")]
    Exists,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl MakeError {
    pub(crate) fn about(&self, path: &Path) -> Failure {
        Failure::configuration(format!("cannot make the key file {}: {self}", path.display()))
    }
}

fn file_text(identity: &Identity) -> Zeroizing<String> {
    let secret = bech32::encode_upper::<Bech32m>(SECRET_PREFIX, &*identity.to_bytes()).unwrap_or_default();
    let secret = Zeroizing::new(secret);
    let public = public_key_text(&identity.public_key());
    Zeroizing::new(format!(
        "# Private key of Bondwire: keep it secret. Its public key is {public}\n{}\n",
        *secret
    ))
}

fn parse_file(text: &str) -> Result<Identity, &'static str> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(word), None) = (lines.next(), lines.next()) else {
        return Err("it must hold one line besides comments");
    };
    if word.to_ascii_lowercase().starts_with(PUBLIC_PREFIX.as_str()) {
        return Err("it holds a public key");
    }
    match decode::<KEY_BYTES>(SECRET_PREFIX, word) {
        Some(bytes) => Ok(Identity::from_bytes(*bytes)),
        None if UncheckedHrpstring::new(word).is_ok() => Err("its checksum or length is wrong"),
        None => Err("its line is no key"),
    }
}

/// The bytes of a Bech32m word with the given prefix.
pub(crate) fn decode<const N: usize>(prefix: Hrp, word: &str) -> Option<Zeroizing<[u8; N]>> {
    let checked = CheckedHrpstring::new::<Bech32m>(word).ok()?;
    if checked.hrp() != prefix || checked.byte_iter().count() != N {
        return None;
    }
    let mut bytes = Zeroizing::new([0; N]);
    bytes.iter_mut().zip(checked.byte_iter()).for_each(|(to, from)| *to = from);
    Some(bytes)
}

#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &fs::Metadata) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let shown = path.display();
    Err(Failure::configuration(format!(
        "the key file {shown} has mode {mode:04o}, so others may know the key; run: chmod 600 {shown}"
    )))
}

#[cfg(not(unix))]
fn check_permissions(_path: &Path, _metadata: &fs::Metadata) -> Result<(), Failure> {
    Ok(())
}

/// The folder that a file is or will be in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a folder that is private to its user, unless it is there.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_64_characters_and_comes_back() {
        let key = Identity::generate().unwrap().public_key();
        let text = public_key_text(&key);
        assert_eq!(text.len(), PUBLIC_KEY_CHARS);
        assert_eq!(parse_public_key(&text), Ok(key));
        assert_eq!(parse_public_key(&format!(" {}\n", text.to_ascii_uppercase())), Ok(key));
    }

    #[test]
    fn every_bad_public_key_is_told_apart() {
        let identity = Identity::generate().unwrap();
        let text = public_key_text(&identity.public_key());
        let last = if text.ends_with('q') { 'p' } else { 'q' };
        let secret = file_text(&identity).lines().nth(1).unwrap().to_owned();
        let cases = [
            (String::new(), PublicKeyError::Empty),
            (secret, PublicKeyError::Private),
            ("Cargo.toml".to_owned(), PublicKeyError::File),
            ("ssh-ed25519".to_owned(), PublicKeyError::Prefix),
            (text[..60].to_owned(), PublicKeyError::TooShort(60)),
            (format!("{text}{text}"), PublicKeyError::TooLong(128)),
            (format!("{}{last}", &text[..63]), PublicKeyError::Checksum),
            (format!("{}ß", &text[..63]), PublicKeyError::Checksum),
        ];
        for (text, error) in cases {
            assert_eq!(parse_public_key(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_key_file_is_private_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub").join("key");
        let made = make(&path, false).unwrap();
        assert_eq!(load(&path).unwrap().public_key(), made.public_key());
        assert!(matches!(make(&path, false), Err(MakeError::Exists)));
        let replaced = make(&path, true).unwrap();
        assert_ne!(replaced.public_key(), made.public_key());
        assert_eq!(load(&path).unwrap().public_key(), replaced.public_key());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        make(&path, false).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let message = load(&path).err().unwrap().to_string();
        assert!(message.contains("mode 0640") && message.contains("chmod 600"), "{message}");
    }

    #[test]
    fn damaged_key_files_are_explained() {
        let identity = Identity::generate().unwrap();
        let good = file_text(&identity);
        let word = good.lines().nth(1).unwrap();
        let cases = [
            (String::new(), "one line"),
            (format!("{word}\n{word}\n"), "one line"),
            (public_key_text(&identity.public_key()), "a public key"),
            (word[..40].to_owned(), "checksum or length"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), "no key"),
        ];
        for (text, part) in cases {
            let message = parse_file(&text).err().unwrap();
            assert!(message.contains(part), "{text}: {message}");
        }
        assert_eq!(parse_file(&good).unwrap().public_key(), identity.public_key());
    }
}
