//! The links that this end dials: those of the command line and those added since, over one bond after the other.

mod attached;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bondwire::{Bond, DialerHandle, LinkPolicy};
use bondwire_tcp::{DiscoveredLink, Discovery, DiscoveryConfig, Path};
use bondwire_usb::host::{CableId, CableLink, CableLinks};
use tokio::sync::watch;

use crate::attach::Device;
use crate::discovery::{self, Excluded};
use crate::link_options::LinkOptions;
use crate::link_spec::{LinkSpec, LinkSpecError};
use crate::medium::{Media, Medium, OWN_LISTENER};

/// Links that one end dials at most: what a bond takes.
const LINKS_MAX: usize = bondwire::limits::LINKS_MAX;

/// The links of one peer.
pub(crate) struct LinkTable {
    media: Media,
    /// What is found by itself, if anything is.
    config: Option<DiscoveryConfig>,
    table: Mutex<Table>,
    /// Tells that a LINK was added or removed.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Table {
    bond: Option<Bond>,
    rows: Vec<Row>,
    discovery: Option<Arc<Discovery>>,
    /// Which devices may be attached, if somebody has said so.
    attach: Option<Vec<LinkSpec>>,
}

struct Row {
    spec: LinkSpec,
    dialled: Dialled,
    note: Option<String>,
    /// Of a device that was attached: which.
    attached: Option<Device>,
}

impl Row {
    fn new(spec: LinkSpec, attached: Option<Device>) -> Self {
        Self { spec, dialled: Dialled::No, note: None, attached }
    }
}

/// How a LINK is dialled.
enum Dialled {
    /// Not yet.
    No,
    /// As it stands.
    AsItStands(DialerHandle),
    /// Over all paths that are found from it; it has this place in the discovery.
    OverPaths(usize),
    /// Over every cable that it means.
    OverCables(CableLinks),
}

/// A link that is dialled.
pub(crate) struct DialledLink {
    /// Its LINK.
    pub(crate) spec: String,
    pub(crate) dialer: DialerHandle,
    /// Of a link that was found: how.
    pub(crate) found: Option<Found>,
    /// Why this program keeps it from carrying data.
    pub(crate) note: Option<String>,
}

/// A link that nobody has named.
#[derive(Clone)]
pub(crate) struct Found {
    /// The LINK that it comes from.
    pub(crate) from: String,
    over: FoundOver,
}

#[derive(Clone)]
enum FoundOver {
    Path(Path),
    Cable(CableId),
}

/// Why a link is not dialled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    #[error("{0} is dialled already; more links over one path get different options, such as source=")]
    Known(String),
    #[error("{LINKS_MAX} links are dialled already, and a bond takes no more")]
    TooMany,
    #[error(transparent)]
    Excluded(#[from] Excluded),
    #[error("the network interfaces of this host cannot be listed: {0}")]
    Interfaces(io::Error),
    #[error("stdio: cannot be added: standard input and output belong to this command from its start")]
    Stdio,
    #[error("{0}: {OWN_LISTENER}")]
    OwnListener(String),
    #[error("{0}: a gadget waits for the host of its cable; it goes with `listen`")]
    Waits(String),
    #[error("{0}: {1}")]
    NoLink(String, LinkSpecError),
}

impl LinkTable {
    /// The links `specs`, and those that are found from them as `config` says.
    pub(crate) fn new(
        media: Media,
        specs: Vec<LinkSpec>,
        config: Option<DiscoveryConfig>,
    ) -> Result<Self, Excluded> {
        Self::check(&specs, config.as_ref())?;
        let rows = specs.into_iter().map(|spec| Row::new(spec, None)).collect();
        let table = Mutex::new(Table { rows, ..Table::default() });
        Ok(Self { media, config, table, changed: watch::Sender::new(()) })
    }

    /// Whether the filters let links be.
    pub(crate) fn check(specs: &[LinkSpec], config: Option<&DiscoveryConfig>) -> Result<(), Excluded> {
        let Some(config) = config else { return Ok(()) };
        let stand = specs.iter().filter(|spec| discovery::given(spec, config).is_none());
        stand.into_iter().try_for_each(|spec| discovery::check(spec, config))
    }

    /// Dials all links for `bond`, each for what it was last set to.
    pub(crate) fn dial(&self, bond: &Bond) -> io::Result<()> {
        let mut table = self.lock();
        let Table { rows, discovery, .. } = &mut *table;
        if let Some(discovery) = discovery {
            discovery.set_bond(bond);
        }
        for row in rows {
            self.dial_row(row, bond, discovery)?;
        }
        table.bond = Some(bond.clone());
        Ok(())
    }

