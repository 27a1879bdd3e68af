//! USB device controllers: this machine as the device of a cable.

use bondwire_usb::device::{Controller, ControllerUser, controllers, kept};
use serde::Serialize;

/// A controller. The names are those of `--json`.
#[derive(Serialize)]
pub(crate) struct ControllerRow {
    /// LINK that names it.
    link: String,
    controller: String,
    /// State of the device that it plays: `not attached`, `configured`, `suspended`.
    state: String,
    /// Present speed; none without a cable.
    speed: Option<String>,
    max_speed: String,
    /// Whether a gadget of Bondwire is bound.
    is_bondwire: bool,
    /// Whether `bondwire gadget up` has set a gadget up.
    is_up: bool,
    usable: bool,
    /// Why not.
    fault: Option<String>,
}

/// All that there are.
pub(crate) fn rows() -> Vec<ControllerRow> {
    let kept = kept();
    controllers().iter().map(|controller| ControllerRow::new(controller, &kept)).collect()
}

impl ControllerRow {
    fn new(controller: &Controller, kept: &[String]) -> Self {
        let fault = controller.obstacle().map(|obstacle| obstacle.to_string());
        Self {
            link: format!("gadget:{}", controller.name),
            state: controller.state.clone(),
            // Without a cable the kernel says UNKNOWN.
            speed: Some(controller.speed.clone())
                .filter(|speed| speed.ends_with("speed") || speed.contains("speed-")),
            max_speed: controller.max_speed.clone(),
            is_bondwire: controller.user == Some(ControllerUser::Bondwire),
            is_up: kept.contains(&controller.name),
            usable: fault.is_none(),
            fault,
            controller: controller.name.clone(),
        }
    }
}

/// A few lines for each controller.
pub(crate) fn text(rows: &[ControllerRow]) -> String {
    if rows.is_empty() {
        return "no USB device controller: this machine can only be the host of a cable\n".to_owned();
    }
    let mut text = String::new();
    for row in rows {
        let state = match &row.fault {
            Some(fault) => format!("not usable: {fault}"),
            None if row.is_bondwire => format!("in use by Bondwire: {}", row.state),
            None if row.is_up => "usable; its gadget is set up".to_owned(),
            None => "usable".to_owned(),
        };
        let speed = row.speed.clone().unwrap_or_else(|| format!("up to {}", row.max_speed));
        text += &format!("gadget {:<16} {speed}\n    {state}\n    {}\n", row.controller, row.link);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(user: Option<ControllerUser>) -> Controller {
        Controller {
            name: "fe980000.usb".to_owned(),
            state: "configured".to_owned(),
            speed: "UNKNOWN".to_owned(),
            max_speed: "high-speed".to_owned(),
            user,
        }
    }

    fn told(user: Option<ControllerUser>, kept: &[String]) -> String {
        text(&[ControllerRow::new(&controller(user), kept)])
    }

    #[test]
    fn controllers_are_told_with_what_to_do() {
        assert_eq!(
            told(None, &[]),
            "gadget fe980000.usb     up to high-speed\n    usable\n    gadget:fe980000.usb\n"
        );
        assert!(told(None, &["fe980000.usb".to_owned()]).contains("its gadget is set up"));
        assert!(told(Some(ControllerUser::Bondwire), &[]).contains("in use by Bondwire: configured"));
        let other = ControllerUser::Gadget { name: "g1".to_owned(), path: "/config/usb_gadget/g1".into() };
        let text_of_other = told(Some(other), &[]);
        assert!(
            text_of_other.contains("bound to gadget `g1`")
                && text_of_other.contains("echo > /config/usb_gadget/g1/UDC"),
            "{text_of_other}"
        );
        assert!(
            told(Some(ControllerUser::Driver("g_ether".to_owned())), &[]).contains("modprobe -r g_ether")
        );
        assert!(text(&[]).contains("only be the host"));
    }
}
