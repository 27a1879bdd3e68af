//! A host: drives its endpoint, its handshakes and its bonds exactly as a real driver would.
//!
//! Inputs go in, then everything is drained: the application, events, wakes, packets for media with room. One timer is
//! armed for the earliest deadline of all parts.

use crate::bond::{Bond, Notice, Serial};
use crate::dialer::Dialer;
use crate::dice::Dice;
use crate::line::{Line, Port};
use crate::net::{ACCEPTOR, DIALER, End, Happening, HostIndex};
use crate::plan::Medium;
use crate::stage::Stage;
use bondwire_core::connection::Transmit;
use bondwire_core::crypto::StaticSecret;
use bondwire_core::endpoint::Endpoint;
use bondwire_core::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// Rounds of draining after one input before it counts as endless.
const ROUNDS_MAX: u32 = 10_000;
/// Timer calls that change nothing which a host may make in one second.
const IDLE_TIMERS_MAX: u64 = 2_500;
/// Packets after which the engine's promises are inspected, of a thousand.
const INSPECTED_PERMILLE: u64 = 50;
/// An engine that wants to send on an idle link because time has passed says so by its timer within this.
const MIND_CHANGE_MAX: Duration = Duration::from_millis(500);
const NAMES: [&str; 3] = ["dial", "acc", "odd"];

/// One host of the world.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) index: HostIndex,
    pub(crate) name: &'static str,
    pub(crate) secrets: [StaticSecret; 3],
    pub(crate) endpoint: Endpoint,
    pub(crate) lines: BTreeMap<End, Line>,
    pub(crate) bonds: Vec<Bond>,
    pub(crate) dialers: Vec<Dialer>,
    pub(crate) dice: Dice,
    /// Whether it still wants links.
    pub(crate) dials: bool,
    bonds_made: u64,
    /// The bond that the last happening gave a packet, so that all its links were looked at again.
    pub(crate) fed: Option<Serial>,
    /// Each host's clock has an origin of its own.
    clock_offset: Duration,
    /// The host does nothing until then; what happens meanwhile waits.
    frozen_until: Option<Instant>,
    backlog: VecDeque<Happening>,
    /// When the one scheduled timer goes off, on the world's clock.
    armed: Option<Instant>,
    idle_timers: IdleTimers,
}

/// Timer calls in the current second that changed nothing.
#[derive(Debug, Default)]
struct IdleTimers {
    second: u64,
    count: u64,
}

impl Host {
    pub(crate) fn new(stage: &mut Stage, index: HostIndex) -> Self {
        let mut dice = Dice::new(stage.plan.seed, 10 + index as u64);
        // The three keys are the same at every host, so that each knows whom to expect.
        let mut keys = Dice::new(stage.plan.seed, 9);
        let secrets = [(); 3].map(|()| StaticSecret::from_bytes(keys.seed()));
        let endpoint = crate::line::endpoint(&stage.plan, &secrets, index, dice.seed());
        let clock_offset = Duration::from_millis(dice.skewed(1, 1 << 40));
        let mut host = Self {
            index,
            name: NAMES[index],
            secrets,
            endpoint,
            lines: BTreeMap::new(),
            bonds: Vec::new(),
            dialers: Vec::new(),
            dice,
            dials: true,
            bonds_made: 0,
            fed: None,
            clock_offset,
            frozen_until: None,
            backlog: VecDeque::new(),
            armed: None,
            idle_timers: IdleTimers::default(),
        };
        host.start(stage);
        host
    }

    /// The host's clock.
    pub(crate) fn now(&self, stage: &Stage) -> Instant {
        stage.net.now() + self.clock_offset
    }

    /// Begins as after a boot: with nothing but the key.
    fn start(&mut self, stage: &mut Stage) {
        let now = self.now(stage);
        if self.index == DIALER {
            let cables = 0..stage.net.cable_count();
            self.dialers = cables
                .map(|cable| Dialer::new(now, stage.net.cable_plan(cable).medium == Medium::Tcp))
                .collect();
            self.new_bond(stage);
        }
        self.settle(stage);
    }

    /// Loses everything but the key and begins anew.
    pub(crate) fn restart(&mut self, stage: &mut Stage) {
        let seed = self.dice.seed();
        self.endpoint = crate::line::endpoint(&stage.plan, &self.secrets, self.index, seed);
        self.lines.clear();
        self.bonds.clear();
        self.backlog.clear();
        self.start(stage);
    }

    /// Stands still until `until`, on the world's clock.
    pub(crate) fn freeze(&mut self, stage: &mut Stage, until: Instant) {
        self.frozen_until = Some(self.frozen_until.map_or(until, |other| other.max(until)));
        stage.net.schedule(until, Happening::Resume(self.index));
    }

