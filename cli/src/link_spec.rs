//! LINK arguments: `KIND:ADDRESS[,key=value…]`.

use std::fmt;
use std::str::FromStr;

use bondwire_tcp::AddressError;

use crate::link_options::{KEYS as COMMON_KEYS, LinkOptionError, LinkOptions};
use crate::medium::{CommandLine, CommandLineError, Medium};
use crate::ssh::SshTargetError;

/// Keys of `tcp:` links.
const TCP_KEYS: [&str; 3] = ["iface", "source", "cc"];
/// Kinds that other systems have.
#[cfg(target_os = "linux")]
const KINDS_TO_COME: [&str; 0] = [];
#[cfg(all(unix, not(target_os = "linux")))]
const KINDS_TO_COME: [&str; 1] = ["gadget"];
#[cfg(not(unix))]
const KINDS_TO_COME: [&str; 2] = ["gadget", "serial"];
/// The right form of a link, for error messages.
const FORM: &str = "tcp:HOST[:PORT][,key=value...]";
/// The right form of the other kinds.
const OTHER_FORMS: &str =
    "usb:[VENDOR:PRODUCT], gadget:[CONTROLLER], serial:PORT[,baud=N], stdio: or exec:COMMAND";

/// One link of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkSpec {
    /// What the user wrote, for messages.
    text: String,
    /// Where it leads, with the options of its kind.
    pub(crate) medium: Medium,
    /// What it is to be used for.
    pub(crate) options: LinkOptions,
}

