//! How a host's links come and go: dialling, accepting, handshakes, and their ends.

use crate::bond::{Bond, Serial};
use crate::dialer::Wish;
use crate::host::Host;
use crate::line::{self, Line, Port};
use crate::net::{ACCEPTOR, DIALER, End};
use crate::stage::Stage;
use bondwire_core::config::LinkPolicy;
use bondwire_core::error::{CloseReason, DownReason};
use bondwire_core::handshake::{Attachment, HandshakeError, Initiator, Intent, Outcome, Step};
use bondwire_core::id::{BondId, LinkId, Role};
use bondwire_core::time::Instant;
use bytes::Bytes;

/// First byte of a handshake message: its top bit.
const HANDSHAKE_BIT: u8 = 0x80;

impl Host {
    /// Whether it still wants links.
    pub(crate) fn may_dial(&self) -> bool {
        self.dials && self.current().is_some_and(|bond| bond.closed.is_none())
    }

    /// Wants no more links.
    pub(crate) fn stop_dialling(&mut self) {
        self.dials = false;
    }

    /// Dials what is due. The answer is whether anything was.
    pub(crate) fn dial(&mut self, stage: &mut Stage) -> bool {
        if !self.may_dial() {
            return false;
        }
        let now = self.now(stage);
        let mut active = false;
        for cable in 0..self.dialers.len() {
            let Some(wish) = self.dialers[cable].wish(now) else { continue };
            active = true;
            match stage.net.dial(cable) {
                None => self.dialers[cable].on_failed(now, &mut self.dice),
                Some(end) => {
                    self.dialers[cable].on_dialled(end);
                    let replaces = match wish {
                        Wish::Fresh => None,
                        Wish::Replace(link) => Some(link),
                    };
                    self.shake_hands(stage, end, replaces, None);
                }
            }
        }
        active
    }

    /// Begins a handshake on an end that was dialled; `check` first asks whether the peer still has this bond.
    fn shake_hands(&mut self, stage: &mut Stage, end: End, replaces: Option<LinkId>, check: Option<BondId>) {
        let now = self.now(stage);
        let offer = line::offer(&stage.plan, self.index, stage.net.mtu_bytes(end));
        let Some(bond) = self.bonds.last_mut() else { return };
        let serial = bond.serial;
        let Some(attempt) = &mut bond.attempt else { return };
        let Some(link) = attempt.next_link() else {
            return stage.fail(self.name, "no link numbers are left".to_owned());
        };
        let initiator: Result<Initiator, HandshakeError> = match (check, &bond.keys) {
            (Some(bond), _) => self.endpoint.connect_open(now, attempt, link, Intent::Check(bond), offer),
            (None, None) => self.endpoint.connect_open(now, attempt, link, Intent::Open, offer),
            (None, Some(keys)) => {
                let peer = self.secrets[ACCEPTOR].public_key();
                self.endpoint.connect_join(now, peer, keys, link, replaces, offer)
            }
        };
        match initiator {
            Ok(initiator) => {
                let initiator = Box::new(initiator);
                self.lines.insert(end, Line::Dialling { initiator, bond: serial, replaces });
            }
            Err(error) => stage.fail(self.name, format!("a handshake cannot begin: {error}")),
        }
    }

    /// Sends what handshakes have to send.
    pub(crate) fn send_handshakes(&mut self, stage: &mut Stage) -> bool {
        let now = self.now(stage);
        let mut active = false;
        for (end, line) in &mut self.lines {
            loop {
                let message = match line {
                    Line::Dialling { initiator, .. } => initiator.poll_transmit(now),
                    Line::Accepting(responder) => responder.poll_transmit(now),
                    Line::Up(port) => {
                        port.responder.as_mut().and_then(|responder| responder.poll_transmit(now))
                    }
                };
                let Some(message) = message else { break };
                stage.net.send(*end, message.to_vec());
                active = true;
            }
        }
        active
    }

    pub(crate) fn time_out_handshakes(&mut self, stage: &mut Stage) {
        let now = self.now(stage);
        let due = |line: &Line| line.poll_timeout().is_some_and(|at| at <= now);
        let ends: Vec<End> = self.lines.iter().filter(|(_, line)| due(line)).map(|(end, _)| *end).collect();
        for end in ends {
            let result = match self.lines.get_mut(&end) {
                Some(Line::Dialling { initiator, .. }) => initiator.handle_timeout(now),
                Some(Line::Accepting(responder)) => responder.handle_timeout(now),
                _ => Ok(()),
            };
            if let Err(error) = result {
                self.on_handshake_failed(stage, end, &error);
            }
        }
    }

