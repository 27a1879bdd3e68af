//! The USB device controllers of this machine, as sysfs shows them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::GadgetError;
use super::gadget::{gadgets_folder, is_ours};

const CONTROLLERS: &str = "/sys/class/udc";

/// A USB device controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Controller {
    /// Its name, as in `/sys/class/udc`.
    pub name: String,
    /// State of the device that it plays: `not attached`, `configured`, `suspended`.
    pub state: String,
    /// Present speed as the kernel names it: `high-speed`; `UNKNOWN` without a cable.
    pub speed: String,
    /// Highest speed.
    pub max_speed: String,
    /// What is bound to it.
    pub user: Option<ControllerUser>,
}

/// What is bound to a controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControllerUser {
    /// A gadget that Bondwire set up.
    Bondwire,
    /// Another gadget in configfs, and its folder.
    Gadget {
        /// Its name.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// A driver that is no configfs gadget, such as `g_ether`.
    Driver(String),
}

/// All controllers, in the order of their names.
pub fn controllers() -> Vec<Controller> {
    let mut names: Vec<String> = fs::read_dir(CONTROLLERS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.into_iter().map(look_at).collect()
}

/// Names of controllers, each with what tells it from an earlier one of its name.
pub(super) type Present = BTreeMap<String, u64>;

/// Those that are there.
pub(super) fn present() -> Present {
    let entries = fs::read_dir(CONTROLLERS).into_iter().flatten().flatten();
    // Each device that comes has an entry of its own in sysfs. One that is going may have none any more.
    let node = |name: &str| fs::metadata(Path::new(CONTROLLERS).join(name)).ok().map(|entry| entry.ino());
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.clone(), node(&name)?))
        })
        .collect()
}

fn look_at(name: String) -> Controller {
    let attribute = |what: &str| read(&Path::new(CONTROLLERS).join(&name).join(what));
    let user = bound_gadget(&name).or_else(|| {
        // In 5.x and later kernels `function` names the driver; a gadget of configfs is named after itself there.
        Some(attribute("function")).filter(|driver| !driver.is_empty()).map(ControllerUser::Driver)
    });
    Controller {
        state: attribute("state"),
        speed: attribute("current_speed"),
        max_speed: attribute("maximum_speed"),
        user,
        name,
    }
}

/// The gadget of configfs that is bound to a controller.
fn bound_gadget(controller: &str) -> Option<ControllerUser> {
    let gadgets = fs::read_dir(gadgets_folder().ok()?).ok()?;
    let bound = gadgets.flatten().find(|gadget| read(&gadget.path().join("UDC")) == controller)?;
    let name = bound.file_name().to_string_lossy().into_owned();
    Some(if is_ours(&name) {
        ControllerUser::Bondwire
    } else {
        ControllerUser::Gadget { name, path: bound.path() }
    })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

impl Controller {
    /// What keeps Bondwire from using it, if anything does.
    pub fn obstacle(&self) -> Option<GadgetError> {
        match self.user.clone()? {
            ControllerUser::Bondwire => None,
            ControllerUser::Gadget { name, path } => {
                Some(GadgetError::Bound { controller: self.name.clone(), gadget: name, path })
            }
            ControllerUser::Driver(driver) => {
                Some(GadgetError::Driver { controller: self.name.clone(), driver })
            }
        }
    }
}

/// The controllers that a link shall use: the one that is named, else all that are free.
///
/// # Errors
/// There is none, or what is bound to them.
pub fn choose(named: Option<&str>) -> Result<Vec<String>, GadgetError> {
    let all = controllers();
    if all.is_empty() {
        return Err(GadgetError::NoController);
    }
    if let Some(name) = named {
        let known = || all.iter().map(|controller| controller.name.clone()).collect();
        let found = all.iter().find(|controller| controller.name == name);
        let found =
            found.ok_or_else(|| GadgetError::UnknownController { name: name.to_owned(), known: known() })?;
        return match found.obstacle() {
            Some(obstacle) => Err(obstacle),
            None => Ok(vec![found.name.clone()]),
        };
    }
    let (free, used): (Vec<_>, Vec<_>) = all.iter().partition(|controller| controller.obstacle().is_none());
    if free.is_empty() {
        let why = used.iter().filter_map(|controller| Some(controller.obstacle()?.to_string()));
        return Err(GadgetError::AllInUse(why.collect()));
    }
    Ok(free.into_iter().map(|controller| controller.name.clone()).collect())
}
