//! Gradients that go from kernel to kernel.
//!
//! candle's `backward()` makes zeros for every tensor's gradient, then adds each part to them: passes over every feature map, on one
//! thread, that no arithmetic needs. Kernels of this crate hand theirs over directly. In candle's graph an op's output hangs on a
//! *token* of one element, and tokens are what ops are connected by; each has an [`Inbox`] to which the ops that read the output
//! deliver what they owe it. candle still decides the order, and whoever uses an output in an op of candle's own notices nothing:
//!
//! ```text
//! x ─ token(x) ─ join ─ token(y) ─ y      candle's graph: Enter or the kernel that made x, Join, Step, Expose
//!      inbox ◀────────── inbox ◀─ dy      where the gradients go
//! ```

mod apply;
mod collect;
mod inbox;
mod registry;
mod tokens;

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, Shape, Tensor};

pub(crate) use apply::{apply1, apply2, apply3};
pub use collect::backward;
use inbox::Inbox;
use tokens::{Enter, Expose, Join, Step};

/// What an op does going back.
pub(crate) trait Differentiable: Send + Sync {
    /// For messages.
    fn name(&self) -> &'static str;

    /// The gradients of the inputs, in their order, where the op has any to give; `y` is the output, `dy` its gradient.
    fn gradients(&self, y: &Tensor, dy: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>>;
}

/// The output `(data, shape)` of an op with these inputs, as a tensor of candle's that knows where it came from.
pub(crate) fn record(
    inputs: &[&Tensor],
    op: impl Differentiable + 'static,
    (data, shape): (CpuStorage, Shape),
) -> candle_core::Result<Tensor> {
    let mut targets: Vec<Option<Arc<Inbox>>> = vec![None; inputs.len()];
    let mut token: Option<Tensor> = None;
    // The first input, the map, is joined last: candle walks from op to op by recursion, and this way is the shortest.
    for (input, target) in inputs.iter().zip(&mut targets).rev() {
        if !input.track_op() {
            continue;
        }
        let (inbox, its) = match registry::find(input.id()) {
            Some(entry) => (entry.inbox, entry.token),
            None => Enter::token(input)?,
        };
        *target = Some(inbox);
        token = Some(match token {
            Some(token) => its.apply_op2(&token, Join)?,
            None => its,
        });
    }
    let inbox = Arc::new(Inbox::default());
    let Some(token) = token else {
        let blank = Tensor::zeros(1, candle_core::DType::U8, &candle_core::Device::Cpu)?;
        return blank.apply_op1_no_bwd(&Expose::new(data, shape, inbox));
    };
    let output = Arc::new(OnceLock::new());
    let step = Step {
        op: Box::new(op),
        inbox: inbox.clone(),
        targets,
        output: output.clone(),
    };
    let token = token.apply_op1(step)?;
    let expose = Expose::new(data, shape, inbox.clone());
    let id = expose.id.clone();
    let y = token.apply_op1(expose)?;
    // Without its graph, which would otherwise hold itself.
    let _ = output.set(y.detach());
    let _ = id.set(y.id());
    registry::add(y.id(), registry::Entry { token, inbox });
    Ok(y)
}
