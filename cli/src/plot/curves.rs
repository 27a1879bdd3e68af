//! What samples and messages come to: a curve and a lane of states for each link. Bounded, whatever the recording has.

use super::limits::{CHANGES_MAX, COLUMNS_MAX, LINKS_MAX, NAME_MAX, POINTS_MAX};
use super::read::{Event, Link, Sample};
use crate::failure::one_line;
use crate::recording::format::Header;

/// All that is drawn.
pub(super) struct Curves {
    pub(super) header: Header,
    pub(super) links: Vec<Curve>,
    /// Links for which there was no room.
    pub(super) omitted_links: u64,
    /// The time of the last sample.
    pub(super) seconds: f64,
    /// The bond that is drawn, if not all are.
    only: Option<u64>,
}

/// One link of one bond, also after it was dialled anew.
pub(super) struct Curve {
    bond: u64,
    pub(super) name: String,
    id: Option<u32>,
    /// The number of a link that has taken its place, until a sample tells of it.
    successor: Option<u32>,
    pub(super) points: Vec<Point>,
    /// Since when it was in which state.
    pub(super) changes: Vec<(f64, State)>,
    /// Counters at the last sample.
    base: (u64, u64),
    met: bool,
}

/// What a link did in a span of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) sent_bytes: f64,
    pub(super) received_bytes: f64,
    /// The highest, while it was in the bond.
    pub(super) rtt_ms: Option<f64>,
    pub(super) in_flight_bytes: Option<f64>,
}

/// Which way bytes went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Suspect,
    Joining,
    /// Closed, or not there.
    Gone,
}

impl State {
    fn of(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "suspect" => Self::Suspect,
            "joining" => Self::Joining,
            _ => Self::Gone,
        }
    }
}

impl Point {
    pub(super) fn bytes(&self, way: Way) -> f64 {
        match way {
            Way::Out => self.sent_bytes,
            Way::In => self.received_bytes,
        }
    }

    /// Bytes per second.
    pub(super) fn rate(&self, way: Way) -> f64 {
        let time = self.to - self.from;
        if time > 0.0 { self.bytes(way) / time } else { 0.0 }
    }

    fn with(self, next: Self) -> Self {
        let highest = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        Self {
            from: self.from,
            to: next.to,
            sent_bytes: self.sent_bytes + next.sent_bytes,
            received_bytes: self.received_bytes + next.received_bytes,
            rtt_ms: highest(self.rtt_ms, next.rtt_ms),
            in_flight_bytes: highest(self.in_flight_bytes, next.in_flight_bytes),
        }
    }
}

impl Curves {
    pub(super) fn new(header: Header, only: Option<u64>) -> Self {
        Self { header, links: Vec::new(), omitted_links: 0, seconds: 0.0, only }
    }

    pub(super) fn handle_sample(&mut self, sample: Sample) {
        let span = (self.seconds, sample.seconds);
        self.seconds = sample.seconds;
        self.links.iter_mut().for_each(|link| link.met = false);
        let mut omitted = 0;
        let only = self.only;
        for bond in sample.bonds.into_iter().filter(|bond| only.is_none_or(|only| only == bond.number)) {
            // Those in the bond first: one that was dialled anew goes on where the last one ended.
            let (there, gone): (Vec<_>, Vec<_>) =
                bond.links.into_iter().partition(|link| link.id.is_some() && link.state != "closed");
            for link in there {
                omitted += u64::from(!self.take(bond.number, link, span, true));
            }
            for link in gone {
                self.take(bond.number, link, span, false);
            }
        }
        self.omitted_links = self.omitted_links.max(omitted);
        self.links.iter_mut().filter(|link| !link.met).for_each(|link| link.go(span));
    }

    /// Puts a link's figures where they belong; answers whether there was room.
    fn take(&mut self, bond: u64, link: Link, span: (f64, f64), is_there: bool) -> bool {
        let name = shown_name(&link.link);
        let mut of_name = self.links.iter_mut().filter(|known| known.bond == bond && known.name == name);
        if !is_there && of_name.any(|known| known.met) {
            return true;
        }
        let free = |known: &Curve| known.bond == bond && known.name == name && !known.met;
        let known = self.links.iter().position(|known| free(known) && known.id == link.id);
        let place = known.or_else(|| self.links.iter().position(free));
        match place {
            Some(place) => self.links[place].update(&link, span, is_there),
            None if self.links.len() >= LINKS_MAX => return false,
            None => {
                let mut curve = Curve::new(bond, name);
                curve.base = (link.sent_bytes, link.received_bytes);
                curve.id = link.id;
                curve.update(&link, span, is_there);
                self.links.push(curve);
            }
        }
        true
    }

