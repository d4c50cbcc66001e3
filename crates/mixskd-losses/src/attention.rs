//! Where a feature map looks, and losses that carry it from one map to another.

use candle_core::{D, Tensor};
use mixskd_kernels::{linear, mse};

use crate::log_softmax::log_softmax;
use crate::precision::raised;
use crate::{Error, Result};

/// `mean((a − sg a')²)` of the attention of a map and of the next deeper one (SAD, Hou et al., Learning Lightweight Lane
/// Detection CNNs by Self Attention Distillation, ICCV 2019, equations 1 and 2): attention is the softmax over positions of the
/// channels' mean square, which for the deeper map is first resized to the shallower one's size, bilinearly.
///
/// Reduction: mean over the batch and the positions. Temperature: none. Detached: `deep`.
///
/// # Shapes
/// - `shallow`: `[batch, height, width, channel]`
/// - `deep`: `[batch, h, w, c]`
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit.
pub fn attention_distillation(shallow: &Tensor, deep: &Tensor) -> Result<Tensor> {
    const OP: &str = "attention_distillation";
    let (batch, height, width) = map(OP, "shallow", shallow)?;
    let (other, h, w) = map(OP, "deep", deep)?;
    if other != batch {
        return Err(Error::Shape {
            op: OP,
            what: "deep".into(),
            wanted: format!("a batch of {batch}"),
            got: deep.dims().to_vec(),
        });
    }
    let learner = log_softmax(&energy(shallow)?)?.exp()?;
    let mut target = energy(&deep.detach())?;
    if (h, w) != (height, width) {
        let matrix = bilinear((h, w), (height, width));
        let matrix = Tensor::from_vec(matrix, (height * width, h * w), target.device())?;
        target = linear(&target, &matrix.to_dtype(target.dtype())?, None)?;
    }
    let target = log_softmax(&target)?.exp()?;
    Ok(mse(&learner, &target)?)
}

/// `mean((φ(a) − φ(sg b))²)`, `φ` the channels' mean square at each position, divided by its length over all positions of an
/// image (attention transfer, Zagoruyko & Komodakis, ICLR 2017, equation 2; FRSKD, Ji et al., CVPR 2021, equation 4).
///
/// Reduction: mean over the batch and the positions. Temperature: none. Detached: `b`.
///
/// # Shapes
/// - `a`: `[batch, height, width, channel]`
/// - `b`: `[batch, height, width, c]`
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit.
pub fn attention_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    const OP: &str = "attention_distance";
    let size = map(OP, "a", a)?;
    if map(OP, "b", b)? != size {
        let (batch, height, width) = size;
        return Err(Error::Shape {
            op: OP,
            what: "b".into(),
            wanted: format!("[{batch}, {height}, {width}, channel]"),
            got: b.dims().to_vec(),
        });
    }
    let unit = |x: &Tensor| -> Result<Tensor> {
        let energy = energy(x)?;
        // The gradient at an energy of 0 is 0, not 0/0.
        let length = (energy.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?;
        Ok(energy.broadcast_div(&length)?)
    };
    Ok(mse(&unit(a)?, &unit(&b.detach())?)?)
}

/// Batch, height and width of a feature map.
fn map(op: &'static str, what: &'static str, x: &Tensor) -> Result<(usize, usize, usize)> {
    match x.dims4() {
        Ok((batch, height, width, _)) if x.elem_count() > 0 => Ok((batch, height, width)),
        _ => Err(Error::Shape {
            op,
            what: what.into(),
            wanted: "[batch, height, width, channel], none of them 0".into(),
            got: x.dims().to_vec(),
        }),
    }
}

/// `[batch, height·width]`: the channels' mean square at each position.
fn energy(x: &Tensor) -> Result<Tensor> {
    Ok(raised(x)?.sqr()?.mean(D::Minus1)?.flatten_from(1)?)
}

/// The matrix `[H·W, h·w]` that resizes a map bilinearly: pixel centres at half-integers, the border repeated.
fn bilinear(from: (usize, usize), to: (usize, usize)) -> Vec<f64> {
    let axis = |from: usize, to: usize| -> Vec<[(usize, f64); 2]> {
        (0..to)
            .map(|at| {
                let centre = (at as f64 + 0.5) * from as f64 / to as f64 - 0.5;
                let centre = centre.clamp(0.0, (from - 1) as f64);
                let low = centre as usize;
                let share = centre - low as f64;
                [(low, 1.0 - share), ((low + 1).min(from - 1), share)]
            })
            .collect()
    };
    let (rows, columns) = (axis(from.0, to.0), axis(from.1, to.1));
    let mut matrix = vec![0.0; to.0 * to.1 * from.0 * from.1];
    for (row, above) in matrix.chunks_exact_mut(to.1 * from.0 * from.1).zip(&rows) {
        for (out, beside) in row.chunks_exact_mut(from.0 * from.1).zip(&columns) {
            for (y, share) in above {
                for (x, part) in beside {
                    out[y * from.1 + x] += share * part;
                }
            }
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::bilinear;

    #[test]
    fn resizing_keeps_constants_and_does_nothing_at_the_same_size() {
        for (from, to) in [((2, 3), (4, 6)), ((4, 4), (3, 5)), ((1, 1), (2, 2))] {
            for row in bilinear(from, to).chunks_exact(from.0 * from.1) {
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
        let same = bilinear((2, 2), (2, 2));
        assert!((0..16).all(|at| same[at] == f64::from(u8::from(at / 4 == at % 4))));
    }
}
