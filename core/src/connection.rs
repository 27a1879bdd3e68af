//! One bond at one end: many links in, ordered streams out. The hub holds the parts together; what it decides stands
//! in the modules below it.
//!
//! The calling contract: feed inputs with `handle_*` and commands, then drain [`Connection::poll_event`],
//! [`Connection::poll_wake`] and [`Connection::poll_timeout`]; call [`Connection::poll_transmit`] for a link only when
//! that link can take a packet now.

mod close;
mod commands;
mod control;
mod copies;
mod plan;
mod receive;
mod recovery;
mod snapshot;
#[cfg(test)]
mod tests;
mod timeout;
mod transmit;

pub use transmit::Transmit;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use self::close::Closing;
use self::control::Control;
use self::copies::Copies;
use crate::config::{Config, LinkInfo};
use crate::crypto::BondKeys;
use crate::datagrams::Datagrams;
use crate::error::{CloseReason, DownReason, LinkUpError};
use crate::event::{Change, Event, LinkState, Stats};
use crate::handshake::Parameters;
use crate::id::{LinkId, Role};
use crate::limits;
use crate::link::Link;
use crate::ordered::Ordered;
use crate::range_set::RangeSet;
use crate::streams::{Streams, StreamsConfig};
use crate::time::Instant;

/// One bond at one end.
///
/// It exists before its first link and without any: what was written waits. Streams can be opened once
/// [`Connection::establish`] has told what the peer allows. See the module's
/// documentation for the order of calls.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Config,
    /// In the order of their ids.
    links: Vec<Link>,
    /// Ids of all links that ever joined.
    ids_used: RangeSet,
    streams: Streams,
    datagrams: Datagrams,
    ordered: Ordered,
    /// Whether bulk data goes into the next packet before ordered datagrams: they take turns.
    bulk_first: bool,
    control: Control,
    copies: Copies,
    keys: Option<BondKeys>,
    closing: Closing,
    reason: Option<CloseReason>,
    events: VecDeque<Event>,
    /// Rises whenever something changed that may give an idle link work.
    epoch: u64,
    /// Bytes to be sent that came since.
    unlooked_bytes: usize,
    /// When a link was last usable.
    usable_at: Instant,
    /// When interactive data last went out.
    interactive_at: Option<Instant>,
    /// When [`Self::handle_timeout`] last had something to do.
    last_timeout: Instant,
    /// When a link that refused data in favour of a faster one looks again.
    think_again: Option<Instant>,
    /// Late bytes that went to other links while theirs was not yet suspect.
    reinjected_bytes: u64,
    stats: Stats,
}

impl Connection {
    /// A bond without links.
    pub fn new(now: Instant, role: Role, config: Config) -> Self {
        let streams = Streams::new(StreamsConfig {
            role,
            receive_buffer_bytes: config.receive_buffer_bytes,
            send_buffer_max_bytes: config.send_buffer_bytes,
            buffers: config.buffers.clone(),
            streams_max_local: config.streams_max,
            streams_told: config.streams_told,
        });
        Self {
            role,
            config,
            links: Vec::new(),
            ids_used: RangeSet::new(),
            streams,
            datagrams: Datagrams::new(),
            ordered: Ordered::new(),
            bulk_first: false,
            control: Control::default(),
            copies: Copies::default(),
            keys: None,
            closing: Closing::Open,
            reason: None,
            events: VecDeque::new(),
            epoch: 0,
            unlooked_bytes: 0,
            usable_at: now,
            interactive_at: None,
            last_timeout: now,
            think_again: None,
            reinjected_bytes: 0,
            stats: Stats::default(),
        }
    }

    /// Takes what the first handshake agreed on. Later calls change nothing.
    pub fn establish(&mut self, keys: &BondKeys, peer: &Parameters) {
        if self.keys.is_none() {
            self.keys = Some(keys.clone());
            self.streams.set_peer_limits(peer.streams_max, peer.stream_window_bytes);
            self.epoch += 1;
        }
    }

