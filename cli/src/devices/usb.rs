//! USB devices that may be the other end of a cable.

use bondwire_usb::host::{Cable, cables};
use serde::Serialize;

/// An interface of a USB device. The names are those of `--json`.
#[derive(Serialize)]
pub(crate) struct UsbRow {
    /// LINK that names it, by its most lasting name.
    link: String,
    /// Where it is plugged in.
    port: String,
    interface: u8,
    usb_id: String,
    product: Option<String>,
    serial_number: Option<String>,
    speed: Option<String>,
    /// Whether it is Bondwire's interface. Else only a LINK that names the device uses it.
    is_bondwire: bool,
    usable: bool,
    /// Why not.
    fault: Option<String>,
}

/// All that there are, or why they cannot be listed.
pub(crate) async fn rows() -> Result<Vec<UsbRow>, String> {
    let listed = cables().await.map_err(|e| format!("USB devices cannot be listed: {e}"))?;
    let mut rows = Vec::new();
    for cable in listed {
        // To look at others would take them from whoever uses them, for a moment.
        let fault = if cable.has_our_class { cable.fault().await } else { None };
        rows.push(UsbRow::new(&cable, fault.map(|fault| fault.to_string())));
    }
    Ok(rows)
}

impl UsbRow {
    fn new(cable: &Cable, fault: Option<String>) -> Self {
        let usb_id = format!("{:04x}:{:04x}", cable.vendor_id, cable.product_id);
        let which = match &cable.serial {
            // In a LINK a comma would end it.
            Some(serial) if !serial.contains([',', ' ']) => format!("serial={serial}"),
            _ => format!("port={}", cable.port),
        };
        Self {
            link: format!("usb:{usb_id},{which}"),
            port: cable.port.clone(),
            interface: cable.interface,
            usb_id,
            product: cable.product.clone(),
            serial_number: cable.serial.clone(),
            speed: cable.speed.map(|speed| speed.to_string()),
            is_bondwire: cable.has_our_class,
            usable: cable.has_our_class && fault.is_none(),
            fault,
        }
    }
}

/// A few lines for each device.
pub(crate) fn text(rows: &[UsbRow]) -> String {
    let (ours, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.is_bondwire);
    let mut text = String::new();
    if ours.is_empty() {
        text += "no USB device with Bondwire's interface\n";
    }
    for row in ours {
        let speed = row.speed.as_deref().unwrap_or("unknown speed");
        let product = row.product.as_deref().unwrap_or_default();
        let state =
            row.fault.as_ref().map_or_else(|| "usable".to_owned(), |fault| format!("not usable: {fault}"));
        text += &format!(
            "usb {:<12} {product} {}, {speed}\n    {state}\n    {}\n",
            row.port, row.usb_id, row.link
        );
    }
    for row in others {
        let product = row.product.as_deref().unwrap_or("a device");
        text += &format!(
            "usb {:<12} {product} {}\n    another interface of its vendor's own; used only if named:\n    {}\n",
            row.port, row.usb_id, row.link
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> UsbRow {
        UsbRow {
            link: "usb:1d6b:0104,serial=7".to_owned(),
            port: "1-2.3".to_owned(),
            interface: 0,
            usb_id: "1d6b:0104".to_owned(),
            product: Some("Bondwire link".to_owned()),
            serial_number: Some("7".to_owned()),
            speed: Some("high speed (480 Mbit/s)".to_owned()),
            is_bondwire: true,
            usable: true,
            fault: None,
        }
    }

    #[test]
    fn devices_are_told_with_what_to_do() {
        let bad = UsbRow { fault: Some("no permission".to_owned()), usable: false, speed: None, ..row() };
        assert_eq!(
            text(&[row(), bad]),
            "usb 1-2.3        Bondwire link 1d6b:0104, high speed (480 Mbit/s)\n    usable\n    usb:1d6b:0104,serial=7\n\
             usb 1-2.3        Bondwire link 1d6b:0104, unknown speed\n    not usable: no permission\n    usb:1d6b:0104,serial=7\n"
        );
        let other = UsbRow { is_bondwire: false, product: None, ..row() };
        let text = text(&[other]);
        assert!(text.starts_with("no USB device with Bondwire's interface\n"), "{text}");
        assert!(text.contains("used only if named"), "{text}");
    }
}
