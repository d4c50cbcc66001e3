//! Stochastic gradient descent over a network's parameters.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use mixskd_kernels::{
    ConvWeights, ParameterUpdate, SgdConfig, StepGradients, has_gpu_kernels, sgd_step, sgd_steps,
};
use serde::{Deserialize, Serialize};

use crate::gradients::Gradients;
use crate::{Error, Result};

/// Settings of the optimiser, PyTorch's `torch.optim.SGD` semantics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Base learning rate per step, at the configured batch.
    pub lr: f64,
    /// Momentum factor, in [0, 1).
    pub momentum: f64,
    /// Nesterov momentum.
    pub nesterov: bool,
    /// L2 penalty added to every parameter's gradient, biases and batch norm included.
    pub weight_decay: f64,
    /// Greatest L2 norm of all gradients together, as `torch.nn.utils.clip_grad_norm_` cuts it; 0 for no limit.
    pub clip_norm: f64,
    /// Batches whose gradients are averaged for one update. The last update of an epoch takes what is left.
    pub accumulate: usize,
    /// Decay d of an exponential moving average of the weights, `ā ← d·ā + (1−d)·w` after each update; with it evaluation and the
    /// weights file take the average. 0 for none.
    pub ema_decay: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            lr: 0.05,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 5e-4,
            clip_norm: 0.0,
            accumulate: 1,
            ema_decay: 0.0,
        }
    }
}

impl OptimizerConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// Naming the key and the range.
    pub fn validate(&self) -> Result<()> {
        let range = |key: &str, value: f64, ok: bool, wanted: &str| {
            if ok {
                Ok(())
            } else {
                Err(Error::config(
                    format!("optimizer.{key}"),
                    format!("must be {wanted}, got {value}"),
                ))
            }
        };
        range(
            "lr",
            self.lr,
            self.lr.is_finite() && self.lr > 0.0,
            "a finite number above 0",
        )?;
        range(
            "momentum",
            self.momentum,
            (0.0..1.0).contains(&self.momentum),
            "in [0, 1)",
        )?;
        range(
            "weight_decay",
            self.weight_decay,
            self.weight_decay.is_finite() && self.weight_decay >= 0.0,
            "at least 0",
        )?;
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::config(
                "optimizer.nesterov",
                "needs a momentum above 0",
            ));
        }
        range(
            "clip_norm",
            self.clip_norm,
            self.clip_norm.is_finite() && self.clip_norm >= 0.0,
            "at least 0",
        )?;
        range(
            "ema_decay",
            self.ema_decay,
            (0.0..1.0).contains(&self.ema_decay),
            "in [0, 1)",
        )?;
        range(
            "accumulate",
            self.accumulate as f64,
            self.accumulate >= 1,
            "at least 1",
        )
    }

    /// The optimiser of `parameters`, with velocities of zero. The learning rate is given to each step; `lr` is the schedule's.
    ///
    /// # Errors
    /// When a setting is out of range, two parameters have one name, or `clip_norm`, `accumulate` or `ema_decay` is set, which are the
    /// [`Trainer`](crate::Trainer)'s work and not the optimiser's.
    pub fn build(&self, parameters: Vec<(String, Var)>) -> Result<Sgd> {
        let set = [
            ("clip_norm", self.clip_norm != 0.0),
            ("accumulate", self.accumulate > 1),
            ("ema_decay", self.ema_decay != 0.0),
        ];
        if let Some((key, _)) = set.iter().find(|(_, set)| *set) {
            return Err(Error::Config {
                place: format!("optimizer.{key}"),
                message: "is done by the trainer, and not by the optimiser alone".into(),
                hint: Some("leave it out, and do it around `Sgd::step`".into()),
            });
        }
        self.build_with(parameters, |_| 1.0)
    }

    /// The same for a trainer, the parameter called `name` learning at `factor(name)` times the learning rate.
    ///
    /// # Errors
    /// When a setting is out of range, or two parameters have one name.
    pub(crate) fn build_with(
        &self,
        parameters: Vec<(String, Var)>,
        factor: impl Fn(&str) -> f64,
    ) -> Result<Sgd> {
        self.validate()?;
        let mut slots = BTreeMap::new();
        for (name, parameter) in parameters {
            let velocity = Var::zeros(parameter.shape(), parameter.dtype(), parameter.device())?;
            let slot = Slot {
                parameter,
                velocity,
                factor: factor(&name),
            };
            if slots.insert(name.clone(), slot).is_some() {
                return Err(Error::Config {
                    place: "parameters".into(),
                    message: format!("two of them are called `{name}`"),
                    hint: Some("put another prefix before those of each network".into()),
                });
            }
        }
        Ok(Sgd {
            config: self.clone(),
            slots,
        })
    }
}

struct Slot {
    parameter: Var,
    velocity: Var,
    /// Of the learning rate.
    factor: f64,
}

impl Slot {
    fn update<'a>(
        &'a self,
        gradient: &'a Tensor,
        turned: Option<&'a Tensor>,
    ) -> ParameterUpdate<'a> {
        ParameterUpdate {
            parameter: &self.parameter,
            gradient,
            velocity: &self.velocity,
            factor: self.factor,
            turned,
        }
    }
}

/// SGD with momentum; holds one velocity per parameter.
pub struct Sgd {
    config: OptimizerConfig,
    slots: BTreeMap<String, Slot>,
}

