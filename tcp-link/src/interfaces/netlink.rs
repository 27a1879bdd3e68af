//! What the Linux kernel tells of interfaces and routes (rtnetlink(7)).
//!
//! Messages about changes are only counted as a sign to look again: so a lost or unknown one costs nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use tokio::net::UnixDatagram;
use tokio::time::{sleep, timeout};

use super::{Interface, Wake};
use crate::limits::{POLL_INTERVAL, SAFETY_POLL_INTERVAL};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`
/// (linux/rtnetlink.h).
const CHANGES: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// A socket on which the kernel tells of changes.
pub(super) struct Changes {
    /// Tokio has no netlink sockets; this type waits on any datagram socket and reads from it.
    socket: UnixDatagram,
}

impl Changes {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::from_std(open(CHANGES)?.into())? })
    }

    /// Waits for a change, or until it is time to look anyway. Cancel safe.
    pub(super) async fn wait(&mut self) -> Wake {
        match timeout(SAFETY_POLL_INTERVAL, self.socket.readable()).await {
            // Reads what there is. An error may say that messages were lost, which is a change, too.
            Ok(Ok(())) => {
                let mut message = [0; 4096];
                while self.socket.try_recv(&mut message).is_ok() {}
                Wake::Told
            }
            // Without the socket there is still the time.
            Ok(Err(_)) => {
                sleep(POLL_INTERVAL).await;
                Wake::Time
            }
            Err(_) => Wake::Time,
        }
    }
}

fn open(groups: u32) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Asks the kernel for routes.
pub(crate) struct Routes {
    socket: Option<OwnedFd>,
}

impl Routes {
    pub(crate) fn open() -> Self {
        // Where the kernel does not answer, the dial will tell.
        Self { socket: open(0).ok() }
    }

    /// Whether a route leads from `source` over `interface` to `target`. A socket that is bound to an interface takes the
    /// whole world for its neighbours where there is no route; such a path is of no use.
    pub(crate) fn lead(&self, interface: &Interface, source: IpAddr, target: SocketAddr) -> bool {
        let Some(socket) = &self.socket else { return true };
        let question = question(Some(interface.index), Some(source), target.ip());
        if interface.index == 0 || send(socket, &question, SendFlags::empty()).is_err() {
            return true;
        }
        // The kernel answers before `send` returns.
        let mut answer = [0; 2048];
        match recv(socket, &mut answer, RecvFlags::DONTWAIT) {
            Ok((len, _)) => leads(&answer[..len.min(answer.len())], interface.index),
            Err(_) => true,
        }
    }
}

/// The number of the interface by which packets to `target` leave now, as the kernel says; `None` where it knows none.
pub(crate) fn way_out(source: Option<IpAddr>, target: IpAddr) -> Option<u32> {
    let socket = open(0).ok()?;
    send(&socket, &question(None, source, target), SendFlags::empty()).ok()?;
    // The kernel answers before `send` returns.
    let mut answer = [0; 2048];
    let (len, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT).ok()?;
    let answer = &answer[..len.min(answer.len())];
    if u16_at(answer, 4)? != ROUTE {
        return None;
    }
    let over = attribute_of(answer, INTERFACE)?;
    Some(u32::from_ne_bytes(over.try_into().ok()?))
}

/// `RTM_GETROUTE`, with `NLM_F_REQUEST`.
const GET_ROUTE: u16 = 26;
const REQUEST: u16 = 1;
/// The answer to it, `RTM_NEWROUTE`, and `NLMSG_ERROR`.
const ROUTE: u16 = 24;
const ERROR: u16 = 2;
/// `RTM_F_FIB_MATCH`: answer the entry of the table, and an error where there is none (Linux 4.13).
const FIB_MATCH: u32 = 0x2000;
/// Attributes `RTA_DST`, `RTA_SRC` and `RTA_OIF`.
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const INTERFACE: u16 = 4;
/// `RTN_UNICAST`, a way to another host.
const UNICAST: u8 = 1;
/// Lengths of `nlmsghdr` and `rtmsg`.
const HEADER_BYTES: usize = 16;
const ROUTE_BYTES: usize = 12;

/// Asks for the way to `target`: by an interface, as a table has it, or else as a packet would take it.
fn question(interface: Option<u32>, source: Option<IpAddr>, target: IpAddr) -> Vec<u8> {
    // AF_INET and AF_INET6.
    let (family, bits) = if target.is_ipv4() { (2, 32) } else { (10, 128) };
    let mut message = vec![0; HEADER_BYTES];
    message.extend([family, bits, bits, 0, 0, 0, 0, 0]);
    message.extend(interface.map_or(0, |_| FIB_MATCH).to_ne_bytes());
    let mut attribute = |kind: u16, value: &[u8]| {
        // The values have 4 or 16 bytes, so nothing needs to be aligned.
        message.extend((value.len() as u16 + 4).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(value);
    };
    for (kind, ip) in [(DESTINATION, target)].into_iter().chain(source.map(|source| (SOURCE, source))) {
        match ip {
            IpAddr::V4(ip) => attribute(kind, &ip.octets()),
            IpAddr::V6(ip) => attribute(kind, &ip.octets()),
        }
    }
    if let Some(interface) = interface {
        attribute(INTERFACE, &interface.to_ne_bytes());
    }
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&GET_ROUTE.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    message
}

/// What an answer says. One that cannot be understood says nothing against the path.
fn leads(answer: &[u8], interface: u32) -> bool {
    match u16_at(answer, 4) {
        Some(ERROR) => false,
        Some(ROUTE) => {
            let kind = answer.get(HEADER_BYTES + 7).copied();
            let over = attribute_of(answer, INTERFACE).map(|bytes| bytes == interface.to_ne_bytes());
            // A route over several interfaces names none; the kernel found this one among them.
            kind == Some(UNICAST) && over.unwrap_or(true)
        }
        _ => true,
    }
}

fn u16_at(answer: &[u8], at: usize) -> Option<u16> {
    answer.get(at..at + 2).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))
}

/// The first four bytes of an attribute of a route.
fn attribute_of(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut at = HEADER_BYTES + ROUTE_BYTES;
    while let (Some(length), Some(attribute)) = (u16_at(answer, at), u16_at(answer, at + 2)) {
        if attribute == wanted {
            return answer.get(at + 4..at + 8);
        }
        at += usize::from(length).max(4).next_multiple_of(4);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_no_way_out_by_the_loopback_interface() {
        let loopback = crate::interfaces::list().unwrap().into_iter().find(|interface| interface.is_loopback);
        let loopback = loopback.unwrap();
        let routes = Routes::open();
        let (source, target) = ("127.0.0.1".parse().unwrap(), "192.0.2.1:7700".parse().unwrap());
        assert!(!routes.lead(&loopback, source, target));
        let (source, target) = ("::1".parse().unwrap(), "[2001:db8::1]:7700".parse().unwrap());
        assert!(!routes.lead(&loopback, source, target));
    }

    #[test]
    fn the_kernel_says_by_which_interface_a_packet_leaves() {
        let loopback = crate::interfaces::list().unwrap().into_iter().find(|interface| interface.is_loopback);
        let index = loopback.map(|interface| interface.index);
        assert_eq!(way_out(None, "127.0.0.1".parse().unwrap()), index);
        assert_eq!(way_out(Some("127.0.0.1".parse().unwrap()), "127.0.0.2".parse().unwrap()), index);
        assert_eq!(way_out(None, "::1".parse().unwrap()), index);
    }

    #[test]
    fn strange_answers_are_read_to_their_end() {
        let whole = question(Some(1), Some("10.0.0.1".parse().unwrap()), "10.0.0.2".parse().unwrap());
        let mut answer = whole.clone();
        answer[4..6].copy_from_slice(&ROUTE.to_ne_bytes());
        answer[HEADER_BYTES + 7] = UNICAST;
        assert!(leads(&answer, 1));
        assert!(!leads(&answer, 2));
        for length in 0..answer.len() {
            leads(&answer[..length], 1);
        }
        // An attribute that claims to have no length.
        answer[HEADER_BYTES + ROUTE_BYTES..HEADER_BYTES + ROUTE_BYTES + 2].fill(0);
        leads(&answer, 1);
    }
}
