//! The way back from kernel to kernel, past candle's graph.
//!
//! candle's `backward()` makes zeros for every tensor's gradient and adds to them: two launches and four passes over a map that no
//! arithmetic needs. While a tape is there, a kernel's output is a variable to candle, at which its graph ends, and what made it is a
//! node here. Nodes are gone through from the last to the first, which is an order that suits them; where candle's own operations lie between
//! two, candle goes back through them, once all that reads them has been gone through:
//!
//! ```text
//! node ─▶ output = candle's variable ─▶ candle's operations = expression ─▶ node
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;

use candle_core::backprop::GradStore;
use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Shape, Storage, Tensor, TensorId, bail};

use super::lanes::{self, Origin, WayBack};
use super::later;
use super::memory::{Gpu, tensor};
use super::recorded::{Backward, Factor, Gathering, OfLoss, record};
use super::sum::{Share, Weights, sum};
use super::weights::StepGradients;

/// What a kernel did.
struct Node {
    name: &'static str,
    inputs: Vec<Tensor>,
    output: Tensor,
    way: Back,
    /// The lane that it was made in.
    lane: usize,
    /// What has been delivered so far, to be added up when the node's turn comes.
    gradient: Vec<Share>,
    /// Where from.
    origins: Vec<Origin>,
    /// What the host knows of a scalar's gradient, beside the rest: it is nobody's to wait for.
    number: Option<f32>,
}

/// How a node goes back.
pub(super) enum Back {
    Kernel(Backward),
    /// The gradient is added up on the way.
    Gathering(Gathering),
    /// The output is a loss.
    OfLoss(OfLoss),
    /// It is a sum of such.
    Weighted(Weights),
}

#[derive(Default)]
struct Notes {
    nodes: Vec<Node>,
    /// Of each node's output.
    places: HashMap<TensorId, usize>,
    /// Views, each with what it is of, and its first element there.
    views: HashMap<TensorId, (Tensor, usize)>,
    /// How many nodes there were when lanes were joined.
    joins: Vec<usize>,
}

thread_local! {
    static NOTES: RefCell<Option<Notes>> = const { RefCell::new(None) };
}

/// Whether this thread's kernels are noted.
pub(super) fn is_running() -> bool {
    NOTES.with_borrow(Option::is_some)
}

/// Notes that `view` is candle's view of `whole` from element `first` on: what kernels owe it they owe `whole`.
pub(super) fn note_view(view: &Tensor, whole: &Tensor, first: usize) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            // A view of a view is one of what that is of.
            let (whole, first) = match notes.views.get(&whole.id()) {
                Some((root, before)) => (root.clone(), before + first),
                None => (whole.clone(), first),
            };
            notes.views.insert(view.id(), (whole, first));
        }
    });
}

/// The tensor of `storage`, which a kernel made of `inputs`.
pub(super) fn note(
    name: &'static str,
    inputs: &[&Tensor],
    storage: Storage,
    shape: Shape,
    way: Back,
) -> Tensor {
    if !inputs.iter().any(|t| t.track_op()) {
        return tensor(storage, shape);
    }
    let output = Tensor::from_storage(storage, shape, BackpropOp::none(), true);
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            notes.places.insert(output.id(), notes.nodes.len());
            notes.nodes.push(Node {
                name,
                inputs: inputs.iter().map(|&t| t.clone()).collect(),
                output: output.clone(),
                way,
                lane: lanes::current(),
                gradient: Vec::new(),
                origins: Vec::new(),
                number: None,
            });
        }
    });
    output
}

/// Nodes so far.
pub(super) fn len() -> usize {
    NOTES.with_borrow(|notes| notes.as_ref().map_or(0, |notes| notes.nodes.len()))
}

/// Notes that the first lane has waited for the others.
pub(super) fn joined() {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            notes.joins.push(notes.nodes.len());
        }
    });
}

/// Takes down what the kernels of this thread do as long as it is there, for [`Tape::backward`].
#[must_use = "nothing is noted any more once it is dropped"]
pub struct Tape {
    /// Of the tape that this one is inside of.
    outer: Option<Notes>,
    /// It is the one with which work began to be put off.
    first: bool,
    /// It is of one thread.
    thread: PhantomData<*const ()>,
}

