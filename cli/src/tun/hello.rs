//! What each end tells the other of its interface, over the stream that stands for it.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::limits::{ADDRESSES_MAX, MTU_MIN_V4_BYTES};
use super::spec::{TunAddress, TunSpec};

/// Label of the stream. Its life is that of the connection between the two interfaces.
pub(crate) const TUN_LABEL: &str = "tun";

/// An end's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    /// Largest packet that it likes to get, in bytes.
    pub(super) mtu: u16,
    pub(super) addresses: Vec<TunAddress>,
}

impl Hello {
    pub(super) fn of(spec: &TunSpec) -> Self {
        Self { mtu: spec.mtu, addresses: spec.addresses.iter().copied().collect() }
    }

    pub(super) async fn write(&self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut bytes = self.mtu.to_be_bytes().to_vec();
        bytes.push(self.addresses.len() as u8);
        for TunAddress { ip, prefix_bits } in &self.addresses {
            match ip {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend(ip.octets());
                }
            }
            bytes.push(*prefix_bits);
        }
        writer.write_all(&bytes).await
    }

    pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let (mtu, count) = (reader.read_u16().await?, reader.read_u8().await?);
        if mtu < MTU_MIN_V4_BYTES || count == 0 || usize::from(count) > ADDRESSES_MAX {
            return Err(wrong("the other end's interface makes no sense"));
        }
        let mut addresses = Vec::new();
        for _ in 0..count {
            let ip = match reader.read_u8().await? {
                4 => IpAddr::from(reader.read_u32().await?.to_be_bytes()),
                6 => IpAddr::from(reader.read_u128().await?.to_be_bytes()),
                _ => return Err(wrong("an address of the other end's interface has an unknown family")),
            };
            let address = TunAddress { ip, prefix_bits: reader.read_u8().await? };
            if !address.is_host() {
                return Err(wrong("an address of the other end's interface is none of a host"));
            }
            addresses.push(address);
        }
        Ok(Self { mtu, addresses })
    }

    /// The address that both ends have, if there is one.
    pub(super) fn shared_with(&self, other: &Self) -> Option<IpAddr> {
        self.addresses
            .iter()
            .map(|own| own.ip)
            .find(|ip| other.addresses.iter().any(|theirs| theirs.ip == *ip))
    }

    /// Its addresses as a text.
    pub(super) fn addresses_text(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(addresses: &str) -> Hello {
        let addresses = addresses.parse().unwrap();
        Hello::of(&TunSpec::new("bond0".parse().unwrap(), addresses, None).unwrap())
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_nothing_else_is_believed() {
        let said = hello("10.9.0.1/24,fd00::1/64");
        let mut bytes = Vec::new();
        said.write(&mut bytes).await.unwrap();
        // As PROTOCOL.md has it.
        let v6 = [&[6, 0xfd][..], &[0; 14], &[1, 64]].concat();
        assert_eq!(bytes, [&[0x05, 0x78, 2, 4, 10, 9, 0, 1, 24][..], &v6].concat());
        assert_eq!(Hello::read(&mut &bytes[..]).await.unwrap(), said);
        for cut in 0..bytes.len() {
            assert!(Hello::read(&mut &bytes[..cut]).await.is_err());
        }
        for (place, value) in [(0, 0), (2, 0), (2, 9), (3, 5), (4, 127), (8, 0), (8, 33)] {
            let mut wrong = bytes.clone();
            wrong[place] = value;
            assert!(Hello::read(&mut &wrong[..]).await.is_err(), "{place}: {value}");
        }
    }

    #[test]
    fn an_address_belongs_to_one_end() {
        let own = hello("10.9.0.1/24,fd00::1/64");
        assert_eq!(own.shared_with(&hello("10.9.0.2/24,fd00::2/64")), None);
        assert_eq!(own.shared_with(&hello("fd00::1/48")), Some("fd00::1".parse().unwrap()));
    }
}
