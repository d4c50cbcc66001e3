//! One axis of a chart.

/// One axis: values to pixels, with round marks.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    marks: Vec<f64>,
    decimals: usize,
    logarithmic: bool,
}

impl Axis {
    /// Covers the values `low..=high` with some air, from pixel `from` to pixel `to`; `from` may be the larger one, for an axis
    /// that points up.
    pub fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        let span = (high - low).max(0.02 * high.abs().max(low.abs()));
        // Nothing but zeros, or numbers that are nothing beside rounding.
        let span = if span > 1e-9 { span } else { 1.0 };
        let rough: f64 = span / 5.0;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * unit)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(unit);
        let low = ((low - 0.05 * span) / step).floor() * step;
        let high = ((high + 0.05 * span) / step).ceil() * step;
        let count = ((high - low) / step).round() as usize;
        Self {
            low,
            high,
            from,
            to,
            marks: (0..=count).map(|k| low + k as f64 * step).collect(),
            decimals: (-step.log10().floor()).max(0.0) as usize,
            logarithmic: false,
        }
    }

    /// As [`new`](Self::new), where equal distances are equal ratios; marks are 1, 2 and 5 of every power of ten. An ordinary axis
    /// where a value is not above zero or the largest is less than eight times the smallest.
    pub fn of_ratios(low: f64, high: f64, from: f64, to: f64) -> Self {
        if !(low > 0.0 && high >= 8.0 * low && high.is_finite()) {
            return Self::new(low, high, from, to);
        }
        let (below, above) = (low * 0.95, high * 1.05);
        let powers = below.log10().floor() as i32..=above.log10().ceil() as i32;
        let round: Vec<f64> = powers
            .flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power)))
            .collect();
        let first = round.iter().rposition(|mark| *mark <= below).unwrap_or(0);
        let last = round
            .iter()
            .position(|mark| *mark >= above)
            .unwrap_or(round.len() - 1);
        Self {
            low: round[first],
            high: round[last],
            from,
            to,
            marks: round[first..=last].to_vec(),
            decimals: (-round[first].log10().floor()).max(0.0) as usize,
            logarithmic: true,
        }
    }

    /// The pixel of `value`.
    pub fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// Whether equal distances are equal ratios.
    pub fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }

    /// The first and the last pixel.
    pub fn ends(&self) -> (f64, f64) {
        (self.from, self.to)
    }

    /// The round values to be marked, from the lowest.
    pub fn marks(&self) -> &[f64] {
        &self.marks
    }

    /// A mark's number with as many decimals as the marks need.
    pub fn name(&self, mark: f64) -> String {
        format!("{mark:.*}", self.decimals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_marks_that_cover_the_values() {
        for (low, high) in [(57.3, 62.1), (0.0, 0.0), (3.0, 3.0), (12.0, 1900.0)] {
            for axis in [
                Axis::new(low, high, 0.0, 100.0),
                Axis::of_ratios(low, high, 0.0, 100.0),
            ] {
                assert!(axis.low <= low && axis.high >= high && axis.high > axis.low);
                assert!(
                    (2..=14).contains(&axis.marks().len()),
                    "{low} {high}: {axis:?}"
                );
            }
        }
    }

    #[test]
    fn values_between_the_ends_lie_in_proportion() {
        let up = Axis::new(0.0, 1.0, 100.0, 0.0);
        let (low, high) = (up.marks()[0], up.marks()[up.marks().len() - 1]);
        assert_eq!((up.at(low), up.at(high)), up.ends());
        assert!((up.at(f64::midpoint(low, high)) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn equal_ratios_are_equal_distances() {
        let axis = Axis::of_ratios(130.0, 4500.0, 0.0, 100.0);
        assert_eq!(axis.marks(), [100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]);
        let apart = |a, b| axis.at(b) - axis.at(a);
        assert!((apart(200.0, 400.0) - apart(1000.0, 2000.0)).abs() < 1e-9);
        assert_eq!(axis.name(1000.0), "1000");
    }
}
