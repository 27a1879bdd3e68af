//! The media of links: how each is dialled and accepted.
//!
//! To add one: a variant here with its dialer and acceptor, and its kind and keys in `link_spec.rs`.

mod child;
mod command_line;
mod exec;
mod group;
mod stdio;
#[cfg(target_os = "linux")]
mod usb;

use std::io;
use std::time::Duration;

use bondwire::{Bond, DialerHandle, Listener, PublicKey};
#[cfg(unix)]
use bondwire_serial::{PortError, SerialAcceptor, SerialAddress, SerialDialer};
use bondwire_tcp::{Listening, TcpAcceptor, TcpAddress, TcpDialer};
#[cfg(target_os = "linux")]
use bondwire_usb::Hint;
#[cfg(target_os = "linux")]
use bondwire_usb::device::{GadgetAcceptor, GadgetAddress};
use bondwire_usb::host::{UsbAddress, UsbDialer};
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use child::{ChildIo, Fate};
pub(crate) use command_line::{CommandLine, CommandLineError};
pub(crate) use stdio::ClosingStdout;

use crate::failure::{Exit, Failure};
use crate::link_spec::LinkSpec;
use exec::{ExecAcceptor, ExecDialer};
use stdio::{StdioAcceptor, StdioDialer};

/// What a link runs over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Medium {
    Tcp(TcpAddress),
    /// A serial port.
    #[cfg(unix)]
    Serial(SerialAddress),
    /// USB cables, at the host's end.
    Usb(UsbAddress),
    /// USB cables, at the device's end.
    #[cfg(target_os = "linux")]
    Gadget(GadgetAddress),
    /// Standard input and output of this program.
    Stdio,
    /// Standard input and output of a program that this one starts.
    Exec(CommandLine),
}

/// Why a link to a listener of its own stands alone.
pub(crate) const OWN_LISTENER: &str = "it starts a listener of its own, which no other link reaches; name it alone, or start \
                                       one listener for all links, as `bondwire connect ssh:HOST` does";
/// Where each end of a cable stands: its device waits, its host begins.
const GADGETS_LISTEN: &str = "a gadget waits for the host of its cable: use it with `listen`, and usb: with `connect` at the other end";
pub(crate) const CABLES_CONNECT: &str =
    "the host of a cable begins: use usb: with `connect`, and gadget: with `listen` at the other end";

impl Medium {
    /// Whether dialling it starts a listener that only this link reaches.
    pub(crate) fn starts_listener(&self) -> bool {
        matches!(self, Self::Exec(command) if command.starts_listener())
    }

    /// The serial port that one link has to itself.
    pub(crate) fn port(&self) -> Option<String> {
        match self {
            #[cfg(unix)]
            Self::Serial(address) => Some(address.port.clone()),
            _ => None,
        }
    }

    /// Whether it is a cable, which udev knows of.
    pub(crate) fn is_attached(&self) -> bool {
        match self {
            Self::Usb(_) => true,
            #[cfg(unix)]
            Self::Serial(_) => true,
            _ => false,
        }
    }

    /// Whether this end can begin.
    pub(crate) fn is_dialled(&self) -> bool {
        #[cfg(target_os = "linux")]
        return !matches!(self, Self::Gadget(_));
        #[cfg(not(target_os = "linux"))]
        true
    }
}

/// A link that is listened for.
pub(crate) struct Accepting {
    /// Where, for people.
    pub(crate) name: String,
    /// Where, if it is TCP.
    pub(crate) listening: Option<Listening>,
}

/// What the links of this program share: its one standard input and output, and its children.
#[derive(Clone, Default)]
pub(crate) struct Media {
    stdio_ended: watch::Sender<bool>,
    children: watch::Sender<usize>,
    /// Devices to listen on that are not there yet are waited for.
    waits: bool,
}

/// Time for children to end after the bonds have: longer than ending one of them takes.
const CHILDREN_TIMEOUT: Duration = Duration::from_secs(5);

impl Media {
    /// The same with devices that come later, as a service has them; else that is an error.
    pub(crate) fn waiting(waits: bool) -> Self {
        Self { waits, ..Self::default() }
    }

