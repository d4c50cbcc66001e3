//! How strong each operation of a policy may be: torchvision's tables of magnitudes.

use super::Op;

/// Which magnitudes an operation takes as the bin rises from 0 to the last.
#[derive(Clone, Copy)]
pub(super) enum Range {
    /// The operation has no magnitude.
    Free,
    /// Evenly spaced, both ends included.
    Even(f64, f64),
    /// Evenly spaced from 0 to this share of the image's width (or height, for the vertical operation).
    Side(fn(f64) -> f64),
    /// Whole bits, falling from the first number by the second.
    Bits(i32, i32),
}

/// Operations with their ranges.
pub(super) type Space = [(Op, Range)];

/// 150 of 331 pixels, AutoAugment's largest translation.
const LARGEST_SHIFT: Range = Range::Side(|side| 150.0 / 331.0 * side);

/// AutoAugment's operations, with 10 bins (Cubuk et al., 2019, table 6).
pub(super) static AUTO_AUGMENT: &Space = &[
    (Op::ShearX, Range::Even(0.0, 0.3)),
    (Op::ShearY, Range::Even(0.0, 0.3)),
    (Op::TranslateX, LARGEST_SHIFT),
    (Op::TranslateY, LARGEST_SHIFT),
    (Op::Rotate, Range::Even(0.0, 30.0)),
    (Op::Brightness, Range::Even(0.0, 0.9)),
    (Op::Color, Range::Even(0.0, 0.9)),
    (Op::Contrast, Range::Even(0.0, 0.9)),
    (Op::Sharpness, Range::Even(0.0, 0.9)),
    (Op::Posterize, Range::Bits(8, 4)),
    (Op::Solarize, Range::Even(255.0, 0.0)),
    (Op::AutoContrast, Range::Free),
    (Op::Equalize, Range::Free),
    (Op::Invert, Range::Free),
];

/// RandAugment's operations.
pub(super) static RAND_AUGMENT: &Space = &[
    (Op::Identity, Range::Free),
    (Op::ShearX, Range::Even(0.0, 0.3)),
    (Op::ShearY, Range::Even(0.0, 0.3)),
    (Op::TranslateX, LARGEST_SHIFT),
    (Op::TranslateY, LARGEST_SHIFT),
    (Op::Rotate, Range::Even(0.0, 30.0)),
    (Op::Brightness, Range::Even(0.0, 0.9)),
    (Op::Color, Range::Even(0.0, 0.9)),
    (Op::Contrast, Range::Even(0.0, 0.9)),
    (Op::Sharpness, Range::Even(0.0, 0.9)),
    (Op::Posterize, Range::Bits(8, 4)),
    (Op::Solarize, Range::Even(255.0, 0.0)),
    (Op::AutoContrast, Range::Free),
    (Op::Equalize, Range::Free),
];

/// TrivialAugment's wide operations.
pub(super) static TRIVIAL_AUGMENT_WIDE: &Space = &[
    (Op::Identity, Range::Free),
    (Op::ShearX, Range::Even(0.0, 0.99)),
    (Op::ShearY, Range::Even(0.0, 0.99)),
    (Op::TranslateX, Range::Even(0.0, 32.0)),
    (Op::TranslateY, Range::Even(0.0, 32.0)),
    (Op::Rotate, Range::Even(0.0, 135.0)),
    (Op::Brightness, Range::Even(0.0, 0.99)),
    (Op::Color, Range::Even(0.0, 0.99)),
    (Op::Contrast, Range::Even(0.0, 0.99)),
    (Op::Sharpness, Range::Even(0.0, 0.99)),
    (Op::Posterize, Range::Bits(8, 6)),
    (Op::Solarize, Range::Even(255.0, 0.0)),
    (Op::AutoContrast, Range::Free),
    (Op::Equalize, Range::Free),
];

/// A third of the side, AugMix's largest translation.
const THIRD: Range = Range::Side(|side| side / 3.0);

