//! Linear interpolation between each sample of a batch and its partner.

use candle_core::Tensor;

use crate::{Error, Result, compose, shape};

/// `λ·x + (1 − λ)·x[partner]`, row by row (Zhang et al., mixup, 2018): images, feature maps and logits alike.
///
/// # Shapes
/// - `x`, result: `[batch, …]`
/// - `partner`: `[batch]`, u32, indices into the batch
/// - `lambda`: `[batch]`, of `x`'s dtype; no gradient flows to it
///
/// # Errors
/// When a shape does not fit or a partner is out of range.
pub fn interpolate(x: &Tensor, partner: &Tensor, lambda: &Tensor) -> Result<Tensor> {
    let Some(&batch) = x.dims().first() else {
        return Err(Error::Shape {
            op: "interpolate",
            what: "input",
            wanted: "[batch, …]".into(),
            got: vec![],
        });
    };
    shape::exactly("interpolate", "partner", partner, &[batch])?;
    shape::exactly("interpolate", "lambda", lambda, &[batch])?;
    compose::interpolate(x, partner, lambda)
}