    pub(super) fn handle_event(&mut self, event: &Event) {
        let (Some(name), Some(state)) = (&event.link, &event.state) else { return };
        let (name, state) = (shown_name(name), State::of(state));
        let of_name = || self.links.iter().enumerate().filter(|(_, link)| link.name == name);
        let exact = of_name().find(|(_, link)| event.id.is_some() && link.id == event.id);
        // One that joins is not known by its number yet; one that went was, so its end is no news of another one's.
        let joins = state == State::Active || state == State::Joining;
        let first = of_name().find(|(_, link)| joins && link.state() == State::Gone);
        if let Some((place, link)) = exact.or(first) {
            // What was replaced before it went is not missed.
            if state != State::Gone || link.successor.is_none() {
                self.links[place].change(event.seconds, state);
            }
        } else if let Some((place, _)) = of_name().find(|_| state == State::Active) {
            self.links[place].successor = event.id;
        }
    }

    /// Bytes per second of all links together, in columns of the same width.
    pub(super) fn total(&self, way: Way) -> Vec<(f64, f64)> {
        let points = self.links.iter().map(|link| link.points.len()).max().unwrap_or_default();
        let columns = points.clamp(1, COLUMNS_MAX);
        let width = self.seconds / columns as f64;
        if width <= 0.0 {
            return Vec::new();
        }
        let mut bytes = vec![0.0; columns];
        for point in self.links.iter().flat_map(|link| &link.points) {
            let column = |seconds: f64| ((seconds / width) as usize).min(columns - 1);
            for (place, sum) in
                bytes.iter_mut().enumerate().take(column(point.to) + 1).skip(column(point.from))
            {
                let (from, to) = (place as f64 * width, (place + 1) as f64 * width);
                let shared = (point.to.min(to) - point.from.max(from)).max(0.0);
                *sum += point.rate(way) * shared;
            }
        }
        let middle = |place: usize| (place as f64 + 0.5) * width;
        bytes.iter().enumerate().map(|(place, bytes)| (middle(place), bytes / width)).collect()
    }
}

impl Curve {
    fn new(bond: u64, name: String) -> Self {
        Self {
            bond,
            name,
            id: None,
            successor: None,
            points: Vec::new(),
            changes: Vec::new(),
            base: (0, 0),
            met: false,
        }
    }

    /// What the link is called beside those of other bonds.
    pub(super) fn label(&self, has_several_bonds: bool) -> String {
        if has_several_bonds { format!("bond {} {}", self.bond, self.name) } else { self.name.clone() }
    }

    pub(super) fn bond(&self) -> u64 {
        self.bond
    }

    fn state(&self) -> State {
        self.changes.last().map_or(State::Gone, |(_, state)| *state)
    }

    fn update(&mut self, link: &Link, (from, to): (f64, f64), is_there: bool) {
        self.met = true;
        // A new number has new counters.
        let base = if self.id == link.id { self.base } else { (0, 0) };
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let counts = link.id.is_some();
        self.push(Point {
            from,
            to,
            sent_bytes: if counts { since(link.sent_bytes, base.0) } else { 0.0 },
            received_bytes: if counts { since(link.received_bytes, base.1) } else { 0.0 },
            rtt_ms: link.rtt_ms.filter(|_| is_there).map(|rtt| rtt.clamp(0.0, 1e9)),
            in_flight_bytes: is_there.then_some(link.in_flight_bytes as f64),
        });
        self.successor = None;
        (self.id, self.base) = (link.id, (link.sent_bytes, link.received_bytes));
        self.change(to, if counts { State::of(&link.state) } else { State::Gone });
    }

    /// Nothing is told about it any more.
    fn go(&mut self, span: (f64, f64)) {
        let gone = Link { id: None, ..Link::default() };
        self.update(&gone, span, false);
    }

    fn push(&mut self, point: Point) {
        if self.points.len() >= POINTS_MAX {
            let pair = |pair: &[Point]| pair[1..].iter().fold(pair[0], |sum, next| sum.with(*next));
            self.points = self.points.chunks(2).map(pair).collect();
        }
        self.points.push(point);
    }

    fn change(&mut self, seconds: f64, state: State) {
        let is_news = self.changes.is_empty() || self.state() != state;
        if is_news && self.changes.len() < CHANGES_MAX {
            self.changes.push((seconds, state));
        }
    }
}

