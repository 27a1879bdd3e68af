//! The interface, on Linux.
//!
//! The kernel is asked through the crate `tun-rs`. One that somebody with more rights has made and set up is taken as it is, so that
//! this program needs no rights.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bondwire_tcp::interfaces;
use tun_rs::{AsyncDevice, DeviceBuilder};

use super::TunSpec;
use crate::failure::Failure;

/// An interface whose packets this program reads and writes. It is gone when this is, unless somebody else has made it.
pub(super) struct Device(AsyncDevice);

impl Device {
    /// Makes the interface of `spec`, or takes the one that is there.
    pub(super) fn open(spec: &TunSpec) -> Result<Self, Failure> {
        let name = spec.name.as_str();
        let folder = Path::new("/sys/class/net").join(name);
        let is_there = folder.exists();
        if is_there && !folder.join("tun_flags").exists() {
            let what = format!(
                "--tun {name}: {name} is another interface of this host already; choose another name"
            );
            return Err(Failure::configuration(what));
        }
        check_addresses(spec)?;
        let mut builder = DeviceBuilder::new().name(name);
        if is_there && is_set_up(spec, &folder) {
            builder = builder.inherit_enable_state();
        } else {
            builder = builder.mtu(spec.mtu);
            for address in spec.addresses.iter() {
                builder = match address.ip {
                    std::net::IpAddr::V4(ip) => builder.ipv4(ip, address.prefix_bits, None),
                    std::net::IpAddr::V6(ip) => builder.ipv6(ip, address.prefix_bits),
                };
            }
        }
        let device = builder.build_async().map_err(|error| refused(spec, &error))?;
        Ok(Self(device))
    }

    /// Waits until there may be a packet. Cancel safe.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    pub(super) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_recv(buffer)
    }

    /// Hands a packet to this host.
    pub(super) async fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet).await.map(drop)
    }
}

/// An address that this host has elsewhere would not lead to the interface.
fn check_addresses(spec: &TunSpec) -> Result<(), Failure> {
    let others = interfaces::list().unwrap_or_default();
    for other in others.iter().filter(|other| other.name != spec.name.as_str()) {
        if let Some(address) = other.addresses.iter().find(|address| spec.addresses.contains(address.ip)) {
            let what = format!(
                "--addr {}: {} is the address of {} already; choose another one",
                spec.addresses, address.ip, other.name
            );
            return Err(Failure::configuration(what));
        }
    }
    Ok(())
}

/// Whether nothing is left to be done for the interface.
fn is_set_up(spec: &TunSpec, folder: &Path) -> bool {
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let mtu = read("mtu").trim().parse() == Ok(spec.mtu);
    // `IFF_UP`.
    let flags = read("flags");
    let up = flags.trim().strip_prefix("0x").and_then(|flags| u32::from_str_radix(flags, 16).ok());
    let all = if_addrs_of(spec.name.as_str());
    mtu && up.is_some_and(|flags| flags & 1 != 0)
        && spec.addresses.iter().all(|address| all.contains(&(address.ip, address.prefix_bits)))
}

/// The addresses of an interface, also while no program has it.
fn if_addrs_of(name: &str) -> Vec<(std::net::IpAddr, u8)> {
    let all = interfaces::list_all().unwrap_or_default();
    let own = all.into_iter().filter(|interface| interface.name == name);
    own.flat_map(|interface| interface.addresses).map(|address| (address.ip, address.prefix_bits)).collect()
}

/// What the kernel's refusal means, and what to do.
fn refused(spec: &TunSpec, error: &io::Error) -> Failure {
    let name = &spec.name;
    let is = |errno: rustix::io::Errno| error.raw_os_error() == Some(errno.raw_os_error());
    let what = if is(rustix::io::Errno::BUSY) {
        format!("--tun {name}: another program has the interface {name}; choose another name")
    } else if is(rustix::io::Errno::PERM) || is(rustix::io::Errno::ACCESS) {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("bondwire"));
        let addresses: Vec<_> =
            spec.addresses.iter().map(|address| format!("ip addr add {address} dev {name}")).collect();
        format!(
            "--tun {name}: not permitted: run this as root; or once, as root, `setcap cap_net_admin+ep {}`; or have root make the \
             interface: `ip tuntap add {name} mode tun user USER && {} && ip link set {name} mtu {} up`",
            program.display(),
            addresses.join(" && "),
            spec.mtu
        )
    } else if is(rustix::io::Errno::NOENT) || is(rustix::io::Errno::NODEV) {
        format!("--tun {name}: this kernel has no tun interfaces: {error}; as root, `modprobe tun`")
    } else {
        format!("--tun {name}: the interface cannot be made with {}: {error}", spec.addresses)
    };
    Failure::configuration(what)
}
