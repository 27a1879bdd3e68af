//! One place where a host is plugged in.

use bondwire_frame::limits::{MTU_MIN_BYTES, RECEIVE_BUFFER_MAX_BYTES};
use bondwire_frame::{
    Config, Counters, End, FRAME_OVERHEAD_BYTES, Instant, Received, Role, SendError, Session,
};

use crate::Framing;
use crate::limits::{BLOCKED_RETRY, REOPEN_PAUSE};
use crate::nonces::Nonces;
use crate::queue::{PREFIX_BYTES, PacketQueue};
use crate::rate::FixedRate;

/// Who begins on a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Roles {
    /// The host: always so on USB, and for a serial port that only `bondwire connect` uses.
    HostDials,
    /// This end, for ever: a serial port whose host listens.
    DeviceDials,
    /// Whoever does: this end listens, and dials while the other port of a [`Bridge`](crate::Bridge) has a host. So a cable
    /// of two UARTs can be plugged in either way round, and says nothing to a port without anybody at the other.
    Either,
}

/// What a port is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// Who begins.
    pub roles: Roles,
    /// Longest packet, in bytes, at least 256. Both ports of a bridge should have the same.
    pub mtu_bytes: u16,
    /// Sessions are told apart by numbers that follow from it. It should be another one each time that the device starts, and on
    /// each port: from a random generator, or a count that is kept in flash.
    pub seed: u64,
}

/// Memory that a port has for packets, so that `buffer_bytes` of them can wait, 9 bytes counted for each.
pub const fn queue_bytes(mtu_bytes: u16, buffer_bytes: usize) -> usize {
    buffer_bytes + mtu_bytes as usize + PREFIX_BYTES
}

/// The memory given is not enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TooSmall {
    /// For frames, either way.
    #[error("memory for frames of packets of {mtu_max_bytes} bytes, and packets are to have {mtu_bytes}")]
    Frames {
        /// Packets that it is enough for.
        mtu_max_bytes: usize,
        /// Packets that were asked for.
        mtu_bytes: u16,
    },
    /// For packets that wait.
    #[error("{bytes} bytes of memory for packets that wait, fewer than the {min_bytes} for one")]
    Queue {
        /// Given.
        bytes: usize,
        /// Needed.
        min_bytes: usize,
    },
}

/// One end of a cable, session after session: see the [crate](crate).
#[derive(Debug)]
pub struct Port<'b, F> {
    pub(crate) framing: F,
    pub(crate) session: Session,
    pub(crate) queue: PacketQueue<'b>,
    /// The session before, while it still has something to say.
    ended: Option<Session>,
    rate: FixedRate,
    opener: Opener,
    /// Packets that came and could not go on: longer than the other side takes.
    pub(crate) dropped: u64,
    last_end: Option<End>,
}

/// Begins sessions.
#[derive(Clone, Debug)]
struct Opener {
    config: Config,
    roles: Roles,
    role: Role,
    /// Longest packet that the other side of a bridge takes, if that is less.
    mtu_cap_bytes: Option<u16>,
    nonces: Nonces,
    opened: u32,
}

impl Opener {
    /// Begins a session. One that follows another does not dial at once: a line that ends sessions again and again, as a loop
    /// plug does, is not to be flooded.
    fn open(&mut self, now: Instant) -> Session {
        let now = if self.opened == 0 { now } else { now + REOPEN_PAUSE };
        self.opened = self.opened.wrapping_add(1);
        let mtu_bytes = self.mtu_cap_bytes.unwrap_or(u16::MAX).min(self.config.mtu_bytes);
        Session::new(now, Config { role: self.role, mtu_bytes, ..self.config }, self.nonces.next())
    }
}

