//! The cables between the hosts, their sessions, and what the faults do to both.

mod faults;

use crate::dice::Dice;
use crate::fault::{Fault, FaultKind};
use crate::pipe::{Load, Parcel, Pipe, SessionId};
use crate::plan::{CablePlan, Medium, Plan};
use crate::queue::Queue;
use crate::trace::Trace;
use bondwire_core::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Packets kept to be replayed.
const RECORDED_MAX: usize = 64;
/// Simulated nanosecond from which the run counts, so that no instant is the engine's origin.
const START: Instant = Instant::from_nanos(1_000_000_000);

/// Which of the hosts.
pub(crate) type HostIndex = usize;
/// The host that dials.
pub(crate) const DIALER: HostIndex = 0;
/// The host that it means to reach.
pub(crate) const ACCEPTOR: HostIndex = 1;
/// A host with another key.
pub(crate) const STRANGER: HostIndex = 2;

/// One end of a session: side 0 dialled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct End {
    pub(crate) session: SessionId,
    pub(crate) side: usize,
}

/// Something that concerns a host.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A packet arrived.
    Packet(End, Vec<u8>),
    /// The medium has ended.
    Ended(End),
    /// Someone dialled: this is the accepting end.
    Accept(End),
    /// The medium takes packets again.
    Writable(End),
    /// A host's timer.
    Timer(HostIndex),
    /// A host that stood still goes on.
    Resume(HostIndex),
    /// A fault of a host begins, or a policy changes (`true`) or is taken back (`false`).
    Fault(Fault, bool),
    /// Time to look for promises that were not kept.
    Inspect,
    /// The planned early end of the bond.
    Abort,
    /// Whatever has not happened by now does not happen.
    Deadline,
}

#[derive(Debug)]
enum Event {
    Serve(usize, usize),
    Arrive(usize, usize),
    FaultBegin(usize),
    FaultEnd(usize),
    Happen(Happening),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Far {
    Acceptor,
    Stranger,
    /// What is sent comes back.
    Echo,
    /// The dialer's own acceptor.
    Own,
}

#[derive(Debug)]
struct Session {
    cable: usize,
    far: Far,
    mtu_bytes: usize,
    /// It carries nothing any more.
    dead: bool,
    open: [bool; 2],
}

#[derive(Debug)]
struct Cable {
    plan: CablePlan,
    pipes: [Pipe; 2],
    waiting: [BTreeSet<End>; 2],
    faults: Vec<Fault>,
}

impl Cable {
    fn active(&self, kind: FaultKind) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(move |fault| fault.kind == kind)
    }

    /// The strength of a fault in a direction.
    fn amount(&self, kind: FaultKind, direction: usize) -> u64 {
        let matching = self.active(kind).filter(|fault| fault.way.includes(direction));
        matching.map(|fault| fault.amount).max().unwrap_or(0)
    }

    /// Whether a direction carries nothing: `Some(0)` packets wait, `Some(1)` they vanish.
    fn blocked(&self, direction: usize) -> Option<u64> {
        let stalls = self.active(FaultKind::Stall).chain(self.active(FaultKind::OneWayDeath));
        stalls.filter(|fault| fault.way.includes(direction)).map(|fault| fault.amount).max()
    }

    fn far(&self) -> Far {
        match self.active(FaultKind::LoopPlug).next() {
            Some(fault) if fault.amount == 0 => Far::Echo,
            Some(_) => Far::Own,
            None if self.active(FaultKind::MovedPeer).next().is_some() => Far::Stranger,
            None => Far::Acceptor,
        }
    }

    fn mtu_bytes(&self) -> usize {
        let changed = self.active(FaultKind::MtuChange).map(|fault| fault.amount).min();
        changed.map_or(self.plan.mtu_bytes, |mtu| usize::try_from(mtu).unwrap_or(usize::MAX))
    }
}

/// All cables, the clock, and the trace.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) trace: Trace,
    /// How often each fault really struck.
    pub(crate) struck: BTreeMap<FaultKind, u64>,
    /// Packets sent.
    pub(crate) packets: u64,
    now: Instant,
    queue: Queue<Event>,
    ready: VecDeque<Happening>,
    cables: Vec<Cable>,
    sessions: Vec<Session>,
    faults: Vec<Fault>,
    recorded: Vec<Vec<u8>>,
    records: bool,
    dice: Dice,
}

