//! Devices that are handed to a running command as they are plugged in: `bondwire attach`, which udev has called for each.
//!
//! Which bond a device joins is decided here and nowhere else: [`choice`] says how.

mod choice;
mod device;
pub(crate) mod limits;

use std::sync::Arc;

use serde_json::{Value, json};

pub(crate) use choice::{Candidate, ChoiceError, Lead, Wish};
pub(crate) use device::{Device, DeviceError, Found, LookError};

use crate::control::program::{Program, RunningBond};
use crate::control::protocol::{CommandError, GONE, NOT_WANTED};
use crate::link_table::{AddError, LinkTable};

/// Why a device was not handed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Look(#[from] LookError),
    #[error("{device}: {error}")]
    Choice { device: Device, error: ChoiceError },
    #[error(transparent)]
    Add(#[from] AddError),
}

impl From<AttachError> for CommandError {
    fn from(error: AttachError) -> Self {
        let code = match &error {
            AttachError::Device(_) => "bad-request",
            AttachError::Look(LookError::Gone(_)) => GONE,
            AttachError::Choice { error: ChoiceError::Nobody | ChoiceError::OtherPeer, .. } => NOT_WANTED,
            AttachError::Choice { error: ChoiceError::NotDialling(_), .. } => "not-here",
            _ => "failed",
        };
        Self::new(code, error)
    }
}

/// Hands the device that `text` names to the bond with that number, or to the one that it is for.
pub(crate) async fn attach(program: &Program, text: &str, bond: Option<u64>) -> Result<Value, CommandError> {
    Ok(hand_over(program, text, bond).await?)
}

async fn hand_over(program: &Program, text: &str, bond: Option<u64>) -> Result<Value, AttachError> {
    let device: Device = text.parse()?;
    let found = Found::look(&device).await?;
    // From the look at what carries it already until it is carried: of a thousand calls for one device one adds a link.
    let _one = program.attaching();
    let running = program.dialling();
    if let Some(carrier) = carried(program, &running, &found) {
        return Ok(carrier);
    }
    let candidates: Vec<_> =
        running.iter().filter_map(|(number, running)| candidate(*number, running, &found)).collect();
    let number = choice::choose(&candidates, bond)
        .map_err(|error| AttachError::Choice { device: device.clone(), error })?;
    let links = running.iter().find(|(known, _)| *known == number).and_then(|(_, bond)| bond.links());
    let links =
        links.ok_or(AttachError::Choice { device, error: ChoiceError::NotDialling(number.to_string()) })?;
    let link = links.attach(&found)?;
    tracing::info!("{}: attached to bond {number} as {link}", found.device);
    Ok(json!({ "bond": number, "link": link, "new": true }))
}

/// Who carries the device already. A LINK that was attached for another device in its place makes room.
fn carried(program: &Program, running: &[(u64, Arc<RunningBond>)], found: &Found) -> Option<Value> {
    for (number, bond) in running {
        let Some(links) = bond.links() else { continue };
        if let Some(link) = links.carries(found, bond.peer()) {
            return Some(json!({ "bond": number, "link": link, "new": false }));
        }
        links.detach(&found.device);
    }
    let listened_on = program.listened_on();
    let link = listened_on.iter().find(|link| found.is_over(&link.medium))?;
    Some(json!({ "bond": null, "link": link.to_string(), "new": false }))
}

fn candidate(number: u64, running: &RunningBond, found: &Found) -> Option<Candidate> {
    let links: &LinkTable = running.links()?;
    let name = running.name(number);
    Some(Candidate { number, name, wish: links.wish(found), lead: found.lead(running.peer()) })
}

/// Takes the device that `text` names out of all bonds, if it was attached; with `if_gone` only one that is not there any more.
pub(crate) fn detach(program: &Program, text: &str, if_gone: bool) -> Result<Value, CommandError> {
    let device: Device = text.parse().map_err(AttachError::from)?;
    let _one = program.attaching();
    if if_gone && device.is_there() {
        return Ok(json!({ "links": 0 }));
    }
    let running = program.dialling();
    let links: usize =
        running.iter().filter_map(|(_, bond)| bond.links()).map(|links| links.detach(&device)).sum();
    if links > 0 {
        tracing::info!("{device}: detached");
    }
    Ok(json!({ "links": links }))
}