impl<'b, F: Framing> Port<'b, F> {
    /// A port over `framing`, at which packets wait in `queue`, memory of [`queue_bytes`].
    pub fn new(now: Instant, framing: F, queue: &'b mut [u8], config: PortConfig) -> Result<Self, TooSmall> {
        let mtu_bytes = config.mtu_bytes.max(MTU_MIN_BYTES);
        let mtu_max_bytes = framing.mtu_max_bytes();
        if mtu_max_bytes < usize::from(mtu_bytes) {
            return Err(TooSmall::Frames { mtu_max_bytes, mtu_bytes });
        }
        let min_bytes = queue_bytes(mtu_bytes, usize::from(mtu_bytes) + FRAME_OVERHEAD_BYTES);
        if queue.len() < min_bytes {
            return Err(TooSmall::Queue { bytes: queue.len(), min_bytes });
        }
        let buffer_bytes = queue.len() - queue_bytes(mtu_bytes, 0);
        let role = if config.roles == Roles::DeviceDials { Role::Dialer } else { Role::Acceptor };
        let session_config = framing.configure(Config {
            mtu_bytes,
            receive_buffer_bytes: buffer_bytes.min(RECEIVE_BUFFER_MAX_BYTES as usize) as u32,
            ..Config::serial(role)
        });
        let mut opener = Opener {
            config: session_config,
            roles: config.roles,
            role,
            mtu_cap_bytes: None,
            nonces: Nonces::new(config.seed),
            opened: 0,
        };
        Ok(Self {
            session: opener.open(now),
            rate: FixedRate::new(framing.baud()),
            queue: PacketQueue::new(queue),
            framing,
            ended: None,
            opener,
            dropped: 0,
            last_end: None,
        })
    }

    /// Bytes came from the hardware: on a UART as they come, on USB one packet at a time (see [`Transfers`](crate::Transfers)).
    pub fn handle_bytes(&mut self, now: Instant, mut bytes: &[u8]) {
        let Self { framing, session, ended, queue, rate, opener, last_end, .. } = self;
        while let Some(frame) = framing.next_frame(&mut bytes) {
            let mut outcome = session.handle_frame(now, frame);
            if let Err(end @ (End::PeerReopened | End::SameRole(_))) = outcome {
                // The host's next session has begun with this very frame.
                if end == End::SameRole(Role::Dialer) && opener.roles == Roles::Either {
                    opener.role = Role::Acceptor;
                }
                *last_end = Some(end);
                *session = opener.open(now);
                queue.clear();
                outcome = session.handle_frame(now, frame);
            }
            match outcome {
                // Credit was given for memory that is there.
                Ok(Received::Packet(packet)) => {
                    let kept = queue.push(packet);
                    debug_assert!(kept.is_ok());
                }
                Ok(Received::Message(message)) => rate.on_message(message),
                Ok(Received::Established) => rate.begin(opener.role),
                Ok(Received::Nothing) => {}
                Err(end) => {
                    *last_end = Some(end);
                    *ended = Some(core::mem::replace(session, opener.open(now)));
                    queue.clear();
                }
            }
        }
    }

    /// Ends the session, tells the host, and begins the next one.
    pub fn reopen(&mut self, now: Instant) {
        self.session.close();
        self.last_end = self.session.end();
        self.begin_anew(now);
    }

    fn begin_anew(&mut self, now: Instant) {
        self.ended = Some(core::mem::replace(&mut self.session, self.opener.open(now)));
        self.queue.clear();
    }

    /// What the hardware is to send next: on USB in packets of the endpoint's size. Tell [`sent`](Self::sent) how much it took.
    pub fn outgoing(&self) -> &[u8] {
        self.framing.outgoing()
    }

    /// The hardware has taken so many bytes of [`outgoing`](Self::outgoing).
    pub fn sent(&mut self, bytes: usize) {
        self.framing.sent(bytes);
    }

    /// Does what is due by now, and writes what the session has to say. Hand in what has come first: it is the host's proof of
    /// life. A [`Bridge`](crate::Bridge) or an [`Echo`](crate::Echo) calls it.
    pub fn step(&mut self, now: Instant) {
        if self.session.poll_timeout().is_some_and(|at| at <= now)
            && let Err(end) = self.session.handle_timeout(now)
        {
            self.last_end = Some(end);
            self.begin_anew(now);
        }
        self.write(now, &mut |_, _| {});
    }