impl Tape {
    /// Begins.
    pub fn start() -> Self {
        Self {
            outer: NOTES.replace(Some(Notes::default())),
            first: later::begin(),
            thread: PhantomData,
        }
    }

    /// The gradients of `loss`, as [`crate::backward`] gives them.
    ///
    /// # Errors
    /// When an op in the graph has no gradient, or a launch fails.
    pub fn backward(self, loss: &Tensor) -> crate::Result<GradStore> {
        Ok(go_back(loss, false)?.1)
    }

    /// The same, those of weights that the step [uses](Self::use_weights) as convolutions make them where nothing has to be added to them: an update
    /// that takes them so is spared two passes over all weights.
    ///
    /// # Errors
    /// As there.
    pub fn backward_as_made(self, loss: &Tensor) -> crate::Result<StepGradients> {
        let (as_made, others) = go_back(loss, true)?;
        Ok(StepGradients::new(as_made, others))
    }
}

/// Goes back from `loss` along what this thread has noted.
fn go_back(loss: &Tensor, as_made: bool) -> crate::Result<Gradients> {
    // Nothing is noted on the way back; an outer tape goes on when the one that ends is dropped.
    let gradients = match NOTES.take() {
        Some(notes) if !notes.nodes.is_empty() => {
            let gone = Way::new(notes).back(loss, as_made);
            if gone.is_err() {
                later::forget_gradients();
            }
            gone?
        }
        _ => (HashMap::new(), crate::backward(loss)?),
    };
    later::flush()?;
    lanes::end_aside()?;
    Ok(gradients)
}

impl Drop for Tape {
    fn drop(&mut self) {
        NOTES.set(self.outer.take());
        if self.first {
            lanes::close();
            // What cannot be launched now could not have been before.
            let _ = later::end();
        }
    }
}

/// Gradients as convolutions made them, by their weights, and all others.
type Gradients = (HashMap<TensorId, Tensor>, GradStore);

/// A result of candle's operations that kernels read.
struct Expression {
    result: Tensor,
    gradient: Tensor,
    /// Who delivered.
    origins: Vec<Origin>,
    /// The last node that it was made of: when that one's turn comes, all that reads the result has had its own.
    made_of: Option<usize>,
}

/// One going back.
struct Way {
    nodes: Vec<Node>,
    places: HashMap<TensorId, usize>,
    views: HashMap<TensorId, (Tensor, usize)>,
    pending: HashMap<TensorId, Expression>,
    /// In the order of their coming, which is always the same.
    order: Vec<TensorId>,
    gradients: GradStore,
    /// Who made those so far.
    makers: HashMap<TensorId, usize>,
    joins: Vec<usize>,
    lanes: WayBack,
}

impl Way {
    fn new(notes: Notes) -> Self {
        Self {
            nodes: notes.nodes,
            places: notes.places,
            views: notes.views,
            pending: HashMap::new(),
            order: Vec::new(),
            gradients: GradStore::default(),
            makers: HashMap::new(),
            joins: notes.joins,
            lanes: WayBack::default(),
        }
    }

