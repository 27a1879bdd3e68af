//! One cable: the packet link beside a raw bulk loop with the same transfers, each way and both ways at once.

use std::time::Duration;

use anyhow::Result;
use bondwire::link::PacketLink as _;
use bondwire_bench::report::{Report, Table};
use bondwire_usb::transfers::{Inlet, Outlet};
use bondwire_vm::Speed;
use serde_json::json;

use super::{Options, progress};
use crate::cables::{End, Plugged, link};
use crate::measure::{Sample, Traffic, Window, mbytes, middle, percent};
use crate::packets;
use crate::raw::{self, Touch};
use crate::touching::Touching;

/// Least part of the raw loop's rate.
const WANT: f64 = 0.9;
/// Cables as fast as the processors make them, and one with a pace for each way, in bytes per second, so that these have time
/// to spare, as beside a real bus.
const CABLES: [(Speed, Option<f64>, &str); 3] = [
    (Speed::High, None, "high speed"),
    (Speed::Super, None, "super speed"),
    (Speed::High, Some(2e6), "2 MB/s each way"),
];
const WARM_UP: Duration = Duration::from_millis(500);
const SECONDS: u64 = 3;

/// Where to the data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    ToDevice,
    ToHost,
    Both,
}

const WAYS: [(Way, &str); 3] =
    [(Way::ToDevice, "to device"), (Way::ToHost, "to host"), (Way::Both, "both ways")];

impl Way {
    fn to_device(self) -> bool {
        self != Self::ToHost
    }

    fn to_host(self) -> bool {
        self != Self::ToDevice
    }
}

pub(crate) async fn run(options: &Options) -> Result<Report> {
    let window = Window { warm_up: WARM_UP, time: options.time(SECONDS) };
    let mut report = Report::new(&[
        "One cable of dummy_hcd: the packet link alone (no bond, no encryption) beside a raw bulk loop, which neither writes \
         nor reads what it moves: nusb at the host, AIO at the device, transfers of the same length, as many at once. \
         What has a pace has it below both, in the endpoints."
            .to_owned(),
        format!("MB/s of payload over {} s, interleaved: the median of {} (lowest to highest).", window.time.as_secs(), options.rounds),
    ]);
    let touching = Touching::measure();
    report.conditions.push(format!(
        "One processor of this guest copies {:.0} MB/s, and checks {:.0} MB/s by CRC-32C.",
        touching.copy / 1e6,
        touching.checksum / 1e6
    ));
    let mut table = Table::new(&[
        "cable",
        "way",
        "raw loop",
        "with checksums",
        "packet link",
        "share of the raw loop",
        "of the one with checksums",
        "raw: idle",
        "link: idle",
    ]);
    let mut data = Vec::new();
    for (speed, pace, speed_name) in CABLES {
        let plugged = Plugged::plug(1, speed).await?;
        for (way, way_name) in WAYS {
            let (mut raw, mut checked, mut ours) = (Vec::new(), Vec::new(), Vec::new());
            for round in 1..=options.rounds {
                progress(&format!("raw: {speed_name}, {way_name}, round {round}"));
                raw.push(raw_loop(&plugged, way, pace, Touch::Nothing, window).await?);
                checked.push(raw_loop(&plugged, way, pace, Touch::Checksum, window).await?);
                ours.push(packet_link(&plugged, way, pace, window).await?);
            }
            let ((raw, raw_idle), (ours, idle)) = (middle(&raw), middle(&ours));
            let (checked, _) = middle(&checked);
            let (share, of_checked) = (ours.median / raw.median, ours.median / checked.median);
            if share < WANT {
                report.failures.push(format!(
                    "{speed_name}, {way_name}: {}, want {}",
                    percent(share),
                    percent(WANT)
                ));
            }
            table.rows.push(vec![
                speed_name.to_owned(),
                way_name.to_owned(),
                mbytes(raw),
                mbytes(checked),
                mbytes(ours),
                percent(share),
                percent(of_checked),
                percent(raw_idle.median),
                percent(idle.median),
            ]);
            data.push(json!({ "cable": speed_name, "way": way_name, "raw": raw, "packet_link": ours, "share": share }));
        }
    }
    report.tables.push(table);
    report.data.insert("raw".into(), data.into());
    Ok(report)
}

async fn raw_loop(
    plugged: &Plugged,
    way: Way,
    pace: Option<f64>,
    touch: Touch,
    window: Window,
) -> Result<Sample> {
    let mut traffic = Traffic::default();
    if let Some(pace) = pace {
        let (host, device) = plugged.ends(0).await?;
        both_ways(&mut traffic, way, touch, host.paced(pace), device.paced(pace));
    } else {
        let device = plugged.device_end(0).await?;
        let (bytes, depth) = (device.inlet.read_bytes(), device.outlet.depth());
        both_ways(&mut traffic, way, touch, raw::bare(0, bytes, depth).await?, device);
    }
    traffic.measure(window).await
}

/// Endpoints that carry nothing stay open, with their reads under way, as those of a link do.
fn both_ways(
    traffic: &mut Traffic,
    way: Way,
    touch: Touch,
    host: End<impl Inlet, impl Outlet>,
    device: End<impl Inlet, impl Outlet>,
) {
    let send_to_device = way.to_device();
    let send_to_host = way.to_host();
    let (to_device, to_host) = (traffic.counter(), traffic.counter());
    traffic.spawn(async move {
        if send_to_device { raw::send(host.outlet, touch).await } else { idle(host.outlet).await }
    });
    traffic.spawn(raw::receive(device.inlet, touch, to_device));
    traffic.spawn(async move {
        if send_to_host { raw::send(device.outlet, touch).await } else { idle(device.outlet).await }
    });
    traffic.spawn(raw::receive(host.inlet, touch, to_host));
}

/// Keeps it.
async fn idle<T>(kept: T) -> Result<std::convert::Infallible> {
    let never = std::future::pending().await;
    drop(kept);
    never
}

async fn packet_link(plugged: &Plugged, way: Way, pace: Option<f64>, window: Window) -> Result<Sample> {
    let (host, device) = plugged.ends(0).await?;
    let (near, far) = match pace {
        Some(pace) => link(host.paced(pace), device.paced(pace)).await?,
        None => link(host, device).await?,
    };
    let packet_bytes = near.describe().mtu_bytes;
    let ((near_reader, near_writer), (far_reader, far_writer)) = (near.split(), far.split());
    let mut traffic = Traffic::default();
    let (to_device, to_host) = (way.to_device(), way.to_host());
    traffic.spawn(async move {
        if to_device { packets::send(near_writer, packet_bytes).await } else { idle(near_writer).await }
    });
    traffic.spawn(packets::receive(far_reader, traffic.counter()));
    traffic.spawn(async move {
        if to_host { packets::send(far_writer, packet_bytes).await } else { idle(far_writer).await }
    });
    traffic.spawn(packets::receive(near_reader, traffic.counter()));
    traffic.measure(window).await
}
