//! One bond at one host: the engine, the application on it, and what the oracle keeps of both.

use crate::app::App;
use crate::net::{End, HostIndex};
use crate::plan::Plan;
use crate::stage::Stage;
use bondwire_core::config::Config;
use bondwire_core::connection::Connection;
use bondwire_core::crypto::BondKeys;
use bondwire_core::error::CloseReason;
use bondwire_core::event::{Event, LinkState};
use bondwire_core::handshake::{Attempt, Parameters};
use bondwire_core::id::{BondId, LinkId, Role};
use bondwire_core::limits;
use bondwire_core::streams::streams_allowed;
use bondwire_core::time::Instant;
use std::collections::BTreeMap;

/// A bond's number at its host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Serial(pub(crate) u64);

/// One bond at one host.
#[derive(Debug)]
pub(crate) struct Bond {
    pub(crate) serial: Serial,
    pub(crate) generation: u64,
    pub(crate) keys: Option<BondKeys>,
    /// The dialling end's way to new links.
    pub(crate) attempt: Option<Attempt>,
    pub(crate) connection: Connection,
    pub(crate) app: App,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) ends: BTreeMap<LinkId, End>,
    states: BTreeMap<LinkId, LinkState>,
}

/// What the host has to do about a link's change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    Suspect(LinkId),
    Answered(LinkId),
}

impl Bond {
    pub(crate) fn new(now: Instant, serial: Serial, host: HostIndex, stage: &Stage) -> Self {
        let role = if host == crate::net::DIALER { Role::Initiator } else { Role::Responder };
        let work = stage.work();
        Self {
            serial,
            generation: stage.generation,
            keys: None,
            attempt: None,
            connection: Connection::new(now, role, config(&stage.plan, host)),
            app: App::new(work, role, now),
            closed: None,
            ends: BTreeMap::new(),
            states: BTreeMap::new(),
        }
    }

    /// The bond's name, once a handshake has made one.
    pub(crate) fn id(&self) -> Option<BondId> {
        self.keys.as_ref().map(BondKeys::id)
    }

    /// Runs the application and takes the engine's events. The answer is whether anything happened.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        host: &str,
        stage: &mut Stage,
        notices: &mut Vec<Notice>,
    ) -> bool {
        let mut active = false;
        if self.closed.is_none() {
            match self.app.step(now, &mut self.connection) {
                Ok(stepped) => active |= stepped,
                Err(fault) => stage.fail(host, format!("generation {}: {fault}", self.generation)),
            }
        }
        while let Some(event) = self.connection.poll_event() {
            active = true;
            stage.event(host, &event);
            match event {
                Event::Stream(event) => {
                    if let Err(fault) = self.app.handle_event(&event) {
                        stage.fail(host, fault);
                    }
                }
                Event::Link { id, from, to, .. } => self.on_link(host, stage, (id, from, to), notices),
                Event::Closed(reason) => self.on_closed(host, stage, reason),
                _ => {}
            }
        }
        active
    }

    fn on_link(
        &mut self,
        host: &str,
        stage: &mut Stage,
        (id, from, to): (LinkId, LinkState, LinkState),
        notices: &mut Vec<Notice>,
    ) {
        let before = self.states.insert(id, to);
        if before.is_some_and(|before| before != from) {
            stage.fail(host, format!("link {id} went from {from} to {to}, but it was {before:?}"));
        }
        if from != to {
            *stage.report.transitions.entry((from, to)).or_default() += 1;
        }
        match (from, to) {
            (_, LinkState::Suspect) => notices.push(Notice::Suspect(id)),
            (LinkState::Suspect, LinkState::Active) => notices.push(Notice::Answered(id)),
            _ => {}
        }
    }

    fn on_closed(&mut self, host: &str, stage: &mut Stage, reason: CloseReason) {
        let cause = match &reason {
            CloseReason::Local { .. } => "closed here",
            CloseReason::Peer { .. } => "closed by the peer",
            CloseReason::IdleTimeout(_) => "idle timeout",
            CloseReason::PeerRestarted => "peer restarted",
            CloseReason::Evicted => "evicted",
            CloseReason::Refused(_) => "refused",
            _ => "other",
        };
        *stage.report.closed.entry(cause).or_default() += 1;
        if let Some(before) = self.closed.replace(reason) {
            stage.fail(host, format!("closed twice, first: {before}"));
        }
    }

    /// When the engine wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.connection.poll_timeout().map(|(at, _)| at)
    }

    /// When the application wants to be called.
    pub(crate) fn poll_app_timeout(&self) -> Option<Instant> {
        if self.closed.is_none() { self.app.poll_timeout() } else { None }
    }

    /// After the engine's timer was handled, the next one lies ahead.
    pub(crate) fn check_timer(&self, now: Instant, name: &str, stage: &mut Stage) {
        if let Some((at, reason)) = self.connection.poll_timeout()
            && at <= now
        {
            stage.fail(name, format!("a timer of zero length: {reason:?} is due at {at:?}, now is {now:?}"));
        }
    }

    /// Bounds that hold whenever everything is drained.
    pub(crate) fn check(&self, host: HostIndex, name: &str, stage: &mut Stage) {
        let stats = self.connection.stream_stats();
        let (granted, unsent) = (stats.receive_granted_bytes, stats.send_buffered_bytes);
        let plan = &stage.plan;
        let (granted_max, unsent_max) = (plan.receive_buffer_bytes[host], plan.send_buffer_bytes[host]);
        stage.report.granted_bytes_max = stage.report.granted_bytes_max.max(granted);
        if granted > granted_max {
            stage.fail(
                name,
                format!("{granted} bytes are granted or held for readers, the bound is {granted_max}"),
            );
        }
        if unsent > unsent_max {
            stage.fail(name, format!("{unsent} bytes are held for the peer, the bound is {unsent_max}"));
        }
        if self.closed.is_none() && self.connection.is_closed() {
            stage.fail(name, "closed without an event".to_owned());
        }
    }
}

/// The engine's settings at a host.
pub(crate) fn config(plan: &Plan, host: HostIndex) -> Config {
    Config {
        receive_buffer_bytes: plan.receive_buffer_bytes[host],
        send_buffer_bytes: plan.send_buffer_bytes[host],
        streams_max: plan.streams_max[host],
        idle_timeout: Some(limits::IDLE_TIMEOUT),
        keep_alive: Some(limits::KEEP_ALIVE),
        ..Config::default()
    }
}

/// What a host tells the other in a handshake on a link with this MTU.
pub(crate) fn parameters(plan: &Plan, host: HostIndex, mtu_bytes: usize) -> Parameters {
    let host_of_plan = (host < plan.streams_max.len()).then_some(host);
    Parameters {
        mtu_bytes,
        streams_max: host_of_plan
            .map_or(0, |host| streams_allowed(plan.receive_buffer_bytes[host], plan.streams_max[host])),
        idle_timeout: Some(limits::IDLE_TIMEOUT),
        ..Parameters::default()
    }
}
