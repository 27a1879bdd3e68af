//! Several cables with a pace below our code, in one bond: how their rates add up.

use std::time::Duration;

use anyhow::Result;
use bondwire_bench::report::{Report, Table};
use bondwire_vm::Speed;
use serde_json::json;

use super::{Options, progress};
use crate::bonds::{Ends, plain};
use crate::cables::{Plugged, link};
use crate::measure::{Sample, Traffic, Window, mbytes, middle, percent};
use crate::raw::{self, Touch};

const SECONDS: u64 = 8;
/// Time until the estimators know their links.
const WARM_UP: Duration = Duration::from_secs(4);
/// Least idle share for which a rate says something about the cables, and not about the processors.
const IDLE: f64 = 0.3;
/// Rates of equal cables and of different ones, in bytes per second.
const ONE: [f64; 1] = [0.5e6];
const EQUAL: [f64; 4] = [0.5e6; 4];
const DIFFERENT: [f64; 4] = [0.2e6, 0.4e6, 0.6e6, 0.8e6];
/// Least gain by four equal cables.
const WANT_GAIN: f64 = 3.9;
/// Least share of what different cables carry together.
const WANT_SHARE: f64 = 0.97;

pub(crate) async fn run(options: &Options) -> Result<Report> {
    let window = Window { warm_up: WARM_UP, time: options.time(SECONDS) };
    let mut report = Report::new(&[
        "Cables of dummy_hcd with a pace below the links, to the device; one bond, cipher=none, beside raw bulk loops over all \
         of the same cables."
            .to_owned(),
        format!("MB/s of payload over {} s, interleaved: the median of {} (lowest to highest).", window.time.as_secs(), options.rounds),
    ]);
    let plugged = Plugged::plug(EQUAL.len(), Speed::High).await?;
    let sets: [(&str, &[f64]); 3] = [("one", &ONE), ("four equal", &EQUAL), ("four different", &DIFFERENT)];
    let mut samples = sets.map(|_| (Vec::new(), Vec::new()));
    for round in 1..=options.rounds {
        for ((name, rates), (raw, ours)) in sets.iter().zip(&mut samples) {
            progress(&format!("cables: {name}, round {round}"));
            raw.push(raw_loops(&plugged, rates, window).await?);
            ours.push(bond(&plugged, rates, window).await?);
        }
    }
    let mut table = Table::new(&["cables", "pace", "raw loops", "bond", "share of the raw loops", "idle"]);
    let mut data = Vec::new();
    let mut rates_of_bonds = Vec::new();
    for ((name, rates), (raw, ours)) in sets.iter().zip(&samples) {
        let ((raw, _), (ours, idle)) = (middle(raw), middle(ours));
        let (pace, share) = (rates.iter().sum::<f64>(), ours.median / raw.median);
        rates_of_bonds.push(ours.median);
        if idle.median < IDLE {
            report.failures.push(format!("{name}: {} idle, want {}", percent(idle.median), percent(IDLE)));
        }
        if *name == "four different" && share < WANT_SHARE {
            report.failures.push(format!(
                "{name}: {} of their sum, want {}",
                percent(share),
                percent(WANT_SHARE)
            ));
        }
        table.rows.push(vec![
            (*name).to_owned(),
            format!("{:.2}", pace / 1e6),
            mbytes(raw),
            mbytes(ours),
            percent(share),
            percent(idle.median),
        ]);
        data.push(
            json!({ "cables": name, "pace": pace, "raw": raw, "bond": ours, "share": share, "idle": idle }),
        );
    }
    let gain = rates_of_bonds[1] / rates_of_bonds[0];
    report.conditions.push(format!("Four equal cables carry {gain:.2} times what one does."));
    if gain < WANT_GAIN {
        report.failures.push(format!("four equal cables: {gain:.2} times one, want {WANT_GAIN}"));
    }
    report.tables.push(table);
    report.data.insert("cables".into(), data.into());
    report.data.insert("gain".into(), gain.into());
    Ok(report)
}

async fn raw_loops(plugged: &Plugged, rates: &[f64], window: Window) -> Result<Sample> {
    let mut traffic = Traffic::default();
    for (cable, rate) in rates.iter().enumerate() {
        let (host, device) = plugged.ends(cable).await?;
        let host = host.paced(*rate);
        traffic.spawn(raw::send(host.outlet, Touch::Nothing));
        traffic.spawn(raw::receive(device.inlet, Touch::Nothing, traffic.counter()));
        // Not needed, but part of both ends.
        traffic.keep((host.inlet, device.outlet));
    }
    traffic.measure(window).await
}

async fn bond(plugged: &Plugged, rates: &[f64], window: Window) -> Result<Sample> {
    let mut links = Vec::new();
    for (cable, rate) in rates.iter().enumerate() {
        let (host, device) = plugged.ends(cable).await?;
        links.push(link(host.paced(*rate), device.paced(*rate)).await?);
    }
    Ends::over(links, plain()).await?.rate(window).await
}
