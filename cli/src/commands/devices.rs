//! `bondwire devices`

use clap::Args;
use serde::Serialize;

#[cfg(target_os = "linux")]
use crate::devices::gadget;
#[cfg(unix)]
use crate::devices::serial;
use crate::devices::usb;
use crate::failure::Failure;
use crate::output;

/// Arguments of `bondwire devices`.
#[derive(Args)]
pub(crate) struct Devices {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The object of `--json`.
#[derive(Serialize)]
struct Report {
    usb_devices: Vec<usb::UsbRow>,
    /// Why they could not be listed.
    usb_fault: Option<String>,
    #[cfg(target_os = "linux")]
    gadget_controllers: Vec<gadget::ControllerRow>,
    #[cfg(unix)]
    serial_ports: Vec<serial::PortRow>,
}

impl Devices {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let (usb_devices, usb_fault) = match usb::rows().await {
            Ok(rows) => (rows, None),
            Err(fault) => (Vec::new(), Some(fault)),
        };
        let report = Report {
            usb_devices,
            usb_fault,
            #[cfg(target_os = "linux")]
            gadget_controllers: gadget::rows(),
            #[cfg(unix)]
            serial_ports: serial::rows(),
        };
        if self.json { output::json(&report) } else { output::text(&report.text()) }
    }
}

impl Report {
    fn text(&self) -> String {
        let usb = match &self.usb_fault {
            Some(fault) => format!("{fault}\n"),
            None => usb::text(&self.usb_devices),
        };
        [
            usb,
            #[cfg(target_os = "linux")]
            gadget::text(&self.gadget_controllers),
            #[cfg(unix)]
            serial::text(&self.serial_ports),
        ]
        .concat()
    }
}