/// What is wrong with a LINK argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkSpecError {
    #[error("no kind of link; write {FORM}, for example tcp:{0}")]
    NoKind(String),
    #[error("unknown kind of link {0:?}; write {FORM}, {OTHER_FORMS}")]
    UnknownKind(String),
    #[error("{0} links do not exist on this system; write {FORM}, {OTHER_FORMS}")]
    KindToCome(&'static str),
    #[error("no address; write {FORM}, for example tcp:192.0.2.1:7700")]
    NoAddress,
    #[error("a space in the address; write {FORM}, and quote nothing inside it")]
    Space,
    #[error("{0:?} is not key=value; write {FORM}")]
    NotKeyValue(String),
    #[error("unknown key {key:?}{}; {kind} links have {}", nearest_hint(.nearest), .known.join(", "))]
    UnknownKey { key: String, nearest: Option<&'static str>, kind: &'static str, known: Vec<&'static str> },
    #[error("key {0} stands there twice; keep one of them")]
    RepeatedKey(String),
    #[error("{0}= has no value; write {0}=VALUE")]
    EmptyValue(String),
    #[error(transparent)]
    Option(#[from] LinkOptionError),
    #[error("stdio: has no address; write stdio: or stdio:,policy=backup")]
    StdioAddress,
    #[error(transparent)]
    Tcp(#[from] AddressError),
    #[cfg(unix)]
    #[error(transparent)]
    Serial(#[from] bondwire_serial::AddressError),
    #[error(transparent)]
    Usb(#[from] bondwire_usb::host::UsbAddressError),
    #[error("no address; write usb: for every cable, or usb:VENDOR:PRODUCT; `bondwire devices` lists them")]
    NoUsb,
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Gadget(#[from] bondwire_usb::device::GadgetAddressError),
    #[error("no address; write gadget: for every free controller; `bondwire devices` lists them")]
    NoGadget,
    #[error(
        "no port; write serial:PORT[,baud=N], for example serial:/dev/ttyUSB0; `bondwire devices` lists ports"
    )]
    NoPort,
    #[error(transparent)]
    Exec(#[from] CommandLineError),
    #[error(transparent)]
    Ssh(#[from] SshTargetError),
}

impl FromStr for LinkSpec {
    type Err = LinkSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = split_kind(text)?;
        let (address, options) = match kind {
            Kind::Exec => split_command(rest),
            Kind::Tcp | Kind::Usb | Kind::Gadget | Kind::Serial | Kind::Stdio => match rest.split_once(',') {
                Some((address, options)) => (address, Some(options)),
                None => (rest, None),
            },
        };
        if kind == Kind::Tcp && rest.contains(char::is_whitespace) {
            return Err(LinkSpecError::Space);
        }
        if kind == Kind::Tcp && address.is_empty() {
            return Err(LinkSpecError::NoAddress);
        }
        let options = Options::parse(kind, options)?;
        let own = || [&[address], options.own.as_slice()].concat().join(",");
        let medium = match kind {
            Kind::Tcp => Medium::Tcp(own().parse()?),
            Kind::Usb => Medium::Usb(own().parse()?),
            #[cfg(target_os = "linux")]
            Kind::Gadget => Medium::Gadget(own().parse()?),
            #[cfg(not(target_os = "linux"))]
            Kind::Gadget => return Err(LinkSpecError::KindToCome("gadget")),
            #[cfg(unix)]
            Kind::Serial if address.is_empty() => return Err(LinkSpecError::NoPort),
            #[cfg(unix)]
            Kind::Serial => Medium::Serial(own().parse()?),
            #[cfg(not(unix))]
            Kind::Serial => return Err(LinkSpecError::KindToCome("serial")),
            Kind::Stdio if address.is_empty() => Medium::Stdio,
            Kind::Stdio => return Err(LinkSpecError::StdioAddress),
            Kind::Exec => Medium::Exec(address.parse::<CommandLine>()?),
        };
        Ok(Self { text: text.to_owned(), medium, options: options.common })
    }
}

impl LinkSpec {
    /// Whether it is standard input and output.
    pub(crate) fn is_stdio(&self) -> bool {
        self.medium == Medium::Stdio
    }
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The kinds of links, as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Usb,
    Gadget,
    Serial,
    Stdio,
    Exec,
}

impl Kind {
    #[cfg(target_os = "linux")]
    const ALL: [Self; 6] = [Self::Tcp, Self::Usb, Self::Gadget, Self::Serial, Self::Stdio, Self::Exec];
    #[cfg(all(unix, not(target_os = "linux")))]
    const ALL: [Self; 5] = [Self::Tcp, Self::Usb, Self::Serial, Self::Stdio, Self::Exec];
    #[cfg(not(unix))]
    const ALL: [Self; 4] = [Self::Tcp, Self::Usb, Self::Stdio, Self::Exec];

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Usb => "usb",
            Self::Gadget => "gadget",
            Self::Serial => "serial",
            Self::Stdio => "stdio",
            Self::Exec => "exec",
        }
    }

    /// Keys that only this kind has.
    fn own_keys(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &TCP_KEYS,
            Self::Usb => &bondwire_usb::host::UsbAddress::KEYS,
            #[cfg(target_os = "linux")]
            Self::Gadget => &bondwire_usb::device::GadgetAddress::KEYS,
            #[cfg(not(target_os = "linux"))]
            Self::Gadget => &[],
            #[cfg(unix)]
            Self::Serial => &bondwire_serial::SerialAddress::KEYS,
            #[cfg(not(unix))]
            Self::Serial => &[],
            Self::Stdio | Self::Exec => &[],
        }
    }

    fn keys(self) -> Vec<&'static str> {
        [self.own_keys(), &COMMON_KEYS].concat()
    }
}

/// The options of a link.
#[derive(Default)]
struct Options<'a> {
    common: LinkOptions,
    /// Those of its kind, as they stand.
    own: Vec<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(kind: Kind, text: Option<&'a str>) -> Result<Self, LinkSpecError> {
        let mut options = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for part in text.into_iter().flat_map(|text| text.split(',')) {
            let (key, value) = key_value(kind, part)?;
            if seen.contains(&key) {
                return Err(LinkSpecError::RepeatedKey(key.to_owned()));
            }
            seen.push(key);
            if COMMON_KEYS.contains(&key) {
                options.common.set(key, value)?;
            } else {
                options.own.push(part);
            }
        }
        options.common.check()?;
        Ok(options)
    }
}