    /// Writes what the session has to say, and then what `more` has.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        more: &mut dyn FnMut(&mut Session, &mut dyn bondwire_frame::FrameSink),
    ) {
        let Self { framing, session, ended, rate, .. } = self;
        let peer_read_bytes = session.peer_read_bytes().unwrap_or(0);
        framing.write(peer_read_bytes, &mut |mut sink| {
            if let Some(before) = ended {
                if before.poll_control(now, &mut sink).is_err() {
                    return;
                }
                *ended = None;
            }
            while session.poll_control(now, &mut sink) == Ok(true) {}
            while session.is_established()
                && let Some(message) = rate.next()
                && session.send_message(message.bytes(), &mut sink).is_ok()
            {
                rate.said();
            }
            more(session, sink);
        });
    }

    /// When [`step`](Self::step) is to be called next if nothing else happens.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let at = self.session.poll_timeout()?;
        // What is due cannot be written while the hardware has not taken what is ahead of it.
        let is_blocked = !self.outgoing().is_empty();
        Some(if is_blocked { at.max(now + BLOCKED_RETRY) } else { at })
    }

    /// Whether packets can travel to and from the host here.
    pub fn is_established(&self) -> bool {
        self.mtu_bytes().is_some()
    }

    /// Longest packet both ways, once established, in bytes.
    pub fn mtu_bytes(&self) -> Option<usize> {
        let peer_read_bytes = self.session.peer_read_bytes()?;
        let mtu_bytes = self.session.mtu_bytes()?.min(self.framing.peer_mtu_max_bytes(peer_read_bytes));
        (mtu_bytes >= usize::from(MTU_MIN_BYTES)).then_some(mtu_bytes)
    }

    /// The packet that came first and waits.
    pub fn front(&self) -> Option<&[u8]> {
        self.queue.front()
    }

    /// Drops that packet; the host may send more for it.
    pub fn pop(&mut self) {
        let Some(packet) = self.queue.front() else { return };
        self.session.release(packet.len());
        self.queue.pop();
    }

    /// Packets that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Sends a packet to the host. Fails while it has no room for it, or the hardware is busy: try again later.
    pub fn send_packet(&mut self, now: Instant, packet: &[u8]) -> Result<(), SendError> {
        if self.mtu_bytes().is_some_and(|mtu_bytes| packet.len() > mtu_bytes) {
            return Err(SendError::BadLength);
        }
        let mut outcome = Err(SendError::NoRoom(bondwire_frame::NoRoom));
        self.write(now, &mut |session, mut sink| outcome = session.send_packet(packet, &mut sink));
        outcome
    }

    /// What the session has seen.
    pub fn counters(&self) -> &Counters {
        self.session.counters()
    }

    /// Sessions begun so far, the present one included.
    pub fn sessions(&self) -> u32 {
        self.opener.opened
    }

    /// Why the last session ended.
    pub fn last_end(&self) -> Option<End> {
        self.last_end
    }

    /// Packets that came from here and that the other side could not take.
    pub fn dropped_packets(&self) -> u64 {
        self.dropped
    }

    /// How frames travel here, for its counters.
    pub fn framing(&self) -> &F {
        &self.framing
    }

    /// With roles that are not fixed: dials while a host waits at the other port, and listens else. A host that has been heard
    /// is not disturbed.
    pub(crate) fn seek(&mut self, now: Instant, is_wanted: bool) {
        let role = if is_wanted { Role::Dialer } else { Role::Acceptor };
        if self.opener.roles == Roles::Either
            && self.opener.role != role
            && !self.session.is_established()
            && !self.session.has_heard_peer()
        {
            self.opener.role = role;
            self.session = self.opener.open(now);
        }
    }

    /// Takes no longer packets than this from the next session on.
    pub(crate) fn cap_mtu(&mut self, mtu_bytes: Option<usize>) {
        self.opener.mtu_cap_bytes = mtu_bytes.and_then(|bytes| u16::try_from(bytes).ok());
    }
}
