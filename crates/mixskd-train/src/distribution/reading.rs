//! What all processes make of a step's losses.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Group;
use crate::gradients::Gradients;
use crate::metrics::StepReading;
use crate::step::Broken;
use crate::{Error, Result};

/// One process's step, numbers as their bits: JSON knows no NaN.
#[derive(Serialize, Deserialize)]
struct Said {
    loss: u64,
    hits: u64,
    samples: usize,
    terms: Vec<u64>,
    broken: Option<(String, Option<String>, u64)>,
    /// Of the names of terms and gradients, and the gradients' shapes.
    names: u64,
}

impl Group {
    /// Puts the mean over all processes in place of the losses, the sum in place of the counts, and gives what is not finite in the first
    /// process, by rank, where anything is. `gradients` are those that are about to be averaged.
    pub(crate) fn agree(
        &self,
        reading: &mut StepReading,
        broken: Option<Broken>,
        gradients: &Gradients,
    ) -> Result<Option<Broken>> {
        if self.place.world == 1 {
            return Ok(broken);
        }
        let all = self.gather(&Said {
            loss: reading.loss.to_bits(),
            hits: reading.hits.to_bits(),
            samples: reading.samples,
            terms: reading.terms.iter().map(|(_, v)| v.to_bits()).collect(),
            broken: broken.map(|b| (b.term, b.layer, b.value.to_bits())),
            names: fingerprint(reading, gradients),
        })?;
        let world = all.len() as f64;
        if let Some((term, layer, value)) = all.iter().find_map(|said| said.broken.clone()) {
            let value = f64::from_bits(value);
            return Ok(Some(Broken { term, layer, value }));
        }
        if let Some(rank) = all.iter().position(|said| said.names != all[0].names) {
            return Err(Error::peer(
                rank,
                "has a loss of other terms or parameters than rank 0 in the same step",
            ));
        }
        let sum = |of: &dyn Fn(&Said) -> u64| -> f64 {
            all.iter().map(|said| f64::from_bits(of(said))).sum()
        };
        reading.loss = sum(&|said| said.loss) / world;
        reading.hits = sum(&|said| said.hits);
        reading.samples = all.iter().map(|said| said.samples).sum();
        for (k, (_, value)) in reading.terms.iter_mut().enumerate() {
            *value = sum(&|said| said.terms.get(k).copied().unwrap_or_default()) / world;
        }
        Ok(None)
    }
}

fn fingerprint(reading: &StepReading, gradients: &Gradients) -> u64 {
    let mut hash = Sha256::new();
    for (name, _) in &reading.terms {
        hash.update(format!("{name}\n"));
    }
    for (name, gradient) in gradients {
        hash.update(format!("{name} {:?}\n", gradient.dims()));
    }
    let digest = hash.finalize();
    digest[..8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
