//! Gradients of variables, past candle's sums.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::inbox::add;
use crate::Result;

/// What [`backward`] keeps while it runs.
struct Kept {
    call: u64,
    /// Variables, and gradients that kernels have made for them.
    gradients: Vec<(Tensor, Tensor)>,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// Calls of [`backward`] so far.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// One going back through a graph: candle does it on one thread, and [`backward`] counts its calls.
pub(super) type Pass = (ThreadId, Option<u64>);

/// The pass that this thread is on.
pub(super) fn pass() -> Pass {
    let call = KEPT.with_borrow(|kept| kept.as_ref().map(|kept| kept.call));
    (std::thread::current().id(), call)
}

/// Keeps a variable's gradient for [`backward`]; gives it back where that does not run.
pub(super) fn keep(variable: &Tensor, gradient: Tensor) -> Option<Tensor> {
    KEPT.with_borrow_mut(|kept| match kept {
        Some(kept) => {
            kept.gradients.push((variable.clone(), gradient));
            None
        }
        None => Some(gradient),
    })
}

/// Ends the keeping however [`backward`] is left, and gives it back to the call that this one is inside of, if any.
struct Guard(Option<Kept>);

impl Drop for Guard {
    fn drop(&mut self) {
        KEPT.set(self.0.take());
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
    let guard = Guard(KEPT.replace(Some(Kept {
        call: CALLS.fetch_add(1, Ordering::Relaxed),
        gradients: Vec::new(),
    })));
    let mut gradients = loss.backward()?;
    let kept = KEPT.take().map(|kept| kept.gradients);
    drop(guard);
    for (variable, gradient) in kept.unwrap_or_default() {
        let sum = match gradients.remove(&variable) {
            Some(other) => add(&other, &gradient)?,
            None => gradient,
        };
        gradients.insert(&variable, sum);
    }
    Ok(gradients)
}