    /// A link has finished its handshake and joins. `replaces` is the link whose place it takes.
    ///
    /// # Errors
    /// The link cannot join; the bond is as it was.
    pub fn link_up(
        &mut self,
        now: Instant,
        id: LinkId,
        info: LinkInfo,
        replaces: Option<LinkId>,
    ) -> Result<(), LinkUpError> {
        if !self.closing.is_open() {
            return Err(LinkUpError::Closed(id));
        }
        if self.ids_used.contains(u64::from(id.0)) {
            return Err(LinkUpError::IdUsed(id));
        }
        let mtu = info.mtu_bytes;
        if mtu < limits::MTU_MIN_BYTES {
            return Err(LinkUpError::Mtu { id, mtu, min: limits::MTU_MIN_BYTES });
        }
        if self.links.len() >= limits::LINKS_MAX {
            return Err(LinkUpError::TooMany { id, max: limits::LINKS_MAX });
        }
        self.ids_used.insert(u64::from(id.0)..u64::from(id.0) + 1);
        self.ids_used.retain_last(limits::LINKS_MAX);
        self.stats.links_joined += 1;
        let state = match self.role {
            Role::Initiator => LinkState::Active,
            Role::Responder => LinkState::Joining,
        };
        let mut link = Link::new(now, id, info, state);
        link.replaces = replaces;
        // The initiator's first packet tells the responder that the handshake is complete.
        if state == LinkState::Active {
            link.want_probe();
        }
        let name = link.info.name.clone();
        let at = self.links.partition_point(|other| other.id < id);
        self.links.insert(at, link);
        self.streams.link_added(id);
        self.event(Event::Link { id, name, from: LinkState::Joining, to: state, why: Change::Joined });
        if state == LinkState::Active {
            self.on_link_active(now, id);
        }
        self.epoch += 1;
        Ok(())
    }

    /// The link's medium has ended. What it held goes over other links. A link that is not there is ignored.
    pub fn link_down(&mut self, now: Instant, id: LinkId, why: DownReason) {
        self.close_link_here(now, id, why);
        self.links.retain(|link| link.id != id);
        self.on_link_lost_while_closing();
    }

    /// The next thing the caller may want to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Some(event) = self.streams.poll_event() {
            return Some(Event::Stream(event));
        }
        if self.datagrams.poll_readable() {
            return Some(Event::DatagramReadable);
        }
        self.ordered.poll_readable().then_some(Event::OrderedReadable)
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Takes a link out of service: its frames go to other links, and its driver hears it from `poll_transmit`.
    fn close_link_here(&mut self, now: Instant, id: LinkId, why: DownReason) {
        let Some(index) = self.index_of(id) else { return };
        if self.links[index].state() == LinkState::Closed {
            return;
        }
        self.release_frames(index);
        self.streams.link_removed(id);
        self.datagrams.link_unusable(id);
        self.control.forget(id);
        self.copies.forget(id);
        let link = &mut self.links[index];
        let (from, name) = (link.state(), link.info.name.clone());
        link.on_closed(now);
        link.farewell = farewell_code(&why);
        self.event(Event::Link { id, name, from, to: LinkState::Closed, why: Change::Down(why) });
        self.epoch += 1;
    }

    /// A link became active: the one whose place it takes leaves. Not earlier, because until the first sealed packet
    /// a join may be an old one sent again.
    fn on_link_active(&mut self, now: Instant, id: LinkId) {
        let replaces = self.index_of(id).and_then(|index| self.links[index].replaces.take());
        if let Some(old) = replaces {
            self.close_link_here(now, old, DownReason::Replaced(id));
        }
        self.on_link_usable(now);
    }

    /// A link can carry data: what suspect links hold back moves now.
    fn on_link_usable(&mut self, now: Instant) {
        self.usable_at = now;
        self.on_links_changed();
    }

    /// Other links carry data now, or in other shares.
    fn on_links_changed(&mut self) {
        // A link that was away does not have to catch up with what others carried meanwhile.
        self.links.iter_mut().for_each(|link| link.share_bytes = 0);
        self.relieve_suspects();
    }

    /// Gives what suspect links hold to others, if there are any that carry data. What they were sent as a last resort
    /// counts too.
    fn relieve_suspects(&mut self) {
        for index in 0..self.links.len() {
            if self.links[index].state() == LinkState::Suspect {
                self.move_frames(index);
            }
        }
    }

    fn index_of(&self, id: LinkId) -> Option<usize> {
        self.links.binary_search_by_key(&id, |link| link.id).ok()
    }

    fn event(&mut self, event: Event) {
        if self.events.len() >= limits::EVENTS_MAX {
            self.events.pop_front();
            self.stats.events_dropped += 1;
        }
        self.events.push_back(event);
    }
}

/// What the peer is told of a link that ends here; nothing where the medium is gone or the peer knows.
fn farewell_code(why: &DownReason) -> Option<u64> {
    use crate::error::code;
    match why {
        DownReason::Local => Some(code::REMOVED),
        DownReason::Replaced(_) => Some(code::REPLACED),
        DownReason::Violation(violation) => Some(violation.code()),
        _ => None,
    }
}
