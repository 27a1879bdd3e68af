//! Serves controllers as they come, and lets go of them as they go.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::acceptor::Server;
use super::address::GadgetAddress;
use super::controllers;
use super::gadget::Gadget;
use super::{GadgetError, choose};
use crate::UsbLink;
use crate::limits::SERVE_RETRY;

/// The gadgets of an acceptor, by their controllers: none any more when it is gone.
#[derive(Debug, Clone)]
pub(super) struct Gadgets(Arc<Mutex<Option<BTreeMap<String, Gadget>>>>);

impl Gadgets {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(BTreeMap::new()))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<String, Gadget>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes them, and has none be set up after that.
    pub(super) fn end(&self) {
        drop(self.lock().take());
    }
}

/// Keeps the controllers that an address means served.
pub(super) struct Follower {
    address: GadgetAddress,
    interface_name: String,
    /// Those of the last look.
    seen: controllers::Present,
    /// Those to be served while they are there: what somebody else uses when this begins is left alone, also when it is free
    /// later, since its user may only be changing something.
    wanted: BTreeSet<String>,
    running: BTreeMap<String, AbortHandle>,
    /// One task for each of these; it answers its controller when its function is gone.
    servers: JoinSet<String>,
    gadgets: Gadgets,
    links: mpsc::Sender<io::Result<UsbLink>>,
    /// What was said last of a controller that cannot be served, so that it is said once.
    said: BTreeMap<String, String>,
}

impl Follower {
    pub(super) fn new(
        address: GadgetAddress,
        interface_name: String,
        links: mpsc::Sender<io::Result<UsbLink>>,
        gadgets: Gadgets,
    ) -> Self {
        Self {
            address,
            interface_name,
            seen: controllers::present(),
            wanted: BTreeSet::new(),
            running: BTreeMap::new(),
            servers: JoinSet::new(),
            gadgets,
            links,
            said: BTreeMap::new(),
        }
    }

    /// Serves the controllers that the address means and that are free.
    ///
    /// # Errors
    /// None can be served.
    pub(super) fn start(&mut self) -> Result<(), GadgetError> {
        let mut first_fault = None;
        for name in choose(self.address.controller.as_deref())? {
            if let Err(fault) = self.serve(&name) {
                // With every free controller meant, one that does not work is no reason to leave the others.
                tracing::warn!(target: "bondwire", "gadget: {fault}");
                first_fault.get_or_insert(fault);
            }
        }
        match first_fault {
            Some(fault) if self.running.is_empty() => Err(fault),
            _ => Ok(()),
        }
    }

    /// The controllers that are served.
    pub(super) fn served(&self) -> Vec<String> {
        self.running.keys().cloned().collect()
    }

    /// Follows what comes and goes, for ever.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                Some(Ok(ended)) = self.servers.join_next() => drop(self.let_go(&ended)),
                () = sleep(SERVE_RETRY) => self.look(),
            }
        }
    }

    fn look(&mut self) {
        let present = controllers::present();
        for name in not_in(&self.seen, &present) {
            if self.let_go(&name) {
                let text = "the controller is gone; waiting for it to come back";
                tracing::warn!(target: "bondwire", "gadget {name}: {text}");
            }
            self.said.remove(&name);
        }
        let is_meant = |name: &String| self.address.controller.as_ref().is_none_or(|meant| meant == name);
        self.wanted.extend(not_in(&present, &self.seen).into_iter().filter(is_meant));
        self.seen = present;
        let is_missing = |name: &&String| self.seen.contains_key(*name) && !self.running.contains_key(*name);
        for name in self.wanted.iter().filter(is_missing).cloned().collect::<Vec<_>>() {
            match self.serve(&name) {
                Ok(()) => {
                    self.said.remove(&name);
                    tracing::info!(target: "bondwire", "gadget {name}: the controller is there, and is served");
                }
                Err(fault) => self.complain(name, &fault),
            }
        }
    }

    fn complain(&mut self, name: String, fault: &GadgetError) {
        let fault = fault.to_string();
        if self.said.get(&name) != Some(&fault) {
            tracing::warn!(target: "bondwire", "gadget {name}: {fault}; trying again");
            self.said.insert(name, fault);
        }
    }

    fn serve(&mut self, name: &str) -> Result<(), GadgetError> {
        self.wanted.insert(name.to_owned());
        choose(Some(name))?;
        let mut gadgets = self.gadgets.lock();
        // The acceptor is gone, and this task will be at once.
        let Some(gadgets) = gadgets.as_mut() else { return Ok(()) };
        let (server, gadget) = Server::on_controller(&self.address, &self.interface_name, name)?;
        gadgets.insert(name.to_owned(), gadget);
        let (links, name) = (self.links.clone(), name.to_owned());
        let task = self.servers.spawn({
            let name = name.clone();
            async move {
                server.run(links).await;
                name
            }
        });
        self.running.insert(name, task);
        Ok(())
    }

    /// Ends what serves a controller; answers whether something did.
    fn let_go(&mut self, name: &str) -> bool {
        if let Some(gadgets) = self.gadgets.lock().as_mut() {
            gadgets.remove(name);
        }
        let server = self.running.remove(name);
        server.iter().for_each(AbortHandle::abort);
        server.is_some()
    }
}

/// Those of `here` that are not in `there`, or are others of their names there.
fn not_in(here: &controllers::Present, there: &controllers::Present) -> Vec<String> {
    let is_other = |(name, node): &(&String, &u64)| there.get(*name) != Some(node);
    here.iter().filter(is_other).map(|(name, _)| name.clone()).collect()
}
