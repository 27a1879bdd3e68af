//! The whole: hosts, cables, time, and the question whether everything went well.

use std::num::NonZeroU8;

use crate::bond::Bond;
use crate::dice::Dice;
use crate::fault::{Fault, FaultKind};
use crate::host::Host;
use crate::net::{ACCEPTOR, DIALER, Happening, STRANGER};
use crate::plan::{Finale, Plan};
use crate::report::Report;
use crate::stage::Stage;
use crate::trace::Trace;
use bondwire_core::config::{LinkPolicy, Policy};
use bondwire_core::error::CloseReason;
use bondwire_core::time::Duration;

/// Promises are inspected about this many times in a run.
const INSPECTIONS: u32 = 200;
/// After a close, the other end notices at the latest by its keep-alive (15 s), its silence limit, and its idle
/// timeout (120 s).
const CLOSE_PATIENCE: Duration = Duration::from_secs(180);
/// An early end that finds no bond tries again after this.
const ABORT_RETRY: Duration = Duration::from_millis(10);
/// What the closing application says.
const CLOSE_CODE: u64 = 0x123;
const CLOSE_REASON: &str = "the work is done";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The applications are at work.
    Working,
    /// This host has closed the bond.
    Closing(usize),
    /// All is over.
    Done,
}

/// Three hosts, their cables, and a clock.
#[derive(Debug)]
pub struct World {
    stage: Stage,
    hosts: [Host; 3],
    phase: Phase,
    /// After this much time something is wrong.
    deadline: Duration,
    dice: Dice,
}

impl World {
    /// The world of a plan, before anything happens.
    pub(crate) fn new(plan: Plan, trace: Trace) -> Self {
        let mut stage = Stage::new(plan, trace);
        let hosts = [DIALER, ACCEPTOR, STRANGER].map(|index| Host::new(&mut stage, index));
        let works = [0, 1].map(|generation| stage.plan.patience(&stage.plan.work(generation)));
        let deadline = stage.plan.faults_end().max(stage.plan.lingers) + works[0] + works[1];
        stage.net.schedule_at(deadline, Happening::Deadline);
        if let Finale::Abort(_, at) = stage.plan.finale {
            stage.net.schedule_at(at, Happening::Abort);
        }
        let dice = Dice::new(stage.plan.seed, 3);
        let mut world = Self { stage, hosts, phase: Phase::Working, deadline, dice };
        world.schedule_inspection();
        world
    }

    /// The world of a plan, for callers who make their own.
    pub fn of(plan: Plan) -> Self {
        Self::new(plan, Trace::quiet())
    }

    /// Runs until all is done, or something is wrong.
    pub fn run(mut self) -> Report {
        while self.phase != Phase::Done && self.stage.report.failure.is_none() {
            let Some(happening) = self.stage.net.next() else {
                self.stage.fail("", "nothing will ever happen again".to_owned());
                break;
            };
            self.dispatch(happening);
            self.advance();
        }
        self.report()
    }

    fn dispatch(&mut self, happening: Happening) {
        let stage = &mut self.stage;
        let host = match &happening {
            Happening::Packet(end, _)
            | Happening::Ended(end)
            | Happening::Accept(end)
            | Happening::Writable(end) => stage.net.host_of(*end),
            Happening::Timer(host) | Happening::Resume(host) => *host,
            Happening::Fault(fault, begins) => return self.on_fault(*fault, *begins),
            Happening::Inspect => {
                self.hosts.iter_mut().for_each(|host| host.inspect(stage, None));
                return self.schedule_inspection();
            }
            Happening::Abort => return self.abort(),
            Happening::Deadline => return self.on_deadline(),
        };
        self.hosts[host].handle(happening, stage);
    }

    fn schedule_inspection(&mut self) {
        let mean = (self.stage.plan.span / INSPECTIONS).max(Duration::from_micros(100));
        let elapsed = self.stage.net.elapsed();
        // Less often once the planned time is over, so that a long wait stays cheap.
        let mean = if elapsed > self.stage.plan.span * 2 { mean.max(elapsed / INSPECTIONS) } else { mean };
        let wait = mean * u32::try_from(self.dice.between(1, 200)).unwrap_or(100) / 100;
        self.stage.net.schedule(self.stage.net.now() + wait, Happening::Inspect);
    }

    /// A fault of a host begins, or a policy changes.
    fn on_fault(&mut self, fault: Fault, begins: bool) {
        let stage = &mut self.stage;
        match fault.kind {
            FaultKind::ClockJump => {
                stage.net.strike(fault.kind);
                let until = stage.net.now() + fault.lasts;
                self.hosts[usize::from(fault.amount == 1)].freeze(stage, until);
            }
            FaultKind::PeerRestart if self.phase == Phase::Working => {
                stage.net.strike(fault.kind);
                let initiator = fault.amount & 1 == 1;
                let host = if initiator { DIALER } else { ACCEPTOR };
                if initiator {
                    stage.next_generation();
                }
                stage.net.forget_host(host, fault.amount & 2 == 0);
                self.hosts[host].restart(stage);
            }
            FaultKind::Policy => {
                let policy = if begins { policy_of(fault.amount) } else { LinkPolicy::default() };
                let host = usize::from(fault.amount & 1 == 1);
                if self.hosts[host].set_policy(stage, fault.cable, policy) && begins {
                    stage.net.strike(fault.kind);
                }
            }
            _ => {}
        }
    }

