//! What a SOCKS client says before its connection is one: RFC 1928.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::forward::address::{Address, AddressError, HostPort};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const UDP_ASSOCIATE: u8 = 3;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Connect(Address),
    Associate,
}

/// REP of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reply {
    Succeeded = 0,
    Failure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

impl Reply {
    /// The reply without an address: which one the peer's connection has is nobody's business here.
    pub(super) fn encode(self) -> Vec<u8> {
        self.encode_with(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }

    pub(super) fn encode_with(self, bound: SocketAddr) -> Vec<u8> {
        let mut reply = vec![VERSION, self as u8, 0];
        match bound.ip().to_canonical() {
            IpAddr::V4(ip) => {
                reply.push(IPV4);
                reply.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                reply.push(IPV6);
                reply.extend(ip.octets());
            }
        }
        reply.extend(bound.port().to_be_bytes());
        reply
    }
}

/// What is wrong with a client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("it speaks SOCKS4; set it to SOCKS5 (socks5h:// in curl)")]
    Socks4,
    #[error("it speaks HTTP; set it to a SOCKS5 proxy, not an HTTP proxy (socks5h:// in curl)")]
    Http,
    #[error("it speaks TLS; set it to a SOCKS5 proxy without TLS (socks5h:// in curl)")]
    Tls,
    #[error("what it sends is not SOCKS5 (first byte {0:#04x})")]
    NotSocks(u8),
    #[error("it offers only methods with authentication; this server has none")]
    Method,
    #[error("its request makes no sense (version {0})")]
    Version(u8),
    #[error("command {0} is not supported; CONNECT and UDP ASSOCIATE are")]
    Command(u8),
    #[error("address type {0} is not supported")]
    AddressType(u8),
    #[error("it asks for an address that cannot be: {0}")]
    Address(#[from] AddressError),
    #[error("it asks for a name that is not UTF-8")]
    Name,
    #[error("it did not say within 10 s what it wants")]
    Stalled,
    #[error("it broke off: {0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// What the client is told, in its own language.
    pub(super) fn farewell(&self) -> Vec<u8> {
        match self {
            // Request rejected, with an address and port that mean nothing.
            Self::Socks4 => vec![0, 0x5b, 0, 0, 0, 0, 0, 0],
            Self::Http => http_farewell().into_bytes(),
            Self::Method => vec![VERSION, NO_ACCEPTABLE_METHOD],
            Self::Command(_) => Reply::CommandNotSupported.encode(),
            Self::AddressType(_) => Reply::AddressTypeNotSupported.encode(),
            Self::Address(_) | Self::Name | Self::Version(_) => Reply::Failure.encode(),
            Self::Tls | Self::NotSocks(_) | Self::Stalled | Self::Io(_) => Vec::new(),
        }
    }
}

const HTTP_BODY: &str = "This is a SOCKS5 proxy; use socks5h:// instead of http://.\n";

fn http_farewell() -> String {
    let length = HTTP_BODY.len();
    format!(
        "HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{HTTP_BODY}"
    )
}

/// Reads what `client` wants, and not a byte more.
pub(super) async fn negotiate(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Command, Error> {
    match client.read_u8().await? {
        VERSION => {}
        4 => return Err(Error::Socks4),
        0x16 => return Err(Error::Tls),
        first if first.is_ascii_uppercase() => return Err(Error::Http),
        first => return Err(Error::NotSocks(first)),
    }
    let mut methods = [0; 255];
    let count = usize::from(client.read_u8().await?);
    client.read_exact(&mut methods[..count]).await?;
    if !methods[..count].contains(&NO_AUTHENTICATION) {
        return Err(Error::Method);
    }
    client.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let [version, command, _reserved] = array(client).await?;
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let (host, port) = read_address(client).await?;
    match command {
        CONNECT => Ok(Command::Connect(Address::Tcp(HostPort::target(&host, &port.to_string())?))),
        UDP_ASSOCIATE => Ok(Command::Associate),
        other => Err(Error::Command(other)),
    }
}

async fn array<const N: usize>(client: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Reads ATYP, address and port.
async fn read_address(client: &mut (impl AsyncRead + Unpin)) -> Result<(String, u16), Error> {
    let host = match client.read_u8().await? {
        IPV4 => Ipv4Addr::from(array::<4>(client).await?).to_string(),
        IPV6 => Ipv6Addr::from(array::<16>(client).await?).to_string(),
        NAME => {
            let mut name = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut name).await?;
            String::from_utf8(name).map_err(|_| Error::Name)?
        }
        other => return Err(Error::AddressType(other)),
    };
    Ok((host, client.read_u16().await?))
}

/// Splits a datagram of a client into its header (RFC 1928 section 7), its target and its data.
pub(super) async fn split_datagram(datagram: &[u8]) -> Result<(&[u8], Address, &[u8]), Error> {
    let mut rest = datagram;
    let [_, _, fragment] = array(&mut rest).await?;
    if fragment != 0 {
        // A server need not put fragments together; then it drops them.
        return Err(Error::Io(io::ErrorKind::Unsupported.into()));
    }
    let (host, port) = read_address(&mut rest).await?;
    let header = &datagram[..datagram.len() - rest.len()];
    Ok((header, Address::Udp(HostPort::target(&host, &port.to_string())?), rest))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;
    use tokio::time::timeout;

    use super::*;

    /// What a client that says `words` is taken for, and what it hears.
    async fn hear(words: &[u8]) -> (Result<Command, Error>, Vec<u8>) {
        let (mut client, mut server) = duplex(1024);
        client.write_all(words).await.unwrap();
        client.shutdown().await.unwrap();
        let command = negotiate(&mut server).await;
        if let Err(error) = &command {
            server.write_all(&error.farewell()).await.unwrap();
        }
        drop(server);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        (command, heard)
    }

    async fn ask(request: &[u8]) -> (Result<Command, Error>, Vec<u8>) {
        let (command, heard) = hear(&[b"\x05\x02\x02\x00", request].concat()).await;
        assert_eq!(heard[..2], [5, 0]);
        (command, heard[2..].to_vec())
    }

    #[tokio::test]
    async fn every_kind_of_address_is_understood() {
        let cases: [(&[u8], &str); 4] = [
            (b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", "127.0.0.1:80"),
            (b"\x05\x01\x00\x03\x07far.org\x01\xbb", "far.org:443"),
            (b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x16", "[::1]:22"),
            (b"\x05\x01\x00\x03\x03::1\x00\x16", "[::1]:22"),
        ];
        for (request, target) in cases {
            let Ok(Command::Connect(address)) = ask(request).await.0 else {
                panic!("{target}");
            };
            assert_eq!(address.to_string(), target);
        }
        let (command, _) = ask(b"\x05\x03\x00\x01\0\0\0\0\0\0").await;
        assert_eq!(command.unwrap(), Command::Associate);
    }

    #[tokio::test]
    async fn clients_of_other_protocols_hear_no_in_their_own() {
        let (error, heard) = hear(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00").await;
        assert!(matches!(error, Err(Error::Socks4)));
        assert_eq!(heard, [0, 0x5b, 0, 0, 0, 0, 0, 0]);
        let (error, heard) = hear(b"CONNECT example.org:443 HTTP/1.1\r\n\r\n").await;
        assert!(matches!(error, Err(Error::Http)));
        let text = String::from_utf8(heard).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 501 ")
                && head.contains(&format!("Content-Length: {}\r\n", body.len()))
        );
        let (error, heard) = hear(b"\x16\x03\x01").await;
        assert!(matches!(error, Err(Error::Tls)) && heard.is_empty());
        let (error, heard) = hear(b"\xff\xff").await;
        assert!(matches!(error, Err(Error::NotSocks(0xff))) && heard.is_empty());
    }

    #[tokio::test]
    async fn bad_requests_get_a_fitting_reply() {
        let (error, heard) = hear(b"\x05\x01\x02").await;
        assert!(matches!(error, Err(Error::Method)));
        assert_eq!(heard, [5, 0xff]);
        let cases: [(&[u8], u8); 6] = [
            (b"\x04\x01\x00\x01\x7f\x00\x00\x01\x00\x50", 1),
            (b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", 7),
            (b"\x05\x01\x00\x02\x7f\x00\x00\x01\x00\x50", 8),
            (b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00", 1),
            (b"\x05\x01\x00\x03\x02\xff\xff\x00\x50", 1),
            (b"\x05\x01\x00\x03\x00\x00\x50", 1),
        ];
        for (request, reply) in cases {
            let (error, heard) = ask(request).await;
            assert!(error.is_err());
            assert_eq!(heard, [5, reply, 0, 1, 0, 0, 0, 0, 0, 0], "{request:?}");
        }
        let (error, heard) = ask(b"\x05\x01\x00").await;
        assert!(matches!(error, Err(Error::Io(_))) && heard.is_empty());
    }

    #[tokio::test]
    async fn nothing_behind_the_request_is_read() {
        let (mut client, mut server) = duplex(1024);
        client.write_all(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50early data").await.unwrap();
        negotiate(&mut server).await.unwrap();
        let mut early = [0; 10];
        timeout(Duration::from_secs(60), server.read_exact(&mut early)).await.unwrap().unwrap();
        assert_eq!(&early, b"early data");
    }

    #[tokio::test]
    async fn datagrams_have_a_target() {
        let (header, target, data) = split_datagram(b"\0\0\0\x03\x03far\x00\x35query").await.unwrap();
        assert_eq!((header, data), (&b"\0\0\0\x03\x03far\x00\x35"[..], &b"query"[..]));
        assert_eq!(target.to_string(), "udp/far:53");
        for bad in
            [&b""[..], b"\0\0\x01\x01\x7f\0\0\x01\0\x35x", b"\0\0\0\x03\xff", b"\0\0\0\x01\x7f\0\0\x01\0\0x"]
        {
            assert!(split_datagram(bad).await.is_err(), "{bad:?}");
        }
    }
}
