//! Units of an axis, and the figures on it.

/// How a value is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// The highest value, in the unit.
    pub(super) top: f64,
    pub(super) unit: &'static str,
    /// How much one of the unit is.
    pub(super) size: f64,
}

impl Scale {
    /// Of bytes, or bytes per second, of which there are at most so many.
    pub(super) fn bytes(highest: f64, units: [&'static str; 4]) -> Self {
        let step = [1e9, 1e6, 1e3].into_iter().position(|size| highest >= size);
        let (size, unit) = match step {
            Some(step) => ([1e9, 1e6, 1e3][step], units[step]),
            None => (1.0, units[3]),
        };
        Self::of(highest, size, unit)
    }

    /// Of one unit alone.
    pub(super) fn of(highest: f64, size: f64, unit: &'static str) -> Self {
        // Some room above; an axis of nothing at all has a length, too.
        let top = if highest > 0.0 { highest / size * 1.08 } else { 1.0 };
        Self { top, unit, size }
    }

    pub(super) fn value(&self, value: f64) -> f64 {
        value / self.size
    }

    /// A figure at the axis.
    pub(super) fn figure(&self, value: f64) -> String {
        figure(value, self.top)
    }
}

/// A figure on an axis that ends at `top`: with as many decimals as the steps of the axis need.
pub(super) fn figure(value: f64, top: f64) -> String {
    let decimals = match top {
        top if top <= 0.2 => 3,
        top if top <= 2.0 => 2,
        top if top <= 12.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_highest_value() {
        let units = ["GB", "MB", "kB", "B"];
        let scale = |highest| Scale::bytes(highest, units);
        assert_eq!((scale(0.0).unit, scale(0.0).top), ("B", 1.0));
        let shown = [12.0, 1500.0, 2e6, 7e9].map(|highest| scale(highest).unit);
        assert_eq!(shown, ["B", "kB", "MB", "GB"]);
        assert_eq!(scale(2e6).value(1e6), 1.0);
        assert_eq!(scale(2e6).figure(0.30000000000000004), "0.3");
        assert_eq!([0.15, 1.0, 2.0, 50.0].map(|top| figure(0.1, top)), ["0.100", "0.10", "0.10", "0"]);
    }
}
