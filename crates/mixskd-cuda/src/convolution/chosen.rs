//! Which algorithm computes which convolution, in a form that outlives the process.

#[cfg(any(feature = "cuda", feature = "emulator"))]
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Convolution;

/// One of a convolution's three passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// Input and weight to the output.
    Forward,
    /// The output's gradient to the input's.
    Data,
    /// The output's gradient to the weight's.
    Filter,
}

/// The algorithm of one pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Which pass.
    pub pass: Pass,
    /// Of which convolution.
    pub convolution: Convolution,
    /// By which the library finds the same way again.
    pub algorithm: u32,
}

/// Algorithms of all convolutions that have been run. Timed anew, others may win, whose sums are rounded otherwise: a run that is to go
/// on with the same bits takes them along.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    /// GPU and version of the library, whose numbers they are.
    pub made_on: String,
    /// In the order of their convolutions.
    pub chosen: Vec<Chosen>,
}

/// Numbers of algorithms, by what they compute.
#[cfg(any(feature = "cuda", feature = "emulator"))]
pub(super) type Numbers = BTreeMap<(Pass, Convolution), u32>;

#[cfg(any(feature = "cuda", feature = "emulator"))]
impl Choices {
    pub(super) fn of(made_on: &str, numbers: &Numbers) -> Self {
        let chosen = numbers.iter();
        Self {
            made_on: made_on.into(),
            chosen: chosen
                .map(|(&(pass, convolution), &algorithm)| Chosen {
                    pass,
                    convolution,
                    algorithm,
                })
                .collect(),
        }
    }

    pub(super) fn numbers(&self) -> Numbers {
        let chosen = self.chosen.iter();
        chosen
            .map(|c| ((c.pass, c.convolution), c.algorithm))
            .collect()
    }
}
