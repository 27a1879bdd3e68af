//! Data quotas of links: what each has carried this month, over all runs, and a pause once that is all.

mod ledger;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bondwire::{Bond, LinkId, LinkPolicy, Policy};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use self::ledger::{Ledger, Period};
use crate::link_table::{DialledLink, LinkTable};
use crate::output;

/// Shortest time between two looks: at most so much of a link's time goes beyond its quota.
const LOOK_MIN: Duration = Duration::from_millis(20);
/// Longest time between two looks.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Time after which what was counted is written down.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Watches the links of a table that have quotas.
pub(crate) struct Quotas {
    links: Arc<LinkTable>,
    ledger: Ledger,
    counted: Vec<Counted>,
    written_at: Instant,
}

/// A link with a quota.
struct Counted {
    /// Its LINK.
    spec: String,
    quota_bytes: u64,
    reset_day: u8,
    /// What its policy was before the quota was used up.
    paused_from: Option<LinkPolicy>,
    /// Its link in the bond, and what that had carried when it was last looked at.
    seen: Option<(LinkId, u64)>,
    period: Period,
    used_bytes: u64,
    /// Of these, bytes that are not written down.
    unwritten_bytes: u64,
}

impl Quotas {
    /// The quotas of `links`, if there are any.
    pub(crate) fn of(links: &Arc<LinkTable>) -> Option<Self> {
        let today = OffsetDateTime::now_utc().date();
        let ledger = Ledger::new(folder());
        let counted: Vec<_> = links
            .specs()
            .iter()
            .filter_map(|spec| {
                let quota_bytes = spec.options.quota_bytes?;
                let reset_day = spec.options.reset_day.unwrap_or(1);
                let (spec, period) = (spec.to_string(), Period::of(today, reset_day));
                let used_bytes = ledger.used_bytes(&spec, period);
                Some(Counted {
                    spec,
                    quota_bytes,
                    reset_day,
                    paused_from: None,
                    seen: None,
                    period,
                    used_bytes,
                    unwritten_bytes: 0,
                })
            })
            .collect();
        let quotas = Self { links: Arc::clone(links), ledger, counted, written_at: Instant::now() };
        (!quotas.counted.is_empty()).then_some(quotas)
    }

    /// Watches for as long as it is polled. `bond` answers the bond of the moment.
    pub(crate) async fn watch(&mut self, bond: impl Fn() -> Bond) {
        loop {
            let next = self.look(&bond());
            sleep(next).await;
        }
    }

    /// Looks at all links; answers when to look again.
    fn look(&mut self, bond: &Bond) -> Duration {
        let today = OffsetDateTime::now_utc().date();
        let dialled = self.links.dialled();
        let mut next = LOOK_MAX;
        for counted in &mut self.counted {
            let Some(link) = dialled.iter().find(|link| link.spec == counted.spec) else { continue };
            let rate = counted.count(bond, link);
            if counted.turn(today) {
                self.written_at = Instant::now() - WRITE_INTERVAL;
            }
            let note = counted.judge(link);
            self.links.note(&counted.spec, note);
            let left = counted.quota_bytes.saturating_sub(counted.used_bytes);
            // Half of the time that is left at that rate, so that the last look comes close to the end.
            next = next.min(Duration::from_secs_f64(left as f64 / 2.0 / rate.max(1.0)).min(LOOK_MAX));
        }
        if self.written_at.elapsed() >= WRITE_INTERVAL {
            self.write();
        }
        next.max(LOOK_MIN)
    }

    /// Writes down what was counted.
    pub(crate) fn write(&mut self) {
        self.written_at = Instant::now();
        for counted in self.counted.iter_mut().filter(|counted| counted.unwritten_bytes > 0) {
            match self.ledger.add(&counted.spec, counted.period, counted.unwritten_bytes) {
                // Another process may have used the same link.
                Ok(used) => (counted.used_bytes, counted.unwritten_bytes) = (used, 0),
                Err(error) => tracing::warn!("the quota of {} is not written down: {error}", counted.spec),
            }
        }
    }
}

impl Drop for Quotas {
    fn drop(&mut self) {
        self.write();
    }
}

impl Counted {
    /// Counts what the link has carried; answers bytes per second as far as the bond knows them.
    fn count(&mut self, bond: &Bond, link: &DialledLink) -> f64 {
        let snapshot = link.dialer.state().link.and_then(|id| bond.link(id).snapshot());
        let Some(now) = snapshot else {
            self.seen = None;
            return 0.0;
        };
        let carried = now.stats.sent_bytes + now.stats.received_bytes;
        let before = self.seen.filter(|(id, _)| *id == now.id).map_or(0, |(_, before)| before);
        self.seen = Some((now.id, carried));
        self.used_bytes += carried - before;
        self.unwritten_bytes += carried - before;
        // Both directions count, and the other may be as fast.
        now.rate.map_or(0.0, |rate| rate as f64 * 2.0)
    }

    /// Begins anew when a new month has begun; answers whether it did.
    fn turn(&mut self, today: time::Date) -> bool {
        let period = Period::of(today, self.reset_day);
        let turned = period != self.period;
        if turned {
            (self.period, self.used_bytes, self.unwritten_bytes) = (period, 0, 0);
        }
        turned
    }

    /// Pauses the link when its quota is used up, and lets it go on in the next month. Answers why it is paused.
    fn judge(&mut self, link: &DialledLink) -> Option<String> {
        let is_over = self.used_bytes >= self.quota_bytes;
        let (spec, quota, until) = (&self.spec, output::bytes(self.quota_bytes), self.period.end());
        match (is_over, self.paused_from) {
            (true, None) => {
                let policy = link.dialer.policy();
                self.paused_from = Some(policy);
                link.dialer.set_policy(LinkPolicy { usage: Policy::Paused, ..policy });
                tracing::warn!("{spec}: its quota of {quota} is used up until {until}; paused");
            }
            (false, Some(policy)) => {
                self.paused_from = None;
                link.dialer.set_policy(policy);
                tracing::info!("{spec}: its quota of {quota} has begun anew; no longer paused");
            }
            _ => {}
        }
        is_over.then(|| format!("quota of {quota} used up until {until}"))
    }
}

/// Where what was carried is written down.
fn folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let folders = etcetera::choose_base_strategy().ok()?;
    Some(folders.state_dir().unwrap_or_else(|| folders.data_dir()).join("bondwire"))
}
