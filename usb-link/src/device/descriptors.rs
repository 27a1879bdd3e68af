//! What a FunctionFS function tells the kernel about itself, byte by byte (linux/usb/functionfs.h).
//!
//! Written here and not by a library: the packet size must be right at every speed. With 0 at full speed, as one library
//! writes it, hosts cannot configure the device.

/// Magic numbers and flags of linux/usb/functionfs.h.
const DESCRIPTORS_MAGIC_V2: u32 = 3;
const STRINGS_MAGIC: u32 = 2;
const HAS_FULL_SPEED: u32 = 1;
const HAS_HIGH_SPEED: u32 = 2;
const HAS_SUPER_SPEED: u32 = 4;
const HAS_MS_OS: u32 = 8;

/// Descriptor types of USB 2.0, table 9-5, and USB 3.2, table 9-6.
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;
const SUPER_SPEED_COMPANION: u8 = 48;
const BULK: u8 = 2;

/// Addresses of the endpoints: the kernel gives them others if it has to. In this order they become the files `ep1` and
/// `ep2`.
pub(super) const IN_ENDPOINT: u8 = 0x81;
pub(super) const OUT_ENDPOINT: u8 = 0x02;

/// Packets that follow each other without a handshake at super speed, less one: as many as adbd uses.
const BURST: u8 = 3;

/// US English, the language of the one string.
const LANGUAGE: u16 = 0x0409;

/// By this name WinUSB opens the interface on Windows; made up once for this protocol.
const INTERFACE_GUID: &str = "{6B1D3C0A-52E7-4F0B-9C49-2D7A5E8F0102}";

/// One function with an interface of `class` and two bulk endpoints, at all speeds, and with what makes Windows bind WinUSB
/// by itself.
pub(super) fn descriptors(class: [u8; 3]) -> Vec<u8> {
    let full: Vec<Vec<u8>> = function(class, 64, false);
    let high = function(class, 512, false);
    let superspeed = function(class, 1024, true);
    let microsoft = [compatible_id(), interface_guid()];
    let sets: [&[Vec<u8>]; 4] = [&full, &high, &superspeed, &microsoft];

    let mut body = Vec::new();
    sets.iter().for_each(|set| body.extend((set.len() as u32).to_le_bytes()));
    sets.iter().for_each(|set| body.extend(set.concat()));
    with_header(
        &[DESCRIPTORS_MAGIC_V2],
        &[HAS_FULL_SPEED | HAS_HIGH_SPEED | HAS_SUPER_SPEED | HAS_MS_OS],
        &body,
    )
}

/// The interface's name, which hosts can read before they claim it.
pub(super) fn strings(name: &str) -> Vec<u8> {
    let mut body = LANGUAGE.to_le_bytes().to_vec();
    body.extend(name.bytes().filter(|byte| *byte != 0));
    body.push(0);
    with_header(&[STRINGS_MAGIC], &[1, 1], &body)
}

/// `before`, the length of everything, `behind` and the body.
fn with_header(before: &[u32], behind: &[u32], body: &[u8]) -> Vec<u8> {
    let len = 4 * (before.len() + 1 + behind.len()) + body.len();
    let words = [before, &[len as u32], behind].concat();
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(body);
    bytes
}

fn function(class: [u8; 3], packet_bytes: u16, bursts: bool) -> Vec<Vec<u8>> {
    let [class, subclass, protocol] = class;
    let mut all = vec![vec![9, INTERFACE, 0, 0, 2, class, subclass, protocol, 1]];
    for address in [IN_ENDPOINT, OUT_ENDPOINT] {
        let [low, high] = packet_bytes.to_le_bytes();
        all.push(vec![7, ENDPOINT, address, BULK, low, high, 0]);
        if bursts {
            all.push(vec![6, SUPER_SPEED_COMPANION, BURST, 0, 0, 0]);
        }
    }
    all
}

