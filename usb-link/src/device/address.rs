use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What else a gadget offers beside the link, each by a function of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Companion {
    /// A serial port: `ttyACM0` at the host, `ttyGS0` here.
    Acm,
    /// A network interface, the fast kind: `usb0` at both ends.
    Ncm,
    /// A network interface, the kind that old hosts know.
    Ecm,
    /// A network interface for old Windows.
    Rndis,
}

impl Companion {
    const ALL: [Self; 4] = [Self::Acm, Self::Ncm, Self::Ecm, Self::Rndis];

    /// The name that the kernel knows it by.
    fn name(self) -> &'static str {
        match self {
            Self::Acm => "acm",
            Self::Ncm => "ncm",
            Self::Ecm => "ecm",
            Self::Rndis => "rndis",
        }
    }

    /// The kernel's module.
    pub(super) fn module(self) -> &'static str {
        match self {
            Self::Acm => "usb_f_acm",
            Self::Ncm => "usb_f_ncm",
            Self::Ecm => "usb_f_ecm",
            Self::Rndis => "usb_f_rndis",
        }
    }
}

impl fmt::Display for Companion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Highest speed that a gadget offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaxSpeed {
    /// 12 Mbit/s.
    Full,
    /// 480 Mbit/s.
    High,
    /// 5 Gbit/s.
    Super,
}

impl MaxSpeed {
    const ALL: [Self; 3] = [Self::Full, Self::High, Self::Super];

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::High => "high",
            Self::Super => "super",
        }
    }

    /// Its name in configfs.
    pub(super) fn kernel_name(self) -> &'static str {
        match self {
            Self::Full => "full-speed",
            Self::High => "high-speed",
            Self::Super => "super-speed",
        }
    }
}

/// Which controllers serve links, and how: `[UDC][,with=acm+ncm][,serial=TEXT][,speed=high]`, or `,ffs=FOLDER`.
///
/// ```
/// use bondwire_usb::device::{Companion, GadgetAddress};
/// let address: GadgetAddress = "fe980000.usb,with=acm+ncm".parse()?;
/// assert_eq!(address.controller.as_deref(), Some("fe980000.usb"));
/// assert_eq!(address.with, [Companion::Acm, Companion::Ncm]);
/// assert_eq!(address.to_string(), "fe980000.usb,with=acm+ncm");
/// # Ok::<_, bondwire_usb::device::GadgetAddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GadgetAddress {
    /// The controller's name, as in `/sys/class/udc`; every free one if there is none.
    pub controller: Option<String>,
    /// What else the gadget offers.
    pub with: Vec<Companion>,
    /// Serial number that hosts see.
    pub serial: Option<String>,
    /// Highest speed that it offers.
    pub max_speed: Option<MaxSpeed>,
    /// A folder where FunctionFS is mounted for Bondwire, in a gadget that somebody else sets up.
    pub functionfs: Option<PathBuf>,
}

/// Why a text is no [`GadgetAddress`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GadgetAddressError {
    /// A key that is not known here.
    #[error("unknown key {0:?}; gadget: has with, serial, speed, ffs")]
    UnknownKey(String),
    /// Something that is not `key=value`.
    #[error("{0:?} is not key=value; write gadget:[CONTROLLER][,with=acm+ncm]")]
    NotKeyValue(String),
    /// A function that is not known here.
    #[error("unknown function {0:?} in with=; there are acm, ncm, ecm and rndis, for example with=acm+ncm")]
    UnknownFunction(String),
    /// The same function twice.
    #[error("function {0} stands in with= twice; once is enough")]
    RepeatedFunction(Companion),
    /// A speed that is not known here.
    #[error("unknown speed {0:?}; there are full, high and super")]
    UnknownSpeed(String),
    /// A controller's name with a slash.
    #[error("{0:?} is no name of a controller; `ls /sys/class/udc` shows them")]
    BadController(String),
    /// Both kinds of set-up.
    #[error("ffs= names a gadget that somebody else sets up; leave out the controller and the other keys")]
    FolderAndMore,
}

impl GadgetAddress {
    /// The keys that it may have.
    pub const KEYS: [&str; 4] = ["with", "serial", "speed", "ffs"];
}

impl FromStr for GadgetAddress {
    type Err = GadgetAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let controller = parts.next().filter(|name| !name.is_empty()).map(str::to_owned);
        if let Some(bad) = controller.as_ref().filter(|name| name.contains('/') || name.starts_with('.')) {
            return Err(GadgetAddressError::BadController(bad.clone()));
        }
        let mut address = Self { controller, ..Self::default() };
        for part in parts {
            let (key, value) =
                part.split_once('=').ok_or_else(|| GadgetAddressError::NotKeyValue(part.to_owned()))?;
            match key {
                "with" => address.with = companions(value)?,
                "serial" => address.serial = Some(value.to_owned()),
                "speed" => {
                    let speed = MaxSpeed::ALL.into_iter().find(|speed| speed.name() == value);
                    let speed = speed.ok_or_else(|| GadgetAddressError::UnknownSpeed(value.to_owned()))?;
                    address.max_speed = Some(speed);
                }
                "ffs" => address.functionfs = Some(value.into()),
                _ => return Err(GadgetAddressError::UnknownKey(key.to_owned())),
            }
        }
        let folder_alone = Self { functionfs: address.functionfs.clone(), ..Self::default() };
        if address.functionfs.is_some() && address != folder_alone {
            return Err(GadgetAddressError::FolderAndMore);
        }
        Ok(address)
    }
}

fn companions(text: &str) -> Result<Vec<Companion>, GadgetAddressError> {
    let mut with = Vec::new();
    for name in text.split('+') {
        let companion = Companion::ALL.into_iter().find(|companion| companion.name() == name);
        let companion = companion.ok_or_else(|| GadgetAddressError::UnknownFunction(name.to_owned()))?;
        if with.contains(&companion) {
            return Err(GadgetAddressError::RepeatedFunction(companion));
        }
        with.push(companion);
    }
    Ok(with)
}

impl fmt::Display for GadgetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.controller.as_deref().unwrap_or_default())?;
        for (index, companion) in self.with.iter().enumerate() {
            write!(f, "{}{companion}", if index == 0 { ",with=" } else { "+" })?;
        }
        if let Some(serial) = &self.serial {
            write!(f, ",serial={serial}")?;
        }
        if let Some(speed) = self.max_speed {
            write!(f, ",speed={}", speed.name())?;
        }
        if let Some(folder) = &self.functionfs {
            write!(f, ",ffs={}", folder.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_and_print() {
        for text in [
            "",
            "fe980000.usb",
            "dummy_udc.0,with=ncm,serial=42,speed=full",
            ",with=acm+ncm+ecm+rndis",
            ",ffs=/dev/ffs",
        ] {
            let address: GadgetAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn faults_are_named() {
        for (text, words) in [
            (",with=uvc", "there are acm"),
            (",with=acm+acm", "twice"),
            (",speed=fast", "full, high and super"),
            (",baud=3", "unknown key \"baud\""),
            (",ncm", "not key=value"),
            ("../../x", "no name of a controller"),
            ("usb0,ffs=/dev/ffs", "leave out"),
            (",ffs=/dev/ffs,with=acm", "leave out"),
        ] {
            let message = text.parse::<GadgetAddress>().unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
