//! Which bond a device joins: a pure function of what the bonds wish and where the device leads.
//!
//! - One that the user names takes it.
//! - Else those bonds whose `attach` lets it in. If no bond of the process has an `attach`, all of them.
//! - Of these never one whose peer is not the one that the cable's hint names; one whose peer it does name goes before others.
//! - If that leaves several, nobody can know which is meant, and the user has to say it.

/// A bond that dials.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) number: u64,
    /// For messages.
    pub(crate) name: String,
    pub(crate) wish: Wish,
    pub(crate) lead: Lead,
}

/// What a bond says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It has no `attach`.
    Nothing,
    /// Its `attach` does not let the device in.
    Refuses,
    /// Its `attach` lets the device in.
    Takes,
}

/// Where the device leads, as far as it says so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lead {
    /// To another peer than the bond's.
    Elsewhere,
    Unknown,
    /// To the bond's peer.
    ToPeer,
}

/// Why no bond takes a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChoiceError {
    #[error(
        "no bond here takes it; let one do so with attach = [\"usb:\", \"serial:*\"] in its section, or name one with --bond"
    )]
    Nobody,
    #[error("it leads to a peer to which no bond runs here")]
    OtherPeer,
    #[error("{} would take it; let one of them do so with attach, or name one with --bond", .0.join(" and "))]
    Several(Vec<String>),
    #[error("bond {0} is none that this end dials; `bondwire status` shows which there are")]
    NotDialling(String),
}

/// The number of the bond that takes the device: `named` if the user names one.
pub(crate) fn choose(candidates: &[Candidate], named: Option<u64>) -> Result<u64, ChoiceError> {
    if let Some(named) = named {
        let is_there = candidates.iter().any(|candidate| candidate.number == named);
        return if is_there { Ok(named) } else { Err(ChoiceError::NotDialling(named.to_string())) };
    }
    let silent = candidates.iter().all(|candidate| candidate.wish == Wish::Nothing);
    let wanted = if silent { Wish::Nothing } else { Wish::Takes };
    let takers: Vec<_> = candidates.iter().filter(|candidate| candidate.wish == wanted).collect();
    let best = takers.iter().map(|taker| taker.lead).max().ok_or(ChoiceError::Nobody)?;
    if best == Lead::Elsewhere {
        return Err(ChoiceError::OtherPeer);
    }
    let mut best = takers.into_iter().filter(|taker| taker.lead == best);
    match (best.next(), best.next()) {
        (Some(only), None) => Ok(only.number),
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(best);
            Err(ChoiceError::Several(all.map(|candidate| candidate.name.clone()).collect()))
        }
        (None, _) => Err(ChoiceError::Nobody),
    }
}

#[cfg(test)]
mod tests {
    use super::Lead::{Elsewhere, ToPeer, Unknown};
    use super::Wish::{Nothing, Refuses, Takes};
    use super::*;

    fn chosen(bonds: &[(Wish, Lead)]) -> Result<u64, ChoiceError> {
        let candidate = |(number, (wish, lead)): (u64, &(Wish, Lead))| Candidate {
            number,
            name: format!("b{number}"),
            wish: *wish,
            lead: *lead,
        };
        choose(&(1..).zip(bonds).map(candidate).collect::<Vec<_>>(), None)
    }

    #[test]
    fn the_only_bond_takes_it_and_of_several_the_one_that_says_so() {
        let several =
            |names: &[&str]| Err(ChoiceError::Several(names.iter().map(|&name| name.to_owned()).collect()));
        let cases: [(&[(Wish, Lead)], _); 12] = [
            (&[], Err(ChoiceError::Nobody)),
            (&[(Nothing, Unknown)], Ok(1)),
            (&[(Refuses, ToPeer)], Err(ChoiceError::Nobody)),
            (&[(Takes, Elsewhere)], Err(ChoiceError::OtherPeer)),
            (&[(Nothing, Unknown), (Nothing, Unknown)], several(&["b1", "b2"])),
            (&[(Nothing, Unknown), (Nothing, ToPeer)], Ok(2)),
            (&[(Nothing, Elsewhere), (Nothing, Unknown)], Ok(2)),
            (&[(Nothing, ToPeer), (Takes, Unknown)], Ok(2)),
            (&[(Nothing, ToPeer), (Refuses, Unknown)], Err(ChoiceError::Nobody)),
            (&[(Takes, Unknown), (Takes, Unknown), (Refuses, Unknown)], several(&["b1", "b2"])),
            (&[(Takes, Unknown), (Takes, ToPeer), (Takes, Elsewhere)], Ok(2)),
            (&[(Takes, ToPeer), (Takes, ToPeer)], several(&["b1", "b2"])),
        ];
        for (bonds, expected) in cases {
            assert_eq!(chosen(bonds), expected, "{bonds:?}");
        }
    }

    #[test]
    fn a_bond_that_is_named_takes_it_whatever_it_wishes() {
        let bond = Candidate { number: 4, name: "b".into(), wish: Refuses, lead: Elsewhere };
        assert_eq!(choose(std::slice::from_ref(&bond), Some(4)), Ok(4));
        assert_eq!(choose(&[bond], Some(5)), Err(ChoiceError::NotDialling("5".into())));
    }
}
