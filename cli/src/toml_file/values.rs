//! Values in a TOML file that are written as on the command line, and read by the same parsers.

use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use bondwire::PublicKey;
use bondwire_tcp::limits::LINKS_PER_PATH_MAX;
use serde::{Deserialize, Deserializer};

use crate::keys;

/// A public key in the file.
pub(crate) struct Key(pub(crate) PublicKey);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        keys::parse_public_key(&text).map(Key).map_err(serde::de::Error::custom)
    }
}

/// A number of links over each path.
pub(crate) struct PerPath(pub(crate) u8);

impl<'de> Deserialize<'de> for PerPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        if (1..=LINKS_PER_PATH_MAX).contains(&number) {
            return Ok(Self(number));
        }
        let message = format!("a path has 1 to {LINKS_PER_PATH_MAX} links, not {number}");
        Err(serde::de::Error::custom(message))
    }
}

/// A value that is written as a string.
pub(crate) struct Text<T>(pub(crate) T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<T: FromStr<Err: Display>> serde::de::Visitor<'_> for Visitor<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<T>, E> {
                text.parse().map(Text).map_err(|error| E::custom(format!("{text:?}: {error}")))
            }
        }
        deserializer.deserialize_str(Visitor(PhantomData))
    }
}

pub(crate) fn texts<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<Text<T>>::deserialize(deserializer)?;
    Ok(texts.into_iter().map(|Text(value)| value).collect())
}

pub(crate) fn some_texts<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    texts(deserializer).map(Some)
}
