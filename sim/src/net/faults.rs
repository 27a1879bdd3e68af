//! What the faults of cables do.

use super::{End, Event, Happening, Net, Session};
use crate::fault::FaultKind;
use crate::plan::Medium;
use bondwire_core::time::{Duration, Instant};

impl Net {
    pub(super) fn begin(&mut self, index: usize) {
        let fault = self.faults[index];
        self.trace.note(1, index as u64, 0);
        self.trace.line("", format_args!("fault {index} begins: {fault}"));
        self.queue.schedule(self.now + fault.lasts, Event::FaultEnd(index));
        if fault.kind.is_of_host() || fault.kind == FaultKind::Policy {
            self.ready.push_back(Happening::Fault(fault, true));
            return;
        }
        self.cables[fault.cable].faults.push(fault);
        match fault.kind {
            FaultKind::Detach => {
                self.strike(fault.kind);
                self.cut(fault.cable, [fault.amount & 1 == 0, fault.amount & 2 == 0]);
            }
            kind if kind.unplugs() => self.cut(fault.cable, [true, true]),
            FaultKind::DeadSession => {
                let open = |session: &Session| session.cable == fault.cable && !session.dead;
                if self.sessions.iter().any(open) {
                    self.strike(fault.kind);
                }
                self.cut(fault.cable, [false, false]);
            }
            FaultKind::Stall | FaultKind::OneWayDeath | FaultKind::Rate => self.strike(fault.kind),
            _ => {}
        }
        self.refresh(fault.cable);
    }

    pub(super) fn end(&mut self, index: usize) {
        let fault = self.faults[index];
        self.trace.note(2, index as u64, 0);
        self.trace.line("", format_args!("fault {index} ends: {fault}"));
        if fault.kind == FaultKind::Policy {
            self.ready.push_back(Happening::Fault(fault, false));
        }
        if fault.kind.is_of_host() || fault.kind == FaultKind::Policy {
            return;
        }
        let active = &mut self.cables[fault.cable].faults;
        if let Some(place) = active.iter().position(|it| *it == fault) {
            active.remove(place);
        }
        if fault.kind.unplugs() && fault.kind != FaultKind::Detach {
            self.cut(fault.cable, [true, true]);
        }
        self.refresh(fault.cable);
    }

    /// Sets a cable's rates and stops as its faults now have it.
    fn refresh(&mut self, index: usize) {
        let now = self.now;
        let cable = &mut self.cables[index];
        for direction in 0..2 {
            let percent = cable.active(FaultKind::Rate).map(|fault| fault.amount).min().unwrap_or(100);
            let rate = cable.plan.rate_bytes_per_second[direction];
            cable.pipes[direction].set_rate((rate.saturating_mul(percent) / 100).max(2000));
            let frozen = cable.blocked(direction) == Some(0);
            if let Some(at) = cable.pipes[direction].set_frozen(now, frozen) {
                self.queue.schedule(at, Event::Serve(index, direction));
            }
        }
    }

    /// Ends every session of a cable, in the middle of whatever it carried.
    pub(super) fn cut(&mut self, cable: usize, tell: [bool; 2]) {
        let is_tcp = self.cables[cable].plan.medium == Medium::Tcp;
        for session in self.session_ids() {
            let it = &mut self.sessions[session.0 as usize];
            if it.cable != cable || it.dead || !it.open.contains(&true) {
                continue;
            }
            it.dead = true;
            for pipe in &mut self.cables[cable].pipes {
                pipe.discard(session);
            }
            for (side, told) in tell.into_iter().enumerate() {
                let soon = self.dice.duration(Duration::from_micros(50), Duration::from_millis(30));
                let notice = if told { self.now + soon } else { self.keep_alive() };
                if told || !is_tcp {
                    self.schedule(notice, Happening::Ended(End { session, side }));
                }
            }
        }
    }

    /// When the frame layer of a cable notices that the other end is gone.
    pub(super) fn keep_alive(&mut self) -> Instant {
        self.now + self.dice.duration(Duration::from_secs(1), Duration::from_secs(3))
    }
}
