//! `bondwire gadget`

use bondwire_usb::device::{self, Companion, Gadget, GadgetAddress, GadgetConfig};
use clap::{Args, Subcommand};

use crate::devices::gadget;
use crate::failure::{Exit, Failure};
use crate::output;

/// Arguments of `bondwire gadget`.
#[derive(Args)]
pub(crate) struct GadgetCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Set up a gadget, which stays until `down` or a reboot: `listen gadget:` then needs no rights of its own
    Up(Up),
    /// Remove gadgets that were set up, and what a crash left behind
    Down(Which),
    /// List the USB device controllers and what is bound to them
    List(List),
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    which: Which,
    /// User who may serve it: a name or number
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

#[derive(Args)]
struct Which {
    /// Controller and options, as in a gadget: LINK, for example fe980000.usb,with=acm+ncm [default: every free controller]
    #[arg(value_name = "CONTROLLER", default_value = "")]
    address: GadgetAddress,
}

#[derive(Args)]
struct List {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl GadgetCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.what {
            What::Up(up) => up.run(),
            What::Down(which) => down(&which.address),
            What::List(List { json: true }) => output::json(&gadget::rows()),
            What::List(_) => output::text(&gadget::text(&gadget::rows())),
        }
    }
}

impl Up {
    fn run(self) -> Result<(), Failure> {
        let address = self.which.address;
        if address.functionfs.is_some() {
            let message = "ffs= names a gadget that somebody else sets up; there is nothing to do here";
            return Err(Failure::new(Exit::Usage, message));
        }
        let owner = self.user.as_deref().map(owner).transpose()?;
        for controller in device::choose(address.controller.as_deref()).map_err(Failure::configuration)? {
            let config = GadgetConfig {
                controller: controller.clone(),
                with: address.with.clone(),
                serial: address.serial.clone(),
                max_speed: address.max_speed,
                owner,
            };
            // One that was set up before may have been another one.
            device::remove(&controller).map_err(Failure::configuration)?;
            Gadget::create(&config).and_then(Gadget::keep).map_err(Failure::configuration)?;
            let with: Vec<String> = config.with.iter().map(Companion::to_string).collect();
            let with = if with.is_empty() { String::new() } else { format!(" with {}", with.join(", ")) };
            output::line(&format!(
                "gadget:{controller} is set up{with}; hosts see it while `bondwire listen gadget:{controller}` runs"
            ))?;
        }
        Ok(())
    }
}

fn down(address: &GadgetAddress) -> Result<(), Failure> {
    let controllers = match &address.controller {
        Some(controller) => vec![controller.clone()],
        None => device::ours(),
    };
    if controllers.is_empty() {
        return output::line("no gadget is set up");
    }
    for controller in controllers {
        let what = match device::remove(&controller).map_err(Failure::configuration)? {
            true => "removed",
            false => "there was none",
        };
        output::line(&format!("gadget:{controller}: {what}"))?;
    }
    Ok(())
}

/// User and group of a name or number, from the system's files.
fn owner(user: &str) -> Result<(u32, u32), Failure> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (name == user || uid == user).then_some((uid.parse().ok()?, gid.parse().ok()?))
    });
    let number = || user.parse().ok().map(|uid| (uid, uid));
    found
        .or_else(number)
        .ok_or_else(|| Failure::new(Exit::Usage, format!("there is no user {user:?} in /etc/passwd")))
}
