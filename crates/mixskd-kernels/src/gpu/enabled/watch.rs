//! How long a GPU takes for each kernel.

use std::sync::Arc;

use candle_core::Device;
use mixskd_cuda::Stream;

use super::device;
use super::memory::failed;
use crate::Result;
use crate::gpu::GpuSpan;

/// Microseconds in which the host gets ahead of the GPU.
const HEAD_START: u32 = 20_000;

/// Notes every kernel of this project and every convolution that a GPU is given. candle's own kernels are what lies between them. The times of a
/// captured graph are the GPU's; of what is launched kernel by kernel they hold the host's time too, once the GPU has caught up with it.
#[derive(Debug)]
pub struct GpuWatch(Arc<Stream>);

impl GpuWatch {
    /// Begins; `None` where `device` is no GPU. Of two at a time the later has what both would have noted.
    ///
    /// # Errors
    /// When the GPU cannot be opened.
    pub fn start(device: &Device) -> Result<Option<Self>> {
        let Device::Cuda(device) = device else {
            return Ok(None);
        };
        let stream = device::stream(device)?;
        let watch = Self(stream);
        watch.0.watch().start();
        // What is launched kernel by kernel lies ready when the GPU comes to it, as far as the driver's queue holds it.
        watch.0.delay(HEAD_START).map_err(failed)?;
        Ok(Some(watch))
    }

    /// Notes nothing more. What was captured goes on telling how long its last launch took.
    pub fn stop(&self) {
        self.0.watch().stop();
    }

    /// Waits for the GPU and reads.
    ///
    /// # Errors
    /// The driver's: among others that what was captured has not been launched.
    pub fn spans(&self) -> Result<Vec<GpuSpan>> {
        let spans = self.0.watch().spans().map_err(failed)?;
        let spans = spans.into_iter().map(|span| GpuSpan {
            what: span.what,
            begin_ms: span.begin_ms,
            ms: span.ms,
        });
        Ok(spans.collect())
    }
}

impl Drop for GpuWatch {
    fn drop(&mut self) {
        self.stop();
    }
}
