use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bondwire_core::config::LinkPolicy;
use bondwire_core::event::LinkState;
use bondwire_core::id::LinkId;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::connector::Connector;
use crate::driver::attach::LinkControl;
use crate::driver::shared::{Shared, State};
use crate::error::{AddLinkError, DialError};
use crate::identity::random;
use crate::limits::{
    DIAL_BACKOFF_MAX, DIAL_BACKOFF_MIN, RENEW_AFTER, REPLACE_AFTER, REPLACE_EAGER, REPLACE_INTERVAL,
};
use crate::link::Dialer;

/// A handle on a dialer of a bond. Dropping it changes nothing; [`stop`](Self::stop) ends the dialer.
#[derive(Clone)]
pub struct DialerHandle {
    status: Arc<Status>,
}

struct Status {
    name: String,
    now: watch::Sender<DialerState>,
    wishes: Mutex<Wishes>,
    stopped: watch::Sender<bool>,
    /// Somebody knows that now is a good time to dial.
    hurried: Notify,
    shared: Arc<Shared>,
}

/// What is to hold for a dialer's link and all that follow.
#[derive(Clone, Copy, Default)]
struct Wishes {
    policy: LinkPolicy,
    keep_alive: Option<Duration>,
}

/// What a dialer is at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialerState {
    /// Its link, while that is in the bond.
    pub link: Option<LinkId>,
    /// What kept it from having a link, last; cleared when a link comes up.
    pub fault: Option<DialError>,
}

impl DialerHandle {
    /// Where it dials, such as `tcp 10.0.0.2:7700`.
    pub fn name(&self) -> &str {
        &self.status.name
    }

    /// Its link, or why it has none.
    pub fn state(&self) -> DialerState {
        self.status.now.borrow().clone()
    }

    /// Waits until the [`state`](Self::state) is as `wanted` says, and answers it. Cancel safe. After the dialer's end the
    /// state changes no more.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&DialerState) -> bool) -> DialerState {
        let mut states = self.status.now.subscribe();
        match states.wait_for(|state| wanted(state)).await {
            Ok(state) => state.clone(),
            // Out of reach: the sender lives in `status`.
            Err(_) => self.state(),
        }
    }

    /// Policy of its link and of all that follow: a [`Policy`](crate::Policy), or a whole [`LinkPolicy`].
    pub fn set_policy(&self, policy: impl Into<LinkPolicy>) {
        let policy = policy.into();
        self.wish(|wishes| wishes.policy = policy);
    }

    /// The policy that was set last.
    pub fn policy(&self) -> LinkPolicy {
        lock(&self.status.wishes).policy
    }

    /// Time without traffic after which this end probes its link and all that follow; `None` is the bond's
    /// [`keep_alive`](crate::Config::keep_alive).
    pub fn set_keep_alive(&self, keep_alive: Option<Duration>) {
        self.wish(|wishes| wishes.keep_alive = keep_alive);
    }

    /// The keep-alive interval that was set last.
    pub fn keep_alive(&self) -> Option<Duration> {
        lock(&self.status.wishes).keep_alive
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut lock(&self.status.wishes));
        if let Some(id) = self.state().link {
            self.status.apply_wishes(id);
        }
    }

    /// Finds out at once how things stand: probes its link, however lately that was heard, or dials now if there is none. For
    /// whoever knows that much may have changed unnoticed, as after a host was suspended.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// # use bondwire::{Bond, BondConfig, Identity, link::{Dialer, memory}};
    /// # struct Nowhere;
    /// # impl Dialer for Nowhere {
    /// #     type Link = memory::MemoryLink;
    /// #     fn name(&self) -> String { "nowhere".to_owned() }
    /// #     async fn dial(&mut self) -> std::io::Result<Self::Link> { Err(std::io::ErrorKind::NotFound.into()) }
    /// # }
    /// # let bond = Bond::connect_to_anyone(&Identity::generate()?, BondConfig::default())?;
    /// let dialer = bond.add_dialer(Nowhere);
    /// // The host has woken up.
    /// dialer.hurry();
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn hurry(&self) {
        let Some(id) = self.state().link else { return self.status.hurried.notify_one() };
        self.status.shared.with(|state, _| state.connection.probe_link(id));
    }

    /// Ends the dialer and takes its link out of the bond.
    pub fn stop(&self) {
        // At once as far as it is known here; one that comes up meanwhile is closed by the dialer's task.
        let link = self.state().link;
        self.status.stopped.send_replace(true);
        self.status.close(link);
    }
}

