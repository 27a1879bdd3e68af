//! The application at one end of a bond: does its part of the work and verifies every byte it reads.

use crate::lane::{Lane, Step};
use crate::work::Work;
use bondwire_core::connection::Connection;
use bondwire_core::event::StreamEvent;
use bondwire_core::id::{Role, StreamId};
use bondwire_core::streams::OpenError;
use bondwire_core::time::Instant;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Which side of a lane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Write,
    Read,
}

/// What an application found wrong.
pub(crate) type Fault = String;

/// One end's application.
#[derive(Debug)]
pub(crate) struct App {
    work: Rc<Work>,
    role: Role,
    begin: Instant,
    lanes: BTreeMap<usize, Lane>,
    by_id: BTreeMap<StreamId, usize>,
    /// Streams this end has still to open, latest first.
    to_open: Vec<usize>,
    /// Opening failed for the limit; a stream's end may raise it.
    open_blocked: bool,
    /// Datagrams this end has still to send, latest first.
    to_send: Vec<usize>,
    datagrams_seen: BTreeSet<usize>,
    timers: BTreeSet<(Instant, usize, Side)>,
    runnable: BTreeSet<(usize, Side)>,
    /// Stream bytes read and verified.
    pub(crate) read_bytes: u64,
}

impl App {
    /// The application of the `role` end, whose bond began at `begin`.
    pub(crate) fn new(work: Rc<Work>, role: Role, begin: Instant) -> Self {
        let mut to_open: Vec<usize> =
            (0..work.streams.len()).filter(|&index| work.streams[index].opener == role).collect();
        to_open.sort_by_key(|&index| std::cmp::Reverse((work.streams[index].start, index)));
        let mut to_send: Vec<usize> =
            (0..work.datagrams.len()).filter(|&index| work.datagrams[index].sender == role).collect();
        to_send.sort_by_key(|&index| std::cmp::Reverse((work.datagrams[index].at, index)));
        Self {
            work,
            role,
            begin,
            lanes: BTreeMap::new(),
            by_id: BTreeMap::new(),
            to_open,
            open_blocked: false,
            to_send,
            datagrams_seen: BTreeSet::new(),
            timers: BTreeSet::new(),
            runnable: BTreeSet::new(),
            read_bytes: 0,
        }
    }

    /// True once this end has done and seen all of its streams.
    pub(crate) fn is_done(&self) -> bool {
        self.lanes.len() == self.work.streams.len() && self.lanes.values().all(Lane::is_done)
    }

    /// Datagrams that arrived.
    pub(crate) fn datagrams(&self) -> u64 {
        self.datagrams_seen.len() as u64
    }

    /// What keeps it from being done, for a message.
    pub(crate) fn unfinished(&self) -> String {
        let missing = self.work.streams.len() - self.lanes.len();
        let lanes = self.lanes.iter().filter(|(_, lane)| !lane.is_done());
        let mut text: Vec<String> =
            lanes.map(|(index, lane)| format!("stream {index}: {lane}")).take(6).collect();
        if missing > 0 {
            text.push(format!("{missing} streams never opened or accepted"));
        }
        text.join("; ")
    }

