//! Why a cable that is plugged in cannot be used, and what to do about it.

use std::io;

use super::Cable;

/// Why a cable that is there cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CableFault {
    /// Not plugged in.
    #[error("not plugged in")]
    Gone,
    /// The user may not open the device.
    #[error(
        "no permission to open {device}: install the udev rule with `sudo bondwire udev install`, then plug the cable in again{}",
        group_advice(.group.as_deref())
    )]
    Permission {
        /// The device file, or where the device is plugged in.
        device: String,
        /// A group whose members may open it.
        group: Option<String>,
    },
    /// A kernel driver has the interface.
    #[error(
        "the interface belongs to the kernel driver `{driver}`; free it with \
         `echo {interface} > /sys/bus/usb/drivers/{driver}/unbind` as root"
    )]
    Driver {
        /// The driver's name.
        driver: String,
        /// The interface's name in sysfs, as `1-2:1.0`.
        interface: String,
    },
    /// A program has the interface.
    #[error("the interface is in use by {}", users(.0))]
    InUse(Vec<String>),
    /// The interface has no pair of bulk endpoints.
    #[error(
        "the interface has no bulk endpoint {0}: this is no Bondwire device, whatever class it gives; \
         name the one that is meant (usb:VENDOR:PRODUCT), or mend this one's firmware"
    )]
    NoEndpoint(&'static str),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

fn group_advice(group: Option<&str>) -> String {
    group.map_or_else(String::new, |group| {
        format!("; or join the group that may: sudo usermod -aG {group} $USER, and log in again")
    })
}

fn users(programs: &[String]) -> String {
    match programs {
        [] => "another program (as root `bondwire devices` can see which)".to_owned(),
        [one] if one.starts_with("bondwire ") => format!("{one}; `bondwire status` shows its bond"),
        some => format!("{}; end it first", some.join(", ")),
    }
}

impl From<CableFault> for io::Error {
    fn from(fault: CableFault) -> Self {
        let kind = match &fault {
            CableFault::Gone => io::ErrorKind::NotFound,
            CableFault::Permission { .. } => io::ErrorKind::PermissionDenied,
            CableFault::InUse(_) | CableFault::Driver { .. } => io::ErrorKind::ResourceBusy,
            CableFault::NoEndpoint(_) => io::ErrorKind::InvalidData,
            CableFault::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, fault)
    }
}

/// Why nusb could not open or claim it.
pub(super) fn explained(cable: &Cable, error: &nusb::Error) -> CableFault {
    match error.kind() {
        nusb::ErrorKind::Disconnected => CableFault::Gone,
        nusb::ErrorKind::PermissionDenied => {
            let file = cable.device_file();
            CableFault::Permission {
                group: file.as_deref().and_then(system::group_of),
                device: file.unwrap_or_else(|| format!("the device at {}", cable.port)),
            }
        }
        nusb::ErrorKind::Busy => match cable.driver() {
            // This is how the kernel calls programs.
            Some(driver) if driver != "usbfs" => {
                CableFault::Driver { driver, interface: cable.interface_name().unwrap_or_default() }
            }
            _ => CableFault::InUse(cable.device_file().map_or_else(Vec::new, |file| system::programs(&file))),
        },
        _ => CableFault::Other(error.to_string()),
    }
}

/// What Linux tells of device files. (Elsewhere there are none.)
#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    /// Read and write permission of the group.
    const GROUP_MAY: u32 = 0o060;
    const ROOT: u32 = 0;

    /// The group whose members may open a file, if there is one beside root's.
    pub(super) fn group_of(file: &str) -> Option<String> {
        let metadata = fs::metadata(file).ok()?;
        let gid = metadata.gid();
        if metadata.mode() & GROUP_MAY != GROUP_MAY || gid == ROOT {
            return None;
        }
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Some(group_name(&groups, gid).unwrap_or_else(|| gid.to_string()))
    }

    /// The name of a group in the text of group(5).
    fn group_name(groups: &str, gid: u32) -> Option<String> {
        groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
        })
    }

    /// The other programs that have a file open, as far as this user may see.
    pub(super) fn programs(file: &str) -> Vec<String> {
        let own = std::process::id();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let mut pids: Vec<u32> = pids.filter(|pid| *pid != own && has_open(*pid, file)).collect();
        pids.sort_unstable();
        let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        pids.into_iter().map(|pid| format!("{} (process {pid})", name(pid).trim())).collect()
    }

    fn has_open(pid: u32, file: &str) -> bool {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| path == Path::new(file))
    }

    #[cfg(test)]
    mod tests {
        use std::process::{Command, Stdio};

        use super::*;

        #[test]
        fn groups_have_names() {
            let groups = "root:x:0:\nplugdev:x:46:me,you\n";
            assert_eq!(group_name(groups, 46).as_deref(), Some("plugdev"));
            assert_eq!(group_name(groups, 4), None);
        }

        #[test]
        fn a_program_that_has_a_file_open_is_named() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("device");
            let file = fs::File::create(&path).unwrap();
            let path = path.canonicalize().unwrap().display().to_string();
            assert_eq!(programs(&path), [] as [&str; 0], "this one does not count");
            let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(file).spawn().unwrap();
            let named = format!("cat (process {})", cat.id());
            // Between fork and exec it has another name.
            while programs(&path).iter().all(|program| *program != named) {
                assert!(cat.try_wait().unwrap().is_none(), "{:?}", programs(&path));
            }
            drop(cat.stdin.take());
            cat.wait().unwrap();
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn group_of(_: &str) -> Option<String> {
        None
    }

    pub(super) fn programs(_: &str) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_interface_is_told_with_what_to_do() {
        let text = |programs: &[&str]| {
            CableFault::InUse(programs.iter().map(|&name| name.to_owned()).collect()).to_string()
        };
        assert!(text(&[]).ends_with("another program (as root `bondwire devices` can see which)"));
        assert!(text(&["adb (process 7)"]).ends_with("in use by adb (process 7); end it first"));
        assert!(text(&["bondwire (process 7)"]).ends_with("`bondwire status` shows its bond"));
        let driver = CableFault::Driver { driver: "pl2303".into(), interface: "1-2:1.0".into() };
        assert!(
            driver.to_string().contains("`echo 1-2:1.0 > /sys/bus/usb/drivers/pl2303/unbind`"),
            "{driver}"
        );
    }

    #[test]
    fn a_group_is_named_where_there_is_one() {
        let text = |group: Option<&str>| {
            let device = "/dev/bus/usb/001/002".to_owned();
            CableFault::Permission { device, group: group.map(str::to_owned) }.to_string()
        };
        assert!(text(None).ends_with(
            "/dev/bus/usb/001/002: install the udev rule with `sudo bondwire udev install`, then plug the cable in again"
        ));
        assert!(text(Some("plugdev")).contains("sudo usermod -aG plugdev $USER"));
    }
}