    /// A bond of the dialling host.
    pub(crate) fn new_bond(&mut self, stage: &mut Stage) -> Serial {
        let now = self.now(stage);
        let serial = Serial(self.bonds_made);
        self.bonds_made += 1;
        let mut bond = Bond::new(now, serial, self.index, stage);
        if self.index == DIALER {
            let peer = self.secrets[ACCEPTOR].public_key();
            bond.attempt = Some(self.endpoint.attempt(Some(peer)));
        }
        self.bonds.push(bond);
        serial
    }

    pub(crate) fn bond(&mut self, serial: Serial) -> Option<&mut Bond> {
        self.bonds.iter_mut().find(|bond| bond.serial == serial)
    }

    /// The bond that the dialling host works on.
    pub(crate) fn current(&self) -> Option<&Bond> {
        self.bonds.last()
    }

    /// Takes what happened, now or when it wakes up.
    pub(crate) fn handle(&mut self, happening: Happening, stage: &mut Stage) {
        if let Some(until) = self.frozen_until {
            if stage.net.now() < until {
                if !matches!(happening, Happening::Timer(_) | Happening::Resume(_)) {
                    self.backlog.push_back(happening);
                }
                return;
            }
            self.frozen_until = None;
            self.armed = None;
            for waiting in std::mem::take(&mut self.backlog) {
                self.take(waiting, stage);
            }
            self.on_timer(stage);
        }
        // A timer that was armed for earlier since: nothing is due.
        if matches!(happening, Happening::Timer(_)) && self.armed != Some(stage.net.now()) {
            return;
        }
        self.fed = None;
        self.take(happening, stage);
        self.settle(stage);
        if self.fed.is_some() && self.dice.permille(INSPECTED_PERMILLE) {
            self.inspect(stage, self.fed);
        }
    }

    fn take(&mut self, happening: Happening, stage: &mut Stage) {
        match happening {
            Happening::Packet(end, packet) => self.on_packet(stage, end, packet),
            Happening::Ended(end) => self.on_ended(stage, end),
            Happening::Accept(end) => self.on_accept(stage, end),
            // Draining looks at every port with something to send.
            Happening::Writable(_) => {}
            Happening::Timer(_) => {
                self.armed = None;
                self.on_timer(stage);
            }
            _ => {}
        }
    }

    /// Drains everything, and arms the timer.
    pub(crate) fn settle(&mut self, stage: &mut Stage) -> bool {
        let mut any = false;
        for round in 0.. {
            if stage.report.failure.is_some() || !self.drain(stage) {
                break;
            }
            any = true;
            if round == ROUNDS_MAX {
                stage.fail(self.name, "draining never ends".to_owned());
            }
        }
        for bond in &self.bonds {
            bond.check(self.index, self.name, stage);
        }
        self.arm(stage);
        any
    }

    /// One round; the answer is whether anything happened.
    fn drain(&mut self, stage: &mut Stage) -> bool {
        let now = self.now(stage);
        let mut active = self.dial(stage);
        active |= self.send_handshakes(stage);
        for index in 0..self.bonds.len() {
            let mut notices = Vec::new();
            active |= self.bonds[index].step(now, self.name, stage, &mut notices);
            let serial = self.bonds[index].serial;
            notices.into_iter().for_each(|notice| self.on_notice(stage, serial, notice));
            while let Some(link) = self.bonds[index].connection.poll_wake(now) {
                active = true;
                let port = self.bonds[index].ends.get(&link).and_then(|end| self.lines.get_mut(end));
                match port {
                    Some(Line::Up(port)) => port.awake = true,
                    _ => stage.fail(self.name, format!("a wake for link {link}, which is not there")),
                }
            }
        }
        let awake = self.lines.iter().filter(|(_, line)| matches!(line, Line::Up(port) if port.awake));
        for end in awake.map(|(end, _)| *end).collect::<Vec<_>>() {
            active |= self.transmit(stage, end);
        }
        self.forget_closed(now);
        active
    }

    fn on_notice(&mut self, stage: &mut Stage, serial: Serial, notice: Notice) {
        if self.index != DIALER || self.current().is_none_or(|bond| bond.serial != serial) {
            return;
        }
        let now = self.now(stage);
        for cable in 0..self.dialers.len() {
            match notice {
                Notice::Suspect(link) => self.dialers[cable].on_suspect(now, link),
                Notice::Answered(link) => {
                    if let Some(end) = self.dialers[cable].on_answered(link) {
                        self.drop_line(stage, end);
                    }
                }
            }
        }
    }

