//! The update of stochastic gradient descent.

use candle_core::{Tensor, Var};

use crate::{Result, compose, shape};

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
    compose::sgd_step(param, grad, velocity, config)
}