impl Sgd {
    /// One update of every parameter that has a gradient, at learning rate `lr` times the parameter's factor.
    ///
    /// A parameter the loss does not reach is left alone, decay included, as PyTorch does.
    ///
    /// # Errors
    /// When a gradient's shape does not fit its parameter, or `lr` is not finite.
    pub fn step(&mut self, gradients: &GradStore, lr: f64) -> Result<()> {
        if !lr.is_finite() {
            let message = format!("must be finite, got {lr}");
            return Err(Error::config("optimizer.lr", message));
        }
        self.update(&self.gradients(gradients), lr)
    }

    /// Every parameter.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.slots.values().map(|slot| slot.parameter.as_tensor())
    }

    /// The gradients of the parameters that the loss reached, by name.
    pub(crate) fn gradients(&self, gradients: &GradStore) -> Gradients {
        let reached = self.slots.iter().filter_map(|(name, slot)| {
            let gradient = gradients.get(&slot.parameter)?;
            Some((name.clone(), gradient.clone()))
        });
        reached.collect()
    }

    /// [`Self::step`] with gradients by name.
    pub(crate) fn update(&mut self, gradients: &Gradients, lr: f64) -> Result<()> {
        let config = |factor: f64| SgdConfig {
            lr: lr * factor,
            momentum: self.config.momentum,
            nesterov: self.config.nesterov,
            weight_decay: self.config.weight_decay,
        };
        let rate = |slot: &Slot| Tensor::new(&[lr as f32], slot.parameter.device());
        if let Some(slot) = self.slots.values().next()
            && has_gpu_kernels(slot.parameter.device())
        {
            let updates = gradients.iter().filter_map(|(name, gradient)| {
                let slot = self.slots.get(name)?;
                Some(slot.update(gradient, None))
            });
            if self.update_on_gpu(&updates.collect::<Vec<_>>(), &rate(slot)?, None)? {
                return Ok(());
            }
        }
        for (name, slot) in &self.slots {
            if let Some(gradient) = gradients.get(name) {
                let config = config(slot.factor);
                sgd_step(&slot.parameter, gradient, &slot.velocity, config)?;
            }
        }
        Ok(())
    }

    /// The updates of the parameters that the loss reached, in name order, those of convolutions with what is kept beside them.
    pub(crate) fn updates<'a>(
        &'a self,
        gradients: &'a StepGradients,
        weights: &'a ConvWeights,
    ) -> Vec<ParameterUpdate<'a>> {
        let reached = self.slots.values().filter_map(|slot| {
            let gradient = gradients.get(&slot.parameter)?;
            Some(slot.update(gradient, weights.get(&slot.parameter)))
        });
        reached.collect()
    }

    /// One update on a GPU, in few launches, at the learning rate `rate` (`[1]`) and only where `verdict` ([`mixskd_kernels::judge`]) is
    /// good. Whether the GPU has kernels for it.
    pub(crate) fn update_on_gpu(
        &self,
        updates: &[ParameterUpdate],
        rate: &Tensor,
        verdict: Option<&Tensor>,
    ) -> Result<bool> {
        let config = SgdConfig {
            lr: 0.0,
            momentum: self.config.momentum,
            nesterov: self.config.nesterov,
            weight_decay: self.config.weight_decay,
        };
        Ok(sgd_steps(updates, rate, verdict, config)?.is_some())
    }

    /// The velocities by parameter name, for a checkpoint.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        self.slots
            .iter()
            .map(|(name, slot)| (name.clone(), slot.velocity.as_detached_tensor()))
            .collect()
    }

    /// Takes velocities back from a checkpoint.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, slot) in &self.slots {
            let stored = state.get(name).ok_or_else(|| Error::Checkpoint {
                path: "the checkpoint".into(),
                message: format!("has no velocity for {name}"),
            })?;
            slot.velocity.set(stored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn parameter(name: &str) -> (String, Var) {
        let zeros = Var::zeros(2, DType::F32, &Device::Cpu).unwrap();
        (name.into(), zeros)
    }

    #[test]
    fn what_the_optimiser_alone_does_not_do_is_refused() {
        type Set = fn(&mut OptimizerConfig);
        let set: [(Set, &str); 3] = [
            (|c| c.clip_norm = 1.0, "clip_norm"),
            (|c| c.accumulate = 2, "accumulate"),
            (|c| c.ema_decay = 0.9, "ema_decay"),
        ];
        for (set, key) in set {
            let mut config = OptimizerConfig::default();
            set(&mut config);
            let error = config.build(vec![parameter("w")]).err().unwrap();
            assert!(error.to_string().starts_with(&format!("optimizer.{key}: ")));
            assert!(config.build_with(vec![parameter("w")], |_| 1.0).is_ok());
        }
        assert!(
            OptimizerConfig::default()
                .build(vec![parameter("w")])
                .is_ok()
        );
    }

    #[test]
    fn two_parameters_of_one_name_are_refused() {
        let two = vec![parameter("fc.weight"), parameter("fc.weight")];
        let error = OptimizerConfig::default().build(two).err().unwrap();
        assert!(
            error
                .to_string()
                .contains("two of them are called `fc.weight`")
        );
    }

    #[test]
    fn a_rate_that_is_no_number_changes_no_weight() {
        let (name, weight) = parameter("w");
        let mut sgd = OptimizerConfig::default()
            .build(vec![(name, weight.clone())])
            .unwrap();
        let gradients = weight.sum_all().unwrap().backward().unwrap();
        assert!(sgd.step(&gradients, f64::NAN).is_err());
        assert_eq!(weight.to_vec1::<f32>().unwrap(), [0.0, 0.0]);
        sgd.step(&gradients, 0.5).unwrap();
        assert!(weight.to_vec1::<f32>().unwrap().iter().all(|w| *w < 0.0));
    }
}
