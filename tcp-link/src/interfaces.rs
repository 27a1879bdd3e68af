//! The network interfaces of this host, and what changes of them.
//!
//! On Linux the kernel tells of changes (netlink); elsewhere the list is looked at once a second.

#[cfg(target_os = "linux")]
mod netlink;
// Tests build it everywhere, so that it does not rot unseen.
#[cfg(any(not(target_os = "linux"), test))]
#[cfg_attr(target_os = "linux", allow(dead_code))]
mod polling;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use if_addrs::IfAddr;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::filter::Network;
use crate::limits::SETTLE_TIME;
use crate::tunnels;
#[cfg(target_os = "linux")]
use netlink as system;
#[cfg(not(target_os = "linux"))]
use polling as system;

pub(crate) use system::Routes;

/// A network interface that is up, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its number in the kernel; 0 if that is not known.
    pub index: u32,
    /// Whether it leads to this host itself.
    pub is_loopback: bool,
    /// Its addresses.
    pub addresses: Vec<InterfaceAddress>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceAddress {
    /// The address.
    pub ip: IpAddr,
    /// Bits that it shares with all addresses which are reached without a router.
    pub prefix_bits: u8,
}

impl InterfaceAddress {
    /// Whether `ip` is reached from here without a router, as far as the prefix tells.
    pub fn is_on_link(&self, ip: IpAddr) -> bool {
        Network::of(self.ip, self.prefix_bits).contains(ip)
    }
}

/// The interfaces of this host that are up and have addresses, in the order of the kernel's numbers; not those that a bond
/// carries ([`OffLimits`](crate::OffLimits)).
///
/// # Errors
/// What the system says, for example that it has no descriptors left.
pub fn list() -> io::Result<Vec<Interface>> {
    let up = if_addrs::get_if_addrs()?.into_iter().filter(if_addrs::Interface::is_oper_up);
    let mut interfaces = gather(up);
    interfaces.retain(|interface| !tunnels::is_tunnel(&interface.name));
    Ok(interfaces)
}

/// The same with those that are down, and those that a bond carries.
///
/// # Errors
/// As above.
pub fn list_all() -> io::Result<Vec<Interface>> {
    Ok(gather(if_addrs::get_if_addrs()?))
}

/// One interface for all of its addresses.
fn gather(all: impl IntoIterator<Item = if_addrs::Interface>) -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for found in all {
        let (ip, prefix_bits) = match &found.addr {
            IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        };
        let address = InterfaceAddress { ip, prefix_bits };
        match interfaces.iter_mut().find(|known| known.name == found.name) {
            Some(known) => known.addresses.push(address),
            None => interfaces.push(Interface {
                is_loopback: found.is_loopback(),
                index: found.index.unwrap_or(0),
                addresses: vec![address],
                name: found.name,
            }),
        }
    }
    interfaces.sort_by(|a, b| (a.index, &a.name).cmp(&(b.index, &b.name)));
    for interface in &mut interfaces {
        interface.addresses.sort_unstable();
        interface.addresses.dedup();
    }
    interfaces
}

/// The interface by which packets to `target` leave now; `None` where that is not known.
pub(crate) fn way_out(source: Option<IpAddr>, target: IpAddr) -> Option<String> {
    let number = system::way_out(source, target.to_canonical())?;
    let all = if_addrs::get_if_addrs().ok()?;
    all.into_iter().find(|interface| interface.index == Some(number)).map(|interface| interface.name)
}

/// Follows the interfaces of this host for as long as it lives.
#[derive(Debug)]
pub(crate) struct InterfaceWatch {
    states: watch::Receiver<Arc<Vec<Interface>>>,
    task: tokio::task::JoinHandle<()>,
}

impl InterfaceWatch {
    pub(crate) fn start() -> io::Result<Self> {
        // Changes are listened for before the first look, so that none falls in between.
        let changes = system::Changes::open()?;
        let (sender, states) = watch::channel(Arc::new(list()?));
        Ok(Self { states, task: tokio::spawn(follow(changes, sender)) })
    }

    /// The interfaces as they were seen last.
    pub(crate) fn now(&self) -> Arc<Vec<Interface>> {
        Arc::clone(&self.states.borrow())
    }

    /// Waits until something about interfaces, addresses or routes may have changed. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.states.changed().await.is_err() {
            // The task ends with this watch alone.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for InterfaceWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut changes: system::Changes, sender: watch::Sender<Arc<Vec<Interface>>>) {
    loop {
        let why = changes.wait().await;
        sleep(SETTLE_TIME).await;
        match list() {
            // Of routes nothing is listed here, so what the kernel tells of is passed on in any case.
            Ok(new) if why == Wake::Told => {
                sender.send_replace(Arc::new(new));
            }
            Ok(new) => {
                sender.send_if_modified(|known| {
                    let changed = **known != new;
                    if changed {
                        *known = Arc::new(new);
                    }
                    changed
                });
            }
            Err(error) => {
                tracing::warn!(target: "bondwire", "the network interfaces cannot be listed: {error}; trying again");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Why the interfaces are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    /// The system told of a change.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Told,
    /// Time has passed.
    Time,
}
