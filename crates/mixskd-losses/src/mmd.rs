//! Maximum mean discrepancy between two sets of features.

use candle_core::{D, Tensor};
use mixskd_kernels::linear;

use crate::precision::{compute_dtype, doubled, raised};
use crate::{Result, check};

/// Bandwidths of the kernel, as multiples of the mean squared distance.
const WIDTHS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// Squared maximum mean discrepancy with a Gaussian kernel (Gretton et al., A Kernel Two-Sample Test, JMLR 2012, equation 5,
/// the biased estimate):
///
/// `mean_ij k(a_i, a_j) + mean_ij k(b_i, b_j) − 2·mean_ij k(a_i, b_j)`, `k(u, v) = ⅕·Σ_w exp(−‖u − v‖² / (w·s))`,
///
/// w over ¼, ½, 1, 2, 4, and s the mean of `‖u − v‖²` over all pairs of different rows of both sets together, a constant to the gradient, so
/// that no bandwidth has to be chosen. Never negative but for rounding, and 0 only where both sets look the same to every
/// bandwidth. Two sets of identical rows give 0.
///
/// Reduction: mean over pairs. Temperature: none. Detached: s alone. Computed in f64, since its terms cancel.
///
/// # Shapes
/// - `a`, `b`: `[batch, channel]`
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit.
pub fn kernel_mmd(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (batch, channels) = check::logits("kernel_mmd", "a", a)?;
    check::exactly("kernel_mmd", "b", b, &[batch, channels])?;
    let all = doubled(&Tensor::cat(&[a, b], 0)?)?;
    let rows = 2 * batch;
    let square = all.sqr()?.sum_keepdim(D::Minus1)?;
    let products = linear(&all, &all, None)?;
    // A distance that rounding leaves below 0 is 0.
    let distance = square
        .broadcast_add(&square.t()?)?
        .sub(&(products * 2.0)?)?
        .relu()?;
    let pairs = (rows * (rows - 1)) as f64;
    // Where all rows agree, every distance is 0 whatever it is divided by.
    let scale = ((distance.detach().sum_all()? / pairs)? + f64::MIN_POSITIVE)?;
    let relative = distance.broadcast_div(&scale)?;
    let mut kernel = (&relative * (-1.0 / WIDTHS[0]))?.exp()?;
    for width in &WIDTHS[1..] {
        kernel = (kernel + (&relative * (-1.0 / width))?.exp()?)?;
    }
    let block = |row: usize, column: usize| -> Result<Tensor> {
        let block = kernel.narrow(0, row, batch)?.narrow(1, column, batch)?;
        Ok((block.mean_all()? / WIDTHS.len() as f64)?)
    };
    let within = (block(0, 0)? + block(batch, batch)?)?;
    let across = (block(0, batch)? + block(batch, 0)?)?;
    Ok((within - across)?.to_dtype(compute_dtype(a.dtype()))?)
}

/// `(mean a − mean b)²`, both means over every element: the degenerate discrepancy that released code of DDGSD's successors
/// computes. It sees one number of each set, and can be 0 for sets that have nothing in common.
///
/// Reduction: mean over all elements of a set. Temperature: none. Detached: nothing.
///
/// # Shapes
/// - `a`, `b`: `[batch, channel]`, the same shape
/// - result: `[]`
///
/// # Errors
/// When the shapes differ or are of another rank, or the elements are no floats.
pub fn scalar_mean_difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check::logits("scalar_mean_difference", "a", a)?;
    check::exactly("scalar_mean_difference", "b", b, a.dims())?;
    Ok((raised(a)?.mean_all()? - raised(b)?.mean_all()?)?.sqr()?)
}
