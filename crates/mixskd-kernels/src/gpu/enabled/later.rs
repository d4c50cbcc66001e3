//! Small work of every layer, put off and done for all layers at once: a launch has its price, however little it does.
//!
//! While a [tape](super::tape) is there, weights may be brought into the convolutions' order beforehand, whose gradients are then given when the way
//! back has been gone, and running statistics are moved when the step goes back or somebody reads some.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, TensorId};
use mixskd_cuda::convolution::Convolution;
use mixskd_cuda::norm::{self, Running};
use mixskd_cuda::update::{self, Turn};
use mixskd_cuda::{Element, Place};

use super::lanes;
use super::memory::{Gpu, address, failed};

/// What is put off. Tensors are held until the launch that reads them.
#[derive(Default)]
struct Work {
    running: Vec<(Arc<Gpu>, Running, [Tensor; 4])>,
    gradients: Vec<Gradient>,
    is_going_back: bool,
    /// Gradients of weights that are made beside the first lane, oldest first.
    beside: VecDeque<Beside>,
    /// Weights in the convolutions' order, by their parameters.
    weights: HashMap<TensorId, Tensor>,
}

thread_local! {
    static WORK: RefCell<Option<Work>> = const { RefCell::new(None) };
}

fn with<T: Default>(act: impl FnOnce(&mut Work) -> T) -> T {
    WORK.with_borrow_mut(|work| work.as_mut().map(act).unwrap_or_default())
}

/// From here on work is put off. False where it was before.
pub(super) fn begin() -> bool {
    WORK.with_borrow_mut(|work| {
        let anew = work.is_none();
        work.get_or_insert_default();
        anew
    })
}

/// Does what was put off; nothing is any more.
pub(super) fn end() -> Result<()> {
    let done = flush();
    WORK.set(None);
    done
}

/// How many gradients of weights are made beside the rest: each keeps the maps that it is made of.
const BESIDE: usize = 2;
/// Elements of maps, at most, whose convolutions leave part of a GPU idle: those of larger ones are in each other's way.
const SMALL: usize = 1 << 22;

/// A weight's gradient in the convolutions' order.
struct Gradient {
    gpu: Arc<Gpu>,
    /// Type of the maps.
    kind: Element,
    /// Output channels, input channels of a group, height · width of the window.
    sizes: [usize; 3],
    turned: Tensor,
    weight: Tensor,
}

/// What is being made beside the rest: its gradient's input, output's gradient and memory are held until it was waited for.
struct Beside {
    gpu: Arc<Gpu>,
    /// Its end; none where it was done in turn.
    end: Option<Place>,
    _held: [Tensor; 3],
}

/// Whether the gradient of `weight` may be given when the way back has been gone: it is a parameter, of those that were brought into the
/// convolutions' order beforehand.
pub(super) fn may_be_put_off(weight: &Tensor) -> bool {
    with(|work| work.is_going_back && work.weights.contains_key(&weight.id()))
}

/// Makes a weight's gradient `turned` out of `x` and `dy`, beside the rest where that helps. It is given by [`gradients`]: until then it has no memory
/// in the parameter's order.
pub(super) fn put_off(
    gpu: &Arc<Gpu>,
    c: Convolution,
    sizes: [usize; 3],
    [x, dy, turned, weight]: [&Tensor; 4],
) -> Result<()> {
    let (from, by, to) = (address(x)?, address(dy)?, address(turned)?);
    let mut oldest = None;
    // Other lanes run beside each other as it is.
    if dy.elem_count() > SMALL || lanes::current() > 0 {
        // SAFETY: the arrays have the convolution's sizes.
        unsafe { gpu.convolutions.filter_gradient(c, from, by, to) }.map_err(failed)?;
    } else {
        // SAFETY: as above; they are held until it was waited for.
        let end = unsafe { gpu.convolutions.filter_gradient_beside(c, from, by, to) };
        let begun = Beside {
            gpu: gpu.clone(),
            end: end.map_err(failed)?,
            _held: [x, dy, turned].map(Tensor::clone),
        };
        oldest = with(|work| {
            work.beside.push_back(begun);
            let due = work.beside.len() > BESIDE;
            due.then(|| work.beside.pop_front()).flatten()
        });
    }
    let gradient = Gradient {
        gpu: gpu.clone(),
        kind: c.element,
        sizes,
        turned: turned.clone(),
        weight: weight.clone(),
    };
    with(|work| work.gradients.push(gradient));
    oldest.map_or(Ok(()), Beside::wait)
}

/// Forgets the gradients of a way back that was not gone to its end.
pub(super) fn forget_gradients() {
    with(|work| work.gradients.clear());
}

/// Gradients that were put off.
pub(super) struct PutOff {
    /// As convolutions made them.
    pub(super) as_made: HashMap<TensorId, Tensor>,
    /// Weights, each with one in the parameter's order.
    pub(super) others: Vec<(Tensor, Tensor)>,
}