    fn back(mut self, loss: &Tensor, as_made: bool) -> candle_core::Result<Gradients> {
        if self.places.contains_key(&loss.id()) && loss.elem_count() == 1 {
            self.deliver_number(loss, 1.0)?;
        } else {
            self.through_candle(loss)?;
        }
        while let Some(last) = self.nodes.len().checked_sub(1) {
            if self.joins.pop_if(|join| *join > last).is_some() {
                self.lanes.fork()?;
            }
            self.flush(Some(last))?;
            let Some(node) = self.nodes.pop() else { break };
            // All that reads its output has had its turn: views of it keep its memory no longer.
            self.views
                .retain(|_, (whole, _)| whole.id() != node.output.id());
            if node.gradient.is_empty() && node.number.is_none() {
                let held = node.inputs.into_iter().chain([node.output]);
                WayBack::bury(node.lane, held, node.way);
                continue;
            }
            self.lanes.go(node.lane, &node.origins)?;
            WayBack::hold(self.of_other_lanes(&node));
            let shape = node.output.shape();
            let inputs: Vec<_> = node.inputs.iter().collect();
            let y = node.output.detach();
            let gradients = match &node.way {
                Back::Kernel(backward) => {
                    let dy = sum(node.gradient, shape)?.contiguous()?;
                    later::going_back(|| backward(&inputs, &y, &dy))?
                }
                Back::Gathering(backward) => {
                    later::going_back(|| backward(&inputs, &y, node.gradient))?
                }
                Back::OfLoss(backward) => {
                    let dy = factor(node.gradient, node.number, shape, y.device())?;
                    later::going_back(|| backward(&inputs, &dy))?
                }
                Back::Weighted(weights) => {
                    let dy = factor(node.gradient, node.number, shape, y.device())?;
                    self.through_sum(weights, &inputs, &dy)?
                }
            };
            if gradients.len() != inputs.len() {
                bail!("{}: not a gradient for each input", node.name);
            }
            WayBack::keep(node.way);
            for (input, gradient) in node.inputs.iter().zip(gradients) {
                if let (true, Some(gradient)) = (input.track_op(), gradient) {
                    self.deliver(input, Share::whole(gradient))?;
                }
            }
        }
        WayBack::end()?;
        self.flush(None)?;
        let may_stay = |weight: &Tensor| as_made && self.gradients.get(weight).is_none();
        let put_off = later::gradients(may_stay)?;
        for (weight, gradient) in put_off.others {
            self.deliver(&weight, Share::whole(gradient))?;
        }
        if !self.pending.is_empty() {
            bail!("gradients came after their kernels' turn");
        }
        Ok((put_off.as_made, self.gradients))
    }

