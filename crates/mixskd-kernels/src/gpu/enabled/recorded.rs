//! A result that has been computed already, put into candle's graph with the way back.

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage,
    Tensor, bail,
};
use mixskd_cuda::NULL;
use mixskd_cuda::loss::Gradient;

use super::memory::address;
use super::sum::Share;
use super::tape::{self, Back};

/// Gradients of the inputs from inputs, output and the output's gradient.
pub(super) type Backward =
    Box<dyn Fn(&[&Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync>;

/// The same from the parts that the output's gradient is the sum of, in their order.
pub(super) type Gathering =
    Box<dyn Fn(&[&Tensor], &Tensor, Vec<Share>) -> Result<Vec<Option<Tensor>>> + Send + Sync>;

/// The same of a loss, whose gradient may be a number that the host knows.
pub(super) type OfLoss =
    Box<dyn Fn(&[&Tensor], &Factor) -> Result<Vec<Option<Tensor>>> + Send + Sync>;

/// A loss's gradient: `number`, times `tensor`'s one where it is there.
pub(super) struct Factor {
    pub(super) tensor: Option<Tensor>,
    pub(super) number: f32,
}

impl Factor {
    /// As a kernel is given it.
    pub(super) fn gradient(&self) -> Result<Gradient> {
        Ok(Gradient {
            at: self.tensor.as_ref().map_or(Ok(NULL), address)?,
            factor: self.number,
        })
    }
}

struct Recorded {
    name: &'static str,
    /// Handed over to candle when it runs the operation, which it does once.
    storage: Mutex<Option<Storage>>,
    shape: Shape,
    backward: Backward,
}

/// The tensor of `storage`, a function of one to three `inputs`, or of any number while there is a [`tape`].
pub(super) fn record(
    name: &'static str,
    inputs: &[&Tensor],
    storage: Storage,
    shape: impl Into<Shape>,
    backward: impl Fn(&[&Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>>
    + Send
    + Sync
    + 'static,
) -> Result<Tensor> {
    let way = Back::Kernel(Box::new(backward));
    record_as(name, inputs, storage, shape, way)
}

/// The same with another way back.
pub(super) fn record_as(
    name: &'static str,
    inputs: &[&Tensor],
    storage: Storage,
    shape: impl Into<Shape>,
    way: Back,
) -> Result<Tensor> {
    let shape = shape.into();
    if tape::is_running() {
        return Ok(tape::note(name, inputs, storage, shape, way));
    }
    // candle's graph gives the output's gradient as one tensor.
    let backward: Backward = match way {
        Back::Kernel(backward) => backward,
        Back::Gathering(backward) => {
            Box::new(move |inputs, y, dy| backward(inputs, y, vec![Share::whole(dy.clone())]))
        }
        Back::OfLoss(backward) => Box::new(move |inputs, _, dy| {
            let (tensor, number) = (Some(dy.clone()), 1.0);
            backward(inputs, &Factor { tensor, number })
        }),
        Back::Weighted(weights) => Box::new(move |inputs, _, dy| weights.of_tensor(inputs, dy)),
    };
    let op = Recorded {
        name,
        storage: Mutex::new(Some(storage)),
        shape,
        backward,
    };
    match inputs {
        [a] => a.apply_op1(op),
        [a, b] => a.apply_op2(b, op),
        [a, b, c] => a.apply_op3(b, c, op),
        _ => bail!("{name}: {} inputs", inputs.len()),
    }
}

impl Recorded {
    fn hand_over(&self) -> Result<Storage> {
        let mut storage = self.storage.lock().unwrap_or_else(PoisonError::into_inner);
        match storage.take() {
            Some(storage) => Ok(storage),
            None => bail!("{}: run twice", self.name),
        }
    }

    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.hand_over()? {
            Storage::Cuda(storage) => Ok((storage, self.shape.clone())),
            _ => bail!("{}: its result is not on the GPU of its input", self.name),
        }
    }

    fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.hand_over()? {
            Storage::Cpu(storage) => Ok((storage, self.shape.clone())),
            _ => bail!("{}: its result is not on the processor", self.name),
        }
    }

    /// Gradients, as many as there are inputs.
    fn gradients<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        let gradients = (self.backward)(&inputs, y, &dy.contiguous()?)?;
        match gradients.try_into() {
            Ok(gradients) => Ok(gradients),
            Err(_) => bail!("{}: not a gradient for each input", self.name),
        }
    }
}

impl CustomOp1 for Recorded {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(&self, a: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let [da] = self.gradients([a], y, dy)?;
        Ok(da)
    }
}

impl CustomOp2 for Recorded {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [da, db] = self.gradients([a, b], y, dy)?;
        Ok((da, db))
    }
}

impl CustomOp3 for Recorded {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [da, db, dc] = self.gradients([a, b, c], y, dy)?;
        Ok((da, db, dc))
    }
}
