//! A build with NCCL.

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, Var};
use mixskd_kernels::nccl::{Communicator, Id, new_id};

use crate::distribution::{Collective, Place};
use crate::gradients::Gradients;
use crate::{Error, Result};

/// Tensors meet between the GPUs; everything else goes over the link by which the processes found each other.
struct Nccl {
    communicator: Communicator,
    link: Box<dyn Collective>,
    timeout: Duration,
}

/// NCCL where the network is on a GPU, with its id handed round over `link`; `link` itself where it is not.
pub(in crate::distribution) fn over(
    link: Box<dyn Collective>,
    place: &Place,
    device: &Device,
    timeout: Duration,
) -> Result<Box<dyn Collective>> {
    if device.is_cpu() {
        return Ok(link);
    }
    let own = if place.is_first() {
        new_id()?.bytes().to_vec()
    } else {
        Vec::new()
    };
    let all = link.gather(&own)?;
    let id = all.first().and_then(|id| id.as_slice().try_into().ok());
    let Some(id) = id.map(Id::from_bytes) else {
        return Err(Error::peer(0, "sent no id for NCCL"));
    };
    let mut watch = Watch::new(link.as_ref(), timeout);
    let joined = Communicator::new(device, place.rank, place.world, &id, &mut || watch.go_on());
    let communicator = watch.explain(joined)?;
    Ok(Box::new(Nccl {
        communicator,
        link,
        timeout,
    }))
}

impl Collective for Nccl {
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.link.gather(own)
    }

    fn average(&self, gradients: &mut Gradients, buffers: &[(String, Var)]) -> Result<()> {
        let own: Vec<Tensor> = gradients.values().cloned().collect();
        let copies: Vec<Var> = buffers.iter().map(|(_, var)| var.clone()).collect();
        let mut watch = Watch::new(self.link.as_ref(), self.timeout);
        let means = self
            .communicator
            .average(&own, &copies, &mut || watch.go_on());
        for (gradient, mean) in gradients.values_mut().zip(watch.explain(means)?) {
            *gradient = mean;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        self.link.check()
    }

    fn farewell(&self, error: &Error) {
        self.link.farewell(error);
    }
}

/// Looks after the other processes while the GPU waits for theirs.
struct Watch<'a> {
    link: &'a dyn Collective,
    until: Instant,
    timeout: Duration,
    ended: Option<Error>,
}

impl<'a> Watch<'a> {
    fn new(link: &'a dyn Collective, timeout: Duration) -> Self {
        Self {
            link,
            until: Instant::now() + timeout,
            timeout,
            ended: None,
        }
    }

    fn go_on(&mut self) -> bool {
        if let Err(error) = self.link.check() {
            self.ended = Some(error);
        } else if Instant::now() > self.until {
            self.ended = Some(Error::Distribution {
                message: format!(
                    "the GPUs have not come together within {} s",
                    self.timeout.as_secs_f64()
                ),
                hint: "NCCL_DEBUG=INFO makes NCCL say what it waits for".into(),
            });
        }
        self.ended.is_none()
    }

    /// What ended the wait, where that is why it failed.
    fn explain<T>(&mut self, result: mixskd_kernels::Result<T>) -> Result<T> {
        match (result, self.ended.take()) {
            (Err(_), Some(ended)) => Err(ended),
            (result, _) => Ok(result?),
        }
    }
}