    /// Goes to the next phase when this one is over.
    fn advance(&mut self) {
        match self.phase {
            Phase::Working => self.look_at_work(),
            Phase::Closing(_) => {
                let open = |host: &Host| host.bonds.iter().any(|bond| !bond.connection.is_closed());
                if !self.hosts.iter().any(open) {
                    self.phase = Phase::Done;
                }
            }
            Phase::Done => {}
        }
    }

    /// Closes once the current bond's work is done at both ends.
    fn look_at_work(&mut self) {
        let [dialer, acceptor, _] = &self.hosts;
        let Some(bond) = dialer.current() else { return };
        let Some(id) = bond.id() else { return };
        let other = acceptor.bonds.iter().find(|bond| bond.id() == Some(id));
        for (name, bond) in [(dialer.name, Some(bond)), (acceptor.name, other)] {
            if let Some(reason) = bond.and_then(|bond| bond.closed.as_ref()) {
                return self.stage.fail(name, format!("the bond closed during the work: {reason}"));
            }
        }
        let done = bond.app.is_done() && other.is_some_and(|other| other.app.is_done());
        if done && self.stage.net.elapsed() >= self.stage.plan.lingers {
            let (Finale::Close(host) | Finale::Abort(host, _)) = self.stage.plan.finale;
            self.close(host);
        }
    }

    /// Closes in the middle of the work, as soon as there is a bond at both ends.
    fn abort(&mut self) {
        let Finale::Abort(host, _) = self.stage.plan.finale else { return };
        let id = self.hosts[DIALER].current().and_then(Bond::id);
        let both = id.is_some() && self.hosts[ACCEPTOR].bonds.iter().any(|bond| bond.id() == id);
        match self.phase {
            Phase::Working if both => self.close(host),
            Phase::Working => {
                self.stage.net.schedule(self.stage.net.now() + ABORT_RETRY, Happening::Abort);
            }
            _ => {}
        }
    }

    fn close(&mut self, host: usize) {
        self.stage.line("", format_args!("host {host} closes"));
        self.phase = Phase::Closing(host);
        self.deadline = self.stage.net.elapsed().max(self.stage.plan.faults_end()) + CLOSE_PATIENCE;
        self.stage.net.schedule_at(self.deadline, Happening::Deadline);
        for (index, other) in self.hosts.iter_mut().enumerate() {
            other.stop_dialling();
            if index == host {
                other.close_bonds(&mut self.stage, CLOSE_CODE, CLOSE_REASON);
            }
        }
    }

    fn on_deadline(&mut self) {
        if self.stage.net.elapsed() < self.deadline {
            return;
        }
        let mut text = format!("not done in time ({:?})", self.phase);
        for host in &self.hosts {
            for bond in &host.bonds {
                text += &format!(
                    "; {} generation {}: {}",
                    host.name,
                    bond.generation,
                    host.describe(&self.stage, bond)
                );
            }
        }
        self.stage.fail("", text);
    }

    fn report(mut self) -> Report {
        let elapsed = self.stage.net.elapsed();
        if self.stage.report.failure.is_none() {
            self.check_reasons();
        }
        let Stage { net, mut report, .. } = self.stage;
        let current =
            |host: &Host| host.bonds.iter().map(|bond| (bond.app.read_bytes, bond.app.datagrams())).collect();
        let verified: Vec<Vec<(u64, u64)>> = self.hosts.iter().map(current).collect();
        report.bytes += verified.iter().flatten().map(|(bytes, _)| bytes).sum::<u64>();
        report.datagrams[0] += verified.iter().flatten().map(|(_, datagrams)| datagrams).sum::<u64>();
        report.virtual_time = elapsed;
        report.packets = net.packets;
        report.faults = net.struck.clone();
        report.hash = net.trace.hash();
        report
    }

    /// The end that closed knows so, and the other heard it as it was said, or lost touch.
    fn check_reasons(&mut self) {
        let generation = self.stage.generation;
        for host in &self.hosts {
            for bond in host.bonds.iter().filter(|bond| bond.generation == generation) {
                let right = match &bond.closed {
                    Some(CloseReason::Local { code, .. }) => *code == CLOSE_CODE,
                    Some(CloseReason::Peer { code, reason }) => *code == CLOSE_CODE && reason == CLOSE_REASON,
                    Some(CloseReason::IdleTimeout(_) | CloseReason::PeerRestarted) => true,
                    // By a handshake that the dialer began before it restarted, and then by its next bond.
                    Some(CloseReason::Evicted) => host.bonds.iter().any(|newer| newer.serial > bond.serial),
                    _ => false,
                };
                if !right {
                    self.stage.fail(host.name, format!("closed for the wrong reason: {:?}", bond.closed));
                }
            }
        }
    }
}

/// The wish for a link that a policy fault stands for.
fn policy_of(amount: u64) -> LinkPolicy {
    match amount >> 1 {
        0 => Policy::Backup.into(),
        1 => Policy::Paused.into(),
        2 => LinkPolicy { tier: 1, ..LinkPolicy::default() },
        3 => LinkPolicy { weight: NonZeroU8::new(3), ..LinkPolicy::default() },
        _ => LinkPolicy { cap_bytes_per_second: Some(20_000), ..LinkPolicy::default() },
    }
}
