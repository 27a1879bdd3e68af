//! LINKs over devices that were handed over while the table was at work.

use bondwire::PublicKey;

use super::{AddError, LinkTable};
use crate::attach::{Device, Found, Lead, Wish};
use crate::link_spec::LinkSpec;
use crate::medium::Medium;

impl LinkTable {
    /// Says which devices may be attached: those that a pattern means, with its options; `None` leaves it open.
    pub(crate) fn set_attach(&self, patterns: Option<Vec<LinkSpec>>) {
        self.lock().attach = patterns;
    }

    /// What this bond says of a device.
    pub(crate) fn wish(&self, found: &Found) -> Wish {
        match &self.lock().attach {
            None => Wish::Nothing,
            Some(patterns) if patterns.iter().any(|pattern| found.is_meant_by(&pattern.medium)) => {
                Wish::Takes
            }
            Some(_) => Wish::Refuses,
        }
    }

    /// The LINK that carries a device already, or would if its peer were there. `usb:` takes up its cables by itself, but for
    /// those that lead to another peer.
    pub(crate) fn carries(&self, found: &Found, peer: Option<PublicKey>) -> Option<String> {
        let leads_elsewhere = found.lead(peer) == Lead::Elsewhere;
        let table = self.lock();
        let is_over = |spec: &LinkSpec| {
            found.is_over(&spec.medium) && !(leads_elsewhere && matches!(spec.medium, Medium::Usb(_)))
        };
        table.rows.iter().map(|row| &row.spec).find(|spec| is_over(spec)).map(ToString::to_string)
    }

    /// Dials over a device until it is [detached](Self::detach). Answers the LINK.
    pub(crate) fn attach(&self, found: &Found) -> Result<String, AddError> {
        let pattern = {
            let table = self.lock();
            let patterns = table.attach.iter().flatten();
            let mut meant = patterns.filter(|pattern| found.is_meant_by(&pattern.medium));
            meant.next().map(ToString::to_string)
        };
        let link = found.link(pattern.as_deref());
        let spec = link.parse().map_err(|error| AddError::NoLink(link.clone(), error))?;
        self.add_row(spec, Some(found.device.clone()))?;
        Ok(link)
    }

    /// Dials over a device no more, and takes its link out of the bond. Answers how many LINKs it had: one or none.
    pub(crate) fn detach(&self, device: &Device) -> usize {
        self.remove_rows(|row| row.attached.as_ref() == Some(device))
    }

    /// Takes over what was attached to the table before this one.
    pub(crate) fn take_over(&self, before: &Self) {
        let attached: Vec<_> = {
            let table = before.lock();
            let rows = table.rows.iter();
            rows.filter_map(|row| Some((row.spec.clone(), row.attached.clone()?))).collect()
        };
        for (spec, device) in attached {
            before.detach(&device);
            match self.add_row(spec, Some(device)) {
                // The new links name it themselves.
                Ok(()) | Err(AddError::Known(_)) => {}
                Err(error) => tracing::error!("{error}"),
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use bondwire::{Bond, BondConfig, Identity};
    use bondwire_line::{End, Noise, PtyLine};

    use super::*;
    use crate::medium::Media;

    async fn found(path: &str) -> Found {
        Found::look(&path.parse().unwrap()).await.unwrap()
    }

    fn links(table: &LinkTable) -> Vec<String> {
        table.specs().iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_port_is_attached_once_and_detached_as_often_as_one_likes() {
        let line = PtyLine::open(Noise::NONE, 1).unwrap();
        let path = line.path(End::A).unwrap().display().to_string();
        let bond = Bond::connect_to_anyone(&Identity::generate().unwrap(), BondConfig::default()).unwrap();
        let table = LinkTable::new(Media::default(), Vec::new(), None).unwrap();
        table.dial(&bond).unwrap();
        let port = found(&path).await;
        assert_eq!((table.wish(&port), table.carries(&port, None)), (Wish::Nothing, None));
        table.set_attach(Some(vec!["usb:".parse().unwrap()]));
        assert_eq!(table.wish(&port), Wish::Refuses);
        table.set_attach(Some(vec!["serial:*,policy=backup".parse().unwrap()]));
        assert_eq!(table.wish(&port), Wish::Takes);
        let link = table.attach(&port).unwrap();
        assert_eq!(link, format!("serial:{path},policy=backup"));
        assert_eq!(table.carries(&port, None), Some(link.clone()));
        assert_eq!(table.dialled().len(), 1);
        assert_eq!(table.named(), [], "what a pairing remembers");
        // A new session to another peer goes on with it.
        let next = LinkTable::new(Media::default(), Vec::new(), None).unwrap();
        next.take_over(&table);
        assert_eq!((links(&table), links(&next)), (Vec::new(), vec![link]));
        assert_eq!(next.detach(&port.device), 1);
        assert_eq!(next.detach(&port.device), 0);
        assert_eq!(links(&next), [""; 0]);
    }

    #[tokio::test]
    async fn a_port_that_the_file_names_is_not_attached_and_stays() {
        let line = PtyLine::open(Noise::NONE, 1).unwrap();
        let path = line.path(End::A).unwrap().display().to_string();
        let named = format!("serial:{path},tier=1");
        let table = LinkTable::new(Media::default(), vec![named.parse().unwrap()], None).unwrap();
        let port = found(&path).await;
        assert_eq!(table.carries(&port, None), Some(named.clone()));
        assert_eq!((table.detach(&port.device), links(&table)), (0, vec![named]));
    }
}
