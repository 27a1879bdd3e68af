//! What can go wrong, and when.

use crate::dice::Dice;
use bondwire_core::time::Duration;
use std::fmt;

/// The kinds of fault a run can meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum FaultKind {
    /// Packets vanish, `amount` of a thousand. On a medium that retransmits, they hold up those behind instead.
    Loss,
    /// A bit of a packet flips, in `amount` of a thousand.
    BitFlip,
    /// A packet arrives twice, `amount` of a thousand.
    Duplicate,
    /// Packets take up to `amount` microseconds longer, each a different time.
    Delay,
    /// The rate becomes `amount` percent of what it was.
    Rate,
    /// Nothing gets through and nobody is told. `amount` 0: what is sent waits in the medium; 1: it vanishes.
    Stall,
    /// The same in one direction only.
    OneWayDeath,
    /// The sessions of now carry nothing any more, new ones work: a forgotten address translation.
    DeadSession,
    /// The cable is pulled out, in the middle of whatever it carried. `amount` bit 0: the dialer is not told,
    /// bit 1: the acceptor is not told.
    Detach,
    /// The cable is plugged into a third host.
    MovedPeer,
    /// The cable is plugged back into the host it comes from. `amount` 0: what it sends comes back; 1: it reaches
    /// an acceptor of its own.
    LoopPlug,
    /// Packets from earlier, of any session of any cable, arrive again; `amount` of a thousand.
    Replay,
    /// The cable is re-attached with an MTU of `amount` bytes.
    MtuChange,
    /// The host `amount` (0 initiator, 1 responder) does nothing for a while, then finds its clock far ahead.
    ClockJump,
    /// A host loses all its state but its key. `amount` bit 0: 1 if it is the initiator; bit 1: the other end's media
    /// are not told.
    PeerRestart,
    /// Host `amount & 1` sets a link to backup (`amount & 2` zero) or paused.
    Policy,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Loss,
        Self::BitFlip,
        Self::Duplicate,
        Self::Delay,
        Self::Rate,
        Self::Stall,
        Self::OneWayDeath,
        Self::DeadSession,
        Self::Detach,
        Self::MovedPeer,
        Self::LoopPlug,
        Self::Replay,
        Self::MtuChange,
        Self::ClockJump,
        Self::PeerRestart,
        Self::Policy,
    ];

    /// True if it concerns a host and not a cable.
    pub(crate) const fn is_of_host(self) -> bool {
        matches!(self, Self::ClockJump | Self::PeerRestart)
    }

    /// True if its beginning and its end pull the cable out.
    pub(crate) const fn unplugs(self) -> bool {
        matches!(self, Self::Detach | Self::MovedPeer | Self::LoopPlug | Self::MtuChange)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loss => "loss",
            Self::BitFlip => "bit flip",
            Self::Duplicate => "duplicate",
            Self::Delay => "delay",
            Self::Rate => "rate change",
            Self::Stall => "stall",
            Self::OneWayDeath => "one-way death",
            Self::DeadSession => "dead session",
            Self::Detach => "detach",
            Self::MovedPeer => "moved to another peer",
            Self::LoopPlug => "loop plug",
            Self::Replay => "replay",
            Self::MtuChange => "MTU change",
            Self::ClockJump => "clock jump",
            Self::PeerRestart => "peer restart",
            Self::Policy => "policy change",
        })
    }
}

/// Which direction of a cable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the dialer to the acceptor.
    Forth,
    /// From the acceptor to the dialer.
    Back,
    /// Both.
    Both,
}

impl Way {
    /// True if direction `direction` (0 forth, 1 back) is meant.
    pub(crate) const fn includes(self, direction: usize) -> bool {
        matches!((self, direction), (Self::Both, _) | (Self::Forth, 0) | (Self::Back, 1))
    }
}

/// One fault of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// When it begins, since the start of the run.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// On which cable, for faults that concern one.
    pub cable: usize,
    /// In which direction, for faults that have one.
    pub way: Way,
    /// How much; its meaning is with each [`FaultKind`].
    pub amount: u64,
}

impl Fault {
    /// A fault at a time in `span`, on one of `cables` cables.
    pub(crate) fn roll(dice: &mut Dice, kind: FaultKind, span: Duration, cables: usize) -> Self {
        let at = Duration::from_micros(dice.below(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)));
        let lasts = match kind {
            FaultKind::ClockJump => dice.duration(Duration::from_millis(5), Duration::from_secs(4)),
            FaultKind::PeerRestart | FaultKind::DeadSession => Duration::ZERO,
            _ => dice.duration(Duration::from_millis(10), Duration::from_secs(6)),
        };
        let way = match kind {
            FaultKind::OneWayDeath => dice.pick(&[Way::Forth, Way::Back]),
            FaultKind::Stall => Way::Both,
            _ => dice.pick(&[Way::Forth, Way::Back, Way::Both]),
        };
        let amount = match kind {
            FaultKind::Loss => dice.skewed(5, 400),
            FaultKind::BitFlip | FaultKind::Replay => dice.skewed(5, 150),
            FaultKind::Duplicate => dice.skewed(5, 500),
            FaultKind::Delay => dice.skewed(100, 300_000),
            FaultKind::Rate => dice.skewed(2, 400),
            FaultKind::MtuChange => dice.pick(&[256, 300, 500, 1200, 1500, 9000, 65_535]),
            FaultKind::Stall | FaultKind::OneWayDeath | FaultKind::LoopPlug | FaultKind::ClockJump => {
                dice.below(2)
            }
            FaultKind::Detach | FaultKind::PeerRestart => dice.below(4),
            FaultKind::Policy => dice.below(10),
            FaultKind::DeadSession | FaultKind::MovedPeer => 0,
        };
        Self { kind, at, lasts, cable: dice.index(cables), way, amount }
    }

    /// When it is over.
    pub(crate) fn end(&self) -> Duration {
        self.at + self.lasts
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (amount {}) for {:?}", self.kind, self.amount, self.lasts)?;
        if self.kind.is_of_host() { Ok(()) } else { write!(f, " on cable {} {:?}", self.cable, self.way) }
    }
}
