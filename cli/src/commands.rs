//! The commands, one file each.

#[cfg(unix)]
mod attach;
mod check;
mod completions;
mod connect;
mod demo;
#[cfg(unix)]
mod detach;
mod devices;
#[cfg(unix)]
mod events;
#[cfg(unix)]
mod forward;
#[cfg(target_os = "linux")]
mod gadget;
mod keygen;
#[cfg(unix)]
mod link;
mod listen;
#[cfg(unix)]
mod log_level;
mod man_pages;
#[cfg(unix)]
mod monitor;
mod peers;
mod plot;
mod pubkey;
#[cfg(unix)]
mod report;
mod speed;
#[cfg(unix)]
mod status;
#[cfg(unix)]
mod stop;
#[cfg(target_os = "linux")]
mod udev;
#[cfg(unix)]
mod up;

use clap::Subcommand;

use crate::failure::Failure;
use crate::logging::Quietness;
use crate::signals::Interrupt;

/// What the program is to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a private key and print its public key
    Keygen(keygen::Keygen),
    /// Print the public key of a private key file
    Pubkey(pubkey::Pubkey),
    /// Take bonds from allowed peers, serve their forwards and answer their speed tests
    Listen(listen::Listen),
    /// Bond several links to a peer, and forward TCP ports through the bond
    Connect(connect::Connect),
    /// Run the bonds of a configuration file, as a service
    #[cfg(unix)]
    Up(up::Up),
    /// Say what is wrong with a configuration file, or in one line what it comes to
    Check(check::Check),
    /// Show the running bonds: their links, what each carries, and why one carries nothing
    #[cfg(unix)]
    Status(status::Status),
    /// Follow the links of a running command on a screen: rates, states and their reasons; pause and change them
    #[cfg(unix)]
    Monitor(monitor::Monitor),
    /// Add, remove, pause and change links of a running bond
    #[cfg(unix)]
    Link(link::Link),
    /// Open and close forwards of a running bond
    #[cfg(unix)]
    Forward(forward::Forward),
    /// Print the last messages of a running command, and follow them
    #[cfg(unix)]
    Events(events::Events),
    /// Set the level of a running command's log
    #[cfg(unix)]
    Log(log_level::Log),
    /// End a running command, as Ctrl-C there does, and wait until its ports are free
    #[cfg(unix)]
    Stop(stop::Stop),
    /// Write all that a maintainer would ask for into one file, without secrets
    #[cfg(unix)]
    Report(report::Report),
    /// Measure a bond, the running one where there is one: how much arrives, verified, and over which links
    Speed(speed::Speed),
    /// Draw a recording: rates, round trips and bytes in flight of each link, and what happened to it
    Plot(plot::Plot),
    /// List the remembered peers, forget or rename one
    Peers(peers::PeersCommand),
    /// List what links can be made of here (USB devices, gadget controllers, serial ports): usable or not, and why
    Devices(devices::Devices),
    /// Set up and remove USB gadgets: this machine as the device of a cable
    #[cfg(target_os = "linux")]
    Gadget(gadget::GadgetCommand),
    /// Hand a cable that was plugged in to a running bond; udev does so by itself
    #[cfg(unix)]
    Attach(attach::Attach),
    /// Take a cable that was attached out of its bond
    #[cfg(unix)]
    Detach(detach::Detach),
    /// Install the udev rules and the systemd service, by which cables join the running bond as they are plugged in
    #[cfg(target_os = "linux")]
    Udev(udev::UdevCommand),
    /// Show a bond at work on this machine: links of different speed, cut and returned
    Demo(demo::Demo),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Write the manual page of each command into a folder
    #[command(hide = true)]
    ManPages(man_pages::ManPages),
}

impl Command {
    /// How much the command logs by itself.
    pub(crate) fn quietness(&self) -> Quietness {
        match self {
            Self::Connect(command) => command.quietness(),
            Self::Listen(_) | Self::Keygen(_) | Self::Peers(_) => Quietness::Events,
            #[cfg(unix)]
            Self::Up(_) => Quietness::Events,
            _ => Quietness::Results,
        }
    }
}

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Keygen(command) => command.run(),
        Command::Pubkey(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::ManPages(command) => command.run(),
        Command::Peers(command) => command.run(),
        Command::Plot(command) => command.run(),
        Command::Devices(command) => command.run().await,
        #[cfg(target_os = "linux")]
        Command::Gadget(command) => command.run(),
        #[cfg(unix)]
        Command::Attach(command) => command.run().await,
        #[cfg(unix)]
        Command::Detach(command) => command.run().await,
        #[cfg(target_os = "linux")]
        Command::Udev(command) => command.run(),
        Command::Listen(command) => command.run(Interrupt::install()?).await,
        Command::Connect(command) => command.run(Interrupt::install()?).await,
        #[cfg(unix)]
        Command::Up(command) => command.run(Interrupt::install()?).await,
        Command::Speed(command) => command.run(Interrupt::install()?).await,
        Command::Demo(command) => command.run(Interrupt::install()?).await,
        #[cfg(unix)]
        Command::Status(command) => command.run().await,
        #[cfg(unix)]
        Command::Monitor(command) => command.run(Interrupt::install()?).await,
        #[cfg(unix)]
        Command::Link(command) => command.run().await,
        #[cfg(unix)]
        Command::Forward(command) => command.run().await,
        #[cfg(unix)]
        Command::Events(command) => command.run(Interrupt::install()?).await,
        #[cfg(unix)]
        Command::Log(command) => command.run().await,
        #[cfg(unix)]
        Command::Report(command) => command.run().await,
        #[cfg(unix)]
        Command::Stop(command) => command.run().await,
    }
}