/// Takes `tcp:` or `tcp://` off, and explains what else stands there.
fn split_kind(text: &str) -> Result<(Kind, &str), LinkSpecError> {
    let Some((kind, rest)) = text.split_once(':') else {
        return Err(match known_kind(text) {
            Some(Ok(Kind::Exec)) => CommandLineError::Empty.into(),
            Some(Ok(Kind::Stdio)) => LinkSpecError::StdioAddress,
            Some(Ok(Kind::Tcp)) => LinkSpecError::NoAddress,
            Some(Ok(Kind::Serial)) => LinkSpecError::NoPort,
            Some(Ok(Kind::Usb)) => LinkSpecError::NoUsb,
            Some(Ok(Kind::Gadget)) => LinkSpecError::NoGadget,
            Some(Err(to_come)) => to_come,
            None => LinkSpecError::NoKind(text.to_owned()),
        });
    };
    match known_kind(kind) {
        // The command of `exec:` may begin with anything.
        Some(Ok(Kind::Exec)) => Ok((Kind::Exec, rest)),
        // Of `serial:///dev/ttyUSB0` the path keeps its slash.
        Some(Ok(kind)) => Ok((kind, rest.strip_prefix("//").unwrap_or(rest))),
        Some(Err(to_come)) => Err(to_come),
        // `10.0.0.1:7700` and `[fe80::1]:7700` lack the kind; `udp:10.0.0.1` names a strange one.
        None if kind.contains(['.', '[']) || kind == "localhost" || kind.is_empty() => {
            Err(LinkSpecError::NoKind(text.trim_start_matches(':').to_owned()))
        }
        None => Err(LinkSpecError::UnknownKind(kind.to_owned())),
    }
}

/// Whether `text` names a kind of link.
pub(crate) fn is_kind(text: &str) -> bool {
    known_kind(text).is_some() || text.eq_ignore_ascii_case("ssh")
}

fn known_kind(kind: &str) -> Option<Result<Kind, LinkSpecError>> {
    if let Some(known) = Kind::ALL.into_iter().find(|known| kind.eq_ignore_ascii_case(known.name())) {
        return Some(Ok(known));
    }
    let to_come = KINDS_TO_COME.into_iter().find(|known| kind.eq_ignore_ascii_case(known))?;
    Some(Err(LinkSpecError::KindToCome(to_come)))
}

/// Splits the options off a command. Commands may hold commas, so only known keys at the very end are options.
fn split_command(text: &str) -> (&str, Option<&str>) {
    let is_option = |part: &str| part.split_once('=').is_some_and(|(key, _)| COMMON_KEYS.contains(&key));
    let mut command = text;
    while let Some((before, part)) = command.rsplit_once(',')
        && is_option(part)
    {
        command = before;
    }
    (command, text[command.len()..].strip_prefix(','))
}

fn key_value(kind: Kind, part: &str) -> Result<(&str, &str), LinkSpecError> {
    let Some((key, value)) = part.split_once('=') else {
        return Err(LinkSpecError::NotKeyValue(part.to_owned()));
    };
    let known = kind.keys();
    if !known.contains(&key) {
        let (key, nearest) = (key.to_owned(), nearest(key, &known));
        return Err(LinkSpecError::UnknownKey { key, nearest, kind: kind.name(), known });
    }
    if value.is_empty() {
        return Err(LinkSpecError::EmptyValue(key.to_owned()));
    }
    Ok((key, value))
}

/// The valid key that `key` was likely meant to be.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let likeness = |known: &str| strsim::jaro_winkler(known, &key.to_ascii_lowercase());
    let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.6).then_some(best)
}

