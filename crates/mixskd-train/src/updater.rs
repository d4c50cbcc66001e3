//! What turns gradients into weights: gathering, clipping, the optimiser, the moving average.

use candle_core::Var;

use crate::average::Average;
use crate::gradients::{Accumulator, Gradients};
use crate::optimizer::Sgd;
use crate::{OptimizerConfig, Result};

/// Everything that turns gradients into weights.
pub(crate) struct Updater {
    pub(crate) optimizer: Sgd,
    /// The moving average of the weights, where one is kept.
    pub(crate) average: Option<Average>,
    accumulator: Accumulator,
    accumulate: usize,
    clip_norm: f64,
}

impl Updater {
    pub(crate) fn new(config: &OptimizerConfig, optimizer: Sgd) -> Self {
        Self {
            optimizer,
            average: (config.ema_decay > 0.0).then(|| Average::new(config.ema_decay)),
            accumulator: Accumulator::default(),
            accumulate: config.accumulate,
            clip_norm: config.clip_norm,
        }
    }

    /// Whether an update is a function of one batch's gradients alone, with nothing for the host to look at in between.
    pub(crate) fn is_direct(&self) -> bool {
        self.accumulate == 1 && self.clip_norm == 0.0
    }

    /// Keeps a batch's gradients for the update to come.
    pub(crate) fn gather(&mut self, gradients: Gradients) -> Result<()> {
        self.accumulator.add(gradients)
    }

    /// Forgets gradients that are gathered for an update to come.
    pub(crate) fn forget_gathered(&mut self) {
        self.accumulator = Accumulator::default();
    }

    /// One step of the optimiser with the gradients gathered so far; nothing where there are none.
    pub(crate) fn update(&mut self, parameters: &[(String, Var)], lr: f64) -> Result<()> {
        let Some(gradients) = self.accumulator.take(self.clip_norm)? else {
            return Ok(());
        };
        self.optimizer.update(&gradients, lr)?;
        self.follow(parameters)
    }

    /// Has the moving average follow an update, where there is one.
    pub(crate) fn follow(&mut self, parameters: &[(String, Var)]) -> Result<()> {
        if let Some(average) = &mut self.average {
            average.update(parameters)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn accumulation_clipping_and_average_are_pytorchs() {
        let data = include_bytes!("../tests/golden/optimizer.safetensors");
        let file = candle_core::safetensors::load_buffer(data, &Device::Cpu).unwrap();
        let of = |prefix: &str| -> BTreeMap<String, Tensor> {
            let named = file.iter().filter_map(|(name, tensor)| {
                Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
            });
            named.collect()
        };
        let parameters: Vec<_> = of("initial/")
            .into_iter()
            .map(|(name, tensor)| (name, candle_core::Var::from_tensor(&tensor).unwrap()))
            .collect();
        let config = OptimizerConfig {
            lr: 0.1,
            clip_norm: 0.75,
            accumulate: 2,
            ema_decay: 0.8,
            ..OptimizerConfig::default()
        };
        let mut updater = Updater::new(
            &config,
            config.build_with(parameters.clone(), |_| 1.0).unwrap(),
        );
        for batch in 0..6 {
            let gradients = of(&format!("gradient{batch}/"));
            updater.gather(gradients).unwrap();
            if batch % 2 == 1 {
                updater.update(&parameters, config.lr).unwrap();
            }
        }
        let check = |got: &Tensor, expected: &Tensor, what: &str| {
            let difference = (got - expected).unwrap().flatten_all().unwrap();
            for difference in difference.to_vec1::<f32>().unwrap() {
                assert!(difference.abs() < 1e-6, "{what}: {difference}");
            }
        };
        let average = updater.average.unwrap().state();
        for (name, parameter) in &parameters {
            check(parameter, &file[&format!("after/{name}")], name);
            check(&average[name], &file[&format!("average/{name}")], name);
        }
    }
}
