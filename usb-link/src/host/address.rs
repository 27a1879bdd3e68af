use std::fmt;
use std::str::FromStr;

use super::Cable;

/// Which cables are meant: `[VENDOR:PRODUCT][,serial=TEXT][,port=PATH]`. Without anything it is every device with the
/// interface of this protocol.
///
/// ```
/// use bondwire_usb::host::UsbAddress;
/// let address: UsbAddress = "1d6b:0104,serial=board-7,port=1-2.3".parse()?;
/// assert_eq!((address.vendor_product, address.port.as_deref()), (Some((0x1d6b, 0x0104)), Some("1-2.3")));
/// assert_eq!(address.to_string(), "1d6b:0104,serial=board-7,port=1-2.3");
/// # Ok::<_, bondwire_usb::host::UsbAddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct UsbAddress {
    /// Numbers of the vendor and the product.
    pub vendor_product: Option<(u16, u16)>,
    /// Serial number of the device.
    pub serial: Option<String>,
    /// Where the device is plugged in: bus and ports on the way, as `bondwire devices` shows it.
    pub port: Option<String>,
}

/// Why a text is no [`UsbAddress`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsbAddressError {
    /// Something else than two numbers.
    #[error(
        "{0:?} is not VENDOR:PRODUCT in hexadecimal, for example 1d6b:0104; `bondwire devices` shows them"
    )]
    VendorProduct(String),
    /// A key that is not known here.
    #[error("unknown key {0:?}; usb: has serial and port")]
    UnknownKey(String),
    /// Something that is not `key=value`.
    #[error("{0:?} is not key=value; write usb:[VENDOR:PRODUCT][,serial=TEXT][,port=PATH]")]
    NotKeyValue(String),
    /// A path that cannot be one.
    #[error("{0:?} is no port; write bus-port.port, for example port=1-2.3; `bondwire devices` shows them")]
    Port(String),
}

impl UsbAddress {
    /// The keys that it may have.
    pub const KEYS: [&str; 2] = ["serial", "port"];

    /// Whether a cable is meant.
    pub fn matches(&self, cable: &Cable) -> bool {
        let is_vendor =
            self.vendor_product.is_none_or(|numbers| numbers == (cable.vendor_id, cable.product_id));
        let is_serial = self.serial.is_none() || self.serial == cable.serial;
        let is_port = self.port.as_ref().is_none_or(|port| *port == cable.port);
        // A device that is named need not have our class: its firmware may have a number of its own.
        let is_named = self.vendor_product.is_some() || self.serial.is_some() || self.port.is_some();
        is_vendor && is_serial && is_port && (cable.has_our_class || is_named)
    }
}

impl FromStr for UsbAddress {
    type Err = UsbAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let numbers = parts.next().filter(|numbers| !numbers.is_empty());
        let mut address =
            Self { vendor_product: numbers.map(vendor_product).transpose()?, ..Self::default() };
        for part in parts {
            let (key, value) =
                part.split_once('=').ok_or_else(|| UsbAddressError::NotKeyValue(part.to_owned()))?;
            match key {
                "serial" => address.serial = Some(value.to_owned()),
                "port" if is_port(value) => address.port = Some(value.to_owned()),
                "port" => return Err(UsbAddressError::Port(value.to_owned())),
                _ => return Err(UsbAddressError::UnknownKey(key.to_owned())),
            }
        }
        Ok(address)
    }
}

fn vendor_product(text: &str) -> Result<(u16, u16), UsbAddressError> {
    let number = |digits: &str| {
        let is_hex = (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
    };
    let numbers =
        text.split_once(':').and_then(|(vendor, product)| Some((number(vendor)?, number(product)?)));
    numbers.ok_or_else(|| UsbAddressError::VendorProduct(text.to_owned()))
}

/// Bus, then the port of each hub on the way. (The bus has a name elsewhere than on Linux.)
fn is_port(text: &str) -> bool {
    text.rsplit_once('-').is_some_and(|(bus, ports)| {
        !bus.is_empty() && ports.split('.').all(|port| port.parse::<u8>().is_ok())
    })
}

impl fmt::Display for UsbAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((vendor, product)) = self.vendor_product {
            write!(f, "{vendor:04x}:{product:04x}")?;
        }
        if let Some(serial) = &self.serial {
            write!(f, ",serial={serial}")?;
        }
        if let Some(port) = &self.port {
            write!(f, ",port={port}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hint;

    fn cable() -> Cable {
        Cable {
            vendor_id: 0x1d6b,
            product_id: 0x0104,
            serial: Some("7".into()),
            port: "3-1.2".into(),
            interface: 1,
            product: None,
            speed: None,
            hint: Hint::NONE,
            has_our_class: true,
            device: None,
        }
    }

    #[test]
    fn addresses_parse_and_print() {
        for text in ["", "1d6b:0104", ",serial=a b", "0001:ffff,serial=x,port=1-2", ",port=12-1.2.3.4"] {
            assert_eq!(text.parse::<UsbAddress>().unwrap().to_string(), text);
        }
        assert_eq!("1D6B:104".parse::<UsbAddress>().unwrap().to_string(), "1d6b:0104");
    }

    #[test]
    fn faults_are_named() {
        for (text, words) in [
            ("1d6b", "not VENDOR:PRODUCT"),
            ("1d6b:xyz", "not VENDOR:PRODUCT"),
            ("+1:2", "not VENDOR:PRODUCT"),
            ("10000:1", "not VENDOR:PRODUCT"),
            (",port=2", "no port"),
            (",port=1-x", "no port"),
            (",baud=1", "unknown key \"baud\""),
            (",serial", "not key=value"),
        ] {
            let message = text.parse::<UsbAddress>().unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_named_must_be_so() {
        let matches = |text: &str, cable: &Cable| text.parse::<UsbAddress>().unwrap().matches(cable);
        for text in ["", "1d6b:0104", ",serial=7", ",port=3-1.2", "1d6b:0104,serial=7,port=3-1.2"] {
            assert!(matches(text, &cable()), "{text}");
        }
        for text in ["1d6b:0105", ",serial=8", ",port=3-1", "1d6b:0104,serial=8"] {
            assert!(!matches(text, &cable()), "{text}");
        }
        let other_class = Cable { has_our_class: false, ..cable() };
        assert!(!matches("", &other_class), "not every device with an interface of some vendor");
        assert!(matches("1d6b:0104", &other_class) && matches(",serial=7", &other_class));
    }
}