/// AugMix's operations, with 10 bins; the last four are the ones that ImageNet-C's corruptions overlap with.
pub(super) static AUG_MIX: &Space = &[
    (Op::ShearX, Range::Even(0.0, 0.3)),
    (Op::ShearY, Range::Even(0.0, 0.3)),
    (Op::TranslateX, THIRD),
    (Op::TranslateY, THIRD),
    (Op::Rotate, Range::Even(0.0, 30.0)),
    (Op::Posterize, Range::Bits(4, 4)),
    (Op::Solarize, Range::Even(255.0, 0.0)),
    (Op::AutoContrast, Range::Free),
    (Op::Equalize, Range::Free),
    (Op::Brightness, Range::Even(0.0, 0.9)),
    (Op::Color, Range::Even(0.0, 0.9)),
    (Op::Contrast, Range::Even(0.0, 0.9)),
    (Op::Sharpness, Range::Even(0.0, 0.9)),
];

/// How many of [`AUG_MIX`]'s operations do not overlap with corruptions of test images.
pub(super) const AUG_MIX_PURE: usize = 9;

impl Range {
    /// Magnitude of `bin` out of `bins` (at least 2), without a sign, for an image of `(height, width)`.
    pub(super) fn magnitude(
        self,
        op: Op,
        bin: usize,
        bins: usize,
        (height, width): (usize, usize),
    ) -> f64 {
        let steps = bins.saturating_sub(1).max(1);
        match self {
            Self::Free => 0.0,
            Self::Even(first, last) => even(first, last, bin, steps),
            Self::Side(share) => {
                let side = if op == Op::TranslateY { height } else { width };
                even(0.0, share(side as f64), bin, steps)
            }
            Self::Bits(most, fall) => {
                let lost = bin as f32 / (steps as f64 / f64::from(fall)) as f32;
                f64::from(most - lost.round_ties_even() as i32)
            }
        }
    }
}

/// `torch.linspace` in float32, which counts the second half down from the end and rounds once: product and sum are exact here
/// until the last cast. A translation by 15.999999 pixels is one by 15.
fn even(first: f64, last: f64, bin: usize, steps: usize) -> f64 {
    let step = f64::from((last as f32 - first as f32) / steps as f32);
    let value = if bin < steps.div_ceil(2) {
        first + step * bin as f64
    } else {
        f64::from(last as f32) - step * (steps - bin) as f64
    };
    f64::from(value as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// torchvision's own tables, written by `tests/golden/operations.py`.
    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/golden/policies.json")).unwrap()
    }

    #[test]
    fn magnitudes_are_torchvisions() {
        for table in golden()["spaces"].as_array().unwrap() {
            let (name, space) = match table["policy"].as_str().unwrap() {
                "autoaugment" => ("autoaugment", AUTO_AUGMENT),
                "randaugment" => ("randaugment", RAND_AUGMENT),
                "trivialaugment" => ("trivialaugment", TRIVIAL_AUGMENT_WIDE),
                other => (other, AUG_MIX),
            };
            let bins = table["bins"].as_u64().unwrap() as usize;
            let side = |at: usize| table["size"][at].as_u64().unwrap() as usize;
            let rows = table["rows"].as_array().unwrap();
            assert_eq!(rows.len(), space.len(), "{name}");
            for (row, (op, range)) in rows.iter().zip(space) {
                assert_eq!(row["op"], op.name(), "{name}");
                assert_eq!(row["signed"], op.signed(), "{name}: {}", op.name());
                for (bin, expected) in row["magnitudes"].as_array().unwrap().iter().enumerate() {
                    let got = range.magnitude(*op, bin, bins, (side(0), side(1)));
                    let expected = expected.as_f64().unwrap();
                    // Translations drop the fraction, so that a last bit can matter.
                    assert!(
                        (got - expected).abs() <= 1e-6 * expected.abs()
                            && got as i64 == expected as i64,
                        "{name} {} bin {bin}: {got}, torchvision {expected}",
                        op.name()
                    );
                }
            }
        }
    }
}
