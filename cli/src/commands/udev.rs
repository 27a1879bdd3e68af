//! `bondwire udev`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::failure::{Exit, Failure};
use crate::output;
use crate::udev::files::{self, PROGRAM};
use crate::udev::install::{self, Outcome};
use crate::udev::serial_numbers::{SerialNumber, SerialNumbers};
use crate::udev::system;

const EXAMPLES: &str = "\
Examples:
  sudo bondwire udev install                      rules, units, the user `bondwire`
  sudo bondwire udev install --serial FT4X9Z1B    the same, and a serial port that may be used
  bondwire udev print                             what would be written
  sudo bondwire udev uninstall

docs/UDEV.md tells the whole way, from a plugged-in cable to the running service.";
/// Folders that the service does not see: ProtectHome and PrivateTmp in its unit.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Arguments of `bondwire udev`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UdevCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write the rules and units, in place of older ones, and have udev and systemd read them
    #[command(after_help = EXAMPLES)]
    Install(Install),
    /// Stop the service, and remove what `install` has written
    #[command(after_help = EXAMPLES)]
    Uninstall(Uninstall),
    /// Print what `install` would write
    #[command(after_help = EXAMPLES)]
    Print(Set),
}

/// What is written.
#[derive(Args)]
struct Set {
    /// Serial number of a USB serial port that may be used, too; those of before stay
    #[arg(long, value_name = "NUMBER")]
    serial: Vec<SerialNumber>,
    /// Serial number of a port that may be used no longer
    #[arg(long, value_name = "NUMBER")]
    forget_serial: Vec<SerialNumber>,
    /// The program in the units [default: this one; below another root /usr/bin/bondwire]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Folder that stands for /, as of an image; nothing is told to udev and systemd then
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
}

#[derive(Args)]
struct Install {
    #[command(flatten)]
    set: Set,
    /// Overwrite files that somebody has changed, or that are newer
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct Uninstall {
    /// Folder that stands for /, as of an image; nothing is told to udev and systemd then
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
    /// Remove files that somebody has changed, too
    #[arg(long)]
    force: bool,
}

impl UdevCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.what {
            What::Install(install) => install.run(),
            What::Uninstall(uninstall) => uninstall.run(),
            What::Print(set) => set.print(),
        }
    }
}

impl Set {
    fn files(&self) -> Result<Vec<files::File>, Failure> {
        let serial_numbers = self.serial_numbers()?;
        if files::is_packaged(&self.root) {
            return Ok(files::beside_package(&serial_numbers).into_iter().collect());
        }
        Ok(files::all(&self.program()?, &serial_numbers))
    }

    /// Those of before, with what is new and without what is to be forgotten.
    fn serial_numbers(&self) -> Result<SerialNumbers, Failure> {
        let mut numbers = install::serial_numbers(&self.root).map_err(Failure::configuration)?;
        numbers.extend(self.serial.iter().cloned());
        for number in &self.forget_serial {
            if !numbers.remove(number) {
                let message = format!("serial number {number} was not let in; there is nothing to forget");
                return Err(Failure::new(Exit::Usage, message));
            }
        }
        Ok(numbers)
    }

    fn program(&self) -> Result<PathBuf, Failure> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None if is_running_system(&self.root) => {
                std::env::current_exe().map_err(Failure::configuration)?
            }
            None => PathBuf::from(PROGRAM),
        };
        let text = program.to_string_lossy();
        let is_plain = |c: char| c.is_alphanumeric() || "/._+-".contains(c);
        if !program.is_absolute() || !text.chars().all(is_plain) {
            let message = format!("{text} cannot stand in a unit; name the program by a plain absolute path");
            return Err(Failure::new(Exit::Usage, message));
        }
        if HIDDEN.iter().any(|hidden| program.starts_with(hidden)) {
            let message = format!(
                "{text} is not seen by the service, which sees no home folders; copy it to /usr/local/bin, or name another \
                 with --program"
            );
            return Err(Failure::configuration(message));
        }
        Ok(program)
    }

    fn print(&self) -> Result<(), Failure> {
        let file = |file: files::File| {
            format!("==> {} <==\n{}\n", self.root.join("etc").join(file.path).display(), file.text)
        };
        output::text(&self.files()?.into_iter().map(file).collect::<String>())
    }
}

fn is_running_system(root: &Path) -> bool {
    root == Path::new("/")
}

impl Install {
    fn run(self) -> Result<(), Failure> {
        let root = &self.set.root;
        let outcomes =
            install::install(root, &self.set.files()?, self.force).map_err(Failure::configuration)?;
        print(&outcomes)?;
        if files::is_packaged(root) {
            output::line("rules and units are the package's")?;
        }
        if !is_running_system(root) {
            return Ok(());
        }
        let told = system::installed().map_err(Failure::configuration)?;
        if !told.systemd {
            output::line("systemd does not run here: cables are attached when it does")?;
        }
        if !told.udev {
            output::line("udev does not run here: cables are attached when it does")?;
        }
        if !Path::new("/etc/bondwire/bondwire.toml").exists() {
            output::line("next: write /etc/bondwire/bondwire.toml, then systemctl enable --now bondwire")?;
        }
        Ok(())
    }
}

impl Uninstall {
    fn run(self) -> Result<(), Failure> {
        let is_running = is_running_system(&self.root);
        let is_packaged = files::is_packaged(&self.root);
        let files = install::present_below(&self.root, self.force).map_err(Failure::configuration)?;
        if is_packaged {
            output::line("rules and units are the package's; remove that as you do with others")?;
        }
        if files.is_empty() {
            return if is_packaged { Ok(()) } else { output::line("nothing is installed") };
        }
        if is_running && !is_packaged {
            system::leaves().map_err(Failure::configuration)?;
        }
        print(&install::uninstall(files).map_err(Failure::configuration)?)?;
        if is_running {
            system::uninstalled().map_err(Failure::configuration)?;
        }
        if is_running && !is_packaged {
            let stays = "/etc/bondwire, /var/lib/bondwire and the user `bondwire` stay; remove them if nothing in them is needed";
            output::line(stays)?;
        }
        Ok(())
    }
}

fn print(outcomes: &[Outcome]) -> Result<(), Failure> {
    outcomes.iter().try_for_each(|outcome| output::line(&outcome.to_string()))
}