    fn dial_row(&self, row: &mut Row, bond: &Bond, discovery: &mut Option<Arc<Discovery>>) -> io::Result<()> {
        let given =
            self.config.as_ref().and_then(|config| Some((discovery::given(&row.spec, config)?, config)));
        if let Some((given, config)) = given {
            let place = match (&row.dialled, &discovery) {
                (Dialled::OverPaths(place), _) => *place,
                (_, Some(discovery)) => discovery.add(given),
                (_, None) => {
                    *discovery = Some(Arc::new(Discovery::start(bond, vec![given], config.clone())?));
                    0
                }
            };
            row.dialled = Dialled::OverPaths(place);
            return Ok(());
        }
        if let Medium::Usb(address) = &row.spec.medium {
            match &row.dialled {
                Dialled::OverCables(cables) => cables.set_bond(bond),
                _ => {
                    let cables = CableLinks::start(bond, address.clone());
                    cables.set_wishes(row.spec.options.policy, row.spec.options.keep_alive);
                    row.dialled = Dialled::OverCables(cables);
                }
            }
            return Ok(());
        }
        let dialer = self.media.dial(&row.spec.medium, bond);
        match &row.dialled {
            Dialled::AsItStands(before) => {
                dialer.set_policy(before.policy());
                dialer.set_keep_alive(before.keep_alive());
            }
            _ => row.spec.options.apply(&dialer),
        }
        row.dialled = Dialled::AsItStands(dialer);
        Ok(())
    }

    /// Dials one more link.
    pub(crate) fn add(&self, spec: LinkSpec) -> Result<(), AddError> {
        self.add_row(spec, None)
    }

    fn add_row(&self, spec: LinkSpec, attached: Option<Device>) -> Result<(), AddError> {
        let mut table = self.lock();
        if spec.is_stdio() {
            return Err(AddError::Stdio);
        }
        if !spec.medium.is_dialled() {
            return Err(AddError::Waits(spec.to_string()));
        }
        if table.rows.iter().any(|row| row.spec == spec) {
            return Err(AddError::Known(spec.to_string()));
        }
        let alone =
            table.rows.iter().map(|row| &row.spec).chain([&spec]).find(|spec| spec.medium.starts_listener());
        if let Some(alone) = alone {
            return Err(AddError::OwnListener(alone.to_string()));
        }
        if table.rows.len() >= LINKS_MAX {
            return Err(AddError::TooMany);
        }
        Self::check(std::slice::from_ref(&spec), self.config.as_ref())?;
        let mut row = Row::new(spec, attached);
        let Table { bond, rows, discovery, .. } = &mut *table;
        if let Some(bond) = bond {
            self.dial_row(&mut row, bond, discovery).map_err(AddError::Interfaces)?;
        }
        rows.push(row);
        self.changed.send_replace(());
        Ok(())
    }

    /// Brings the table from the LINKs that a file had to those that it has. LINKs that were added otherwise stay, and those of
    /// the file that were removed otherwise come back.
    pub(crate) fn follow(&self, before: &[LinkSpec], now: &[LinkSpec]) {
        let mut gone: Vec<_> = before.iter().filter(|spec| !now.contains(spec)).collect();
        let mut added = Vec::new();
        for spec in now {
            let changed = gone.iter().position(|gone| !before.contains(spec) && self.change(gone, spec));
            match changed {
                Some(place) => drop(gone.swap_remove(place)),
                None => added.push(spec),
            }
        }
        // What has a port to itself makes room first; of the others the old stays until the new is dialled.
        for spec in gone.extract_if(.., |spec| spec.medium.port().is_some()) {
            self.remove(&spec.to_string());
        }
        let add = |spec: &&LinkSpec| match self.add((*spec).clone()) {
            Ok(()) | Err(AddError::Known(_)) => Ok(()),
            Err(error) => Err(error),
        };
        added.retain(|spec| add(spec).is_err());
        for spec in gone {
            self.remove(&spec.to_string());
        }
        // What could not be beside those that have gone.
        for error in added.iter().filter_map(|spec| add(spec).err()) {
            tracing::error!("{error}");
        }
    }

