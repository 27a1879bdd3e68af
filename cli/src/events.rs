//! What happens to the links of a bond, as lines of the log.

use std::collections::BTreeSet;

use bondwire::{Bond, BondEvent, Change, EventsError, LinkId, LinkState};

use crate::output;

/// Keeps the events of `bond` until it ends, for a recording: a command that prints a result logs none of them.
pub(crate) async fn keep(bond: &Bond) {
    follow(bond, "", true).await;
}

/// Logs the events of `bond` until it ends; `about` stands before each line, and may be empty.
pub(crate) async fn log(bond: &Bond, about: &str) {
    follow(bond, about, false).await;
}

async fn follow(bond: &Bond, about: &str, is_quiet: bool) {
    let mut events = bond.events();
    // Links that came up before anybody listened; their events may still be on the way.
    let mut up = BTreeSet::new();
    for link in bond.links().into_iter().filter(|link| link.state == LinkState::Active) {
        tracing::info!("{about}{}", link_line(link.id, &link.name, link.state, &Change::FirstPacket));
        up.insert(link.id);
    }
    loop {
        match events.next().await {
            Ok(BondEvent::Link { id, to: LinkState::Active, .. }) if up.remove(&id) => {}
            Ok(BondEvent::Link { id, name, to, why, .. }) => {
                up.remove(&id);
                let line = format!("{about}{}", link_line(id, &name, to, &why));
                match to {
                    LinkState::Suspect if !is_quiet => {
                        tracing::warn!(id = id.0, link = %name, state = %to, "{line}");
                    }
                    LinkState::Joining => tracing::debug!(id = id.0, link = %name, state = %to, "{line}"),
                    _ => tracing::info!(id = id.0, link = %name, state = %to, "{line}"),
                }
            }
            // Its links go with it; that needs no lines.
            Ok(BondEvent::Closed(reason)) => return tracing::info!("{about}bond ended: {reason}"),
            Ok(_) => {}
            Err(EventsError::Missed(count)) => {
                tracing::warn!("{about}{count} events not logged: too many at once");
            }
            Err(EventsError::Over) => return,
        }
    }
}

fn link_line(id: LinkId, name: &str, to: LinkState, why: &Change) -> String {
    let what = match (to, why) {
        (LinkState::Active, Change::Answered { suspect }) => format!("back after {} ms", suspect.as_millis()),
        (LinkState::Active, _) => "up".to_owned(),
        (_, Change::Silence { silent, moved_bytes: 0 }) => {
            format!("suspect after {} ms of silence", silent.as_millis())
        }
        (_, Change::Silence { silent, moved_bytes }) => {
            let moved = output::bytes(*moved_bytes);
            format!("suspect after {} ms of silence; {moved} moved to other links", silent.as_millis())
        }
        (LinkState::Closed, why) => format!("down: {why}"),
        (state, why) => format!("{state}: {why}"),
    };
    format!("link {id} {name}: {what}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_says_what_which_link_and_why() {
        let line = |to, why| link_line(LinkId(1), "tcp 10.0.0.2:7700", to, &why);
        let silence = Change::Silence { silent: Duration::from_millis(63), moved_bytes: 340_000 };
        assert_eq!(
            line(LinkState::Suspect, silence),
            "link 1 tcp 10.0.0.2:7700: suspect after 63 ms of silence; 340 kB moved to other links"
        );
        assert_eq!(line(LinkState::Active, Change::FirstPacket), "link 1 tcp 10.0.0.2:7700: up");
        let answered = Change::Answered { suspect: Duration::from_millis(120) };
        assert_eq!(line(LinkState::Active, answered), "link 1 tcp 10.0.0.2:7700: back after 120 ms");
    }
}