impl Net {
    pub(crate) fn new(plan: &Plan, trace: Trace) -> Self {
        let cable = |plan: &CablePlan| Cable {
            plan: plan.clone(),
            pipes: plan.rate_bytes_per_second.map(|rate| Pipe::new(rate, plan.delay, plan.queue_bytes)),
            waiting: [BTreeSet::new(), BTreeSet::new()],
            faults: Vec::new(),
        };
        let mut queue = Queue::new();
        for (index, fault) in plan.faults.iter().enumerate() {
            queue.schedule(START + fault.at, Event::FaultBegin(index));
        }
        Self {
            trace,
            struck: BTreeMap::new(),
            packets: 0,
            now: START,
            queue,
            ready: VecDeque::new(),
            cables: plan.cables.iter().map(cable).collect(),
            sessions: Vec::new(),
            faults: plan.faults.clone(),
            recorded: Vec::new(),
            records: plan.faults.iter().any(|fault| fault.kind == FaultKind::Replay),
            dice: Dice::new(plan.seed, 1),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Time since the run began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - START
    }

    pub(crate) fn schedule(&mut self, at: Instant, happening: Happening) {
        self.queue.schedule(at.max(self.now), Event::Happen(happening));
    }

    /// Schedules at a time since the run began.
    pub(crate) fn schedule_at(&mut self, elapsed: Duration, happening: Happening) {
        self.schedule(START + elapsed, happening);
    }

    /// What concerns a host next; the clock goes there.
    pub(crate) fn next(&mut self) -> Option<Happening> {
        loop {
            if let Some(happening) = self.ready.pop_front() {
                return Some(happening);
            }
            let (at, event) = self.queue.pop()?;
            self.now = at;
            self.trace.set_now(at);
            match event {
                Event::Serve(cable, direction) => self.serve(cable, direction),
                Event::Arrive(cable, direction) => self.arrive(cable, direction),
                Event::FaultBegin(index) => self.begin(index),
                Event::FaultEnd(index) => self.end(index),
                Event::Happen(happening) => return Some(happening),
            }
        }
    }

    // --- what hosts do

    pub(crate) fn cable_count(&self) -> usize {
        self.cables.len()
    }

    pub(crate) fn cable_plan(&self, cable: usize) -> &CablePlan {
        &self.cables[cable].plan
    }

    pub(crate) fn cable_of(&self, end: End) -> usize {
        self.session(end).cable
    }

    pub(crate) fn mtu_bytes(&self, end: End) -> usize {
        self.session(end).mtu_bytes
    }

    pub(crate) fn host_of(&self, end: End) -> HostIndex {
        match (end.side, self.session(end).far) {
            (0, _) | (_, Far::Own | Far::Echo) => DIALER,
            (_, Far::Acceptor) => ACCEPTOR,
            (_, Far::Stranger) => STRANGER,
        }
    }

    /// Dials over a cable; `None` if nothing is plugged in.
    pub(crate) fn dial(&mut self, cable: usize) -> Option<End> {
        let it = &self.cables[cable];
        if self.elapsed() < it.plan.appears || it.active(FaultKind::Detach).next().is_some() {
            return None;
        }
        let (far, mtu_bytes, plan) = (it.far(), it.mtu_bytes(), it.plan.clone());
        for kind in [FaultKind::LoopPlug, FaultKind::MovedPeer, FaultKind::MtuChange] {
            if self.cables[cable].active(kind).next().is_some() {
                self.strike(kind);
            }
        }
        if plan.medium != Medium::Tcp {
            self.cut(cable, [true, true]); // a new epoch ends the one before
        }
        let session = SessionId(u32::try_from(self.sessions.len()).unwrap_or(u32::MAX));
        self.sessions.push(Session { cable, far, mtu_bytes, dead: false, open: [true, far != Far::Echo] });
        if far != Far::Echo {
            self.schedule(self.now + plan.delay, Happening::Accept(End { session, side: 1 }));
        }
        Some(End { session, side: 0 })
    }

    /// True if the medium takes a packet now; otherwise [`Happening::Writable`] follows.
    pub(crate) fn has_room(&mut self, end: End) -> bool {
        let cable = self.session(end).cable;
        let cable = &mut self.cables[cable];
        let room = cable.pipes[end.side].has_room();
        if !room {
            cable.waiting[end.side].insert(end);
        }
        room
    }

    pub(crate) fn send(&mut self, end: End, packet: Vec<u8>) {
        self.packets += 1;
        self.trace.bytes(10 + end.side as u64, &packet);
        if self.records && (self.recorded.len() < RECORDED_MAX || self.dice.percent(5)) {
            self.record(&packet);
        }
        self.push(end, Load::Packet(packet));
    }

    /// Closes an end. What was sent before still arrives, where the medium is so kind.
    pub(crate) fn close(&mut self, end: End) {
        let session = self.session_mut(end);
        if !std::mem::replace(&mut session.open[end.side], false) || session.dead {
            return;
        }
        let cable = session.cable;
        let other = End { side: 1 - end.side, ..end };
        if self.cables[cable].plan.medium == Medium::Tcp {
            self.push(end, Load::End);
        } else {
            let notice = self.keep_alive();
            self.schedule(notice, Happening::Ended(other));
        }
    }

    /// True while an end can be used as far as its host knows.
    pub(crate) fn is_open(&self, end: End) -> bool {
        self.session(end).open[end.side]
    }

    /// Ends all sessions of a host, which lost its memory; `tell` says if the other ends hear of it at once.
    pub(crate) fn forget_host(&mut self, host: HostIndex, tell: bool) {
        for end in self.ends() {
            if !self.is_open(end) || self.host_of(end) != host {
                continue;
            }
            if tell || self.cables[self.session(end).cable].plan.medium != Medium::Tcp {
                self.close(end);
            } else {
                self.session_mut(end).open[end.side] = false;
            }
        }
    }

    /// Notes that a fault made a difference.
    pub(crate) fn strike(&mut self, kind: FaultKind) {
        *self.struck.entry(kind).or_default() += 1;
    }

    // --- the wire

    fn push(&mut self, end: End, load: Load) {
        let cable = self.session(end).cable;
        let parcel = Parcel { session: end.session, load };
        if let Some(at) = self.cables[cable].pipes[end.side].push(self.now, parcel) {
            self.queue.schedule(at, Event::Serve(cable, end.side));
        }
    }

    fn serve(&mut self, index: usize, direction: usize) {
        let now = self.now;
        let cable = &mut self.cables[index];
        let (parcel, next) = cable.pipes[direction].serve(now);
        if cable.pipes[direction].has_room() {
            let waiting = std::mem::take(&mut cable.waiting[direction]);
            self.ready.extend(waiting.into_iter().map(Happening::Writable));
        }
        if let Some(at) = next {
            self.queue.schedule(at, Event::Serve(index, direction));
        }
        if let Some(parcel) = parcel {
            self.disturb(index, direction, parcel);
        }
    }

    /// A parcel enters the wire, with all that may befall it there.
    fn disturb(&mut self, index: usize, direction: usize, mut parcel: Parcel) {
        let session = &self.sessions[parcel.session.0 as usize];
        if session.dead {
            return;
        }
        let cable = &self.cables[index];
        if cable.blocked(direction) == Some(1) {
            return;
        }
        let amount = |kind| cable.amount(kind, direction);
        let loss = amount(FaultKind::Loss).max(cable.plan.loss_permille);
        let [flip, duplicate, replay, delay] =
            [FaultKind::BitFlip, FaultKind::Duplicate, FaultKind::Replay, FaultKind::Delay].map(amount);
        let is_tcp = cable.plan.medium == Medium::Tcp;
        let round_trip = cable.plan.delay * 2;
        let mut extra = Duration::ZERO;
        if self.dice.permille(loss) {
            self.strike(FaultKind::Loss);
            if !is_tcp {
                return;
            }
            extra += round_trip;
        }
        if delay > 0 {
            self.strike(FaultKind::Delay);
            extra += Duration::from_micros(self.dice.below(delay));
        }
        if self.dice.permille(flip)
            && let Load::Packet(packet) = &mut parcel.load
            && !packet.is_empty()
        {
            let at = self.dice.index(packet.len());
            packet[at] ^= 1 << self.dice.below(8);
            self.strike(FaultKind::BitFlip);
        }
        if self.dice.permille(duplicate) && matches!(parcel.load, Load::Packet(_)) {
            self.strike(FaultKind::Duplicate);
            self.launch(index, direction, extra, parcel.clone());
        }
        if !self.recorded.is_empty() && self.dice.permille(replay) {
            self.replay(index, direction, extra, parcel.session);
        }
        self.launch(index, direction, extra, parcel);
    }

    fn launch(&mut self, index: usize, direction: usize, extra: Duration, parcel: Parcel) {
        let at = self.cables[index].pipes[direction].launch(self.now, extra, parcel);
        self.queue.schedule(at, Event::Arrive(index, direction));
    }

    fn arrive(&mut self, index: usize, direction: usize) {
        let Some(parcel) = self.cables[index].pipes[direction].arrive() else { return };
        let session = &mut self.sessions[parcel.session.0 as usize];
        let side = if session.far == Far::Echo { direction } else { 1 - direction };
        let end = End { session: parcel.session, side };
        if session.dead || !session.open[side] {
            return;
        }
        self.ready.push_back(match parcel.load {
            Load::Packet(packet) => Happening::Packet(end, packet),
            Load::End => Happening::Ended(end),
        });
    }

    fn record(&mut self, packet: &[u8]) {
        if self.recorded.len() < RECORDED_MAX {
            self.recorded.push(packet.to_vec());
        } else {
            let place = self.dice.index(RECORDED_MAX);
            self.recorded[place] = packet.to_vec();
        }
    }

    /// A packet from earlier, of this session or another, arrives in this one.
    fn replay(&mut self, index: usize, direction: usize, extra: Duration, session: SessionId) {
        let packet = self.recorded[self.dice.index(self.recorded.len())].clone();
        self.strike(FaultKind::Replay);
        self.launch(index, direction, extra, Parcel { session, load: Load::Packet(packet) });
    }

    fn session_ids(&self) -> impl Iterator<Item = SessionId> + use<> {
        let count = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        (0..count).map(SessionId)
    }

    fn ends(&self) -> impl Iterator<Item = End> + use<> {
        self.session_ids().flat_map(|session| [End { session, side: 0 }, End { session, side: 1 }])
    }

    fn session(&self, end: End) -> &Session {
        &self.sessions[end.session.0 as usize]
    }

    fn session_mut(&mut self, end: End) -> &mut Session {
        &mut self.sessions[end.session.0 as usize]
    }
}