    /// Checks that `links` can be had together.
    pub(crate) fn check(links: &[LinkSpec]) -> Result<(), Failure> {
        let stdio = links.iter().filter(|link| link.medium == Medium::Stdio).count();
        if stdio > 1 {
            return Err(Failure::new(
                Exit::Usage,
                "stdio: stands there twice; there is one standard input and output",
            ));
        }
        for (index, link) in links.iter().enumerate() {
            if let Some(name) = link.medium.port()
                && links[..index].iter().any(|other| other.medium.port().as_ref() == Some(&name))
            {
                let message = format!("serial port {name} stands there twice; a port carries one link");
                return Err(Failure::new(Exit::Usage, message));
            }
        }
        match links.iter().find(|link| link.medium.starts_listener()) {
            Some(alone) if links.len() > 1 => {
                Err(Failure::new(Exit::Usage, format!("{alone}: {OWN_LISTENER}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the links of `links` can be dialled.
    pub(crate) fn check_dialled(links: &[LinkSpec]) -> Result<(), Failure> {
        Self::check(links)?;
        match links.iter().find(|link| !link.medium.is_dialled()) {
            Some(link) => Err(Failure::new(Exit::Usage, format!("{link}: {GADGETS_LISTEN}"))),
            None => Ok(()),
        }
    }

    /// Keeps a link up for `bond`.
    pub(crate) fn dial(&self, medium: &Medium, bond: &Bond) -> DialerHandle {
        match medium {
            Medium::Tcp(address) => bond.add_dialer(TcpDialer::new(address.clone())),
            #[cfg(unix)]
            Medium::Serial(address) => bond.add_dialer(SerialDialer::new(address.clone())),
            // One of those that are meant; the table of links asks for one over each.
            Medium::Usb(address) => bond.add_dialer(UsbDialer::any_of(address.clone())),
            #[cfg(target_os = "linux")]
            Medium::Gadget(_) => bond.add_dialer(usb::NeverDialled),
            Medium::Stdio => bond.add_dialer(StdioDialer::new(self.stdio_ended.clone())),
            Medium::Exec(command) => bond.add_dialer(ExecDialer::new(command.clone(), self.children.clone())),
        }
    }

    /// Takes links for `listener`, by an acceptor with this number.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unused_variables, reason = "only gadgets tell whose they are")
    )]
    pub(crate) async fn accept(
        &self,
        medium: &Medium,
        (listener, own_key): (&Listener, &PublicKey),
        number: u32,
    ) -> io::Result<Accepting> {
        // The other end of a pipe or cable knows its way by itself.
        let pipe = |name| Ok(Accepting { name, listening: None });
        match medium {
            Medium::Tcp(address) => {
                let acceptor = TcpAcceptor::bind(address).await?;
                let bound = acceptor.local_addr()?;
                listener.add_acceptor_as(number, acceptor);
                let listening = Listening { address: bound, interface: address.iface.clone() };
                Ok(Accepting { name: format!("tcp {bound}"), listening: Some(listening) })
            }
            #[cfg(unix)]
            Medium::Serial(address) => {
                let acceptor = match SerialAcceptor::bind(address).await {
                    Err(PortError::NotFound(_) | PortError::UnknownName(_)) if self.waits => {
                        SerialAcceptor::when_there(address)
                    }
                    bound => bound?,
                };
                listener.add_acceptor_as(number, acceptor);
                // What the port is called at the other end is not known here.
                pipe(format!("serial {address}"))
            }
            Medium::Usb(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, CABLES_CONNECT)),
            #[cfg(target_os = "linux")]
            Medium::Gadget(address) => {
                let hint = Hint::of_key(own_key);
                let start = if self.waits { GadgetAcceptor::start_when_there } else { GadgetAcceptor::start };
                let acceptor = start(address, hint)?;
                let name = format!("gadget {}", acceptor.served().join(", ")).trim_end().to_owned();
                listener.add_acceptor_as(number, acceptor);
                pipe(name)
            }
            Medium::Stdio => {
                listener.add_acceptor_as(number, StdioAcceptor::new(self.stdio_ended.clone())?);
                pipe("standard input and output".to_owned())
            }
            Medium::Exec(command) => {
                listener.add_acceptor_as(number, ExecAcceptor::new(command.clone(), self.children.clone()));
                pipe(format!("exec {command}"))
            }
        }
    }

    /// Waits until no link of `links` can ever come up again: all were `stdio:`, which has one end.
    pub(crate) async fn used_up(&self, links: &[LinkSpec]) {
        if links.iter().any(|link| link.medium != Medium::Stdio)
            || self.stdio_ended.subscribe().wait_for(|ended| *ended).await.is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the children have ended, after the bonds that they carried.
    pub(crate) async fn ended(&self) {
        // Whoever is left then ignores even SIGKILL, which is the kernel's affair.
        let _ = timeout(CHILDREN_TIMEOUT, self.children.subscribe().wait_for(|count| *count == 0)).await;
    }
}
