use std::fmt;
use std::str::FromStr;

use crate::limits::{BAUD_MAX, BAUD_RANGE, BAUD_START};

/// A serial port and how to use it: `PORT[,key=value…]`.
///
/// PORT is a path (`/dev/ttyUSB0`), a name below `/dev/serial/by-id`, or the serial number of a USB device.
///
/// | key | meaning |
/// |---|---|
/// | `baud` | the rate, for both directions; without it both ends begin at 115 200 and climb |
/// | `baud-max` | highest rate to climb to |
/// | `rtscts` | `on` for hardware flow control |
/// | `low-latency` | `off` leaves the adapter's own timer alone |
/// | `getty` | `stop` stops a login prompt on this port while the link uses it |
///
/// ```
/// use bondwire_serial::SerialAddress;
/// let address: SerialAddress = "/dev/ttyUSB0,baud=921600".parse()?;
/// assert_eq!((address.start_baud(), address.max_baud()), (921_600, 921_600));
/// assert_eq!("FT4X9Z1B".parse::<SerialAddress>()?.start_baud(), 115_200);
/// # Ok::<_, bondwire_serial::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialAddress {
    /// Path, by-id name or USB serial number.
    pub port: String,
    /// Fixed rate; `None` to climb.
    pub baud: Option<u32>,
    /// Highest rate to climb to.
    pub baud_max: Option<u32>,
    /// RTS/CTS flow control.
    pub rtscts: bool,
    /// Ask the driver not to hold received bytes back (`ASYNC_LOW_LATENCY`).
    pub low_latency: bool,
    /// Stop `serial-getty@` on this port while the link uses it, and start it again afterwards.
    pub stop_getty: bool,
}

/// What is wrong with the text of a [`SerialAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "serial port `{text}`: {fault}; the form is PORT[,baud=N,baud-max=N,rtscts=on,low-latency=off,getty=stop], as in /dev/ttyUSB0,baud=921600"
)]
pub struct AddressError {
    text: String,
    fault: String,
}

impl SerialAddress {
    /// Keys that an address can have.
    pub const KEYS: [&str; 5] = ["baud", "baud-max", "rtscts", "low-latency", "getty"];

    /// The port without options.
    pub fn new(port: impl Into<String>) -> Self {
        Self {
            port: port.into(),
            baud: None,
            baud_max: None,
            rtscts: false,
            low_latency: true,
            stop_getty: false,
        }
    }

    /// The device file that the port has at the moment, which need not be there if the port is given as a path.
    pub fn path(&self) -> Result<std::path::PathBuf, crate::PortError> {
        crate::discover::resolve(&self.port, &crate::discover::Places::default())
    }

    /// The rate at which it begins.
    pub fn start_baud(&self) -> u32 {
        self.baud.unwrap_or(BAUD_START)
    }

    /// The highest rate that it may reach.
    pub fn max_baud(&self) -> u32 {
        self.baud.or(self.baud_max).unwrap_or(BAUD_MAX).max(self.start_baud())
    }

    fn set(&mut self, option: &str) -> Result<(), String> {
        let (key, value) = option.split_once('=').ok_or_else(|| format!("`{option}` is not KEY=VALUE"))?;
        let value = value.trim();
        match key.trim() {
            "baud" => self.baud = Some(parse_baud(value)?),
            "baud-max" => self.baud_max = Some(parse_baud(value)?),
            "rtscts" => self.rtscts = parse_switch(key, value)?,
            "low-latency" => self.low_latency = parse_switch(key, value)?,
            "getty" if value == "stop" => self.stop_getty = true,
            "getty" => return Err(format!("getty={value} is not known; getty=stop is")),
            other => return Err(format!("unknown key `{other}`, known are {}", Self::KEYS.join(", "))),
        }
        Ok(())
    }
}

fn parse_baud(value: &str) -> Result<u32, String> {
    value.parse().ok().filter(|baud| BAUD_RANGE.contains(baud)).ok_or_else(|| {
        format!("`{value}` is no baud rate from {} to {}", BAUD_RANGE.start(), BAUD_RANGE.end())
    })
}

fn parse_switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{key}={value} is neither on nor off")),
    }
}

impl FromStr for SerialAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).map_err(|fault| AddressError { text: text.to_owned(), fault })
    }
}

fn parse(text: &str) -> Result<SerialAddress, String> {
    let mut parts = text.split(',');
    let port = parts.next().unwrap_or_default().trim();
    if port.is_empty() {
        return Err("the port is missing".to_owned());
    }
    if port.contains(char::is_whitespace) {
        return Err("a space in the port's name".to_owned());
    }
    let mut address = SerialAddress::new(port);
    parts.try_for_each(|option| address.set(option))?;
    if address.baud.is_some() && address.baud_max.is_some() {
        return Err(
            "baud= is a fixed rate, so baud-max= means nothing beside it; keep one of them".to_owned()
        );
    }
    Ok(address)
}

impl fmt::Display for SerialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.port)?;
        if let Some(baud) = self.baud {
            write!(f, ",baud={baud}")?;
        }
        if let Some(max) = self.baud_max {
            write!(f, ",baud-max={max}")?;
        }
        if self.rtscts {
            f.write_str(",rtscts=on")?;
        }
        if !self.low_latency {
            f.write_str(",low-latency=off")?;
        }
        if self.stop_getty {
            f.write_str(",getty=stop")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_survive_the_way_there_and_back() {
        for text in [
            "/dev/ttyUSB0",
            "/dev/ttyS1,baud=9600",
            "usb-FTDI_FT232R_A50285BI-if00-port0,baud-max=1000000,rtscts=on",
            "A50285BI,low-latency=off,getty=stop",
        ] {
            assert_eq!(text.parse::<SerialAddress>().unwrap().to_string(), text);
        }
        let address: SerialAddress = "x,baud-max=57600".parse().unwrap();
        assert_eq!((address.start_baud(), address.max_baud()), (115_200, 115_200));
    }

    #[test]
    fn bad_addresses_get_one_line_with_the_fault_and_the_form() {
        for (text, fault) in [
            ("", "the port is missing"),
            (",baud=9600", "the port is missing"),
            ("/dev/tty USB0", "a space"),
            ("/dev/ttyUSB0,baud", "`baud` is not KEY=VALUE"),
            ("/dev/ttyUSB0,baud=fast", "`fast` is no baud rate"),
            ("/dev/ttyUSB0,baud=0", "`0` is no baud rate"),
            ("/dev/ttyUSB0,baud=99999999", "no baud rate from 1200 to 24000000"),
            ("/dev/ttyUSB0,rtscts=yes", "neither on nor off"),
            ("/dev/ttyUSB0,getty=kill", "getty=stop is"),
            ("/dev/ttyUSB0,parity=even", "unknown key `parity`"),
            ("/dev/ttyUSB0,baud=9600,baud-max=115200", "keep one of them"),
        ] {
            let message = text.parse::<SerialAddress>().unwrap_err().to_string();
            assert!(message.contains(fault) && message.contains("the form is PORT"), "{text}: {message}");
        }
    }
}
