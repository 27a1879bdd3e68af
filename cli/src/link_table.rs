//! The links that this end dials: those of the command line and those added since, over one bond after the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bondwire::{Bond, DialerHandle};

use crate::link_spec::LinkSpec;
use crate::medium::Media;

/// Links that one end dials at most: what a bond takes.
const LINKS_MAX: usize = bondwire::limits::LINKS_MAX;

/// The links of one peer.
pub(crate) struct LinkTable {
    media: Media,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    bond: Option<Bond>,
    rows: Vec<Row>,
}

struct Row {
    spec: LinkSpec,
    dialer: Option<DialerHandle>,
    note: Option<String>,
}

/// A link that is dialled.
pub(crate) struct DialledLink {
    /// Its LINK.
    pub(crate) spec: String,
    pub(crate) dialer: DialerHandle,
    /// Why this program keeps it from carrying data.
    pub(crate) note: Option<String>,
}

/// Why a link is not dialled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    #[error("{0} is dialled already; more links over one path get different options, such as source=")]
    Known(String),
    #[error("{LINKS_MAX} links are dialled already, and a bond takes no more")]
    TooMany,
    #[error("stdio: cannot be added: standard input and output belong to this command from its start")]
    Stdio,
}

impl LinkTable {
    pub(crate) fn new(media: Media, specs: Vec<LinkSpec>) -> Self {
        let rows = specs.into_iter().map(|spec| Row { spec, dialer: None, note: None }).collect();
        Self { media, table: Mutex::new(Table { bond: None, rows }) }
    }

    /// Dials all links for `bond`, each for what it was last set to.
    pub(crate) fn dial(&self, bond: &Bond) {
        let mut table = self.lock();
        for row in &mut table.rows {
            let dialer = self.media.dial(&row.spec.medium, bond);
            match &row.dialer {
                Some(before) => {
                    dialer.set_policy(before.policy());
                    dialer.set_keep_alive(before.keep_alive());
                }
                None => row.spec.options.apply(&dialer),
            }
            row.dialer = Some(dialer);
        }
        table.bond = Some(bond.clone());
    }

    /// Dials one more link.
    pub(crate) fn add(&self, spec: LinkSpec) -> Result<(), AddError> {
        let mut table = self.lock();
        if spec.is_stdio() {
            return Err(AddError::Stdio);
        }
        if table.rows.iter().any(|row| row.spec == spec) {
            return Err(AddError::Known(spec.to_string()));
        }
        if table.rows.len() >= LINKS_MAX {
            return Err(AddError::TooMany);
        }
        let dialer = table.bond.as_ref().map(|bond| self.media.dial(&spec.medium, bond));
        dialer.iter().for_each(|dialer| spec.options.apply(dialer));
        table.rows.push(Row { spec, dialer, note: None });
        Ok(())
    }

    /// Dials the link no more, and takes it out of the bond. `spec` is its LINK.
    pub(crate) fn remove(&self, spec: &str) {
        let mut table = self.lock();
        let removed = table.rows.extract_if(.., |row| row.spec.to_string() == spec);
        removed.filter_map(|row| row.dialer).for_each(|dialer| dialer.stop());
    }

    /// The links that are dialled.
    pub(crate) fn dialled(&self) -> Vec<DialledLink> {
        let dialled = |row: &Row| {
            Some(DialledLink {
                spec: row.spec.to_string(),
                dialer: row.dialer.clone()?,
                note: row.note.clone(),
            })
        };
        self.lock().rows.iter().filter_map(dialled).collect()
    }

    /// Says why a link is kept from carrying data, if it is.
    pub(crate) fn note(&self, spec: &str, note: Option<String>) {
        let mut table = self.lock();
        table
            .rows
            .iter_mut()
            .filter(|row| row.spec.to_string() == spec)
            .for_each(|row| row.note.clone_from(&note));
    }

    /// All links as they were given.
    pub(crate) fn specs(&self) -> Vec<LinkSpec> {
        self.lock().rows.iter().map(|row| row.spec.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
