//! What a listener tells its peer, inside the bond: the addresses at which it takes links.
//!
//! PROTOCOL.md, "`addresses`", has the bytes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::discovery::is_link_local;
use crate::filter::AddressFilter;
use crate::interfaces::{Interface, InterfaceWatch};
use crate::limits::{
    ADVERTISED_ADDRESSES_MAX, ADVERTISED_INTERFACES_MAX, ADVERTISED_NAME_MAX_BYTES, ADVERTISEMENT_INTERVAL,
    ADVERTISEMENT_MAX_BYTES, NEW_ADDRESS_INTERVAL, NEW_ADDRESSES_BURST,
};

/// Where this host takes links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The address listened on, as [`TcpAcceptor::local_addr`](crate::TcpAcceptor::local_addr) has it; `0.0.0.0` and `[::]`
    /// stand for all addresses of this host.
    pub address: SocketAddr,
    /// The only interface by which links come in, if there is such.
    pub interface: Option<String>,
}

/// An interface of a host, as the host tells its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdvertisedInterface {
    pub(crate) name: String,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// Tells the peer where this host takes links, now and whenever that changes, until the stream ends. `filter` says which
/// interfaces and addresses are told. The reader at the other end is [`Discovery::learn`](crate::Discovery::learn).
///
/// Loopback and link-local addresses are never told: they mean nothing at another host.
///
/// # Errors
/// The stream has ended, or this host's interfaces cannot be listed.
pub async fn advertise(
    mut writer: impl AsyncWrite + Unpin,
    listening: &[Listening],
    filter: &AddressFilter,
) -> io::Result<()> {
    let mut interfaces = InterfaceWatch::start()?;
    let mut told = None;
    loop {
        let message = encode(&advertised(listening, &filter.apply(&interfaces.now())));
        if told.as_ref() != Some(&message) {
            writer.write_all(&message).await?;
            writer.flush().await?;
            told = Some(message);
            sleep(ADVERTISEMENT_INTERVAL).await;
        }
        interfaces.changed().await;
    }
}

/// What is told of these interfaces.
fn advertised(listening: &[Listening], interfaces: &[Interface]) -> Vec<AdvertisedInterface> {
    let mut told = Vec::new();
    for interface in interfaces.iter().filter(|interface| !interface.is_loopback) {
        let mut addresses = Vec::new();
        for at in listening {
            if at.interface.as_ref().is_some_and(|name| *name != interface.name) {
                continue;
            }
            let (bound, port) = (at.address.ip(), at.address.port());
            let is_served = |ip: IpAddr| match bound {
                // One that stands for all IPv6 addresses takes IPv4, too.
                IpAddr::V6(all) if all.is_unspecified() => true,
                IpAddr::V4(all) if all.is_unspecified() => ip.is_ipv4(),
                one => one == ip,
            };
            let served = interface.addresses.iter().map(|address| address.ip).filter(|ip| is_served(*ip));
            addresses.extend(served.map(|ip| SocketAddr::new(ip, port)).filter(is_dialable));
        }
        addresses.dedup();
        addresses.truncate(ADVERTISED_ADDRESSES_MAX);
        if !addresses.is_empty() {
            told.push(AdvertisedInterface { name: interface.name.clone(), addresses });
        }
    }
    told.truncate(ADVERTISED_INTERFACES_MAX);
    told
}

/// Whether an address can be that of another host, seen from anywhere.
fn is_dialable(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let is_mapped = ip.to_canonical() != ip;
    address.port() != 0
        && !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
        && !(is_link_local(ip) || is_broadcast || is_mapped)
}

/// An advertisement with its length in front.
fn encode(interfaces: &[AdvertisedInterface]) -> Vec<u8> {
    let mut body = vec![interfaces.len() as u8];
    for interface in interfaces {
        let name = name_that_fits(&interface.name);
        body.push(name.len() as u8);
        body.extend(name.as_bytes());
        body.push(interface.addresses.len() as u8);
        for address in &interface.addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    body.push(4);
                    body.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    body.push(6);
                    body.extend(ip.octets());
                }
            }
            body.extend(address.port().to_be_bytes());
        }
    }
    let mut message = (body.len() as u16).to_be_bytes().to_vec();
    message.append(&mut body);
    message
}

