//! The update of stochastic gradient descent.

use std::cell::RefCell;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Storage, Tensor, Var};

use crate::par::{self, Shared};
use crate::simd::{Element, Kernel, Lanes};
use crate::storage::{self, by_dtype};
use crate::{Result, compose, gpu, shape};

/// Settings of one SGD update, PyTorch's semantics (`torch.optim.SGD`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// Learning rate of this step.
    pub lr: f64,
    /// Momentum factor.
    pub momentum: f64,
    /// Nesterov momentum.
    pub nesterov: bool,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
}

/// Updates one parameter in place: `g ← grad + wd·p; v ← momentum·v + g; p ← p − lr·(nesterov ? g + momentum·v : v)`.
///
/// `velocity` starts as zeros, which gives PyTorch's first step (`v = g`) exactly.
///
/// # Shapes
/// `param`, `grad` and `velocity` agree.
///
/// # Errors
/// When they do not.
pub fn sgd_step(param: &Var, grad: &Tensor, velocity: &Var, config: SgdConfig) -> Result<()> {
    shape::exactly("sgd_step", "gradient", grad, param.dims())?;
    shape::exactly("sgd_step", "velocity", velocity, param.dims())?;
    if gpu::sgd_step(param, grad, velocity, config)?.is_some() {
        return Ok(());
    }
    let contiguous = param.is_contiguous() && velocity.is_contiguous();
    let tensors: [&Tensor; 3] = [param, grad, velocity];
    if !contiguous || !storage::has_kernel(&tensors) || shares_storage(&tensors)? {
        return compose::sgd_step(param, grad, velocity, config);
    }
    let grad = grad.contiguous()?;
    velocity.inplace_op2(&grad, &Outer { param, config })?;
    Ok(())
}

/// Whether any two tensors have the same memory behind them.
fn shares_storage(tensors: &[&Tensor]) -> Result<bool> {
    let mut seen = vec![];
    for t in tensors {
        let (storage, _) = t.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            return Ok(false);
        };
        let start =
            by_dtype!(storage.dtype(), T => Ok(storage.as_slice::<T>()?.as_ptr() as usize))?;
        if seen.contains(&start) {
            return Ok(true);
        }
        seen.push(start);
    }
    Ok(false)
}

/// An in-place op of candle's changes one tensor, and a step changes two: the velocity's op runs the parameter's inside.
struct Outer<'a> {
    param: &'a Var,
    config: SgdConfig,
}

impl InplaceOp2 for Outer<'_> {
    fn name(&self) -> &'static str {
        "mixskd-sgd"
    }

    fn cpu_fwd(
        &self,
        velocity: &mut CpuStorage,
        layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> candle_core::Result<()> {
        self.param.inplace_op1(&Inner {
            velocity: RefCell::new((velocity, layout)),
            grad: (grad, grad_layout),
            config: self.config,
        })
    }
}

struct Inner<'a> {
    velocity: RefCell<(&'a mut CpuStorage, &'a Layout)>,
    grad: (&'a CpuStorage, &'a Layout),
    config: SgdConfig,
}

impl InplaceOp1 for Inner<'_> {
    fn name(&self) -> &'static str {
        "mixskd-sgd-parameter"
    }

    fn cpu_fwd(&self, param: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        by_dtype!(param.dtype(), T => {
            let mut velocity = self.velocity.borrow_mut();
            let (velocity, velocity_layout) = &mut *velocity;
            let grad = storage::slice::<T>(self.grad.0, self.grad.1)?;
            step(
                storage::slice_mut::<T>(param, layout)?,
                storage::slice_mut::<T>(velocity, velocity_layout)?,
                grad,
                self.config,
            );
            Ok(())
        })
    }
}

/// Elements of one task.
const BLOCK: usize = 1 << 15;

struct Step<'a, T> {
    param: *mut T,
    velocity: *mut T,
    grad: &'a [T],
    config: SgdConfig,
}

impl<T: Element> Kernel<T> for Step<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let c = self.config;
        let decay = lanes.splat(T::of(c.weight_decay));
        let momentum = lanes.splat(T::of(c.momentum));
        let down = lanes.splat(T::of(-c.lr));
        let len = self.grad.len();
        let mut at = 0;
        while at < len {
            let n = L::N.min(len - at);
            // SAFETY: the three arrays have `len` elements, and no other task has this part of them.
            unsafe {
                let p = lanes.load_part(self.param.add(at), n);
                let g = lanes.fma(decay, p, lanes.load_part(self.grad.as_ptr().add(at), n));
                let v = lanes.fma(momentum, lanes.load_part(self.velocity.add(at), n), g);
                let s = if c.nesterov {
                    lanes.fma(momentum, v, g)
                } else {
                    v
                };
                lanes.store_part(self.velocity.add(at), v, n);
                lanes.store_part(self.param.add(at), lanes.fma(down, s, p), n);
            }
            at += n;
        }
    }
}

fn step<T: Element>(param: &mut [T], velocity: &mut [T], grad: &[T], config: SgdConfig) {
    let len = grad.len();
    let (param, velocity) = (Shared::new(param), Shared::new(velocity));
    par::each(len.div_ceil(BLOCK), |block| {
        let part = block * BLOCK..((block + 1) * BLOCK).min(len);
        // SAFETY: blocks are disjoint parts of the arrays.
        let (param, velocity) = unsafe { (param.at(part.start), velocity.at(part.start)) };
        T::dispatch(Step {
            param,
            velocity,
            grad: &grad[part],
            config,
        });
    });
}
