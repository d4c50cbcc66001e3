//! The learning rate of every step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the learning rate falls after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Half a cosine wave from the base rate to zero (Loshchilov & Hutter 2017), over the steps after warm-up.
    Cosine,
    /// Multiplied by `gamma` at the start of every epoch named in `milestones`.
    MultiStep,
    /// The base rate throughout.
    Constant,
}

/// Settings of the learning-rate schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// `cosine`, `multi-step` or `constant`.
    pub kind: ScheduleKind,
    /// Epochs of linear warm-up, per step, from `lr / steps` to `lr`.
    pub warmup_epochs: usize,
    /// Epochs (counted from 0, warm-up included) at which `multi-step` multiplies by `gamma`.
    pub milestones: Vec<usize>,
    /// Factor of `multi-step` at each milestone.
    pub gamma: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Cosine,
            warmup_epochs: 1,
            milestones: vec![100, 150],
            gamma: 0.1,
        }
    }
}

impl ScheduleConfig {
    /// The schedule of a run of `epochs` epochs of `steps` steps each at base rate `lr`.
    ///
    /// # Errors
    /// When `lr` is not a finite number above 0, there is no epoch or no step, warm-up is longer than the run, or `gamma` is not in (0, 1].
    pub fn build(&self, lr: f64, epochs: usize, steps: usize) -> Result<Schedule> {
        if !(lr.is_finite() && lr > 0.0) {
            let message = format!("must be a finite number above 0, got {lr}");
            return Err(Error::config("optimizer.lr", message));
        }
        if epochs == 0 || steps == 0 {
            let message = format!("{epochs} epochs of {steps} steps are no run");
            return Err(Error::config("run.epochs", message));
        }
        if self.warmup_epochs > epochs {
            return Err(Error::Config {
                place: "schedule.warmup_epochs".into(),
                message: format!(
                    "{} epochs of warm-up do not fit a run of {epochs}",
                    self.warmup_epochs
                ),
                hint: Some(format!("--set schedule.warmup_epochs={}", epochs / 10)),
            });
        }
        if !(self.gamma > 0.0 && self.gamma <= 1.0) {
            return Err(Error::config(
                "schedule.gamma",
                format!("must be above 0 and at most 1, got {}", self.gamma),
            ));
        }
        Ok(Schedule {
            config: self.clone(),
            lr,
            epochs,
            steps,
        })
    }
}

/// A learning-rate schedule: a pure function of the step.
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    lr: f64,
    epochs: usize,
    steps: usize,
}

impl Schedule {
    /// The learning rate of step `step` (from 0) of epoch `epoch` (from 0); after the run's end that of its end.
    pub fn lr(&self, epoch: usize, step: usize) -> f64 {
        let done = epoch * self.steps + step;
        let warmup = self.config.warmup_epochs * self.steps;
        if done < warmup {
            return self.lr * (done + 1) as f64 / warmup as f64;
        }
        match self.config.kind {
            ScheduleKind::Constant => self.lr,
            ScheduleKind::Cosine => {
                let length = (self.epochs * self.steps).saturating_sub(warmup);
                if length == 0 {
                    return self.lr;
                }
                let progress = ((done - warmup) as f64 / length as f64).min(1.0);
                self.lr * 0.5 * (1.0 + (PI * progress).cos())
            }
            ScheduleKind::MultiStep => {
                let passed = self
                    .config
                    .milestones
                    .iter()
                    .filter(|&&m| epoch >= m)
                    .count();
                self.lr * self.config.gamma.powi(passed as i32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: ScheduleKind, warmup_epochs: usize, at: (usize, usize), expected: f64) {
        let config = ScheduleConfig {
            kind,
            warmup_epochs,
            milestones: vec![4, 6],
            gamma: 0.1,
        };
        let lr = config.build(0.1, 8, 10).unwrap().lr(at.0, at.1);
        assert!(
            (lr - expected).abs() < 1e-12,
            "{kind:?} at {at:?}: {lr}, expected {expected}"
        );
    }

    #[test]
    fn warmup_is_linear_per_step_and_ends_at_the_base_rate() {
        check(ScheduleKind::Cosine, 2, (0, 0), 0.005);
        check(ScheduleKind::Cosine, 2, (0, 9), 0.05);
        check(ScheduleKind::Cosine, 2, (1, 9), 0.1);
    }

    #[test]
    fn cosine_halves_at_the_middle_of_what_is_left() {
        check(ScheduleKind::Cosine, 2, (2, 0), 0.1);
        check(ScheduleKind::Cosine, 2, (5, 0), 0.05);
        check(ScheduleKind::Cosine, 0, (4, 0), 0.05);
    }

    #[test]
    fn after_its_end_cosine_stays_where_it_ended() {
        check(ScheduleKind::Cosine, 2, (8, 0), 0.0);
        check(ScheduleKind::Cosine, 2, (1000, 3), 0.0);
        check(ScheduleKind::Cosine, 8, (9, 3), 0.1);
    }

    #[test]
    fn what_is_no_run_has_no_schedule() {
        for (lr, epochs, steps) in [(0.1, 0, 1), (0.1, 1, 0), (f64::NAN, 1, 1), (-1.0, 1, 1)] {
            let config = ScheduleConfig {
                warmup_epochs: 0,
                ..Default::default()
            };
            assert!(config.build(lr, epochs, steps).is_err());
        }
    }

    #[test]
    fn multi_step_falls_at_each_milestone() {
        check(ScheduleKind::MultiStep, 1, (3, 9), 0.1);
        check(ScheduleKind::MultiStep, 1, (4, 0), 0.01);
        check(ScheduleKind::MultiStep, 1, (7, 9), 0.001);
    }

    #[test]
    fn warmup_longer_than_the_run_is_refused_with_a_hint() {
        let error = ScheduleConfig {
            warmup_epochs: 9,
            ..Default::default()
        }
        .build(0.1, 8, 10)
        .unwrap_err();
        assert!(error.is_usage());
        assert!(error.hint().unwrap().contains("schedule.warmup_epochs=0"));
    }
}
