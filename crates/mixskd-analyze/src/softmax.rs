//! Softmax in float64.

/// Logarithm of `softmax(logits / temperature)`.
///
/// # Shapes
/// `[class]` → `[class]`
pub fn log_softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let scaled = logits.iter().map(|&z| f64::from(z) / temperature);
    let largest = scaled.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum = scaled.clone().map(|z| (z - largest).exp()).sum::<f64>();
    let log_sum = largest + sum.ln();
    scaled.map(|z| z - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_to_one_and_stands_large_logits() {
        for (logits, temperature) in [
            (vec![1000.0, -1000.0, 999.0], 1.0),
            (vec![0.1, 0.2, 0.3], 0.01),
            (vec![-3.0, 4.0], 7.0),
        ] {
            let sum = log_softmax(&logits, temperature)
                .into_iter()
                .map(f64::exp)
                .sum::<f64>();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        }
        let log = log_softmax(&[0.0, 2.0 * 3f32.ln()], 2.0);
        assert!((log[1] - 0.75f64.ln()).abs() < 1e-7);
    }
}