/// The start of a name, of at most as many bytes as a name may have: other systems have longer ones.
fn name_that_fits(name: &str) -> &str {
    let mut length = name.len().min(ADVERTISED_NAME_MAX_BYTES);
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    &name[..length]
}

/// Why a peer's advertisements are not followed any more. Paths that are known stay.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The stream has ended.
    #[error("the peer tells no more addresses: {0}")]
    Ended(#[from] io::Error),
    /// It holds what is no advertisement.
    #[error("the peer's list of addresses makes no sense ({0}); use the same version at both ends")]
    Malformed(&'static str),
}

/// Reads the next advertisement. Not cancel safe.
pub(crate) async fn read(
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<Vec<AdvertisedInterface>, LearnError> {
    let length = usize::from(reader.read_u16().await?);
    if length > ADVERTISEMENT_MAX_BYTES {
        return Err(LearnError::Malformed("it is too long"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    decode(&body)
}

fn decode(body: &[u8]) -> Result<Vec<AdvertisedInterface>, LearnError> {
    let mut rest = Rest(body);
    let count = usize::from(rest.byte()?);
    if count > ADVERTISED_INTERFACES_MAX {
        return Err(LearnError::Malformed("too many interfaces"));
    }
    let mut interfaces = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::from(rest.byte()?);
        if length > ADVERTISED_NAME_MAX_BYTES {
            return Err(LearnError::Malformed("the name of an interface is too long"));
        }
        // It is shown to people.
        let name: String = String::from_utf8_lossy(rest.bytes(length)?)
            .chars()
            .map(|c| if c.is_ascii_graphic() { c } else { '?' })
            .collect();
        let count = usize::from(rest.byte()?);
        if count > ADVERTISED_ADDRESSES_MAX {
            return Err(LearnError::Malformed("too many addresses"));
        }
        let addresses = (0..count).map(|_| rest.address()).collect::<Result<_, _>>()?;
        interfaces.push(AdvertisedInterface { name, addresses });
    }
    if rest.0.is_empty() { Ok(interfaces) } else { Err(LearnError::Malformed("something follows it")) }
}

/// What is not yet decoded.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], LearnError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(LearnError::Malformed("it is cut off"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LearnError> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| LearnError::Malformed("it is cut off"))
    }

    fn byte(&mut self) -> Result<u8, LearnError> {
        self.array().map(|[byte]| byte)
    }

    fn address(&mut self) -> Result<SocketAddr, LearnError> {
        let ip = match self.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(LearnError::Malformed("an address of an unknown family")),
        };
        Ok(SocketAddr::new(ip, u16::from_be_bytes(self.array()?)))
    }
}

/// Bounds what a peer can make this host dial: strange addresses are dropped, and new ones are taken at a bounded rate.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Ports that may be dialled: those the user named, and the usual one.
    ports: Vec<u16>,
    known: Vec<AdvertisedInterface>,
    tokens: u32,
    refilled_at: Instant,
}

impl Intake {
    pub(crate) fn new(port: u16, now: Instant) -> Self {
        Self { ports: vec![port], known: Vec::new(), tokens: NEW_ADDRESSES_BURST, refilled_at: now }
    }

    /// Lets one more port be dialled.
    pub(crate) fn permit(&mut self, port: u16) {
        if !self.ports.contains(&port) {
            self.ports.push(port);
        }
    }

