//! Gradients of variables, past candle's sums.

use std::cell::RefCell;

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::inbox::add;
use crate::Result;

thread_local! {
    /// Gradients that kernels have made for variables, while [`backward`] runs on this thread.
    static KEPT: RefCell<Option<Vec<(Tensor, Tensor)>>> = const { RefCell::new(None) };
}

/// Keeps a variable's gradient for [`backward`]; gives it back where that does not run.
pub(super) fn keep(variable: &Tensor, gradient: Tensor) -> Option<Tensor> {
    KEPT.with_borrow_mut(|kept| match kept {
        Some(kept) => {
            kept.push((variable.clone(), gradient));
            None
        }
        None => Some(gradient),
    })
}

/// Ends the keeping however [`backward`] is left.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        KEPT.take();
    }
}

/// The gradients of `loss`, as `loss.backward()` gives them, in fewer passes: what this crate's kernels make for a variable is
/// taken as it is, where candle would add it to zeros first.
///
/// # Shapes
/// - `loss`: `[]`
///
/// # Errors
/// When an op in the graph has no gradient.
///
/// ```
/// use candle_core::{DType, Device, Var};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let x = Var::ones((2, 3), DType::F32, &Device::Cpu)?;
/// let weight = Var::ones((4, 3), DType::F32, &Device::Cpu)?;
/// let loss = mixskd_kernels::linear(&x, &weight, None)?.sum_all()?;
/// let gradients = mixskd_kernels::backward(&loss)?;
/// assert_eq!(gradients.get(&weight).map(|g| g.dims().to_vec()), Some(vec![4, 3]));
/// # Ok(())
/// # }
/// ```
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let guard = Guard;
    KEPT.set(Some(Vec::new()));
    let mut gradients = loss.backward()?;
    let kept = KEPT.take().unwrap_or_default();
    drop(guard);
    for (variable, gradient) in kept {
        let sum = match gradients.remove(&variable) {
            Some(other) => add(&other, &gradient)?,
            None => gradient,
        };
        gradients.insert(&variable, sum);
    }
    Ok(gradients)
}
