//! The kernel's modules that go into the guest, with all that they need.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{During, SetUpError, read};
use crate::packages::Packages;

/// What tests may load. Modules that these need come along.
const MODULES: [&str; 33] = [
    // Cables in software, and gadget functions at their device end.
    "dummy_hcd",
    "libcomposite",
    "configfs",
    "usb_f_fs",
    "usb_f_acm",
    "usb_f_ncm",
    "usb_f_ss_lb",
    "g_serial",
    "usbip_vudc",
    "vhci_hcd",
    // Drivers of the host end.
    "cdc_acm",
    "cdc_ncm",
    "cdc_ether",
    "usbtest",
    "usbmon",
    "usbserial",
    "ftdi_sio",
    "cp210x",
    "ch341",
    "pl2303",
    "usbnet",
    // The controller of QEMU's own USB devices.
    "xhci_pci",
    // The disk of a guest with systemd.
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "crc32c_generic",
    "overlay",
    // Networks.
    "bonding",
    "sch_netem",
    "sch_tbf",
    "veth",
    "dummy",
    "mptcp_diag",
];

/// The modules of one kernel, ready to be copied into a guest.
#[derive(Debug)]
pub struct KernelModules {
    /// The kernel's release, as `uname -r` has it.
    pub release: String,
    /// The folder that has them as `lib/modules/RELEASE`, with the indexes of depmod.
    pub folder: PathBuf,
}

impl KernelModules {
    /// Copies the modules of the kernel among `packages` into `cache`.
    ///
    /// # Errors
    ///
    /// A module does not exist, or depmod fails.
    pub fn prepare(cache: &Path, packages: &Packages) -> Result<Self, SetUpError> {
        let kernel = packages.kernel()?;
        let release = release_of(kernel)?;
        let modules = Self { folder: cache.join(format!("modules-{release}")), release };
        let list = modules.folder.join("list");
        if fs::read_to_string(&list).is_ok_and(|list| list == MODULES.join("\n")) {
            return Ok(modules);
        }
        if modules.folder.is_dir() {
            fs::remove_dir_all(&modules.folder).during("remove modules of an older list")?;
        }
        let depmod = Depmod { packages, release: &modules.release };
        depmod.run(kernel)?;
        let from = kernel.join("lib/modules").join(&modules.release);
        let text = fs::read_to_string(from.join("modules.dep")).during("read modules.dep")?;
        let files = closure(&text, &MODULES)
            .map_err(|module| SetUpError::NoModule { module, release: modules.release.clone() })?;
        let to = modules.folder.join("lib/modules").join(&modules.release);
        for file in files.iter().map(String::as_str).chain([
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ]) {
            let target = to.join(file);
            let parent = target.parent().unwrap_or(&to);
            fs::create_dir_all(parent).during(format_args!("create {}", parent.display()))?;
            fs::copy(from.join(file), &target).during(format_args!("copy {file}"))?;
        }
        depmod.run(&modules.folder)?;
        fs::write(list, MODULES.join("\n")).during("write the list of modules")?;
        Ok(modules)
    }
}

/// The release of the kernel in a package.
fn release_of(kernel: &Path) -> Result<String, SetUpError> {
    let folder = kernel.join("lib/modules");
    let mut entries = fs::read_dir(&folder).during(format_args!("read {}", folder.display()))?.flatten();
    let none = || SetUpError::Command {
        command: "dpkg-deb".to_owned(),
        detail: "the kernel has no modules".to_owned(),
    };
    entries.next().map(|entry| entry.file_name().to_string_lossy().into_owned()).ok_or_else(none)
}

struct Depmod<'a> {
    packages: &'a Packages,
    release: &'a str,
}

impl Depmod<'_> {
    /// Writes the indexes of the modules below `base`.
    fn run(&self, base: &Path) -> Result<(), SetUpError> {
        let kmod = self.packages.folder("kmod")?.join("bin/kmod");
        let mut command = Command::new(kmod);
        command.arg0("depmod").arg("-b").arg(base).arg(self.release);
        command.env("LD_LIBRARY_PATH", crate::libraries::search_path(self.packages));
        read(&mut command).map(drop)
    }
}

/// The files of `modules` and of all that these need, after modules.dep; or the module that it does not have.
fn closure(modules_dep: &str, modules: &[&str]) -> Result<BTreeSet<String>, String> {
    let lines = modules_dep.lines().filter_map(|line| line.split_once(':'));
    let needs: BTreeMap<String, (&str, &str)> =
        lines.map(|(file, needs)| (module_name(file), (file, needs))).collect();
    let mut files = BTreeSet::new();
    for module in modules {
        // depmod lists what is needed in any depth.
        let (file, needs) = needs.get(*module).ok_or_else(|| (*module).to_owned())?;
        files.insert((*file).to_owned());
        files.extend(needs.split_whitespace().map(str::to_owned));
    }
    Ok(files)
}

/// `kernel/drivers/usb/class/cdc-acm.ko.xz` is the module `cdc_acm`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/a/usb-common.ko:\nkernel/a/udc-core.ko: kernel/a/usb-common.ko\n\
        kernel/a/dummy_hcd.ko.xz: kernel/a/udc-core.ko kernel/a/usb-common.ko\nkernel/b/other.ko:\n";

    #[test]
    fn what_a_module_needs_comes_along() {
        let files: Vec<_> = closure(DEP, &["dummy_hcd"]).unwrap().into_iter().collect();
        assert_eq!(files, ["kernel/a/dummy_hcd.ko.xz", "kernel/a/udc-core.ko", "kernel/a/usb-common.ko"]);
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        assert_eq!(closure(DEP, &["udc_core", "none"]).unwrap_err(), "none");
    }
}
