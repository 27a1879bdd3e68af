//! Serial ports that were opted in, by the serial numbers of their USB devices, as udev rules.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Longest serial number in bytes: what a USB string can have.
const LENGTH_MAX_BYTES: usize = 126;

/// Head of the file, before its version.
pub(super) const HEAD: &str = "\
# Serial ports that Bondwire may use, by the serial numbers of their USB devices:
# `bondwire udev install --serial NUMBER` adds one, --forget-serial NUMBER takes one out.
";
const BEFORE: &str = "SUBSYSTEM==\"tty\", SUBSYSTEMS==\"usb\", ENV{ID_SERIAL_SHORT}==\"";
const AFTER: &str = "\", ENV{BONDWIRE_ATTACH}=\"1\"";

/// All that were opted in.
pub(crate) type SerialNumbers = BTreeSet<SerialNumber>;

/// A serial number, as udev has it in ID_SERIAL_SHORT.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SerialNumber(String);

/// Why a text is no serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no serial number as udev has it: letters, digits and the signs # + - . : = @ _, at most {LENGTH_MAX_BYTES} of them; \
     `udevadm info --property=ID_SERIAL_SHORT /dev/ttyUSB0` prints it"
)]
pub(crate) struct SerialNumberError(String);

impl FromStr for SerialNumber {
    type Err = SerialNumberError;

    /// What is let in means nothing in a rule but itself: no quote, no pattern.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&b);
        let fits = (1..=LENGTH_MAX_BYTES).contains(&text.len());
        if fits && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(SerialNumberError(text.to_owned()))
        }
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A rule for each.
pub(super) fn rules(numbers: &SerialNumbers) -> String {
    numbers.iter().map(|number| format!("{BEFORE}{number}{AFTER}\n")).collect()
}

/// The serial numbers in the text of a file.
pub(crate) fn read(text: &str) -> SerialNumbers {
    let number = |line: &str| line.strip_prefix(BEFORE)?.strip_suffix(AFTER)?.parse().ok();
    text.lines().filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_from_their_rules() {
        let numbers: SerialNumbers = ["FT4X9Z1B", "0001:a.b", "7"].map(|text| text.parse().unwrap()).into();
        assert_eq!(read(&format!("{HEAD}{}", rules(&numbers))), numbers);
        assert_eq!(read("").len(), 0);
    }

    #[test]
    fn what_would_mean_more_than_itself_is_refused() {
        for text in ["", "A*", "A\"", "a b", "A|B", "[A]", "a?", "$env", "ü", "x\n", &"A".repeat(127)] {
            let error = text.parse::<SerialNumber>().unwrap_err().to_string();
            assert!(error.contains("udevadm info"), "{error}");
        }
    }
}
