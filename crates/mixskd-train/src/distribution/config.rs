//! Whether a run is one of several processes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Meeting, Place};
use crate::{Error, Result};

/// Settings of a run that several processes share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistributionConfig {
    /// Train as one of the processes that a launcher started, see `docs/distributed.md`. Without it the launcher's variables are
    /// not looked at.
    pub enabled: bool,
    /// Processes the run is made for; 0 takes as many as there are. A run's own `config.toml` says how many it was begun with, and it goes on
    /// with no other number.
    pub processes: usize,
    /// Seconds to wait for a process that does not appear, or gives no sign of life any more.
    pub timeout_s: f64,
}

impl Default for DistributionConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            processes: 0,
            timeout_s: 300.0,
        }
    }
}

impl DistributionConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// Naming the key and the range.
    pub fn validate(&self) -> Result<()> {
        if !(1.0..=86_400.0).contains(&self.timeout_s) {
            return Err(Error::config(
                "distribution.timeout_s",
                format!("must be from 1 to 86400, got {}", self.timeout_s),
            ));
        }
        Ok(())
    }

    /// Which of the processes this one is, by the launcher's variables; the only one where the run is not distributed.
    ///
    /// # Errors
    /// When the variables are not there, contradict each other, or speak of another number of processes than `processes`.
    pub fn place(&self) -> Result<Place> {
        if !self.enabled {
            return Ok(Place::alone());
        }
        let place = Place::from_variables(|name| std::env::var(name).ok())?;
        self.check(&place)?;
        Ok(place)
    }

    /// The place of the first of the processes the run is made for, whatever the launcher's variables say: for work that one process does
    /// on the run's behalf.
    pub fn first_place(&self) -> Place {
        let world = if self.enabled {
            self.processes.max(1)
        } else {
            1
        };
        Place {
            world,
            ..Place::alone()
        }
    }

    /// For a process that fails before it has met the others ([`Trainer::run`](crate::Trainer::run)): tells them so and why, so that they end
    /// too, and do not wait for it for `timeout_s`. It waits for those that have not come yet, though for 15 s at most. Does nothing where the
    /// run is not distributed.
    pub fn decline(&self, cause: &str) {
        if let Ok(place) = self.place()
            && place.world > 1
        {
            Meeting::decline(&place, cause, self.patience());
        }
    }

    /// How long a process that ends stays for those that have not come yet.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_s.clamp(1.0, 15.0))
    }

    /// Whether a run made for `processes` may have this place.
    pub(crate) fn check(&self, place: &Place) -> Result<()> {
        let (wanted, world) = (self.processes, place.world);
        if !self.enabled && world > 1 {
            return Err(Error::Config {
                place: "distribution.enabled".into(),
                message: format!("the run is not distributed, and there are {world} processes"),
                hint: Some("set it to true".into()),
            });
        }
        if self.enabled && wanted != 0 && wanted != world {
            return Err(Error::Config {
                place: "distribution.processes".into(),
                message: format!("the run is made for {wanted}, and there are {world}"),
                hint: Some(format!("start {wanted} processes")),
            });
        }
        Ok(())
    }
}
