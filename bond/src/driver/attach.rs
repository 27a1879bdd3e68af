use std::sync::{Arc, Mutex, PoisonError, Weak};

use bondwire_core::config::LinkInfo;
use bondwire_core::crypto::{Opener, Sealer};
use bondwire_core::error::{DownReason, LinkUpError};
use bondwire_core::event::{Change, LinkState};
use bondwire_core::handshake::Attachment;
use bondwire_core::id::LinkId;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::handshake::Answerer;
use super::shared::Shared;
use super::{reader, writer};
use crate::crypto::RingAead;
use crate::limits::{LAST_WORDS_WAIT, LINK_LINGER};
use crate::link::{CountingMedium, LinkDescription, MediumCounters, PacketReader, PacketWriter};

/// What the rest of the bond has of a link's tasks.
pub(crate) struct LinkControl {
    pub(crate) id: LinkId,
    /// For the writer: ask the engine for packets.
    pub(crate) wake: Notify,
    /// The link is over in the engine; its writer may flush for a moment.
    over: watch::Sender<bool>,
    /// State of the link for its dialer, with the reason for the last change.
    state: watch::Sender<(LinkState, String)>,
    /// Messages of the handshake to be sent ahead of packets.
    handshake: Mutex<Vec<Bytes>>,
    /// What counts on the medium, if anything does.
    medium: Option<Weak<dyn CountingMedium>>,
}

impl LinkControl {
    fn new(id: LinkId, medium: Option<Weak<dyn CountingMedium>>) -> Arc<Self> {
        Arc::new(Self {
            id,
            wake: Notify::new(),
            over: watch::Sender::new(false),
            state: watch::Sender::new((LinkState::Joining, String::new())),
            handshake: Mutex::default(),
            medium,
        })
    }

    pub(crate) fn watch(&self) -> watch::Receiver<(LinkState, String)> {
        self.state.subscribe()
    }

    /// What the medium has counted, as long as it is in use.
    pub(crate) fn medium_counters(&self) -> Option<MediumCounters> {
        Some(self.medium.as_ref()?.upgrade()?.counters())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.borrow().0 == LinkState::Closed
    }

    pub(crate) fn changed(&self, to: LinkState, why: &Change) {
        self.state.send_replace((to, why.to_string()));
        if to == LinkState::Closed {
            self.end();
        }
    }

    /// The link is over: its writer hears it from the engine, and has a moment to send what is left.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
        self.wake.notify_one();
    }

    /// Sends a message of the handshake ahead of all packets.
    pub(crate) fn send_first(&self, message: Bytes) {
        self.handshake.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        self.wake.notify_one();
    }

    pub(crate) fn take_handshake(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.handshake.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the link is over, and then as long as its last packets may take.
    async fn lingered(&self) {
        let mut over = self.over.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = over.wait_for(|over| *over).await;
        tokio::time::sleep(LINK_LINGER).await;
    }
}

/// What a handshake leaves for the link's tasks.
pub(crate) struct Attaching<'a> {
    pub(crate) attachment: &'a Attachment,
    /// At the responder: answers repeats of the handshake's messages.
    pub(crate) answerer: Option<Answerer>,
    /// The handshake's last message, to be sent ahead of all packets.
    pub(crate) last_message: Option<Bytes>,
}

/// A medium and its two halves.
pub(crate) struct Medium<R, W> {
    pub(crate) description: LinkDescription,
    pub(crate) reader: R,
    pub(crate) writer: W,
}

/// Puts a medium to work after its handshake: tells the engine, starts the link's tasks. `ended` runs when these are
/// done.
pub(crate) fn attach<R: PacketReader, W: PacketWriter>(
    shared: &Arc<Shared>,
    attaching: Attaching<'_>,
    mut medium: Medium<R, W>,
    ended: impl FnOnce() + Send + 'static,
) -> Result<Arc<LinkControl>, LinkUpError> {
    let Attaching { attachment, answerer, last_message } = attaching;
    medium.reader.authenticated();
    let (id, suite) = (attachment.link, attachment.keys.suite());
    let control = LinkControl::new(id, medium.reader.medium());
    let description = &medium.description;
    let info = LinkInfo {
        name: description.name.clone(),
        kind: description.kind,
        mtu_bytes: description.mtu_bytes.min(attachment.peer_parameters.mtu_bytes),
        tag_bytes: suite.tag_len(),
        rate_hint: description.rate_hint,
        reliable: description.reliable,
        rtt: attachment.rtt,
        peer_ack_delay: attachment.peer_parameters.ack_delay_max,
    };
    shared.set_peer(attachment.peer);
    shared.with(|state, now| {
        if !state.established {
            state.connection.establish(&attachment.bond, &attachment.peer_parameters);
            state.established = true;
        }
        // Before `link_up`, so that its events find the link.
        state.links.insert(id, control.clone());
        state.connection.link_up(now, id, info, attachment.replaces).inspect_err(|_| {
            state.links.remove(&id);
        })
    })?;
    let sealer = Sealer::new(&attachment.keys, shared.role, &RingAead);
    let opener = Opener::new(&attachment.keys, shared.role, &RingAead);
    if let Some(message) = last_message {
        control.send_first(message);
    }
    let link = LinkTasks { shared: shared.clone(), control: control.clone() };
    tokio::spawn(link.run(medium, (sealer, opener), answerer, ended));
    Ok(control)
}

/// The tasks of one link.
struct LinkTasks {
    shared: Arc<Shared>,
    control: Arc<LinkControl>,
}

impl LinkTasks {
    /// The life of a link: its writer here, its reader beside it. When one ends the engine is told, and the other ends.
    async fn run<R: PacketReader, W: PacketWriter>(
        self,
        medium: Medium<R, W>,
        (sealer, opener): (Sealer, Opener),
        answerer: Option<Answerer>,
        ended: impl FnOnce() + Send + 'static,
    ) {
        let Self { shared, control } = self;
        let Medium { reader, writer, .. } = medium;
        let mut reading = AbortOnDrop(tokio::spawn({
            let (shared, control) = (shared.clone(), control.clone());
            async move {
                let reason = reader::run(&shared, &control, reader, opener, answerer).await;
                shared.with(|state, now| state.connection.link_down(now, control.id, reason));
            }
        }));
        let outcome = tokio::select! {
            outcome = writer::run(&shared, &control, writer, sealer) => outcome,
            () = control.lingered() => Ok(()),
        };
        match outcome {
            // Everything is out: give the other end a moment to take it, or closing the medium could destroy it.
            Ok(()) => drop(timeout(LINK_LINGER, &mut reading.0).await),
            Err(e) => {
                // What the other end said before it went may lie there unread, the end of the bond perhaps. Where the
                // medium is gone altogether the reader has ended, too, and this does not wait.
                drop(timeout(LAST_WORDS_WAIT, &mut reading.0).await);
                shared.with(|state, now| state.connection.link_down(now, control.id, down_reason(&e)));
            }
        }
        drop(reading);
        shared.with(|state, _| state.links.remove(&control.id));
        ended();
    }
}

/// What an error of the medium means for the link.
pub(crate) fn down_reason(error: &std::io::Error) -> DownReason {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => DownReason::Eof,
        _ => DownReason::Io(error.to_string()),
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
