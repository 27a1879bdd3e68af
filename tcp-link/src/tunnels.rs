//! Interfaces that a bond carries: no link may leave by one, or the bond would carry itself.
//!
//! A route can lead a link's packets there at any time. So a link asks for its way when it is made, and stays on the interface
//! that the kernel names: what is routed otherwise later does not take it along. Where the way leads through a tunnel there is no
//! link, and the next dial asks again.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::interfaces;

static TUNNELS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the links of this process off an interface for as long as it lives.
#[derive(Debug)]
pub struct OffLimits(String);

impl OffLimits {
    /// No link leaves by `interface`, and none is found over it.
    pub fn new(interface: &str) -> Self {
        tunnels().push(interface.to_owned());
        Self(interface.to_owned())
    }
}

impl Drop for OffLimits {
    fn drop(&mut self) {
        let mut tunnels = tunnels();
        if let Some(place) = tunnels.iter().position(|tunnel| *tunnel == self.0) {
            tunnels.swap_remove(place);
        }
    }
}

fn tunnels() -> MutexGuard<'static, Vec<String>> {
    TUNNELS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the interface is one that a bond carries.
pub(crate) fn is_tunnel(interface: &str) -> bool {
    tunnels().iter().any(|tunnel| tunnel == interface)
}

/// The interface that a link to `target` is to stay on, if there is a tunnel that could take it.
///
/// # Errors
/// The way leads through a tunnel.
pub(crate) fn way_out(
    iface: Option<&str>,
    source: Option<IpAddr>,
    target: IpAddr,
) -> io::Result<Option<String>> {
    if tunnels().is_empty() {
        return Ok(None);
    }
    let way = match iface {
        Some(iface) => Some(iface.to_owned()),
        None => interfaces::way_out(source, target),
    };
    match way {
        Some(way) if is_tunnel(&way) => Err(io::Error::new(
            io::ErrorKind::NetworkUnreachable,
            format!(
                "{target} is routed through {way}, which this bond carries itself; give it a route of its own, such as \
                 `ip route add {target} via ROUTER`"
            ),
        )),
        // A link within this host needs none.
        Some(way) if iface.is_none() && !target.is_loopback() => Ok(Some(way)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_off_limits_for_as_long_as_somebody_says_so() {
        let (first, second) = (OffLimits::new("tun-test"), OffLimits::new("tun-test"));
        let target = "192.0.2.1".parse().unwrap();
        let refused = way_out(Some("tun-test"), None, target).unwrap_err().to_string();
        assert!(refused.contains("tun-test") && refused.contains("192.0.2.1"), "{refused}");
        drop(first);
        assert!(is_tunnel("tun-test"));
        drop(second);
        assert!(!is_tunnel("tun-test"));
    }
}