/// A name as a picture can have it.
fn shown_name(name: &str) -> String {
    let name = one_line(name);
    match name.char_indices().nth(NAME_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::Bond;
    use super::*;

    fn link(id: impl Into<Option<u32>>, name: &str, state: &str, sent_bytes: u64) -> Link {
        let (id, link, state) = (id.into(), name.to_owned(), state.to_owned());
        Link { id, link, state, sent_bytes, rtt_ms: id.map(|_| 5.0), in_flight_bytes: 7, received_bytes: 0 }
    }

    fn curves(samples: Vec<(f64, Vec<Link>)>) -> Curves {
        let mut curves = Curves::new(Header::default(), None);
        for (seconds, links) in samples {
            let bonds = vec![Bond { number: 1, links }];
            curves.handle_sample(Sample { seconds, bonds, ..Sample::default() });
        }
        curves
    }

    fn rates(curve: &Curve) -> Vec<f64> {
        curve.points.iter().map(|point| point.rate(Way::Out)).collect()
    }

    #[test]
    fn counters_become_rates_also_over_a_new_dial() {
        let curves = curves(vec![
            (0.0, vec![link(0, "a", "active", 1000)]),
            (1.0, vec![link(0, "a", "active", 3000)]),
            (2.0, vec![link(0, "a", "closed", 3500), link(None, "a", "missing", 0)]),
            (3.0, vec![link(None, "a", "missing", 0)]),
            (4.0, vec![link(4, "a", "active", 300)]),
            (5.0, vec![]),
        ]);
        let [a] = &curves.links[..] else { panic!("one link") };
        assert_eq!(rates(a), [0.0, 2000.0, 500.0, 0.0, 300.0, 0.0]);
        let rtts: Vec<_> = a.points.iter().map(|point| point.rtt_ms.is_some()).collect();
        assert_eq!(rtts, [true, true, false, false, true, false]);
        use State::{Active, Gone};
        assert_eq!(a.changes, [(0.0, Active), (2.0, Gone), (4.0, Active), (5.0, Gone)]);
    }

    #[test]
    fn links_of_one_name_stay_apart_and_messages_find_theirs() {
        let both = |first, second| vec![link(0, "a", "active", first), link(1, "a", "active", second)];
        let mut curves = curves(vec![(0.0, both(0, 0)), (1.0, both(10, 20))]);
        let event = |seconds, id: u32, state: &str| Event {
            seconds,
            link: Some("a".into()),
            id: Some(id),
            state: Some(state.into()),
        };
        curves.handle_event(&event(1.2, 1, "suspect"));
        curves.handle_event(&event(1.3, 1, "active"));
        curves.handle_event(&event(1.4, 9, "closed"));
        curves.handle_event(&Event::default());
        // One that was replaced before it went is there all the time.
        curves.handle_event(&event(1.5, 7, "active"));
        curves.handle_event(&event(1.5, 0, "closed"));
        assert_eq!(curves.links.len(), 2);
        assert_eq!((rates(&curves.links[0]), rates(&curves.links[1])), (vec![0.0, 10.0], vec![0.0, 20.0]));
        assert_eq!(curves.links[0].changes.len(), 1);
        let changes: Vec<_> = curves.links[1].changes.iter().map(|(at, _)| *at).collect();
        assert_eq!(changes, [0.0, 1.2, 1.3]);
        assert_eq!(curves.total(Way::Out).iter().map(|(_, rate)| rate).sum::<f64>(), 30.0 * 2.0);
    }

    #[test]
    fn whatever_comes_the_memory_is_bounded() {
        let sample = |n: u32| {
            let links = (0..40)
                .map(|id| link(id, &format!("{id}"), ["active", "suspect"][n as usize % 2], u64::from(n)));
            (f64::from(n), links.collect())
        };
        let curves = curves((0..5000).map(sample).collect());
        assert_eq!((curves.links.len(), curves.omitted_links), (LINKS_MAX, 40 - LINKS_MAX as u64));
        let first = &curves.links[0];
        assert!(first.points.len() <= POINTS_MAX && first.points.len() > POINTS_MAX / 4);
        assert_eq!(first.changes.len(), CHANGES_MAX);
        // Nothing is lost by it.
        assert_eq!(first.points.iter().map(|point| point.sent_bytes).sum::<f64>(), 4999.0);
        assert!(first.points.windows(2).all(|pair| pair[0].to == pair[1].from));
        let long = shown_name(&format!("{}\u{1b}[31m", "ä".repeat(100)));
        assert_eq!(long.chars().count(), NAME_MAX + 1);
    }
}
