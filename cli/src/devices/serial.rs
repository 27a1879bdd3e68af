//! Serial ports.

use bondwire_serial::{Port, UsbDevice};
use serde::Serialize;

/// A serial port. The names are those of `--json`.
#[derive(Serialize)]
pub(crate) struct PortRow {
    /// LINK that names it, by its most lasting name.
    link: String,
    path: String,
    usable: bool,
    /// Why not.
    fault: Option<String>,
    driver: Option<String>,
    by_id: Option<String>,
    usb_id: Option<String>,
    manufacturer: Option<String>,
    product: Option<String>,
    serial_number: Option<String>,
    notes: Vec<String>,
}

/// All that there are.
pub(crate) fn rows() -> Vec<PortRow> {
    bondwire_serial::ports().into_iter().map(PortRow::from).collect()
}

impl From<Port> for PortRow {
    fn from(port: Port) -> Self {
        let usb = port.usb.as_ref();
        let path = port.path.display().to_string();
        Self {
            link: format!("serial:{}", port.by_id.as_ref().unwrap_or(&path)),
            path,
            usable: port.fault.is_none(),
            fault: port.fault.clone(),
            driver: port.driver.clone(),
            by_id: port.by_id.clone(),
            usb_id: usb.map(|usb| format!("{:04x}:{:04x}", usb.vendor_id, usb.product_id)),
            manufacturer: usb.and_then(|usb| usb.manufacturer.clone()),
            product: usb.and_then(|usb| usb.product.clone()),
            serial_number: usb.and_then(|usb: &UsbDevice| usb.serial.clone()),
            notes: port.notes,
        }
    }
}

/// A few lines for each port.
pub(crate) fn text(rows: &[PortRow]) -> String {
    if rows.is_empty() {
        return "no serial ports\n".to_owned();
    }
    let mut text = String::new();
    for row in rows {
        let what: Vec<&str> = [&row.manufacturer, &row.product, &row.usb_id]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let what = if what.is_empty() { row.driver.clone().unwrap_or_default() } else { what.join(" ") };
        let state =
            row.fault.as_ref().map_or_else(|| "usable".to_owned(), |fault| format!("not usable: {fault}"));
        text += format!("{:<16} {what}", row.path).trim_end();
        text += &format!("\n    {state}\n    {}\n", row.link);
        row.notes.iter().for_each(|note| text += &format!("    {note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn ports_are_told_with_what_to_do() {
        let good = Port {
            path: PathBuf::from("/dev/ttyUSB0"),
            by_id: Some("usb-FTDI_A50285BI-if00-port0".to_owned()),
            usb: Some(UsbDevice {
                vendor_id: 0x0403,
                product_id: 0x6001,
                manufacturer: Some("FTDI".to_owned()),
                product: Some("FT232R".to_owned()),
                serial: Some("A50285BI".to_owned()),
            }),
            ..Port::default()
        };
        let bad = Port {
            path: PathBuf::from("/dev/ttyS0"),
            driver: Some("serial8250".to_owned()),
            fault: Some("no permission".to_owned()),
            notes: vec!["kernel messages go to it".to_owned()],
            ..Port::default()
        };
        assert_eq!(
            text(&[good.into(), bad.into()]),
            "/dev/ttyUSB0     FTDI FT232R 0403:6001\n    usable\n    serial:usb-FTDI_A50285BI-if00-port0\n\
             /dev/ttyS0       serial8250\n    not usable: no permission\n    serial:/dev/ttyS0\n    kernel messages go to it\n"
        );
        assert_eq!(text(&[]), "no serial ports\n");
    }
}
