//! One number that divides all logits: temperature scaling (Guo et al. 2017, section 4.2).

use serde::Serialize;

use crate::calibration::Row;
use crate::softmax::log_softmax;

/// Temperatures that are looked at: beyond them the images say nothing about it.
const RANGE: (f64, f64) = (0.01, 100.0);

/// A fitted temperature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Temperature {
    /// The temperature T: probabilities are softmax(logits / T).
    pub value: f64,
    /// Mean negative log-likelihood of the images it was fitted on, at T = 1, in nats.
    pub nll_before: f64,
    /// The same at the fitted T.
    pub nll_after: f64,
    /// Whether the likelihood was still rising at the end of the range 0.01 to 100, as where every image is classified rightly.
    pub at_bound: bool,
}

/// The temperature at which `rows` are most likely.
///
/// The negative log-likelihood is convex in β = 1/T: its slope is `mean(E_p[z] − z_y)`, which grows with β, so its zero is found by
/// bisection to the last bit, the same on every machine that has the same exponential.
pub fn fit(rows: &[Row]) -> Temperature {
    let (mut low, mut high) = (1.0 / RANGE.1, 1.0 / RANGE.0);
    let (value, at_bound) = if slope(rows, low) >= 0.0 {
        (RANGE.1, true)
    } else if slope(rows, high) <= 0.0 {
        (RANGE.0, true)
    } else {
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if slope(rows, middle) > 0.0 {
                high = middle;
            } else {
                low = middle;
            }
        }
        (1.0 / (0.5 * (low + high)), false)
    };
    Temperature {
        value,
        nll_before: nll(rows, 1.0),
        nll_after: nll(rows, value),
        at_bound,
    }
}

fn slope(rows: &[Row], beta: f64) -> f64 {
    let of = |row: &Row| {
        let log = log_softmax(&row.logits, 1.0 / beta);
        let expected = log
            .iter()
            .zip(&row.logits)
            .map(|(log, &z)| log.exp() * f64::from(z))
            .sum::<f64>();
        expected - row.logits.get(row.label).map_or(0.0, |&z| f64::from(z))
    };
    rows.iter().map(of).sum::<f64>() / rows.len().max(1) as f64
}

fn nll(rows: &[Row], temperature: f64) -> f64 {
    let of = |row: &Row| {
        let log = log_softmax(&row.logits, temperature);
        -log.get(row.label).copied().unwrap_or(f64::NEG_INFINITY)
    };
    rows.iter().map(of).sum::<f64>() / rows.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(logits: [f32; 2], right: usize, wrong: usize) -> Vec<Row> {
        let row = |label| Row {
            index: 0,
            label,
            logits: logits.to_vec(),
        };
        (0..right)
            .map(|_| row(0))
            .chain((0..wrong).map(|_| row(1)))
            .collect()
    }

    #[test]
    fn two_classes_by_hand() {
        // Three of four are right at a logit difference of 4: σ(4/T) = 3/4, so T = 4 / ln 3.
        let fitted = fit(&rows([4.0, 0.0], 3, 1));
        assert!((fitted.value - 4.0 / 3f64.ln()).abs() < 1e-9, "{fitted:?}");
        assert!(!fitted.at_bound && fitted.nll_after < fitted.nll_before);
        let entropy = -(0.75f64.ln() * 0.75 + 0.25f64.ln() * 0.25);
        assert!((fitted.nll_after - entropy).abs() < 1e-12);
    }

    #[test]
    fn what_the_images_do_not_say_is_told() {
        assert_eq!(fit(&rows([1.0, 0.0], 3, 0)).value, RANGE.0);
        let useless = fit(&rows([1.0, 0.0], 1, 3));
        assert!(useless.at_bound && useless.value == RANGE.1);
    }
}
