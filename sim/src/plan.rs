//! What a seed stands for: cables, engines, work and faults.

use crate::dice::Dice;
use crate::fault::{Fault, FaultKind};
use crate::work::Work;
use bondwire_core::limits::MTU_MIN_BYTES;
use bondwire_core::time::Duration;

/// What a cable is made of; decides how it fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// Retransmits by itself; several sessions side by side; the far end hears when one is closed.
    Tcp,
    /// One session at a time; silence is noticed by the keep-alive of its frame layer.
    Usb,
    /// As USB, slow, and with losses.
    Serial,
}

/// A cable between the two hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CablePlan {
    /// What it is made of.
    pub medium: Medium,
    /// Rate in each direction (forth, back), in bytes per second.
    pub rate_bytes_per_second: [u64; 2],
    /// Delay of each direction.
    pub delay: Duration,
    /// Bytes that wait in the medium before a sender is held back.
    pub queue_bytes: usize,
    /// Largest packet.
    pub mtu_bytes: usize,
    /// Whether the ends know the rate beforehand.
    pub has_rate_hint: bool,
    /// Losses of every day, of a thousand packets.
    pub loss_permille: u64,
    /// When it is first plugged in.
    pub appears: Duration,
}

/// How the packets are protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cipher {
    /// AES-256-GCM.
    Aes,
    /// ChaCha20-Poly1305.
    ChaCha,
    /// None: a CRC-32C only.
    Plain,
}

/// How a run ends once all is delivered, or before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finale {
    /// Host (0 or 1) closes when everything has arrived.
    Close(usize),
    /// Host (0 or 1) closes at this time, whatever is under way.
    Abort(usize, Duration),
}

/// Everything about a run that is decided beforehand.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// The seed it comes from.
    pub seed: u64,
    /// Protection of the packets.
    pub cipher: Cipher,
    /// The cables.
    pub cables: Vec<CablePlan>,
    /// The faults, by their begin.
    pub faults: Vec<Fault>,
    /// Receive buffer of each host, in bytes.
    pub receive_buffer_bytes: [u64; 2],
    /// Send buffer of each host, in bytes.
    pub send_buffer_bytes: [u64; 2],
    /// Streams each host lets the other open.
    pub streams_max: [u64; 2],
    /// How late each host's timers run, at most.
    pub timer_slack: [Duration; 2],
    /// How it ends.
    pub finale: Finale,
    /// How long the bond lives at least, with or without work.
    pub lingers: Duration,
    /// The time over which work and faults begin.
    pub span: Duration,
    /// Bytes of application data that are to be moved.
    pub work_bytes: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 0);
        let work_bytes = dice.skewed(500_000, 5_000_000);
        let cables = roll_cables(&mut dice);
        let span = span(work_bytes, &cables);
        let faults = roll_faults(&mut dice, span, cables.len());
        let cipher = dice.pick(&[Cipher::Aes, Cipher::Aes, Cipher::ChaCha, Cipher::Plain]);
        let mut buffers = || {
            let small = dice.percent(30);
            let high = if small { 200_000 } else { 48 << 20 };
            [dice.skewed(64 << 10, high), dice.skewed(64 << 10, high)]
        };
        let (receive_buffer_bytes, send_buffer_bytes) = (buffers(), buffers());
        let streams_max = [dice.skewed(2, 2000), dice.skewed(2, 2000)];
        let mut slack = || dice.duration(Duration::from_micros(1), Duration::from_millis(3));
        let timer_slack = [slack(), slack()];
        let finale = roll_finale(&mut dice, span);
        let over = faults.iter().map(Fault::end).max().unwrap_or_default();
        let idle = dice.duration(Duration::from_millis(1), Duration::from_secs(40));
        let lingers = if dice.percent(50) { over + idle } else { Duration::ZERO };
        Self {
            seed,
            cipher,
            cables,
            faults,
            receive_buffer_bytes,
            send_buffer_bytes,
            streams_max,
            timer_slack,
            finale,
            lingers,
            span,
            work_bytes,
        }
    }

    /// The same plan with nothing going wrong, up to the end of the work.
    pub fn without_faults(mut self) -> Self {
        self.faults.clear();
        self.lingers = Duration::ZERO;
        let (Finale::Close(host) | Finale::Abort(host, _)) = self.finale;
        self.finale = Finale::Close(host);
        for cable in &mut self.cables {
            cable.loss_permille = 0;
            cable.appears = Duration::ZERO;
        }
        self
    }

    /// The work of the `generation`-th bond between the hosts.
    pub(crate) fn work(&self, generation: u64) -> Work {
        let bytes = if generation == 0 { self.work_bytes } else { self.work_bytes / 3 };
        Work::roll(self.seed, generation, bytes, self.span)
    }

    /// When the last fault is over.
    pub(crate) fn faults_end(&self) -> Duration {
        let appears = self.cables.iter().map(|cable| cable.appears);
        self.faults.iter().map(Fault::end).chain(appears).max().unwrap_or_default()
    }

    /// How long everything may take once the faults are over.
    ///
    /// A link that is only received on learns of its death by the keep-alive (15 s), a handshake gives up after 10 s,
    /// a dialer waits up to 5 s: a minute holds these one after another, twice. Then the work must be done at a
    /// sixth of the best cable's rate, and the readers have their pauses.
    pub(crate) fn patience(&self, work: &Work) -> Duration {
        let rate = |cable: &CablePlan| cable.rate_bytes_per_second[0].min(cable.rate_bytes_per_second[1]);
        let best = self.cables.iter().map(rate).max().unwrap_or(1).max(1);
        let transfer = Duration::from_millis(work.bytes().saturating_mul(6 * 1000) / best);
        Duration::from_secs(60) + transfer + work.pauses() + self.span
    }
}