    /// Uses the link `old` as `new` says, if that is the same link with other options; answers whether it is.
    fn change(&self, old: &LinkSpec, new: &LinkSpec) -> bool {
        let has_quota = [old, new].iter().any(|spec| spec.options.quota_bytes.is_some());
        if old.medium != new.medium || has_quota {
            return false;
        }
        let mut table = self.lock();
        let Table { rows, discovery, .. } = &mut *table;
        let Some(row) = rows.iter_mut().find(|row| row.spec == *old) else { return false };
        let LinkOptions { policy, keep_alive, .. } = new.options;
        match (&row.dialled, discovery) {
            (Dialled::AsItStands(dialer), _) => new.options.apply(dialer),
            (Dialled::OverPaths(place), Some(discovery)) => {
                discovery.set_wishes(*place, policy, keep_alive);
                let found = discovery.links().into_iter().filter(|link| link.path.given == *place);
                found.for_each(|link| new.options.apply(&link.dialer));
            }
            (Dialled::OverCables(cables), _) => {
                cables.set_wishes(policy, keep_alive);
                cables.links().iter().for_each(|link| new.options.apply(&link.dialer));
            }
            _ => {}
        }
        row.spec = new.clone();
        self.changed.send_replace(());
        true
    }

    /// Finds out at once how things stand with all links.
    pub(crate) fn hurry(&self) {
        self.dialled().iter().for_each(|link| link.dialer.hurry());
    }

    /// Hears when LINKs are added or removed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Dials the link no more, and takes it out of the bond. `spec` is its LINK; with one from which links are found these
    /// go, too.
    pub(crate) fn remove(&self, spec: &str) {
        self.remove_rows(|row| row.spec.to_string() == spec);
    }

    fn remove_rows(&self, mut is_meant: impl FnMut(&Row) -> bool) -> usize {
        let mut table = self.lock();
        let Table { rows, discovery, .. } = &mut *table;
        let mut count = 0;
        for row in rows.extract_if(.., |row| is_meant(row)) {
            count += 1;
            match (row.dialled, &discovery) {
                (Dialled::AsItStands(dialer), _) => dialer.stop(),
                (Dialled::OverPaths(place), Some(discovery)) => discovery.remove(place),
                // Of cables the links end as the row is dropped.
                _ => {}
            }
        }
        self.changed.send_replace(());
        count
    }

    /// Ends a link that was found, and makes none over its path any more.
    pub(crate) fn remove_found(&self, found: &Found) {
        let table = self.lock();
        match &found.over {
            FoundOver::Path(path) => {
                table.discovery.iter().for_each(|discovery| discovery.remove_path(path));
            }
            FoundOver::Cable(cable) => {
                let rows = table.rows.iter().filter(|row| row.spec.to_string() == found.from);
                rows.filter_map(Row::cables).for_each(|cables| cables.remove(cable));
            }
        }
    }

