//! Means over seeds and how sure they are.

use serde::{Deserialize, Serialize};

/// Probability that an interval holds the true value.
pub const CONFIDENCE: f64 = 0.95;

/// A mean over runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanSd {
    /// Mean.
    pub mean: f64,
    /// Standard deviation over runs (n − 1); `None` for one run.
    pub sd: Option<f64>,
}

/// A mean of paired differences: run by run with the baseline's run of the same seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Mean difference.
    pub mean: f64,
    /// Half of the width of the 95 % interval, `t(0.975, n − 1) · sd / √n` (Student's paired interval); `None` for one pair.
    pub half_width: Option<f64>,
    /// Pairs, n.
    pub pairs: usize,
}

impl MeanSd {
    /// Of `values`; `None` for none.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        let sd = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        Some(Self { mean, sd })
    }
}

impl PairedDifference {
    /// Of paired `differences`; `None` for none.
    pub fn of(differences: &[f64]) -> Option<Self> {
        let spread = MeanSd::of(differences)?;
        let pairs = differences.len();
        let half_width = spread
            .sd
            .map(|sd| t_quantile(pairs - 1) * sd / (pairs as f64).sqrt());
        Some(Self {
            mean: spread.mean,
            half_width,
            pairs,
        })
    }
}

/// t such that Student's distribution with `freedom` degrees holds [`CONFIDENCE`] between −t and t.
fn t_quantile(freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1e3);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if within(middle, freedom) < CONFIDENCE {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Probability that |T| ≤ t, for whole degrees of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4).
fn within(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    // The sum of cosine powers, each with its ratio of products: 1, 1/2, 1·3/(2·4), … or cos, 2/3, 2·4/(3·5), …
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = if freedom == 1 { 0.0 } else { term };
    let mut k = if odd { 3 } else { 2 };
    while k + 2 <= freedom {
        term *= cosine * cosine * (k - 1) as f64 / k as f64;
        sum += term;
        k += 2;
    }
    if odd {
        (angle + sine * sum) * std::f64::consts::FRAC_2_PI
    } else {
        sine * sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, t) in [
            (1, 12.706),
            (2, 4.303),
            (3, 3.182),
            (4, 2.776),
            (5, 2.571),
            (9, 2.262),
            (10, 2.228),
            (30, 2.042),
            (101, 1.984),
        ] {
            let got = t_quantile(freedom);
            assert!((got - t).abs() < 6e-4, "{freedom}: {got}, not {t}");
        }
    }

    #[test]
    fn spread_and_gain_of_small_numbers() {
        assert_eq!(MeanSd::of(&[]), None);
        assert_eq!(
            MeanSd::of(&[3.0]),
            Some(MeanSd {
                mean: 3.0,
                sd: None
            })
        );
        let spread = MeanSd::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.mean, spread.sd), (2.0, Some(1.0)));
        let gain = PairedDifference::of(&[1.0, 2.0, 3.0]).unwrap();
        assert!((gain.half_width.unwrap() - 4.3027 / 3f64.sqrt()).abs() < 1e-3);
        assert_eq!((gain.mean, gain.pairs), (2.0, 3));
        assert_eq!(PairedDifference::of(&[0.5]).unwrap().half_width, None);
    }
}