fn nearest_hint(nearest: &Option<&'static str>) -> String {
    nearest.map(|key| format!("; did you mean {key:?}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bondwire::Policy;
    use bondwire_tcp::TcpAddress;

    use super::*;

    fn tcp(link: &LinkSpec) -> &TcpAddress {
        match &link.medium {
            Medium::Tcp(address) => address,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_and_pipes_parse() {
        let exec = |text: &str| {
            let link: LinkSpec = text.parse().unwrap();
            match link.medium {
                Medium::Exec(command) => (command.words().join("|"), link.options.policy.usage),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(exec("exec:ssh host nc a 7700"), ("ssh|host|nc|a|7700".to_owned(), Policy::Active));
        assert_eq!(exec("exec:nc 'a b' \"c,d\",policy=backup"), ("nc|a b|c,d".to_owned(), Policy::Backup));
        assert_eq!(exec("exec:dd of=x,oflag=direct"), ("dd|of=x,oflag=direct".to_owned(), Policy::Active));
        assert_eq!(exec("exec://opt/tool").0, "//opt/tool");
        for text in ["stdio:", "STDIO:", "stdio://"] {
            assert_eq!(text.parse::<LinkSpec>().unwrap().medium, Medium::Stdio);
        }
        assert_eq!("stdio:,policy=paused".parse::<LinkSpec>().unwrap().options.policy.usage, Policy::Paused);
    }

    #[test]
    fn links_parse() {
        let link: LinkSpec = "tcp:192.0.2.1:7700,iface=eth0,policy=backup,cc=bbr".parse().unwrap();
        assert_eq!(tcp(&link).to_string(), "192.0.2.1:7700,iface=eth0,cc=bbr");
        assert_eq!(link.options.policy.usage, Policy::Backup);
        assert_eq!(link.to_string(), "tcp:192.0.2.1:7700,iface=eth0,policy=backup,cc=bbr");
        for same in ["tcp:[2001:db8::1]:7700", "tcp://[2001:db8::1]:7700", "TCP:[2001:db8::1]:7700"] {
            assert_eq!(tcp(&same.parse().unwrap()).to_string(), "[2001:db8::1]:7700");
        }
    }

    #[test]
    #[cfg(unix)]
    fn serial_ports_parse() {
        let port = |text: &str| match text.parse::<LinkSpec>().unwrap().medium {
            Medium::Serial(address) => address.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(port("serial:/dev/ttyUSB0"), "/dev/ttyUSB0");
        assert_eq!(port("serial:///dev/ttyUSB0,policy=backup,baud=921600"), "/dev/ttyUSB0,baud=921600");
        assert_eq!(port("SERIAL:A50285BI,cap=5kB"), "A50285BI");
        let message = "serial:/dev/ttyUSB0,bued=9600".parse::<LinkSpec>().unwrap_err().to_string();
        assert!(message.contains("did you mean \"baud\""), "{message}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn usb_cables_parse() {
        let address = |text: &str| match text.parse::<LinkSpec>().unwrap().medium {
            Medium::Usb(address) => address.to_string(),
            Medium::Gadget(address) => address.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(address("usb:"), "");
        assert_eq!(address("usb:1d6b:0104,policy=backup,serial=7"), "1d6b:0104,serial=7");
        assert_eq!(address("usb:,port=1-2.3"), ",port=1-2.3");
        assert_eq!(address("gadget:"), "");
        assert_eq!(address("gadget:fe980000.usb,with=acm+ncm"), "fe980000.usb,with=acm+ncm");
        for (text, words) in [
            ("usb", "write usb: for every cable"),
            ("gadget", "write gadget: for every free controller"),
            ("usb:1d6b", "not VENDOR:PRODUCT"),
            ("usb:,seral=7", "did you mean \"serial\""),
            ("gadget:,with=uvc", "there are acm"),
        ] {
            let message = text.parse::<LinkSpec>().unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn the_nearest_key_is_named() {
        for (key, meant) in [("polcy", "policy"), ("ifac", "iface"), ("src", "source"), ("CC", "cc")] {
            let message = format!("tcp:host,{key}=x").parse::<LinkSpec>().unwrap_err().to_string();
            assert!(message.contains(&format!("did you mean {meant:?}")), "{message}");
        }
        let message = "tcp:host,zzz=x".parse::<LinkSpec>().unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown key \"zzz\"; tcp links have iface, source, cc, policy, tier, weight, cap, keepalive, quota, reset-day"
        );
    }
}
