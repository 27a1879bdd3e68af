//! What the board says of itself on USB, so that hosts know it for a cable.

use embassy_usb::driver::Driver;
use embassy_usb::msos::{
    CompatibleIdFeatureDescriptor, PropertyData, RegistryPropertyFeatureDescriptor, windows_version,
};
use embassy_usb::types::StringIndex;
use embassy_usb::{Builder, Config, Handler, UsbDevice};

/// Packet size of bulk endpoints at full speed (USB 2.0, 5.8.3).
pub(crate) const PACKET_BYTES: usize = 64;
/// Class, subclass and protocol of Bondwire's interface.
const INTERFACE_CLASS: (u8, u8, u8) = (0xff, 0x01, 0x02);
/// Vendor and product: the pair that pid.codes keeps for tests. Who sells boards needs one of their own; hosts go by the
/// interface's class.
const VENDOR_PRODUCT: (u16, u16) = (0x1209, 0x0001);
/// By which Windows offers the device to programs; random.
const DEVICE_INTERFACE_GUID: &str = "{D3A5B1D4-6C6E-4B43-9B3C-3A1B0C6A7E52}";
/// Request by which Windows asks for its descriptors.
const MICROSOFT_VENDOR_CODE: u8 = 0x20;

/// Memory for descriptors.
pub(crate) struct Memory {
    config: [u8; 64],
    bos: [u8; 64],
    microsoft: [u8; 256],
    control: [u8; 64],
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self { config: [0; 64], bos: [0; 64], microsoft: [0; 256], control: [0; 64] }
    }
}

/// Tells the name of the interface. Hosts look for a hint in it whose peer is here; a cable has none.
#[derive(Default)]
pub(crate) struct Names {
    interface: Option<StringIndex>,
}

impl Handler for Names {
    fn get_string(&mut self, index: StringIndex, _language: u16) -> Option<&str> {
        (Some(index) == self.interface).then_some("Bondwire")
    }
}

/// The device, and its endpoints from and to the host.
pub(crate) fn device<'d, D: Driver<'d>>(
    driver: D,
    serial_number: Option<&'d str>,
    memory: &'d mut Memory,
    names: &'d mut Names,
) -> (UsbDevice<'d, D>, D::EndpointOut, D::EndpointIn) {
    let (vendor, product) = VENDOR_PRODUCT;
    let mut config = Config::new(vendor, product);
    config.manufacturer = Some("Bondwire");
    config.product = Some("Bondwire cable");
    config.serial_number = serial_number;
    config.max_packet_size_0 = 64;
    let Memory { config: config_memory, bos, microsoft, control } = memory;
    let mut builder = Builder::new(driver, config, config_memory, bos, microsoft, control);
    // Windows takes its own driver WinUSB for such a device, and no file needs to be installed.
    builder.msos_descriptor(windows_version::WIN8_1, MICROSOFT_VENDOR_CODE);
    builder.msos_feature(CompatibleIdFeatureDescriptor::new("WINUSB", ""));
    builder.msos_feature(RegistryPropertyFeatureDescriptor::new(
        "DeviceInterfaceGUIDs",
        PropertyData::RegMultiSz(&[DEVICE_INTERFACE_GUID]),
    ));
    let (class, subclass, protocol) = INTERFACE_CLASS;
    let mut function = builder.function(class, subclass, protocol);
    let mut interface = function.interface();
    let name = interface.string();
    names.interface = Some(name);
    let mut setting = interface.alt_setting(class, subclass, protocol, Some(name));
    let to_device = setting.endpoint_bulk_out(None, PACKET_BYTES as u16);
    let to_host = setting.endpoint_bulk_in(None, PACKET_BYTES as u16);
    drop(function);
    builder.handler(names);
    (builder.build(), to_device, to_host)
}