    /// What `node` uses that its lane did not make since it began: parameters are there in any case.
    fn of_other_lanes<'a>(&self, node: &'a Node) -> impl Iterator<Item = &'a Tensor> {
        let made_here = move |t: &Tensor| {
            let maker = self.places.get(&t.id()).and_then(|&at| self.nodes.get(at));
            t.is_variable() && maker.is_none() || maker.is_some_and(|m| m.lane == node.lane)
        };
        let inputs = node.inputs.iter().filter(move |t| !made_here(t));
        let shares = node.gradient.iter().zip(&node.origins);
        let gradients = shares.filter(|(_, from)| self.lanes.is_of_others(**from, node.lane));
        inputs.chain(gradients.map(|(share, _)| &share.x))
    }

    /// The gradients of scalars that were added up; those that the host knows are delivered.
    fn through_sum(
        &mut self,
        weights: &Weights,
        inputs: &[&Tensor],
        dy: &Factor,
    ) -> candle_core::Result<Vec<Option<Tensor>>> {
        if let Some(dy) = &dy.tensor {
            return weights.of_tensor(inputs, dy);
        }
        for (input, number) in inputs.iter().zip(weights.of_number(dy.number)) {
            if input.track_op() {
                self.deliver_number(input, number)?;
            }
        }
        Ok(vec![None; inputs.len()])
    }

    /// [`Self::deliver`] for a scalar whose gradient the host knows.
    fn deliver_number(&mut self, input: &Tensor, number: f32) -> candle_core::Result<()> {
        let node = self.places.get(&input.id());
        if let Some(node) = node.and_then(|&at| self.nodes.get_mut(at))
            && matches!(node.way, Back::OfLoss(_) | Back::Weighted(_))
        {
            node.number = Some(node.number.map_or(number, |before| before + number));
            return Ok(());
        }
        let number = Tensor::full(number, input.shape(), input.device())?;
        self.deliver(input, Share::whole(number.to_dtype(input.dtype())?))
    }

    fn deliver(&mut self, input: &Tensor, mut share: Share) -> candle_core::Result<()> {
        let id = input.id();
        if let Some((whole, first)) = self.views.get(&id) {
            share.first += first;
            return self.deliver(&whole.clone(), share);
        }
        share.x = share.x.detach();
        let origin = WayBack::origin();
        if let Some(&at) = self.places.get(&id) {
            let Some(node) = self.nodes.get_mut(at) else {
                bail!("a gradient came after its kernel's turn");
            };
            node.gradient.push(share);
            node.origins.push(origin);
        } else if input.is_variable() {
            let before = self.gradients.remove(input).map(Share::whole);
            let all = before.into_iter().chain([share]).collect();
            let add = || sum(all, input.shape());
            let (sum, maker) = match self.makers.get(&id) {
                Some(&other) if other != origin.lane => (lanes::in_first(add)?, 0),
                _ => (add()?, origin.lane),
            };
            self.gradients.insert(input, sum);
            self.makers.insert(id, maker);
        } else if let Some(expression) = self.pending.get_mut(&id) {
            let both = vec![Share::whole(expression.gradient.clone()), share];
            expression.origins.push(origin);
            expression.gradient = match expression.origins.first() {
                Some(first) if first.lane == origin.lane => sum(both, input.shape())?,
                _ => lanes::in_first(|| sum(both, input.shape()))?,
            };
        } else {
            let nodes = input.sorted_nodes();
            let made_of = nodes.iter().filter_map(|t| self.places.get(&t.id()));
            let expression = Expression {
                result: input.clone(),
                gradient: sum(vec![share], input.shape())?,
                origins: vec![origin],
                made_of: made_of.copied().max(),
            };
            self.pending.insert(id, expression);
            self.order.push(id);
        }
        Ok(())
    }

    /// Goes back through the expressions whose last node this is.
    fn flush(&mut self, made_of: Option<usize>) -> candle_core::Result<()> {
        let is_due = |id: &TensorId| self.pending.get(id).is_some_and(|e| e.made_of == made_of);
        let (due, later): (Vec<_>, Vec<_>) = self.order.iter().copied().partition(is_due);
        self.order = later;
        if due.is_empty() {
            return Ok(());
        }
        let origins = due.iter().flat_map(|id| &self.pending[id].origins);
        self.lanes.go(0, &origins.copied().collect::<Vec<_>>())?;
        let mut root: Option<Tensor> = None;
        for expression in due.iter().filter_map(|id| self.pending.remove(id)) {
            root = Some(seed(expression, root.as_ref())?);
        }
        root.map_or(Ok(()), |root| self.through_candle(&root))
    }

    /// Has candle go back from `root`, and takes what it brings.
    fn through_candle(&mut self, root: &Tensor) -> candle_core::Result<()> {
        if let Some(gpu) = Gpu::of(root.device())? {
            gpu.multiply_here()?;
        }
        let mut found = crate::backward(root).map_err(candle_core::Error::wrap)?;
        for end in root.sorted_nodes() {
            if let Some(gradient) = found.remove(end) {
                self.deliver(end, Share::whole(gradient))?;
            }
        }
        Ok(())
    }
}

/// A loss's gradient of all that came of it: what tensors hold, and what the host knows.
fn factor(
    mut shares: Vec<Share>,
    number: Option<f32>,
    shape: &Shape,
    device: &Device,
) -> candle_core::Result<Factor> {
    if shares.is_empty() {
        let number = number.unwrap_or_default();
        return Ok(Factor {
            tensor: None,
            number,
        });
    }
    if let Some(number) = number {
        shares.push(Share::whole(Tensor::full(number, shape, device)?));
    }
    Ok(Factor {
        tensor: Some(sum(shares, shape)?.contiguous()?),
        number: 1.0,
    })
}

/// A scalar that owes its expression the gradient, and `other` what it is owed itself.
fn seed(expression: Expression, other: Option<&Tensor>) -> candle_core::Result<Tensor> {
    let Expression {
        result, gradient, ..
    } = expression;
    let Some(gpu) = Gpu::of(result.device())? else {
        bail!("a kernel's input is not on the GPU");
    };
    let storage = gpu.storage(DType::F32, 1)?;
    let inputs: Vec<_> = std::iter::once(&result).chain(other).collect();
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let owed = std::iter::once(gradient.clone()).chain(std::iter::once(dy.clone()));
        Ok(owed.take(inputs.len()).map(Some).collect())
    };
    record("mixskd-seed", &inputs, storage, (), backward)
}