    /// Gives a medium with room as many packets as it and the engine have to offer.
    fn transmit(&mut self, stage: &mut Stage, end: End) -> bool {
        let now = self.now(stage);
        let mut active = false;
        while stage.net.has_room(end) {
            let Some(Line::Up(port)) = self.lines.get_mut(&end) else { return active };
            let serial = port.bond;
            let Some(bond) = self.bonds.iter_mut().find(|bond| bond.serial == serial) else { return active };
            match bond.connection.poll_transmit(now, port.link, &mut port.packet) {
                Transmit::Packet => {
                    active = true;
                    match port.seal() {
                        Ok(sealed) => stage.net.send(end, sealed),
                        Err(error) => {
                            stage.fail(self.name, format!("sealing on link {}: {error}", port.link));
                        }
                    }
                }
                Transmit::Idle => {
                    port.awake = false;
                    return active;
                }
                Transmit::LinkClosed => {
                    self.drop_line(stage, end);
                    return true;
                }
            }
        }
        active
    }

    /// Looks for promises that were not kept: a link that was told to wait for a wake has nothing to send, a reader
    /// that was told to wait for an event has nothing to read. So it must be for the bond that was just `fed` a
    /// packet and drained; for others time has passed, and the engine may have changed its mind if it has a timer to say so.
    pub(crate) fn inspect(&mut self, stage: &mut Stage, fed: Option<Serial>) {
        if self.frozen_until.is_some() || stage.report.failure.is_some() {
            return;
        }
        for bond in self.bonds.iter_mut().filter(|bond| bond.closed.is_none()) {
            if let Err(fault) = bond.app.inspect(&mut bond.connection) {
                stage.fail(self.name, fault);
            }
        }
        let now = self.now(stage);
        for (end, line) in &mut self.lines {
            let Line::Up(port) = line else { continue };
            let serial = port.bond;
            let Some(bond) = self.bonds.iter_mut().find(|bond| bond.serial == serial) else { continue };
            let at_once = fed == Some(serial);
            let timer = bond.connection.poll_timeout();
            let has_timer = timer.is_some_and(|(at, _)| at <= now + MIND_CHANGE_MAX);
            if port.awake || (has_timer && !at_once) || !stage.net.has_room(*end) {
                continue;
            }
            if bond.connection.poll_transmit(now, port.link, &mut port.packet) == Transmit::Packet {
                let Port { link, packet, .. } = &**port;
                let when = if at_once { "at once" } else { "later" };
                let bytes = packet.len();
                stage.fail(
                    self.name,
                    format!(
                        "lost wake: idle link {link} has {bytes} bytes {when}, timer {timer:?}, now {now:?}"
                    ),
                );
            }
        }
        self.settle(stage);
    }

    fn on_timer(&mut self, stage: &mut Stage) {
        let now = self.now(stage);
        let packets = stage.net.packets;
        let mut due = false;
        for bond in &mut self.bonds {
            if bond.connection.poll_timeout().is_some_and(|(at, _)| at <= now) {
                bond.connection.handle_timeout(now);
                stage.report.timers += 1;
                due = true;
                bond.check_timer(now, self.name, stage);
            }
        }
        self.time_out_handshakes(stage);
        let active = self.settle(stage);
        self.bonds.iter().for_each(|bond| bond.check_timer(now, self.name, stage));
        if due && !active && packets == stage.net.packets {
            self.count_idle_timer(stage);
        }
    }

    fn count_idle_timer(&mut self, stage: &mut Stage) {
        let second = stage.net.elapsed().as_secs();
        if self.idle_timers.second != second {
            self.idle_timers = IdleTimers { second, count: 0 };
        }
        self.idle_timers.count += 1;
        let count = self.idle_timers.count;
        stage.report.idle_timers_max = stage.report.idle_timers_max.max(count);
        if count > IDLE_TIMERS_MAX {
            stage.fail(self.name, format!("{count} timers in a second changed nothing"));
        }
    }

    /// Arms the one timer for the earliest deadline. The engine's timers run a little late, as everywhere.
    fn arm(&mut self, stage: &mut Stage) {
        let now = self.now(stage);
        let engine = self.bonds.iter().filter_map(Bond::poll_timeout).min();
        let apps = self.bonds.iter().filter_map(Bond::poll_app_timeout).min();
        let dialers = self.dialers.iter().filter_map(Dialer::poll_timeout).min().filter(|_| self.may_dial());
        let lines = self.lines.values().filter_map(Line::poll_timeout).min();
        let on_time = [apps, dialers, lines].into_iter().flatten().min();
        let slack = stage.plan.timer_slack.get(self.index).copied().unwrap_or_default();
        let earliest = [engine.map(|at| at + slack / 2), on_time].into_iter().flatten().min();
        let Some(at) = earliest.map(|at| at.max(now) - self.clock_offset) else { return };
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            stage.net.schedule(at, Happening::Timer(self.index));
        }
    }
}