    /// What is to be believed of an advertisement; and the time until more of it is, if some has to wait.
    pub(crate) fn take(
        &mut self,
        told: &[AdvertisedInterface],
        now: Instant,
    ) -> (Vec<AdvertisedInterface>, Option<Duration>) {
        self.refill(now);
        let mut waits = false;
        let mut taken: Vec<AdvertisedInterface> = Vec::new();
        for interface in told {
            let mut addresses = Vec::new();
            for address in &interface.addresses {
                let is_in = |list: &[AdvertisedInterface]| list.iter().any(|i| i.addresses.contains(address));
                if !is_dialable(address)
                    || !self.ports.contains(&address.port())
                    || is_in(&taken)
                    || addresses.contains(address)
                {
                    continue;
                }
                if !is_in(&self.known) {
                    if self.tokens == 0 {
                        waits = true;
                        continue;
                    }
                    self.tokens -= 1;
                }
                addresses.push(*address);
            }
            if !addresses.is_empty() {
                taken.push(AdvertisedInterface { name: interface.name.clone(), addresses });
            }
        }
        self.known.clone_from(&taken);
        (taken, waits.then_some(NEW_ADDRESS_INTERVAL))
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        let more = (elapsed.as_millis() / NEW_ADDRESS_INTERVAL.as_millis()) as u32;
        self.refilled_at += NEW_ADDRESS_INTERVAL * more;
        self.tokens = self.tokens.saturating_add(more).min(NEW_ADDRESSES_BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::InterfaceAddress;

    fn told(name: &str, addresses: &[&str]) -> AdvertisedInterface {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        AdvertisedInterface { name: name.to_owned(), addresses }
    }

    fn interface(name: &str, addresses: &[&str]) -> Interface {
        let addresses =
            addresses.iter().map(|ip| InterfaceAddress { ip: ip.parse().unwrap(), prefix_bits: 24 });
        let addresses: Vec<_> = addresses.collect();
        Interface { name: name.to_owned(), index: 1, is_loopback: addresses[0].ip.is_loopback(), addresses }
    }

    fn listening(address: &str, interface: Option<&str>) -> Listening {
        Listening { address: address.parse().unwrap(), interface: interface.map(str::to_owned) }
    }

    #[test]
    fn an_advertisement_has_the_bytes_of_the_protocol() {
        let interfaces =
            [told("eth0", &["10.0.0.2:7700", "[2001:db8::2]:7700"]), told("w", &["192.0.2.1:1"])];
        let message = encode(&interfaces);
        let expected = [
            &[0, 43, 2, 4][..],
            b"eth0",
            &[2, 4, 10, 0, 0, 2, 0x1e, 0x14],
            &[6, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x1e, 0x14],
            &[1, b'w', 1, 4, 192, 0, 2, 1, 0, 1],
        ]
        .concat();
        assert_eq!(message, expected);
        assert_eq!(decode(&message[2..]).unwrap(), interfaces);
        assert_eq!(decode(&encode(&[])[2..]).unwrap(), []);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_bring_more_than_the_bounds(body in proptest::collection::vec(0..24u8, 0..400)) {
            if let Ok(interfaces) = decode(&body) {
                assert!(interfaces.len() <= ADVERTISED_INTERFACES_MAX);
                for interface in &interfaces {
                    assert!(interface.addresses.len() <= ADVERTISED_ADDRESSES_MAX);
                    assert!(interface.name.chars().all(|c| c.is_ascii_graphic()));
                }
                let again = encode(&interfaces);
                assert_eq!(decode(&again[2..]).unwrap(), interfaces);
            }
        }
    }

    #[test]
    fn the_longest_advertisement_fits() {
        let addresses: Vec<_> = (0..ADVERTISED_ADDRESSES_MAX).map(|n| format!("[2001:db8::{n}]:1")).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let interfaces = vec![told("a-long-name-of-an-interface", &addresses); ADVERTISED_INTERFACES_MAX];
        assert_eq!(encode(&interfaces).len(), 2 + ADVERTISEMENT_MAX_BYTES);
        assert_eq!(name_that_fits("LAN-Verbindungä"), "LAN-Verbindung", "a character is not cut");
    }

    #[test]
    fn what_is_no_advertisement_is_refused() {
        let whole = encode(&[told("eth0", &["10.0.0.2:7700", "[2001:db8::2]:7700"])]);
        let body = &whole[2..];
        for length in 0..body.len() {
            assert!(decode(&body[..length]).is_err(), "{length}");
        }
        assert!(decode(&[body, &[0]].concat()).is_err());
        for (at, byte) in [(0, 17), (1, 16), (6, 9), (7, 5)] {
            let mut body = body.to_vec();
            body[at] = byte;
            assert!(decode(&body).is_err(), "{at}");
        }
        let mut strange = body.to_vec();
        strange[2..6].copy_from_slice(b"\x1b[2J");
        assert_eq!(decode(&strange).unwrap()[0].name, "?[2J");
    }

    #[test]
    fn a_host_tells_where_it_listens_and_nothing_of_itself_alone() {
        let host = [
            interface("lo", &["127.0.0.1", "::1"]),
            interface("eth0", &["10.0.0.2", "fe80::1", "2001:db8::2"]),
            interface("eth1", &["10.0.1.2", "169.254.0.9"]),
        ];
        let tell = |at: &[Listening]| advertised(at, &host);
        let (eth0, eth1) = (told("eth0", &["10.0.0.2:1", "[2001:db8::2]:1"]), told("eth1", &["10.0.1.2:1"]));
        assert_eq!(tell(&[listening("[::]:1", None)]), [eth0.clone(), eth1.clone()]);
        assert_eq!(tell(&[listening("[::]:1", Some("eth1"))]), vec![eth1.clone()]);
        assert_eq!(tell(&[listening("0.0.0.0:1", None)]), [told("eth0", &["10.0.0.2:1"]), eth1.clone()]);
        assert_eq!(tell(&[listening("10.0.1.2:1", None)]), [eth1]);
        assert_eq!(tell(&[listening("127.0.0.1:1", None)]), []);
        let both = tell(&[listening("10.0.0.2:1", None), listening("10.0.0.2:2", None)]);
        assert_eq!(both, [told("eth0", &["10.0.0.2:1", "10.0.0.2:2"])]);
    }

    #[test]
    fn strange_addresses_are_not_dialled() {
        let strange = [
            "0.0.0.0:7700",
            "127.0.0.1:7700",
            "169.254.1.1:7700",
            "224.0.0.1:7700",
            "255.255.255.255:7700",
            "10.0.0.1:0",
            "10.0.0.1:22",
            "[::]:7700",
            "[::1]:7700",
            "[fe80::1]:7700",
            "[ff02::1]:7700",
            "[::ffff:10.0.0.1]:7700",
        ];
        let now = Instant::now();
        let mut intake = Intake::new(7700, now);
        intake.permit(0);
        assert_eq!(intake.take(&[told("a", &strange)], now), (vec![], None));
        assert_eq!(intake.tokens, NEW_ADDRESSES_BURST, "they cost nothing");
        let twice = [told("a", &["10.0.0.1:7700", "10.0.0.1:7700"]), told("b", &["10.0.0.1:7700"])];
        assert_eq!(intake.take(&twice, now), (vec![told("a", &["10.0.0.1:7700"])], None));
    }

    #[test]
    fn a_peer_that_keeps_telling_new_addresses_is_believed_slowly() {
        let start = Instant::now();
        let mut intake = Intake::new(7700, start);
        let mut taken = 0;
        let mut waited = false;
        for round in 0..100u32 {
            let addresses: Vec<_> = (0..8).map(|n| format!("10.9.{round}.{n}:7700")).collect();
            let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
            let now = start + ADVERTISEMENT_INTERVAL * round;
            let (believed, wait) = intake.take(&[told("a", &addresses)], now);
            taken += believed.iter().map(|interface| interface.addresses.len()).sum::<usize>();
            waited |= wait.is_some();
        }
        let seconds = (ADVERTISEMENT_INTERVAL * 100).as_secs() as usize;
        assert!(waited && taken <= NEW_ADDRESSES_BURST as usize + seconds, "{taken}");
        // Those that are known stay, whatever is told beside them.
        let now = start + Duration::from_secs(1000);
        assert_eq!(intake.take(&[told("a", &["10.0.0.1:7700"])], now).0.len(), 1);
        intake.tokens = 0;
        let both = [told("a", &["10.0.0.1:7700", "10.0.0.2:7700"])];
        assert_eq!(
            intake.take(&both, now),
            (vec![told("a", &["10.0.0.1:7700"])], Some(NEW_ADDRESS_INTERVAL))
        );
        assert_eq!(intake.take(&both, now + NEW_ADDRESS_INTERVAL), (both.to_vec(), None));
    }
}