/// The gradients that were put off, those of weights that have just one and that `may_stay` says so of as they were made.
pub(super) fn gradients(may_stay: impl Fn(&Tensor) -> bool) -> Result<PutOff> {
    flush()?;
    let all = with(|work| std::mem::take(&mut work.gradients));
    let mut times = HashMap::new();
    for own in &all {
        *times.entry(own.weight.id()).or_insert(0) += 1;
    }
    let stays = |own: &Gradient| {
        let is_alike = |work: &mut Work| {
            let weight = work.weights.get(&own.weight.id());
            weight.is_some_and(|weight| weight.dtype() == own.turned.dtype())
        };
        times[&own.weight.id()] == 1 && may_stay(&own.weight) && with(is_alike)
    };
    let (stay, all): (Vec<_>, Vec<_>) = all.into_iter().partition(stays);
    let as_made = stay.into_iter().map(|own| {
        let [out, input, taps] = own.sizes;
        Ok((own.weight.id(), own.turned.reshape((out, taps, input))?))
    });
    let as_made = as_made.collect::<Result<_>>()?;
    let mut others = Vec::with_capacity(all.len());
    for some in all.chunk_by(|a, b| Arc::ptr_eq(&a.gpu, &b.gpu) && a.kind == b.kind) {
        let mut turns = Vec::with_capacity(some.len());
        for own in some {
            let dw = own.gpu.empty(DType::F32, own.weight.shape())?;
            let [out, input, taps] = own.sizes;
            turns.push(Turn {
                out,
                input,
                taps,
                from: address(&own.turned)?,
                to: address(&dw)?,
            });
            others.push((own.weight.clone(), dw));
        }
        // SAFETY: whoever put it off gave arrays of its sizes.
        unsafe { update::taps_last(some[0].gpu.engine(), some[0].kind, &turns) }.map_err(failed)?;
    }
    Ok(PutOff { as_made, others })
}

impl Beside {
    /// Has the current lane wait for it.
    fn wait(self) -> Result<()> {
        let waited = self.end.as_ref().map(|end| self.gpu.lanes.wait(end));
        waited.transpose().map_err(failed)?;
        Ok(())
    }
}

/// Has the current lane wait for all that is made beside the first.
pub(super) fn wait_beside() -> Result<()> {
    // All of it, also where one cannot be waited for: what they are made of is given back afterwards.
    let beside = with(|work| std::mem::take(&mut work.beside));
    let waited: Vec<_> = beside.into_iter().map(Beside::wait).collect();
    waited.into_iter().collect()
}

/// Does what was put off so far.
pub(super) fn flush() -> Result<()> {
    let is_due = |work: &mut Work| !work.running.is_empty() || !work.beside.is_empty();
    if !with(is_due) {
        return Ok(());
    }
    // What came of any lane.
    lanes::in_first(|| {
        wait_beside()?;
        let running = with(|work| std::mem::take(&mut work.running));
        for some in running.chunk_by(|a, b| Arc::ptr_eq(&a.0, &b.0)) {
            let layers: Vec<_> = some.iter().map(|(_, layer, _)| *layer).collect();
            // SAFETY: whoever put it off gave arrays of its channels, and none is there twice.
            unsafe { norm::advance(some[0].0.engine(), &layers) }.map_err(failed)?;
        }
        Ok(())
    })
}

/// Moves running statistics, now or later; `held` are the batch's and those that are moved.
pub(super) fn advance(gpu: &Arc<Gpu>, layer: Running, held: &[Tensor; 4]) -> Result<()> {
    let is_same = |other: &Running| other.running[0] == layer.running[0];
    // A layer that is met twice moves twice, one after the other.
    if with(|work| work.running.iter().any(|(_, other, _)| is_same(other))) {
        flush()?;
    }
    let put_off = WORK.with_borrow_mut(|work| match work {
        Some(work) => {
            work.running.push((gpu.clone(), layer, held.clone()));
            true
        }
        None => false,
    });
    if put_off {
        return Ok(());
    }
    // SAFETY: the arrays have a float for each channel.
    unsafe { norm::advance(gpu.engine(), &[layer]) }.map_err(failed)
}

/// Calls `back`, whose gradients of weights may be given later.
pub(super) fn going_back<T>(back: impl FnOnce() -> T) -> T {
    struct Until;
    impl Drop for Until {
        fn drop(&mut self) {
            with(|work| work.is_going_back = false);
        }
    }
    with(|work| work.is_going_back = true);
    let _until = Until;
    back()
}

/// The weight in the convolutions' order and maps' type, if it was brought there.
pub(super) fn turned(weight: &Tensor, dtype: DType) -> Option<Tensor> {
    let found = with(|work| work.weights.get(&weight.id()).cloned());
    found.filter(|turned| turned.dtype() == dtype)
}

/// Takes weights in the convolutions' order, by their parameters. What is changed afterwards is not seen.
pub(super) fn take(weights: &HashMap<TensorId, Tensor>) {
    with(|work| {
        let own = weights.iter().map(|(&id, turned)| (id, turned.clone()));
        work.weights.extend(own);
    });
}
