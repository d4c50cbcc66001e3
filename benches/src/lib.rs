//! What the benches and the rows of the side-by-side table share: inputs, shapes, repetition.

use std::time::Instant;

use candle_core::{Device, Result, Tensor};
use mixskd_kernels::Conv2dConfig;

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Has mimalloc keep freed memory, as the program does: without it a bench of a kernel is one of the system's pages. To be called
/// first in `main`.
pub fn keep_freed_memory() {
    // SAFETY: an option of the allocator that may be set at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

/// Values that look random, in [−0.5, 0.5).
///
/// # Errors
/// candle's.
pub fn ramp(shape: &[usize]) -> Result<Tensor> {
    let len: usize = shape.iter().product();
    let data: Vec<f32> = (0..len)
        .map(|i| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5)
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// One convolution, padded so that stride 1 keeps the size.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Side of the input, in pixels.
    pub side: usize,
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Side of the window.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Groups.
    pub groups: usize,
}

impl ConvShape {
    /// The shape of `batch,side,in,out,kernel,stride,groups`; nothing where the text is not seven counts.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text
            .split(',')
            .map(|part| part.parse().ok())
            .collect::<Option<Vec<usize>>>()?;
        let [batch, side, input, output, kernel, stride, groups] = numbers[..] else {
            return None;
        };
        Some(Self {
            batch,
            side,
            input,
            output,
            kernel,
            stride,
            groups,
        })
    }

    /// Stride, padding and groups.
    pub fn config(&self) -> Conv2dConfig {
        Conv2dConfig {
            stride: self.stride,
            padding: self.kernel / 2,
            groups: self.groups,
            ..Conv2dConfig::default()
        }
    }

    /// Shape of the input.
    pub fn x(&self) -> [usize; 4] {
        [self.batch, self.side, self.side, self.input]
    }

    /// Shape of the weight.
    pub fn w(&self) -> [usize; 4] {
        [
            self.output,
            self.input / self.groups,
            self.kernel,
            self.kernel,
        ]
    }
}

/// Seconds of each of several calls of `work` after one that does not count: at least five calls, and for about
/// `budget` seconds.
///
/// # Errors
/// What `work` says.
pub fn repeat<E>(
    budget: f64,
    mut work: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<Vec<f64>, E> {
    work()?;
    let begin = Instant::now();
    let mut seconds = vec![];
    while seconds.len() < 5 || begin.elapsed().as_secs_f64() < budget {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

/// The middle value; of an even number, the upper of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