    pub(crate) fn on_accept(&mut self, stage: &mut Stage, end: End) {
        let now = self.now(stage);
        if !stage.net.is_open(end) {
            return;
        }
        let offer = line::offer(&stage.plan, self.index, stage.net.mtu_bytes(end));
        match self.endpoint.accept_link(now, offer) {
            Ok(responder) => drop(self.lines.insert(end, Line::Accepting(Box::new(responder)))),
            Err(busy) => {
                stage.error(self.name, &busy);
                stage.net.close(end);
            }
        }
    }

    pub(crate) fn on_packet(&mut self, stage: &mut Stage, end: End, packet: Vec<u8>) {
        let now = self.now(stage);
        match self.lines.get_mut(&end) {
            None => {}
            Some(Line::Dialling { initiator, bond, replaces }) => {
                let (serial, replaces) = (*bond, *replaces);
                match initiator.handle_packet(now, &packet) {
                    Ok(None) => {}
                    Ok(Some(Outcome::Attached(attachment))) => {
                        self.on_attached(stage, end, serial, &attachment);
                    }
                    Ok(Some(Outcome::Known(_))) => self.shake_hands(stage, end, replaces, None),
                    Err(error) => self.on_handshake_failed(stage, end, &error),
                }
            }
            Some(Line::Accepting(responder)) => {
                match responder.handle_packet(now, &packet, &mut self.endpoint) {
                    Ok(Step::NewBond { attachment, evicted, .. }) => {
                        evicted.into_iter().for_each(|bond| self.evict(bond));
                        let serial = self.new_bond(stage);
                        self.on_attached(stage, end, serial, &attachment);
                    }
                    Ok(Step::LinkJoined(attachment)) => {
                        let id = attachment.bond.id();
                        let serial =
                            self.bonds.iter().find(|bond| bond.id() == Some(id)).map(|bond| bond.serial);
                        match serial {
                            Some(serial) => self.on_attached(stage, end, serial, &attachment),
                            None => {
                                stage.fail(self.name, format!("a link joined bond {id}, which is not there"));
                            }
                        }
                    }
                    Ok(_) => {}
                    Err(error) => self.on_handshake_failed(stage, end, &error),
                }
            }
            Some(Line::Up(port)) if packet.first().is_some_and(|first| first & HANDSHAKE_BIT != 0) => {
                if let Some(responder) = &mut port.responder {
                    let _ = responder.handle_packet(now, &packet, &mut self.endpoint);
                }
            }
            Some(Line::Up(_)) => self.on_sealed(stage, end, packet),
        }
    }

    /// A sealed packet: opened as the link's reader would, then given to the engine.
    fn on_sealed(&mut self, stage: &mut Stage, end: End, mut packet: Vec<u8>) {
        let now = self.now(stage);
        let Some(Line::Up(port)) = self.lines.get_mut(&end) else { return };
        let opened = match port.opener.open(&mut packet) {
            Ok(opened) => opened,
            Err(error) => return stage.error(self.name, &error),
        };
        if let Some(responder) = &mut port.responder {
            responder.confirm();
        }
        let (serial, link) = (port.bond, port.link);
        let payload = Bytes::from(packet).slice(opened.header_len..opened.header_len + opened.payload_len);
        let Some(bond) = self.bonds.iter_mut().find(|bond| bond.serial == serial) else { return };
        self.fed = Some(serial);
        if let Err(violation) = bond.connection.handle_packet(now, link, opened.number, payload) {
            stage.fail(self.name, format!("an honest peer broke the protocol on link {link}: {violation}"));
        }
    }

    /// A handshake is done: its link joins the bond.
    fn on_attached(&mut self, stage: &mut Stage, end: End, serial: Serial, attachment: &Attachment) {
        let now = self.now(stage);
        let cable = stage.net.cable_of(end);
        let info = line::link_info(
            cable,
            stage.net.cable_plan(cable),
            end.side,
            stage.net.mtu_bytes(end),
            attachment,
        );
        let responder = match self.lines.remove(&end) {
            Some(Line::Accepting(responder)) => Some(responder),
            _ => None,
        };
        if self.is_of_another_bond(serial, attachment) {
            // The peer made a new bond of the same attempt, because it lost the one before.
            stage.net.close(end);
            return self.on_peer_restarted(stage, serial);
        }
        let Some(bond) = self.bond(serial) else { return stage.net.close(end) };
        bond.connection.establish(&attachment.bond, &attachment.peer_parameters);
        bond.keys.get_or_insert_with(|| attachment.bond.clone());
        match bond.connection.link_up(now, attachment.link, info, attachment.replaces) {
            Ok(()) => {
                bond.ends.insert(attachment.link, end);
                self.count_links(serial);
                if attachment.role == Role::Initiator {
                    self.dialers[cable].on_up(end, attachment.link);
                }
                self.lines.insert(end, Line::Up(Box::new(Port::new(serial, attachment, responder))));
            }
            Err(error) => {
                stage.error(self.name, &error);
                stage.net.close(end);
                self.on_dial_ended(stage, end);
            }
        }
    }