    /// Changes what links will be used for that are yet to be found from the LINKs that `is_named` names.
    pub(crate) fn change_yet_to_find<E>(
        &self,
        is_named: impl Fn(&str) -> bool,
        change: impl Fn(LinkPolicy) -> Result<LinkPolicy, E>,
        keep_alive: Option<Option<Duration>>,
    ) -> Result<(), E> {
        let table = self.lock();
        for row in table.rows.iter().filter(|row| is_named(&row.spec.to_string())) {
            match (&row.dialled, &table.discovery) {
                (Dialled::OverPaths(place), Some(discovery)) => {
                    if let Some((policy, before)) = discovery.wishes(*place) {
                        discovery.set_wishes(*place, change(policy)?, keep_alive.unwrap_or(before));
                    }
                }
                (Dialled::OverCables(cables), _) => {
                    let (policy, before) = cables.wishes();
                    cables.set_wishes(change(policy)?, keep_alive.unwrap_or(before));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The links that are dialled.
    pub(crate) fn dialled(&self) -> Vec<DialledLink> {
        let table = self.lock();
        let dialled = |row: &Row| match &row.dialled {
            Dialled::AsItStands(dialer) => Some(DialledLink {
                spec: row.spec.to_string(),
                dialer: dialer.clone(),
                found: None,
                note: row.note.clone(),
            }),
            _ => None,
        };
        let found = |link: DiscoveredLink| DialledLink {
            spec: link.to_string().replacen(' ', ":", 1),
            found: Some(Found { from: table.given(link.path.given), over: FoundOver::Path(link.path) }),
            dialer: link.dialer,
            note: None,
        };
        let over_cable = |row: &Row, CableLink { cable, dialer }| DialledLink {
            spec: format!("usb:{cable}"),
            found: Some(Found { from: row.spec.to_string(), over: FoundOver::Cable(cable) }),
            dialer,
            note: row.note.clone(),
        };
        let over_cables = |row: &Row| -> Vec<_> {
            let links = row.cables().into_iter().flat_map(CableLinks::links);
            links.map(|link| over_cable(row, link)).collect()
        };
        let as_they_stand = table.rows.iter().filter_map(dialled);
        let discovered = table.discovery.iter().flat_map(|discovery| discovery.links()).map(found);
        as_they_stand.chain(discovered).chain(table.rows.iter().flat_map(over_cables)).collect()
    }

    /// LINKs from which no link is found, and why.
    pub(crate) fn faults(&self) -> Vec<(String, String)> {
        let table = self.lock();
        let faults = table.discovery.iter().flat_map(|discovery| discovery.faults());
        let of_cables =
            table.rows.iter().filter_map(|row| Some((row.spec.to_string(), row.cables()?.fault()?)));
        faults.map(|(place, why)| (table.given(place), why)).chain(of_cables).collect()
    }

    /// What finds links by itself, if anything does.
    pub(crate) fn discovery(&self) -> Option<Arc<Discovery>> {
        self.lock().discovery.clone()
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

    /// The links that the user named: those of devices come and go with these.
    pub(crate) fn named(&self) -> Vec<LinkSpec> {
        self.lock().rows.iter().filter(|row| row.attached.is_none()).map(|row| row.spec.clone()).collect()
    }

    /// All links as they were given.
    pub(crate) fn specs(&self) -> Vec<LinkSpec> {
        self.lock().rows.iter().map(|row| row.spec.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn cables(&self) -> Option<&CableLinks> {
        match &self.dialled {
            Dialled::OverCables(cables) => Some(cables),
            _ => None,
        }
    }
}

impl Table {
    /// The LINK with that place in the discovery.
    fn given(&self, place: usize) -> String {
        let is_it = |row: &&Row| matches!(row.dialled, Dialled::OverPaths(at) if at == place);
        self.rows.iter().find(is_it).map(|row| row.spec.to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use bondwire::{BondConfig, Identity, Policy};

    use super::*;

    fn specs(texts: &[&str]) -> Vec<LinkSpec> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// What is dialled, and for what.
    fn dialled(table: &LinkTable) -> Vec<(String, Policy)> {
        table.dialled().into_iter().map(|link| (link.spec, link.dialer.policy().usage)).collect()
    }

    fn expected(links: &[(&str, Policy)]) -> Vec<(String, Policy)> {
        links.iter().map(|(link, policy)| ((*link).to_owned(), *policy)).collect()
    }

    #[tokio::test]
    async fn a_table_follows_a_file_and_leaves_alone_what_the_file_does_not_say() {
        let bond = Bond::connect_to_anyone(&Identity::generate().unwrap(), BondConfig::default()).unwrap();
        let first = specs(&["tcp:127.0.0.1:1", "tcp:127.0.0.1:2", "tcp:127.0.0.1:3"]);
        let table = LinkTable::new(Media::default(), first.clone(), None).unwrap();
        table.dial(&bond).unwrap();
        let kept = table.dialled()[0].dialer.clone();
        // By hand: one more, one less, and one that is paused.
        table.add("tcp:127.0.0.1:9".parse().unwrap()).unwrap();
        table.remove("tcp:127.0.0.1:2");
        table.dialled()[1].dialer.set_policy(Policy::Paused);

        let second = specs(&["tcp:127.0.0.1:1,policy=backup", "tcp:127.0.0.1:2", "tcp:127.0.0.1:3"]);
        table.follow(&first, &second);
        let now = [
            ("tcp:127.0.0.1:1,policy=backup", Policy::Backup),
            ("tcp:127.0.0.1:3", Policy::Paused),
            ("tcp:127.0.0.1:9", Policy::Active),
            ("tcp:127.0.0.1:2", Policy::Active),
        ];
        assert_eq!(dialled(&table), expected(&now));
        assert_eq!(kept.policy().usage, Policy::Backup, "the same dialer");

        // A quota counts for its LINK, so that is another one.
        let third = specs(&["tcp:127.0.0.1:1,quota=1GB", "tcp:127.0.0.1:9"]);
        table.follow(&second, &third);
        let now = [("tcp:127.0.0.1:9", Policy::Active), ("tcp:127.0.0.1:1,quota=1GB", Policy::Active)];
        assert_eq!(dialled(&table), expected(&now));
    }

    #[tokio::test]
    async fn a_full_table_can_be_replaced_as_a_whole() {
        let bond = Bond::connect_to_anyone(&Identity::generate().unwrap(), BondConfig::default()).unwrap();
        let full = |host: &str| -> Vec<LinkSpec> {
            (0..LINKS_MAX)
                .map(|number| format!("tcp:127.0.0.{host}:{}", 7000 + number).parse().unwrap())
                .collect()
        };
        let (first, second) = (full("1"), full("2"));
        let table = LinkTable::new(Media::default(), first.clone(), None).unwrap();
        table.dial(&bond).unwrap();
        table.follow(&first, &second);
        assert_eq!(table.specs(), second);
    }
}
