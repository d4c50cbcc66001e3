//! Activations beside the ReLU that batch norm applies itself.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use crate::par::{self, Shared};
use crate::record;
use crate::simd::{Element, Kernel, Lanes};
use crate::storage::{self, by_dtype};
use crate::{Result, compose, gpu};

/// Values a task handles; a constant, so that tasks do not depend on the number of threads.
const BLOCK: usize = 1 << 14;

/// `max(x, 0)`.
///
/// # Shapes
/// any; the result has the input's
///
/// # Errors
/// candle's.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    apply(x, Kind::Relu)
}

/// `x · σ(x)` with `σ(x) = 1 / (1 + e⁻ˣ)` (SiLU, also called swish).
///
/// # Shapes
/// any; the result has the input's
///
/// # Errors
/// candle's.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    apply(x, Kind::Silu)
}

/// `min(max(x, 0), 6)`. The gradient is zero at and beyond both ends.
///
/// # Shapes
/// any; the result has the input's
///
/// # Errors
/// candle's.
pub fn relu6(x: &Tensor) -> Result<Tensor> {
    apply(x, Kind::Relu6)
}

/// `σ(x) = 1 / (1 + e⁻ˣ)`.
///
/// # Shapes
/// any; the result has the input's
///
/// # Errors
/// candle's.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    apply(x, Kind::Sigmoid)
}

/// The hyperbolic tangent.
///
/// # Shapes
/// any; the result has the input's
///
/// # Errors
/// candle's.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    apply(x, Kind::Tanh)
}

fn apply(x: &Tensor, kind: Kind) -> Result<Tensor> {
    if let Some(y) = gpu::activate(x, kind)? {
        return Ok(y);
    }
    let vectors = storage::has_kernel(&[x]);
    let own = |op| Ok(record::apply1(&x.contiguous()?, op)?);
    match kind {
        Kind::Silu if vectors => own(Vectors::Silu),
        Kind::Relu6 if vectors => own(Vectors::Relu6),
        Kind::Silu => compose::silu(x),
        Kind::Relu6 => compose::relu6(x),
        Kind::Relu => Ok(x.relu()?),
        Kind::Sigmoid => compose::sigmoid(x),
        Kind::Tanh => Ok(x.tanh()?),
    }
}

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Relu,
    Relu6,
    Silu,
    Sigmoid,
    Tanh,
}

/// Those that the CPU has vector code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vectors {
    Silu,
    Relu6,
}

/// What the activations need of an element, written so that a loop over it becomes vector code.
trait Real: Element {
    fn silu(self) -> Self;
    fn silu_slope(self) -> Self;
    fn relu6(self) -> Self;
    fn relu6_slope(self) -> Self;
    fn times(self, other: Self) -> Self;
}

/// eˣ to 2 units in the last place for −87 ≤ x ≤ 88 and held constant outside; NaN stays NaN. The argument is split into
/// n·ln 2 + r; adding 1.5·2²³ rounds to the integer n and leaves it in the low bits.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with few enough bits that its product with n is exact.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let series = [
        1.987_569_1e-4,
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let mut p = series[0];
    for &c in &series[1..] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    let power = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127);
    p * f32::from_bits(power << 23)
}

impl Real for f32 {
    #[inline(always)]
    fn silu(self) -> Self {
        self / (1.0 + exp(-self))
    }

    #[inline(always)]
    fn silu_slope(self) -> Self {
        let s = 1.0 / (1.0 + exp(-self));
        s * (1.0 + self * (1.0 - s))
    }

    #[inline(always)]
    fn relu6(self) -> Self {
        self.clamp(0.0, 6.0)
    }

    #[inline(always)]
    fn relu6_slope(self) -> Self {
        if self > 0.0 && self < 6.0 { 1.0 } else { 0.0 }
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self * other
    }
}

impl Real for f64 {
    #[inline(always)]
    fn silu(self) -> Self {
        self / (1.0 + (-self).exp())
    }

    #[inline(always)]
    fn silu_slope(self) -> Self {
        let s = 1.0 / (1.0 + (-self).exp());
        s * (1.0 + self * (1.0 - s))
    }

    #[inline(always)]
    fn relu6(self) -> Self {
        self.clamp(0.0, 6.0)
    }

    #[inline(always)]
    fn relu6_slope(self) -> Self {
        if self > 0.0 && self < 6.0 { 1.0 } else { 0.0 }
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self * other
    }
}

struct Forward<'a, T> {
    kind: Vectors,
    x: &'a [T],
    y: *mut T,
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, _: L) {
        let values = self.x.iter().enumerate();
        // SAFETY: the output is as long as the input, and `i` is an index of the input.
        let write = |i, y| unsafe { *self.y.add(i) = y };
        match self.kind {
            Vectors::Silu => values.for_each(|(i, x)| write(i, x.silu())),
            Vectors::Relu6 => values.for_each(|(i, x)| write(i, x.relu6())),
        }
    }
}

struct Backward<'a, T> {
    kind: Vectors,
    x: &'a [T],
    dy: &'a [T],
    dx: *mut T,
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, _: L) {
        let pairs = self.x.iter().zip(self.dy).enumerate();
        // SAFETY: the gradient is as long as the input, and `i` is an index of the input.
        let write = |i, dx| unsafe { *self.dx.add(i) = dx };
        match self.kind {
            Vectors::Silu => pairs.for_each(|(i, (x, dy))| write(i, x.silu_slope().times(*dy))),
            Vectors::Relu6 => pairs.for_each(|(i, (x, dy))| write(i, x.relu6_slope().times(*dy))),
        }
    }
}

fn forward<T: Real>(kind: Vectors, x: &[T]) -> Vec<T> {
    // SAFETY: every block is written by its own task.
    unsafe {
        par::filled(x.len(), |y: Shared<T>| {
            par::each(x.len().div_ceil(BLOCK), |block| {
                let start = block * BLOCK;
                let x = &x[start..x.len().min(start + BLOCK)];
                let y = y.at(start);
                T::dispatch(Forward { kind, x, y });
            });
        })
    }
}

fn backward<T: Real>(kind: Vectors, x: &[T], dy: &[T]) -> Vec<T> {
    // SAFETY: every block is written by its own task.
    unsafe {
        par::filled(x.len(), |dx: Shared<T>| {
            par::each(x.len().div_ceil(BLOCK), |block| {
                let range = block * BLOCK..x.len().min((block + 1) * BLOCK);
                T::dispatch(Backward {
                    kind,
                    x: &x[range.clone()],
                    dy: &dy[range.clone()],
                    dx: dx.at(range.start),
                });
            });
        })
    }
}

impl CustomOp1 for Vectors {
    fn name(&self) -> &'static str {
        match self {
            Self::Silu => "mixskd-silu",
            Self::Relu6 => "mixskd-relu6",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), T => {
            let y = forward::<T>(*self, storage::slice(x, layout)?);
            Ok(storage::own(y, layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), T => {
            let dx = storage::with_slice::<T, _>(x, |x| {
                storage::with_slice::<T, _>(&dy, |dy| Ok(backward(*self, x, dy)))
            })?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}
