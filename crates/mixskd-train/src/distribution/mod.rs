//! Several processes that train one network together.
//!
//! Each takes its own share of every epoch's batches; gradients are averaged before anything looks at them, so that every process takes the
//! same steps and holds the same network. The first process alone holds the run directory and evaluates. What the trainer needs of the others is
//! the trait [`Collective`]: nobody else there ([`alone`]), TCP through the first process ([`star`]), and NCCL between GPUs ([`nccl`]).
//!
//! No process leaves the others waiting. Whatever decides how the run goes on is either the same everywhere or agreed on in a round that all of
//! them take part in; an error in between is sent where the next message is waited for, and ends everybody.

mod alone;
mod config;
mod meeting;
mod nccl;
mod peer;
mod place;
mod reading;
mod run;
mod star;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use candle_core::{Device, Tensor, Var};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::gradients::Gradients;
use crate::{Control, Error, Result};
use alone::Alone;
use meeting::Meeting;
use star::Star;

pub use config::DistributionConfig;
pub use place::Place;

/// What the processes of a run do together. Each call is a round: all of them make it, in the same order.
pub(crate) trait Collective {
    /// Everybody's bytes, by rank.
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Puts the mean over all processes in place of every gradient, and the first process's values into `buffers`. Names and shapes are the
    /// same everywhere; results are the same bits everywhere.
    fn average(&self, gradients: &mut Gradients, buffers: &[(String, Var)]) -> Result<()>;

    /// An error if another process has ended. No round: it waits for nobody.
    #[cfg_attr(
        not(feature = "nccl"),
        allow(dead_code, reason = "asked while a GPU is waited for")
    )]
    fn check(&self) -> Result<()>;

    /// Tells the others that this process ends with `error`.
    fn farewell(&self, error: &Error);
}

/// The processes of a run.
pub(crate) struct Group {
    place: Place,
    collective: Box<dyn Collective>,
    /// What the method remembered when all processes last agreed on it.
    memory: BTreeMap<String, Tensor>,
}

/// What is asked of a run from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// To write a checkpoint.
    pub(crate) checkpoint: bool,
    /// To stop.
    pub(crate) stop: bool,
    /// To keep what there is: a process will not get its next batch.
    pub(crate) keep: bool,
}

impl Group {
    /// The process at `place`, which has not met the others yet.
    pub(crate) fn apart(place: Place) -> Self {
        Self {
            place,
            collective: Box::new(Alone),
            memory: BTreeMap::new(),
        }
    }

    /// Tells the others, who have not been met, that this process will not come.
    pub(crate) fn decline(&self, config: &DistributionConfig, cause: &str) {
        if self.place.world > 1 {
            Meeting::decline(&self.place, cause, config.patience());
        }
    }

    /// Meets the others, with whom `description` has to agree line by line.
    pub(crate) fn meet(
        &mut self,
        config: &DistributionConfig,
        description: &str,
        device: &Device,
        control: &Control,
    ) -> Result<()> {
        let timeout = Duration::from_secs_f64(config.timeout_s);
        let Place { rank, world, .. } = self.place;
        let link: Box<dyn Collective> = if world == 1 {
            Box::new(Alone)
        } else {
            let meeting = Meeting {
                place: &self.place,
                description,
                timeout,
                patience: config.patience(),
                control,
            };
            let peers = meeting.hold()?;
            Box::new(Star::new(rank, world, peers, timeout))
        };
        self.collective = link;
        // Everybody is there once everybody has been heard.
        self.collective.gather(&[]).map_err(|error| match error {
            Error::Peer { rank, message, .. } => Error::absent(rank, message),
            other => other,
        })?;
        let link = std::mem::replace(&mut self.collective, Box::new(Alone));
        self.collective = nccl::over(link, &self.place, device, timeout)?;
        Ok(())
    }

    /// Whether there is nobody to agree with.
    pub(crate) fn is_alone(&self) -> bool {
        self.place.world == 1
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Everybody's `own`, by rank.
    pub(crate) fn gather<T: Serialize + DeserializeOwned>(&self, own: &T) -> Result<Vec<T>> {
        let bytes = serde_json::to_vec(own).map_err(|e| unsaid(&e))?;
        let all = self.collective.gather(&bytes)?;
        let values = all.iter().map(|part| serde_json::from_slice(part));
        values
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| unsaid(&e))
    }

    /// What `make` gives in the first process; the others do not call it.
    pub(crate) fn firsts<T: Serialize + DeserializeOwned>(
        &self,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.place.world == 1 {
            return make();
        }
        // A list rather than an option: what is made may be one itself.
        let own = if self.place.is_first() {
            vec![make()?]
        } else {
            Vec::new()
        };
        let first = self.gather(&own)?.into_iter().flatten().next();
        first.ok_or_else(|| Error::peer(0, "sent nothing"))
    }

    /// The same of bytes.
    pub(crate) fn first_bytes(&self, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let own = if self.place.is_first() {
            make()?
        } else {
            Vec::new()
        };
        let first = self.collective.gather(&own)?.into_iter().next();
        first.ok_or_else(|| Error::peer(0, "sent nothing"))
    }

    /// What any of them was asked for.
    pub(crate) fn wishes(&self, own: Wishes) -> Result<Wishes> {
        let Wishes {
            checkpoint,
            stop,
            keep,
        } = own;
        let own = [checkpoint, stop, keep].map(u8::from);
        let all = self.collective.gather(&own)?;
        let any = |at: usize| all.iter().any(|wishes| wishes.get(at) == Some(&1));
        Ok(Wishes {
            checkpoint: any(0),
            stop: any(1),
            keep: any(2),
        })
    }

    /// See [`Collective::average`].
    pub(crate) fn average(
        &self,
        gradients: &mut Gradients,
        buffers: &[(String, Var)],
    ) -> Result<()> {
        self.collective.average(gradients, buffers)
    }

    /// The last round is over.
    pub(crate) fn leave(&mut self) {
        self.collective = Box::new(Alone);
    }

    /// Tells the others that this process ends with `error`.
    pub(crate) fn farewell(&self, error: &Error) {
        self.collective.farewell(error);
    }
}

fn unsaid(error: &serde_json::Error) -> Error {
    Error::Distribution {
        message: format!("a message between the processes makes no sense: {error}"),
        hint: "start the same program on every rank".into(),
    }
}
