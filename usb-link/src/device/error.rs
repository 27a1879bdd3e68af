use std::io;
use std::path::PathBuf;

/// Why a gadget controller cannot serve a link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GadgetError {
    /// The machine has none.
    #[error(
        "this machine has no USB device controller (nothing in /sys/class/udc): it can only be the host of a cable; \
         on a board with a dual-role port, its overlay or driver may have to be switched to peripheral mode"
    )]
    NoController,
    /// The one that was named is not there.
    #[error("there is no USB device controller `{name}`; there {}", have(.known))]
    UnknownController {
        /// As it was asked for.
        name: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// Another gadget has the controller.
    #[error(
        "controller {controller} is bound to gadget `{gadget}` ({}); free it with `echo > {}/UDC`, or put Bondwire \
         beside what is there with a FunctionFS function of its own (gadget:,ffs=FOLDER)",
        .path.display(), .path.display()
    )]
    Bound {
        /// The controller.
        controller: String,
        /// The gadget's name.
        gadget: String,
        /// Its folder.
        path: PathBuf,
    },
    /// A driver that is no configfs gadget has the controller.
    #[error("controller {controller} is used by the driver `{driver}`; unload it first{}", unloading(.driver))]
    Driver {
        /// The controller.
        controller: String,
        /// The driver.
        driver: String,
    },
    /// Every controller is in use.
    #[error("every USB device controller is in use: {}", .0.join("; "))]
    AllInUse(Vec<String>),
    /// Another program serves the controller.
    #[error("another bondwire serves controller {0}; `bondwire devices` shows the state of all")]
    Served(String),
    /// The file system in which gadgets are set up is not there.
    #[error(
        "configfs is not mounted, without which there are no USB gadgets: \
         `modprobe configfs; mount -t configfs none /sys/kernel/config` as root"
    )]
    NoConfigfs,
    /// The kernel lacks gadgets.
    #[error(
        "the kernel has no USB gadgets (libcomposite is not loaded): `modprobe libcomposite` as root, \
         or a kernel with CONFIG_USB_CONFIGFS"
    )]
    NoGadgets,
    /// The kernel lacks one function.
    #[error(
        "the kernel has no gadget function `{function}`: `modprobe {module}`, or a kernel with it ({source})"
    )]
    NoFunction {
        /// The function.
        function: String,
        /// The module that has it.
        module: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not allowed.
    #[error(
        "no permission to set up a USB gadget ({0}): run this as root, or let root run `bondwire gadget up --user USER` once"
    )]
    Permission(String),
    /// A folder that is no FunctionFS folder, or one in use.
    #[error("{}: {what}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Anything else.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How to unload a driver: modules of gadgets have names like this. Others are called what they like.
fn unloading(driver: &str) -> String {
    if driver.starts_with("g_") { format!(": `modprobe -r {driver}`") } else { String::new() }
}

fn have(known: &[String]) -> String {
    match known {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

impl GadgetError {
    pub(super) fn io(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission(format!("cannot {what}")),
            _ if source.raw_os_error() == Some(libc::EPERM) => Self::Permission(format!("cannot {what}")),
            _ => Self::Io { what, source },
        }
    }
}

impl From<GadgetError> for io::Error {
    fn from(error: GadgetError) -> Self {
        let kind = match &error {
            GadgetError::Permission(_) => io::ErrorKind::PermissionDenied,
            GadgetError::NoController | GadgetError::UnknownController { .. } => io::ErrorKind::NotFound,
            GadgetError::Bound { .. }
            | GadgetError::Driver { .. }
            | GadgetError::AllInUse(_)
            | GadgetError::Served(_) => io::ErrorKind::ResourceBusy,
            GadgetError::NoConfigfs | GadgetError::NoGadgets | GadgetError::NoFunction { .. } => {
                io::ErrorKind::Unsupported
            }
            GadgetError::Io { source, .. } => source.kind(),
            GadgetError::Folder { .. } => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