impl fmt::Debug for DialerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialerHandle").field("name", &self.status.name).field("state", &self.state()).finish()
    }
}

impl Status {
    fn close(&self, link: Option<LinkId>) {
        if let Some(id) = link {
            self.shared.with(|state, now| state.connection.close_link(now, id));
        }
    }

    fn report(&self, link: Option<LinkId>, fault: Option<DialError>) {
        if let Some(fault) = &fault {
            let text = fault.to_string();
            let is_new = self.now.borrow().fault.as_ref().is_none_or(|known| known.to_string() != text);
            let is_refusal = matches!(fault, DialError::AddLink(error) if error.is_refusal());
            // While other links work nobody else says that this one may not.
            if is_new && is_refusal && self.shared.look(|state| state.connection.has_usable_link()) {
                tracing::warn!(target: "bondwire", "{fault}; trying again from time to time");
            } else {
                tracing::debug!(target: "bondwire", "{fault}");
            }
        }
        self.now.send_replace(DialerState { link, fault });
    }

    fn apply_wishes(&self, id: LinkId) {
        let Wishes { policy, keep_alive } = *lock(&self.wishes);
        self.shared.with(|state, now| {
            state.connection.set_link_policy(now, id, policy);
            state.connection.set_link_keep_alive(id, keep_alive);
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn start(
    dialer: impl Dialer,
    shared: Arc<Shared>,
    connector: Option<Arc<Connector>>,
) -> DialerHandle {
    let status = Arc::new(Status {
        name: dialer.name(),
        now: watch::Sender::default(),
        wishes: Mutex::default(),
        stopped: watch::Sender::new(false),
        hurried: Notify::new(),
        shared: shared.clone(),
    });
    let Some(connector) = connector else {
        let refused = AddLinkError::NotInitiator { link: status.name.clone() };
        status.report(None, Some(refused.into()));
        return DialerHandle { status };
    };
    let handle = DialerHandle { status: status.clone() };
    tokio::spawn(async move {
        let mut stopped = status.stopped.subscribe();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => {}
            _ = shared.wait_until(State::closed_reason) => {}
            () = (Redialer { dialer, connector, status: status.clone() }).run() => {}
        }
        let DialerState { link, fault } = status.now.borrow().clone();
        // With the bond the links go by themselves: its end still has to be told on them.
        if *status.stopped.borrow() && shared.look(State::closed_reason).is_none() {
            status.close(link);
        }
        status.report(None, fault);
    });
    handle
}

/// The task of a dialer.
struct Redialer<D> {
    dialer: D,
    connector: Arc<Connector>,
    status: Arc<Status>,
}

impl<D: Dialer> Redialer<D> {
    /// Keeps a link up for ever.
    async fn run(mut self) {
        let (mut backoff, mut pace) = (Backoff::default(), Pace::new());
        loop {
            match self.dial(None, pace.patience()).await {
                Ok(link) => {
                    let reason = self.keep(link).await;
                    let name = self.status.name.clone();
                    self.status.report(None, Some(DialError::LinkEnded { name, reason }));
                    (backoff, pace) = (Backoff::default(), Pace::new());
                }
                Err(fault) => self.status.report(None, Some(fault)),
            }
            tokio::select! {
                () = sleep(backoff.next(pace.interval())) => {}
                () = self.dialer.worth_dialling() => {}
                () = self.status.hurried.notified() => {}
            }
        }
    }

    /// Dials once and runs the handshake. `patience` bounds the dial alone: a medium that was reached gets the time that
    /// a handshake takes.
    async fn dial(
        &mut self,
        replaces: Option<LinkId>,
        patience: Duration,
    ) -> Result<Arc<LinkControl>, DialError> {
        let patience = patience.max(self.dialer.patience());
        let dialled = timeout(patience, self.dialer.dial()).await;
        let fault = match dialled {
            Ok(Ok(link)) => {
                let control = self.connector.add_link(link, replaces).await?;
                self.status.apply_wishes(control.id);
                self.status.report(Some(control.id), None);
                return Ok(control);
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer within {patience:?}"),
        };
        Err(DialError::Dial { name: self.status.name.clone(), fault })
    }

    /// Watches a link until it ends, and finds a replacement while it is suspect, or after it was for long. Answers why the
    /// last one ended.
    async fn keep(&mut self, mut link: Arc<LinkControl>) -> String {
        loop {
            let mut watch = link.watch();
            let troubled = |state| matches!(state, LinkState::Suspect | LinkState::Closed);
            let (state, why) = until(&mut watch, troubled).await;
            if state == LinkState::Closed {
                return why;
            }
            let suspect_since = Instant::now();
            tokio::select! {
                biased;
                () = recovered(&mut watch) => {
                    if suspect_since.elapsed() >= RENEW_AFTER && self.dialer.renews_after_silence() {
                        link = self.renew(link).await;
                    }
                }
                replacement = self.replace(&link) => link = replacement,
            }
        }
    }

    /// Dials once for a fresh link in place of `old`, which goes on meanwhile, and for good if there is none.
    async fn renew(&mut self, old: Arc<LinkControl>) -> Arc<LinkControl> {
        match self.dial(Some(old.id), RENEW_AFTER).await {
            Ok(link) => link,
            Err(fault) => {
                tracing::debug!(target: "bondwire", "no fresh link in place of link {}: {fault}", old.id);
                old
            }
        }
    }

    /// Dials until there is a link in place of `old`: eagerly at first, once it is clear that it is not only late. From then on
    /// the end of `old` changes nothing, for the peer may end it because the replacement is under way.
    async fn replace(&mut self, old: &LinkControl) -> Arc<LinkControl> {
        let mut watch = old.watch();
        let _late = timeout(REPLACE_AFTER, until(&mut watch, |state| state == LinkState::Closed)).await;
        let mut pace = Pace::new();
        loop {
            let begun = Instant::now();
            match self.dial(Some(old.id), pace.patience()).await {
                Ok(link) => return link,
                Err(fault) if old.is_closed() => self.status.report(None, Some(fault)),
                Err(fault) => {
                    tracing::debug!(target: "bondwire", "no replacement for link {}: {fault}", old.id);
                }
            }
            sleep_until(begun + pace.interval()).await;
        }
    }
}

/// How often, and with how much patience, a missing link is dialled: eagerly for a minute, since most cuts are short,
/// then seldom.
struct Pace {
    eager_until: Instant,
    dials: u32,
}

impl Pace {
    fn new() -> Self {
        Self { eager_until: Instant::now() + REPLACE_EAGER, dials: 0 }
    }

    fn interval(&self) -> Duration {
        if Instant::now() < self.eager_until { REPLACE_INTERVAL } else { DIAL_BACKOFF_MAX }
    }

    /// Time for the next dial. One into the void is cut short so that the next goes out soon; now and then one gets more
    /// time, for paths that are slow.
    fn patience(&mut self) -> Duration {
        let factor = 1 << (self.dials % 3);
        self.dials = self.dials.wrapping_add(1);
        if Instant::now() < self.eager_until { REPLACE_INTERVAL * factor } else { DIAL_BACKOFF_MAX }
    }
}

/// Waits until a link is in a state that `wanted` names.
async fn until(
    watch: &mut watch::Receiver<(LinkState, String)>,
    wanted: impl Fn(LinkState) -> bool,
) -> (LinkState, String) {
    match watch.wait_for(|(state, _)| wanted(*state)).await {
        Ok(now) => now.clone(),
        // Nobody is left who could change it: the link's tasks are gone.
        Err(_) => (LinkState::Closed, String::new()),
    }
}

/// Waits until a suspect link is well again. One that ends never is.
async fn recovered(watch: &mut watch::Receiver<(LinkState, String)>) {
    if until(watch, |state| state == LinkState::Active).await.0 == LinkState::Closed {
        std::future::pending::<()>().await;
    }
}

/// Growing waits with jitter, so that the dialers of many hosts do not fall into step.
struct Backoff {
    wait: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { wait: DIAL_BACKOFF_MIN }
    }
}

impl Backoff {
    /// The next wait: three quarters to five quarters of a value that doubles each time, up to `longest`.
    fn next(&mut self, longest: Duration) -> Duration {
        let [jitter] = random::<1>().unwrap_or([128]);
        let jittered = self.wait.min(longest) * (384 + u32::from(jitter)) / 512;
        self.wait = (self.wait * 2).min(longest);
        jittered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = std::iter::repeat_with(|| backoff.next(DIAL_BACKOFF_MAX)).take(20).collect();
        assert!(waits[0] >= DIAL_BACKOFF_MIN * 3 / 4 && waits[0] <= DIAL_BACKOFF_MIN * 5 / 4, "{waits:?}");
        assert!(waits[19] >= DIAL_BACKOFF_MAX * 3 / 4 && waits[19] <= DIAL_BACKOFF_MAX * 5 / 4, "{waits:?}");
    }
}
