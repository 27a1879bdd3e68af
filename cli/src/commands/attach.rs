//! `bondwire attach`

use clap::Args;

use crate::control::protocol::Command;
use crate::failure::Failure;
use crate::output;

use super::status::ask;

const EXAMPLES: &str = "\
Examples:
  bondwire attach 1-2.3              a USB cable, by the port that `bondwire devices` shows
  bondwire attach /dev/ttyUSB0       a serial port
  bondwire attach ttyUSB0 --bond 2   to the bond with this number in `bondwire status`

Without --bond the bond whose `attach` lets the device in gets it, or the only one; docs/UDEV.md has the rules.
Exit code 8: the device is not plugged in any more, or no bond takes it.";

/// Arguments of `bondwire attach`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Attach {
    /// USB port (1-2.3), device file (/dev/ttyUSB0) or its name, or the device's path in sysfs
    device: String,
    /// The running command, where there are several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Number of the bond
    #[arg(long, value_name = "NUMBER")]
    bond: Option<u64>,
}

impl Attach {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let Self { device, name, bond } = self;
        let command = Command::Attach { bond, device: device.clone() };
        let answer = ask(name.as_deref(), &command).await?;
        let link = answer["link"].as_str().unwrap_or_default();
        let whose = match answer["bond"].as_u64() {
            Some(bond) => format!("bond {bond}"),
            None => "the listening end".to_owned(),
        };
        let already = if answer["new"] == true { "" } else { " already" };
        output::line(&format!("{device}: attached{already} to {whose} as {link}"))
    }
}