/// Header of a Microsoft OS descriptor 1.0 of type `index` for the first interface, with one entry. (The version is 1.0; the
/// kernel wants 1 for it, and only lately takes 0x0100 as well.)
fn microsoft(index: u16, entry: &[u8]) -> Vec<u8> {
    let len = 11 + entry.len() as u32;
    let mut bytes = vec![0];
    bytes.extend(len.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(index.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(entry);
    bytes
}

/// "Extended compat ID": the driver is WinUSB. The reserved byte behind the interface would have to be 1; kernels before
/// 4.14 want 0 and write 1 themselves, later ones do that, too.
fn compatible_id() -> Vec<u8> {
    let mut entry = vec![0, 0];
    entry.extend(b"WINUSB\0\0");
    entry.extend([0; 8 + 6]);
    microsoft(4, &entry)
}

/// "Extended properties": where Windows programs find the interface. The kernel makes UTF-16 of both texts.
fn interface_guid() -> Vec<u8> {
    /// Registry type REG_SZ.
    const UNICODE: u32 = 1;
    let name = b"DeviceInterfaceGUID\0";
    let data = [INTERFACE_GUID.as_bytes(), b"\0"].concat();
    let len = 14 + name.len() + data.len();
    let mut entry = (len as u32).to_le_bytes().to_vec();
    entry.extend(UNICODE.to_le_bytes());
    entry.extend((name.len() as u16).to_le_bytes());
    entry.extend(name);
    entry.extend((data.len() as u32).to_le_bytes());
    entry.extend(data);
    microsoft(5, &entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::INTERFACE_CLASS;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Splits standard descriptors by their lengths.
    fn split(mut bytes: &[u8], count: usize) -> (Vec<&[u8]>, &[u8]) {
        let mut all = Vec::new();
        for _ in 0..count {
            let (descriptor, rest) = bytes.split_at(bytes[0].into());
            all.push(descriptor);
            bytes = rest;
        }
        (all, bytes)
    }

    #[test]
    fn every_speed_has_its_packet_size() {
        let bytes = descriptors(INTERFACE_CLASS);
        assert_eq!((word(&bytes, 0), word(&bytes, 4), word(&bytes, 8)), (3, bytes.len() as u32, 15));
        let counts: Vec<_> = (0..4).map(|set| word(&bytes, 12 + 4 * set) as usize).collect();
        assert_eq!(counts, [3, 3, 5, 2]);
        let mut rest = &bytes[28..];
        for (count, packet_bytes) in [(3, 64_u16), (3, 512), (5, 1024)] {
            let (set, behind) = split(rest, count);
            assert_eq!(set[0], [9, 4, 0, 0, 2, 0xff, 1, 2, 1]);
            let endpoints: Vec<_> = set.iter().filter(|descriptor| descriptor[1] == ENDPOINT).collect();
            let [low, high] = packet_bytes.to_le_bytes();
            assert_eq!(endpoints, [&[7, 5, 0x81, 2, low, high, 0], &[7, 5, 0x02, 2, low, high, 0]]);
            let companions = set.iter().filter(|descriptor| ***descriptor == [6, 48, 3, 0, 0, 0]).count();
            assert_eq!(companions, if packet_bytes == 1024 { 2 } else { 0 });
            rest = behind;
        }
        assert_eq!(rest, [compatible_id(), interface_guid()].concat());
    }

    #[test]
    fn windows_finds_its_driver_and_the_interface() {
        let compatible = compatible_id();
        assert_eq!(compatible.len(), 11 + 24);
        assert_eq!(compatible[..11], [0, 35, 0, 0, 0, 1, 0, 4, 0, 1, 0]);
        assert_eq!(compatible[11..21], *b"\0\0WINUSB\0\0");
        assert!(compatible[21..].iter().all(|byte| *byte == 0));

        let guid = interface_guid();
        assert_eq!(word(&guid, 1) as usize, guid.len());
        let entry = &guid[11..];
        assert_eq!(word(entry, 0) as usize, entry.len());
        assert_eq!(word(entry, 4), 1);
        assert_eq!(entry[8..10], 20_u16.to_le_bytes());
        assert_eq!(entry[10..30], *b"DeviceInterfaceGUID\0");
        assert_eq!(word(entry, 30), 39);
        assert_eq!(entry[34..], *[INTERFACE_GUID.as_bytes(), b"\0"].concat());
    }

    #[test]
    fn the_string_is_the_interfaces_name() {
        let bytes = strings("Bond\0wire");
        assert_eq!(bytes.len(), 16 + 2 + 9);
        assert_eq!((word(&bytes, 0), word(&bytes, 4)), (2, bytes.len() as u32));
        assert_eq!((word(&bytes, 8), word(&bytes, 12)), (1, 1));
        assert_eq!(bytes[16..], *b"\x09\x04Bondwire\0");
    }
}
