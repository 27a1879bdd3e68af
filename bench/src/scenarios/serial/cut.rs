//! The TCP path beside a serial line falls silent: the stream goes on at the line's speed, and soon at TCP's when that is back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::{sleep, sleep_until};

use super::super::{Options, progress};
use super::{Case, Flow, Stage, WARM_UP};
use crate::report::{Report, Table};
use crate::stats::ms;

/// Time over which rates are taken.
const WINDOW: Duration = Duration::from_secs(2);
/// Time until the line alone counts: TCP's silence has been noticed, and what it held was sent again.
const SETTLE: Duration = Duration::from_secs(2);
/// Time over which the return is watched, and the steps in which it is.
const RETURN_LIMIT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(100);

struct Outcome {
    both_rate: f64,
    /// Of the line's byte rate, what reached the application while TCP was silent.
    line_share: f64,
    /// The longest pause around the cut.
    gap: Duration,
    /// After TCP was back, until a step of [`STEP`] had this part of the rate of before.
    returned_after: Option<Duration>,
}

/// Cuts the path of `case` in as many rounds as the options ask for.
pub(super) async fn run(options: &Options, case: &Case, report: &mut Report) -> Result<()> {
    let mut table = Table::new(&[
        "case",
        "round",
        "before, bytes/s",
        "TCP silent: share of the line",
        "longest pause",
        "90 % of before again after",
    ]);
    let mut data = Vec::new();
    for round in 1..=options.rounds {
        progress(&format!("serial: {} round {round}", case.name));
        let outcome = measure(case).await?;
        if outcome.returned_after.is_none_or(|after| after > Duration::from_secs(1))
            || outcome.line_share < case.want
        {
            report.failures.push(format!("{}, round {round}: see the table", case.name));
        }
        let after = outcome.returned_after;
        table.rows.push(vec![
            case.name.into(),
            round.to_string(),
            format!("{:.0}", outcome.both_rate),
            format!("{:.1} %", outcome.line_share * 100.0),
            format!("{:.1} ms", ms(outcome.gap)),
            after.map_or("never".into(), |after| format!("{:.0} ms", ms(after))),
        ]);
        data.push(json!({
            "case": case.name,
            "round": round,
            "before_bytes_per_second": outcome.both_rate,
            "line_share": outcome.line_share,
            "longest_pause_ms": ms(outcome.gap),
            "returned_after_ms": after.map(ms),
        }));
    }
    report.tables.push(table);
    report.data.insert("cuts".into(), data.into());
    Ok(())
}

async fn measure(case: &Case) -> Result<Outcome> {
    let stage = Stage::set(case).await?;
    let path = stage.path.as_ref().context("the case has no TCP path to cut")?;
    let flow = Flow::start(&stage).await?;
    sleep(WARM_UP).await;
    let before = flow.arrived_bytes();
    sleep(WINDOW).await;
    let both_rate = (flow.arrived_bytes() - before) as f64 / WINDOW.as_secs_f64();

    flow.forget_pauses();
    path.cut();
    sleep(SETTLE).await;
    let gap = flow.longest_pause();
    let ((slots, _), before) = (stage.clock(), flow.arrived_bytes());
    sleep(WINDOW).await;
    let line_share = (flow.arrived_bytes() - before) as f64 / (stage.clock().0 - slots) as f64;

    path.restore();
    let returned_after = time_to_return(&flow, both_rate * 0.9 * STEP.as_secs_f64()).await;
    drop(flow);
    stage.near.close_now(0, "").await;
    Ok(Outcome { both_rate, line_share, gap, returned_after })
}

/// The time until so many bytes arrive in one step, and in the two that follow.
async fn time_to_return(flow: &Flow, step_bytes: f64) -> Option<Duration> {
    let begun = Instant::now();
    let (mut first, mut good, mut before) = (None, 0, flow.arrived_bytes());
    for step in 1.. {
        let elapsed = STEP * step;
        sleep_until((begun + elapsed).into()).await;
        let arrived = flow.arrived_bytes();
        let is_good = (arrived - before) as f64 >= step_bytes;
        before = arrived;
        first = first.or(is_good.then_some(elapsed));
        good = if is_good { good + 1 } else { 0 };
        // One good step may be what waited; three are a rate.
        if good == 3 {
            return first;
        }
        first = first.filter(|_| good > 0);
        if elapsed >= RETURN_LIMIT {
            break;
        }
    }
    None
}