    /// When it wants [`App::step`] without an event.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let open = self.to_open.last().filter(|_| !self.open_blocked);
        let open = open.map(|&index| self.begin + self.work.streams[index].start);
        let send = self.to_send.last().map(|&index| self.begin + self.work.datagrams[index].at);
        let timer = self.timers.first().map(|&(at, ..)| at);
        [open, send, timer].into_iter().flatten().min()
    }

    /// Takes an event of the engine.
    pub(crate) fn handle_event(&mut self, event: &StreamEvent) -> Result<(), Fault> {
        match *event {
            StreamEvent::Readable(id) => self.wake(id, Side::Read),
            StreamEvent::Writable(id) => self.wake(id, Side::Write),
            StreamEvent::Stopped { id, code } => {
                let lane = self.by_id.get(&id).and_then(|index| self.lanes.get_mut(index));
                lane.map_or(Ok(()), |lane| lane.on_stopped(code))?;
            }
            StreamEvent::OpenPossible => self.open_blocked = false,
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, id: StreamId, side: Side) {
        if let Some(&index) = self.by_id.get(&id)
            && self.lanes.get(&index).is_some_and(|lane| match side {
                Side::Write => lane.awaits_writable(),
                Side::Read => lane.awaits_readable(),
            })
        {
            self.runnable.insert((index, side));
        }
    }

    /// Does whatever can be done now. The answer is whether anything was.
    pub(crate) fn step(&mut self, now: Instant, connection: &mut Connection) -> Result<bool, Fault> {
        let mut active = self.accept(connection)?;
        active |= self.open(now, connection)?;
        active |= self.exchange_datagrams(now, connection)?;
        while let Some(&(at, index, side)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            self.runnable.insert((index, side));
        }
        while let Some((index, side)) = self.runnable.pop_first() {
            let Some(lane) = self.lanes.get_mut(&index) else { continue };
            let step = match side {
                Side::Write => lane.write(now, connection),
                Side::Read => lane.read(now, connection, &mut self.read_bytes),
            };
            if let Step::Pause(until) = step.map_err(|fault| format!("stream {index}: {fault}"))? {
                self.timers.insert((until, index, side));
            }
            active = true;
        }
        Ok(active)
    }

    /// Reads once more where the engine said there is nothing: it must still be so, or an event was lost.
    pub(crate) fn inspect(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        for (index, lane) in &mut self.lanes {
            if lane.awaits_readable() && !self.runnable.contains(&(*index, Side::Read)) {
                lane.expect_blocked(connection).map_err(|fault| format!("stream {index}: {fault}"))?;
            }
        }
        Ok(())
    }

    fn accept(&mut self, connection: &mut Connection) -> Result<bool, Fault> {
        let mut active = false;
        while let Some(accepted) = connection.accept_stream() {
            let known = self.work.stream_of(&accepted.label);
            let index =
                known.ok_or_else(|| format!("a stream with the unknown label {:?}", accepted.label))?;
            let plan = self.work.streams[index];
            if (plan.opener, plan.class, plan.priority)
                != (self.role.peer(), accepted.class, accepted.priority)
            {
                return Err(format!("stream {index} was accepted as {accepted:?}, opened as {plan:?}"));
            }
            self.add(index, accepted.id)?;
            active = true;
        }
        Ok(active)
    }

    fn open(&mut self, now: Instant, connection: &mut Connection) -> Result<bool, Fault> {
        let mut active = false;
        while let Some(&index) = self.to_open.last() {
            let plan = self.work.streams[index];
            if self.open_blocked || self.begin + plan.start > now {
                break;
            }
            let label = self.work.label(index);
            match connection.open_stream(plan.class, plan.priority, &label) {
                Ok(id) => {
                    self.to_open.pop();
                    self.add(index, id)?;
                    active = true;
                }
                Err(OpenError::LimitReached { .. }) => self.open_blocked = true,
                Err(error) => return Err(format!("opening stream {index}: {error}")),
            }
        }
        Ok(active)
    }

    fn add(&mut self, index: usize, id: StreamId) -> Result<(), Fault> {
        if self.lanes.insert(index, Lane::new(&self.work, index, id, self.role)).is_some() {
            return Err(format!("stream {index} came twice"));
        }
        self.by_id.insert(id, index);
        self.runnable.insert((index, Side::Write));
        self.runnable.insert((index, Side::Read));
        Ok(())
    }

    fn exchange_datagrams(&mut self, now: Instant, connection: &mut Connection) -> Result<bool, Fault> {
        let mut active = false;
        while let Some(&index) = self.to_send.last() {
            let plan = self.work.datagrams[index];
            if self.begin + plan.at > now {
                break;
            }
            self.to_send.pop();
            let mut datagram = (index as u64).to_le_bytes().to_vec();
            datagram.resize(plan.len, 0);
            self.work.datagram_content(index).fill(8, &mut datagram[8..]);
            // A full queue or no link may refuse it: datagrams are unreliable.
            let _ = connection.send_datagram(now, plan.flow, Bytes::from(datagram));
            active = true;
        }
        while let Some((flow, datagram)) = connection.read_datagram() {
            self.check_datagram(flow, &datagram)?;
            active = true;
        }
        Ok(active)
    }

    fn check_datagram(&mut self, flow: u64, datagram: &[u8]) -> Result<(), Fault> {
        let index = datagram.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let index = index.and_then(|index| usize::try_from(index).ok()).unwrap_or(usize::MAX);
        let plan = self.work.datagrams.get(index).ok_or("a datagram that nobody sent")?;
        let content = self.work.datagram_content(index);
        if plan.sender == self.role || plan.flow != flow || plan.len != datagram.len() {
            return Err(format!(
                "datagram {index} has {} bytes on flow {flow}, not {plan:?}",
                datagram.len()
            ));
        }
        if let Some(at) = content.mismatch(8, &datagram[8..]) {
            return Err(format!("datagram {index} is wrong at byte {at}"));
        }
        if !self.datagrams_seen.insert(index) {
            return Err(format!("datagram {index} came twice"));
        }
        Ok(())
    }
}