/// The time the work needs without faults, and half as much again.
fn span(work_bytes: u64, cables: &[CablePlan]) -> Duration {
    let rate: u64 = cables.iter().map(|cable| cable.rate_bytes_per_second.iter().sum::<u64>()).sum();
    let transfer = Duration::from_micros(work_bytes.saturating_mul(1_500_000) / rate.max(1));
    transfer.clamp(Duration::from_millis(50), Duration::from_secs(15))
}

fn roll_cables(dice: &mut Dice) -> Vec<CablePlan> {
    let count = dice.pick(&[1, 2, 2, 2, 3, 3, 4, 4, 5, 6]);
    let mut cables: Vec<CablePlan> = (0..count).map(|_| roll_cable(dice)).collect();
    for later in cables.iter_mut().skip(1) {
        if dice.percent(20) {
            later.appears = dice.duration(Duration::from_millis(1), Duration::from_secs(5));
        }
    }
    cables
}

fn roll_cable(dice: &mut Dice) -> CablePlan {
    let medium = dice.pick(&[Medium::Tcp, Medium::Tcp, Medium::Usb, Medium::Serial]);
    let micros = Duration::from_micros;
    let (rate, delay, mtu_bytes, loss_permille) = match medium {
        Medium::Tcp => (
            dice.skewed(50_000, 50_000_000),
            dice.duration(micros(20), Duration::from_millis(80)),
            dice.pick(&[1200, 4096, 16_384, 65_535]),
            0,
        ),
        Medium::Usb => (
            dice.skewed(500_000, 40_000_000),
            dice.duration(micros(50), Duration::from_millis(1)),
            dice.pick(&[512, 2048, 16_000]),
            0,
        ),
        Medium::Serial => (
            dice.skewed(10_000, 400_000),
            dice.duration(Duration::from_millis(1), Duration::from_millis(16)),
            dice.pick(&[MTU_MIN_BYTES, 600, 640]),
            dice.pick(&[0, 0, 1, 10]),
        ),
    };
    let back = if dice.percent(70) { rate } else { (rate / dice.between(2, 10)).max(5_000) };
    let buffered = dice.duration(Duration::from_millis(1), Duration::from_millis(300));
    let queue = rate.saturating_mul(u64::try_from(buffered.as_micros()).unwrap_or(0)) / 1_000_000;
    CablePlan {
        medium,
        rate_bytes_per_second: [rate, back],
        delay,
        queue_bytes: usize::try_from(queue).unwrap_or(usize::MAX).max(2 * mtu_bytes),
        mtu_bytes,
        has_rate_hint: medium != Medium::Tcp,
        loss_permille,
        appears: Duration::ZERO,
    }
}

fn roll_faults(dice: &mut Dice, span: Duration, cables: usize) -> Vec<Fault> {
    let count = dice.between(3, 9);
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let kind = dice.pick(&FaultKind::ALL);
            Fault::roll(dice, kind, span, cables)
        })
        .collect();
    let mut restarted = false;
    faults.retain(|fault| fault.kind != FaultKind::PeerRestart || !std::mem::replace(&mut restarted, true));
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn roll_finale(dice: &mut Dice, span: Duration) -> Finale {
    let host = dice.index(2);
    if dice.percent(8) {
        Finale::Abort(host, Duration::from_micros(dice.below(u64::try_from(span.as_micros()).unwrap_or(0))))
    } else {
        Finale::Close(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_repeat_and_differ() {
        assert_eq!(Plan::new(5), Plan::new(5));
        assert_ne!(Plan::new(5).cables, Plan::new(6).cables);
    }

    #[test]
    fn plans_are_sane() {
        for seed in 0..500 {
            let plan = Plan::new(seed);
            assert!((1..=6).contains(&plan.cables.len()));
            assert!(plan.cables.iter().all(|cable| cable.mtu_bytes >= MTU_MIN_BYTES));
            assert!(plan.faults.iter().all(|fault| fault.cable < plan.cables.len()));
            assert_eq!(plan.cables[0].appears, Duration::ZERO);
            assert!(plan.work(0).bytes() > 0);
        }
    }
}