    fn is_of_another_bond(&mut self, serial: Serial, attachment: &Attachment) -> bool {
        self.bond(serial).and_then(|bond| bond.id()).is_some_and(|id| id != attachment.bond.id())
    }

    fn on_handshake_failed(&mut self, stage: &mut Stage, end: End, error: &HandshakeError) {
        stage.error(self.name, error);
        let (serial, replaces) = match self.lines.get(&end) {
            Some(Line::Dialling { bond, replaces, .. }) => (Some(*bond), *replaces),
            _ => (None, None),
        };
        if let HandshakeError::UnknownBond { bond } = error
            && self.may_dial()
        {
            return self.shake_hands(stage, end, replaces, Some(*bond));
        }
        self.drop_line(stage, end);
        if let (HandshakeError::PeerRestarted { .. }, Some(serial)) = (error, serial) {
            self.on_peer_restarted(stage, serial);
        }
    }

    /// The peer, authenticated, does not know the bond any more: a new one does the rest of the work.
    fn on_peer_restarted(&mut self, stage: &mut Stage, serial: Serial) {
        let is_current = self.current().is_some_and(|bond| bond.serial == serial);
        let Some(bond) = self.bond(serial).filter(|bond| bond.closed.is_none()) else { return };
        bond.connection.fail(CloseReason::PeerRestarted);
        if is_current && self.index == DIALER && self.dials {
            stage.next_generation();
            self.new_bond(stage);
        }
    }

    /// The medium of an end is gone.
    pub(crate) fn on_ended(&mut self, stage: &mut Stage, end: End) {
        let now = self.now(stage);
        if let Some(Line::Up(port)) = self.lines.get(&end) {
            let (serial, link) = (port.bond, port.link);
            if let Some(bond) = self.bond(serial) {
                bond.connection.link_down(now, link, DownReason::Eof);
            }
        }
        self.drop_line(stage, end);
    }

    /// Closes an end and forgets it.
    pub(crate) fn drop_line(&mut self, stage: &mut Stage, end: End) {
        stage.net.close(end);
        if let Some(Line::Up(port)) = self.lines.remove(&end) {
            let (serial, link) = (port.bond, port.link);
            if let Some(bond) = self.bond(serial) {
                bond.ends.remove(&link);
            }
            self.count_links(serial);
        }
        self.on_dial_ended(stage, end);
    }

    fn on_dial_ended(&mut self, stage: &mut Stage, end: End) {
        let now = self.now(stage);
        let cable = stage.net.cable_of(end);
        if self.index == DIALER && end.side == 0 {
            self.dialers[cable].on_gone(now, end, &mut self.dice);
        }
    }

    fn count_links(&mut self, serial: Serial) {
        let Some(bond) = self.bonds.iter().find(|bond| bond.serial == serial) else { return };
        if let Some(id) = bond.id() {
            self.endpoint.set_links(id, bond.ends.len());
        }
    }

    fn evict(&mut self, id: BondId) {
        if let Some(bond) = self.bonds.iter_mut().find(|bond| bond.id() == Some(id)) {
            bond.connection.fail(CloseReason::Evicted);
        }
    }

    /// Bonds that have ended can be joined no more.
    pub(crate) fn forget_closed(&mut self, now: Instant) {
        for bond in self.bonds.iter().filter(|bond| bond.closed.is_some()) {
            bond.id().into_iter().for_each(|id| self.endpoint.forget(now, id));
        }
    }

    /// Closes all bonds.
    pub(crate) fn close_bonds(&mut self, stage: &mut Stage, code: u64, reason: &str) {
        let now = self.now(stage);
        for bond in &mut self.bonds {
            bond.connection.close(now, code, reason);
        }
        self.settle(stage);
    }

    /// Sets the policy of a cable's link, if it has one.
    pub(crate) fn set_policy(&mut self, stage: &mut Stage, cable: usize, policy: LinkPolicy) -> bool {
        let on_cable = |end: &End| stage.net.cable_of(*end) == cable;
        let now = self.now(stage);
        let Some(bond) = self.bonds.last_mut() else { return false };
        let links: Vec<LinkId> =
            bond.ends.iter().filter(|(_, end)| on_cable(end)).map(|(link, _)| *link).collect();
        let set =
            links.into_iter().filter(|link| bond.connection.set_link_policy(now, *link, policy)).count() > 0;
        self.settle(stage);
        set
    }

    /// A bond's state, for a message.
    pub(crate) fn describe(&self, stage: &Stage, bond: &Bond) -> String {
        let links = bond.connection.links(self.now(stage));
        let links: Vec<String> = links
            .map(|link| format!("link {} ({}) {:?} {:?}", link.id, link.name, link.state, link.idle))
            .collect();
        let work = if bond.closed.is_some() { String::new() } else { bond.app.unfinished() };
        format!("{:?}, closed {:?}, [{}], {work}", bond.id(), bond.closed, links.join(", "))
    }
}
