//! The trainer as one process of several: how it begins, and what all have to hold in common.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::{Group, Place};
use crate::checkpoint::Checkpoint;
use crate::method::TrainBatch;
use crate::trainer::Trainer;
use crate::{Observer, Result};

impl Trainer {
    /// Which of the run's processes this is.
    pub fn place(&self) -> &Place {
        self.group.place()
    }

    /// Meets the other processes and takes up the state of the first: whatever it begins with or has resumed.
    pub(crate) fn meet(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if !self.config.distribution.enabled {
            return Ok(());
        }
        let description = self.description()?;
        let place = self.place();
        if place.world > 1 {
            observer.notice(&format!(
                "rank {} of {} processes meets the others at {}",
                place.rank,
                place.world,
                place.address()
            ));
        }
        let config = &self.config.distribution;
        self.group
            .meet(config, &description, &self.device, &self.control)?;
        if self.place().world == 1 {
            return Ok(());
        }
        let method = self.method().state()?;
        let origin = Path::new("the state of rank 0");
        let state = self
            .group
            .first_bytes(|| self.checkpoint(method)?.to_bytes(origin))?;
        let state = Checkpoint::from_bytes(&state, origin, &self.device)?;
        self.group.memory = state.method.clone();
        if !self.place().is_first() {
            self.take_up(state)?;
        }
        Ok(())
    }

    /// What has to be the same for all processes, a line each.
    fn description(&self) -> Result<String> {
        let data = self.identity();
        // On a GPU the host's instructions change no bit.
        let device = if self.device.is_cpu() {
            let set = mixskd_kernels::instruction_set();
            format!("CPU\ninstruction set: {set}")
        } else {
            "GPU".into()
        };
        Ok(format!(
            "version: {}\ndevice: {device}\nclasses: {}\nimages: {}\npixels: {}\n{}",
            env!("CARGO_PKG_VERSION"),
            data.names,
            data.images,
            data.pixels.as_deref().unwrap_or("files"),
            self.config.to_toml()?
        ))
    }

    /// What the method remembers, with what every process has changed since they last agreed on it; from then on all remember that.
    pub(crate) fn method_state(&mut self) -> Result<BTreeMap<String, Tensor>> {
        let own = self.method().state()?;
        if own.is_empty() || self.place().world == 1 {
            return Ok(own);
        }
        let merged = self.group.merge(&own)?;
        self.learner.remember(&merged)?;
        self.group.memory.clone_from(&merged);
        Ok(merged)
    }

    /// [`Learner::locate`](crate::learner::Learner::locate) of every process's batch: the first that finds anything.
    pub(crate) fn locate_anywhere(&self, batch: &TrainBatch) -> Result<Option<String>> {
        let own = self.learner.locate(batch)?;
        if self.place().world == 1 {
            return Ok(own);
        }
        let found = self.group.gather(&own)?.into_iter().enumerate();
        let mut named =
            found.filter_map(|(rank, layer)| Some(format!("{} on rank {rank}", layer?)));
        Ok(named.next())
    }
}

impl Group {
    /// `own` with the changes of all: a value that differs from what was last agreed on takes the place of one that does not. Processes
    /// see images of their own in an epoch, so that they do not change the same values.
    fn merge(&self, own: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        let mut merged = BTreeMap::new();
        for (name, tensor) in own {
            let mut values = floats(tensor)?;
            let before = match self.memory.get(name) {
                Some(before) => floats(before)?,
                None => vec![0.0; values.len()],
            };
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            for part in self.collective.gather(&bytes)? {
                let theirs = part.chunks_exact(4).map(super::star::float);
                for ((value, before), theirs) in values.iter_mut().zip(&before).zip(theirs) {
                    if theirs.to_bits() != before.to_bits() {
                        *value = theirs;
                    }
                }
            }
            let tensor = Tensor::from_vec(values, tensor.dims(), &Device::Cpu)?;
            merged.insert(name.clone(), tensor);
        }
        Ok(merged)
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}
