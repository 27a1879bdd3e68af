//! What the application asks for.

use bytes::Bytes;

use super::Connection;
use crate::config::LinkPolicy;
use crate::datagrams::SendDatagramError;
use crate::error::DownReason;
use crate::id::{Class, LinkId, StreamId};
use crate::ordered::SendOrderedError;
use crate::streams::{Accepted, OpenError, ReadError, StreamError, WriteError};
use crate::time::{Duration, Instant};

impl Connection {
    /// Opens a stream. The peer hears of it with its first bytes or on its own.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_stream(&mut self, class: Class, priority: u8, label: &str) -> Result<StreamId, OpenError> {
        self.epoch += 1;
        self.streams.open(class, priority, label)
    }

    /// The next stream that the peer opened, if one waits.
    pub fn accept_stream(&mut self) -> Option<Accepted> {
        self.streams.accept()
    }

    /// Appends a copy of as much of `data` as the send buffer takes, and returns how much that was.
    ///
    /// # Errors
    /// [`WriteError::Blocked`] if the buffer is full: wait for the stream to become writable. See [`WriteError`].
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        let taken = self.streams.write(id, data);
        self.on_more_to_send(taken.as_ref().map_or(0, |&taken| taken));
        taken
    }

    /// Like [`Self::write`], without copying: what was taken is split off the front of `data`.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_chunk(&mut self, id: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let taken = self.streams.write_chunk(id, data);
        self.on_more_to_send(taken.as_ref().map_or(0, |&taken| taken));
        taken
    }

    /// The next bytes of a stream, at most `max_bytes`; `None` at its end.
    ///
    /// # Errors
    /// [`ReadError::Blocked`] if nothing has arrived: wait for the stream to become readable. See [`ReadError`].
    pub fn read_chunk(&mut self, id: StreamId, max_bytes: usize) -> Result<Option<Bytes>, ReadError> {
        let chunk = self.streams.read_chunk(id, max_bytes);
        if self.streams.has_control() {
            self.epoch += 1;
        }
        chunk
    }

    /// Ends this end's half of a stream; what was written still arrives.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        self.epoch += 1;
        self.streams.finish(id)
    }

    /// Gives this end's half of a stream up: what is not yet delivered is dropped, and the peer reads `code`.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn reset(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        self.epoch += 1;
        self.streams.reset(id, code)
    }

    /// Asks the peer to stop sending on a stream.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        self.epoch += 1;
        self.streams.stop_sending(id, code)
    }

    /// The application lets go of a stream: what it wrote and finished still arrives, the rest is given up.
    pub fn close_stream(&mut self, id: StreamId) {
        self.epoch += 1;
        self.streams.close(id);
    }

    /// Sends a datagram: unreliable, and dropped if it cannot leave soon.
    ///
    /// # Errors
    /// See [`SendDatagramError`].
    pub fn send_datagram(&mut self, now: Instant, flow: u64, data: Bytes) -> Result<(), SendDatagramError> {
        self.on_more_to_send(data.len());
        self.datagrams.send(now, flow, data)
    }

    /// The next datagram that arrived whole, with its flow.
    pub fn read_datagram(&mut self) -> Option<(u64, Bytes)> {
        self.datagrams.receive()
    }

    /// Sends an ordered datagram: unreliable, but later ones of its flow wait for it at the other end for a moment.
    ///
    /// # Errors
    /// See [`SendOrderedError`].
    pub fn send_ordered(&mut self, now: Instant, flow: u8, data: Bytes) -> Result<(), SendOrderedError> {
        self.on_more_to_send(data.len());
        self.ordered.send(now, flow, data)
    }

    /// The next ordered datagram.
    pub fn read_ordered(&mut self) -> Option<Bytes> {
        self.ordered.receive()
    }

    /// Sets what a link is used for. The peer hears of it and does the same. False if there is no such link.
    pub fn set_link_policy(&mut self, now: Instant, id: LinkId, policy: LinkPolicy) -> bool {
        let Some(index) = self.index_of(id) else { return false };
        if *self.links[index].policy() != policy {
            self.links[index].set_policy(now, policy);
            self.control.on_policy_set(id);
            self.on_links_changed();
            self.epoch += 1;
        }
        true
    }

    /// Sets the time without traffic after which a link is probed; `None` is the bond's. False if there is no such link.
    pub fn set_link_keep_alive(&mut self, id: LinkId, keep_alive: Option<Duration>) -> bool {
        let Some(index) = self.index_of(id) else { return false };
        self.links[index].keep_alive = keep_alive;
        true
    }

    /// Probes a link, however lately it was heard. False if there is no such link.
    pub fn probe_link(&mut self, id: LinkId) -> bool {
        let Some(index) = self.index_of(id) else { return false };
        self.links[index].want_probe();
        self.epoch += 1;
        true
    }

    /// Takes a link out of the bond and tells the peer. False if there is no such link.
    pub fn close_link(&mut self, now: Instant, id: LinkId) -> bool {
        let there = self.index_of(id).is_some();
        self.close_link_here(now, id, DownReason::Local);
        there
    }
}
