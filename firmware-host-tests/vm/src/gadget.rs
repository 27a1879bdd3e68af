//! A gadget of the kernel's own functions, set up through configfs (Documentation/usb/gadget_configfs.rst).

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::Guest;

const GADGETS: &str = "/sys/kernel/config/usb_gadget";
/// The language of its names: English (United States).
const LANGUAGE: &str = "0x409";

/// A gadget of a test. Unbound and removed when this value goes.
#[derive(Debug)]
pub struct Gadget {
    folder: PathBuf,
    functions: Vec<String>,
}

impl Gadget {
    /// The product name of each.
    pub const PRODUCT: &str = "Bondwire's test gadget";

    /// A gadget with functions such as `acm.0`, bound to no controller.
    ///
    /// # Errors
    ///
    /// There is one of this name, or the kernel lacks a function.
    pub fn new(guest: &Guest, name: &str, serial_number: &str, functions: &[&str]) -> io::Result<Self> {
        guest.load("libcomposite", &[])?;
        let folder = Path::new(GADGETS).join(name);
        fs::create_dir(&folder)?;
        let gadget = Self { folder, functions: functions.iter().map(|&name| name.to_owned()).collect() };
        let folder = &gadget.folder;
        // The Linux Foundation's "multifunction composite gadget".
        fs::write(folder.join("idVendor"), "0x1d6b")?;
        fs::write(folder.join("idProduct"), "0x0104")?;
        fs::create_dir(folder.join("strings").join(LANGUAGE))?;
        fs::write(folder.join("strings").join(LANGUAGE).join("product"), Self::PRODUCT)?;
        fs::write(folder.join("strings").join(LANGUAGE).join("serialnumber"), serial_number)?;
        fs::create_dir(folder.join("configs/c.1"))?;
        for function in functions {
            fs::create_dir(folder.join("functions").join(function))?;
            std::os::unix::fs::symlink(
                folder.join("functions").join(function),
                folder.join("configs/c.1").join(function),
            )?;
        }
        Ok(gadget)
    }

    /// Plugs it in at this controller.
    ///
    /// # Errors
    ///
    /// There is no such controller, or it is taken.
    pub fn bind(&self, controller: &str) -> io::Result<()> {
        fs::write(self.folder.join("UDC"), controller)
    }

    /// Pulls its cable.
    ///
    /// # Errors
    ///
    /// It was not bound.
    pub fn unbind(&self) -> io::Result<()> {
        fs::write(self.folder.join("UDC"), "\n")
    }
}

impl Drop for Gadget {
    fn drop(&mut self) {
        // In the order that configfs asks for. What cannot be removed is found by the next test, which then fails.
        let _ = self.unbind();
        for function in &self.functions {
            let _ = fs::remove_file(self.folder.join("configs/c.1").join(function));
            let _ = fs::remove_dir(self.folder.join("functions").join(function));
        }
        let _ = fs::remove_dir(self.folder.join("configs/c.1"));
        let _ = fs::remove_dir(self.folder.join("strings").join(LANGUAGE));
        let _ = fs::remove_dir(&self.folder);
    }
}
