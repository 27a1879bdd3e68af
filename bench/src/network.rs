//! Two hosts and the links between them: the stage of every scenario.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::emulator::{Emulator, Shape};
use crate::namespace::Namespace;

/// The parameter that names TCP's congestion control.
const CONGESTION_CONTROL: &str = "ipv4/tcp_congestion_control";

/// Two namespaces joined by links. Link `i` (from 0) has the device `link{i+1}` in both, with the address
/// 10.77.i+1.1 at the near end and 10.77.i+1.2 at the far end.
///
/// Fields drop in this order: first what uses the namespaces.
#[derive(Debug)]
pub struct Network {
    /// The links' emulator.
    pub emulator: Emulator,
    /// Where clients run.
    pub near: Namespace,
    /// Where servers run.
    pub far: Namespace,
    /// The links' shapes at the start.
    pub shapes: Vec<Shape>,
}

/// An address of link `index` (from 0): of its far end if `far`, else of its near end.
#[must_use]
pub fn address(index: usize, far: bool) -> Ipv4Addr {
    let link = u8::try_from(index + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 77, link, if far { 2 } else { 1 })
}

/// The name of the device of link `index` (from 0), in both namespaces.
#[must_use]
pub fn device(index: usize) -> String {
    format!("link{}", index + 1)
}

impl Network {
    /// Joins two new namespaces by emulated links, one for each shape.
    ///
    /// `congestion_control` becomes what TCP uses in both unless a program chooses for itself; without it that
    /// is the machine's default.
    ///
    /// # Errors
    /// Without root, `ip` or `/dev/net/tun`.
    pub fn emulated(shapes: &[Shape], congestion_control: Option<&str>) -> Result<Self> {
        let [near, far] = hosts(congestion_control)?;
        let links: Vec<_> = shapes.iter().enumerate().map(|(index, &shape)| (device(index), shape)).collect();
        let emulator = Emulator::start([&near, &far], &links)?;
        let network = Self { emulator, near, far, shapes: shapes.to_vec() };
        for index in 0..shapes.len() {
            network.bring_up(index)?;
        }
        Ok(network)
    }

    /// Lets kernel MPTCP use all links: the far end announces its addresses, the near end dials each one.
    ///
    /// # Errors
    /// If the kernel or `ip` has no MPTCP.
    pub fn enable_mptcp(&self) -> Result<()> {
        for host in [&self.near, &self.far] {
            host.set_parameter("mptcp/enabled", "1")?;
            host.ip("mptcp limits set subflow 8 add_addr_accepted 8")?;
        }
        // The first link carries the connection itself.
        for index in 1..self.shapes.len() {
            let (address, device) = (address(index, true), device(index));
            self.far.ip(&format!("mptcp endpoint add {address} dev {device} signal"))?;
        }
        Ok(())
    }

    /// What TCP uses for congestion control at both ends unless a program chooses for itself.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn congestion_control(&self) -> Result<String> {
        self.near.parameter(CONGESTION_CONTROL)
    }

    /// Takes the near end's device of a link down or brings it up again.
    ///
    /// # Errors
    /// With what `ip` says.
    pub fn set_interface(&self, index: usize, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.near.ip(&format!("link set {} {state}", device(index)))
    }

    fn bring_up(&self, index: usize) -> Result<()> {
        let device = device(index);
        for (host, is_far) in [(&self.near, false), (&self.far, true)] {
            host.ip(&format!("addr add {}/24 dev {device}", address(index, is_far)))?;
            host.ip(&format!("link set {device} up"))?;
        }
        Ok(())
    }
}

/// Two namespaces whose TCP starts each connection without memory of earlier ones.
fn hosts(congestion_control: Option<&str>) -> Result<[Namespace; 2]> {
    let hosts = [Namespace::create()?, Namespace::create()?];
    for host in &hosts {
        host.set_parameter("ipv4/tcp_no_metrics_save", "1")?;
        if let Some(name) = congestion_control {
            host.set_parameter(CONGESTION_CONTROL, name).with_context(|| {
                format!("{name} must be listed in the sysctl net.ipv4.tcp_allowed_congestion_control")
            })?;
        }
    }
    Ok(hosts)
}

/// Two namespaces joined by `link_count` virtual Ethernet pairs without any limit, addressed as in [`Network`].
///
/// # Errors
/// Without root or `ip`.
pub fn direct(link_count: usize, congestion_control: Option<&str>) -> Result<[Namespace; 2]> {
    let [near, far] = hosts(congestion_control)?;
    for index in 0..link_count {
        let device = device(index);
        near.ip(&format!("link add {device} type veth peer name {device} netns {}", far.name()))?;
        for (host, is_far) in [(&near, false), (&far, true)] {
            host.ip(&format!("addr add {}/24 dev {device}", address(index, is_far)))?;
            host.ip(&format!("link set {device} up"))?;
        }
    }
    Ok([near, far])
}
