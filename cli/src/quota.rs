//! Data quotas of links: what each has carried this month, over all runs, and a pause once that is all.

mod ledger;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bondwire::{Bond, LinkId, LinkPolicy, Policy};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use self::ledger::{Ledger, Period};
use crate::link_spec::LinkSpec;
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

/// A LINK with a quota, which all links count that are found from it.
struct Counted {
    /// The LINK.
    spec: String,
    quota_bytes: u64,
    reset_day: u8,
    /// Its links that are paused because the quota is used up, and what their policies were before.
    paused_from: BTreeMap<String, LinkPolicy>,
    /// Its links in the bond, and what each had carried when it was last looked at.
    seen: BTreeMap<LinkId, u64>,
    period: Period,
    used_bytes: u64,
    /// Of these, bytes that are not written down.
    unwritten_bytes: u64,
}

impl Quotas {
    /// The quotas of `links`, those that are added later included.
    pub(crate) fn of(links: &Arc<LinkTable>) -> Self {
        let ledger = Ledger::new(folder());
        Self { links: Arc::clone(links), ledger, counted: Vec::new(), written_at: Instant::now() }
    }

    /// Watches for as long as it is polled. `bond` answers the bond of the moment.
    pub(crate) async fn watch(&mut self, bond: impl Fn() -> Bond) {
        let mut changes = self.links.changes();
        loop {
            changes.mark_unchanged();
            self.follow_table();
            let next = self.look(&bond());
            let looked_long_ago = async {
                match next {
                    Some(next) => sleep(next).await,
                    // Nothing is counted, and nothing wakes up for it.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = looked_long_ago => {}
                // It fails only when the table is gone, and `self` has that.
                Ok(()) = changes.changed() => {}
            }
        }
    }

    /// Counts the LINKs that were added, and no longer those that were removed.
    fn follow_table(&mut self) {
        let specs = self.links.specs();
        let is_there = |spec: &str| specs.iter().any(|there| there.to_string() == spec);
        if self.counted.iter().any(|counted| !is_there(&counted.spec)) {
            self.write();
            self.counted.retain(|counted| is_there(&counted.spec));
        }
        for spec in &specs {
            let text = spec.to_string();
            if !self.counted.iter().any(|counted| counted.spec == text) {
                self.counted.extend(Counted::new(spec, &self.ledger));
            }
        }
    }

    /// Looks at all links; answers when to look again.
    fn look(&mut self, bond: &Bond) -> Option<Duration> {
        let today = OffsetDateTime::now_utc().date();
        let dialled = self.links.dialled();
        let mut next = None;
        for counted in &mut self.counted {
            let links: Vec<_> = dialled.iter().filter(|link| counted.is_of(link)).collect();
            let rate = counted.count(bond, &links);
            if counted.turn(today) {
                self.written_at = Instant::now() - WRITE_INTERVAL;
            }
            let note = counted.judge(&links);
            self.links.note(&counted.spec, note);
            // Half of the time that is left at that rate, so that the last look comes close to the end.
            let soon = match counted.quota_bytes.saturating_sub(counted.used_bytes) {
                // It is paused; only a new month changes that.
                0 => LOOK_MAX,
                left => {
                    Duration::from_secs_f64((left as f64 / 2.0 / rate.max(1.0)).min(LOOK_MAX.as_secs_f64()))
                }
            };
            next = Some(next.map_or(soon, |next: Duration| next.min(soon)));
        }
        if self.written_at.elapsed() >= WRITE_INTERVAL {
            self.write();
        }
        next.map(|next| next.max(LOOK_MIN))
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
    /// `None` without a quota.
    fn new(spec: &LinkSpec, ledger: &Ledger) -> Option<Self> {
        let quota_bytes = spec.options.quota_bytes?;
        let reset_day = spec.options.reset_day.unwrap_or(1);
        let period = Period::of(OffsetDateTime::now_utc().date(), reset_day);
        let spec = spec.to_string();
        let used_bytes = ledger.used_bytes(&spec, period);
        Some(Self {
            spec,
            quota_bytes,
            reset_day,
            paused_from: BTreeMap::new(),
            seen: BTreeMap::new(),
            period,
            used_bytes,
            unwritten_bytes: 0,
        })
    }

    /// Whether `link` is this LINK's own or was found from it.
    fn is_of(&self, link: &DialledLink) -> bool {
        link.spec == self.spec || link.found.as_ref().is_some_and(|found| found.from == self.spec)
    }

    /// Counts what the links have carried; answers bytes per second as far as the bond knows them.
    fn count(&mut self, bond: &Bond, links: &[&DialledLink]) -> f64 {
        let mut rate = 0.0;
        let mut seen = BTreeMap::new();
        for link in links {
            let Some(now) = link.dialer.state().link.and_then(|id| bond.link(id).snapshot()) else {
                continue;
            };
            let carried = now.stats.sent_bytes + now.stats.received_bytes;
            let since = carried - self.seen.get(&now.id).copied().unwrap_or(0).min(carried);
            seen.insert(now.id, carried);
            self.used_bytes += since;
            self.unwritten_bytes += since;
            // Both directions count, and the other may be as fast.
            rate += now.rate.map_or(0.0, |rate| rate as f64 * 2.0);
        }
        self.seen = seen;
        rate
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

    /// Pauses the links when their quota is used up, and lets them go on in the next month. Answers why they are paused.
    fn judge(&mut self, links: &[&DialledLink]) -> Option<String> {
        let (quota, until) = (output::bytes(self.quota_bytes), self.period.end());
        if self.used_bytes < self.quota_bytes {
            for link in links {
                if let Some(policy) = self.paused_from.remove(&link.spec) {
                    link.dialer.set_policy(policy);
                    tracing::info!("{}: the quota of {quota} has begun anew; no longer paused", link.spec);
                }
            }
            // What was set for links that are gone is void.
            self.paused_from.clear();
            return None;
        }
        for link in links {
            if !self.paused_from.contains_key(&link.spec) {
                let policy = link.dialer.policy();
                self.paused_from.insert(link.spec.clone(), policy);
                link.dialer.set_policy(LinkPolicy { usage: Policy::Paused, ..policy });
                tracing::warn!("{}: its quota of {quota} is used up until {until}; paused", link.spec);
            }
        }
        Some(format!("quota of {quota} used up until {until}"))
    }
}

/// Where what was carried is written down.
fn folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let folders = etcetera::choose_base_strategy().ok()?;
    Some(folders.state_dir().unwrap_or_else(|| folders.data_dir()).join("bondwire"))
}
