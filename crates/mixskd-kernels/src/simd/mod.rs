//! Vectors of whatever width the processor offers, chosen at run time.
//!
//! A kernel is a struct with a `run` method that is generic over [`Lanes`]. [`Element::dispatch`] picks the widest
//! instruction set the processor has and calls `run` inside a function compiled for it, so one binary serves every
//! machine. `run` and all it calls with vectors must be `#[inline(always)]`: code takes on the caller's instruction set
//! only by being inlined into it.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod exp;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use candle_core::{CpuStorage, WithDType};

/// A vector instruction set for one element type.
///
/// A value of an implementing type is a proof that the processor has the instructions: only `dispatch` makes one.
pub(crate) trait Lanes: Copy + Send + Sync {
    /// The element.
    type T: Element;
    /// A vector of [`Lanes::N`] elements.
    type V: Copy;
    /// Elements in a vector.
    const N: usize;
    /// Vectors side by side in a register tile of six rows.
    const TILE: usize;

    fn splat(self, x: Self::T) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the processor can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `e^x`, to a few units in the last place; never zero or infinite.
    fn exp(self, x: Self::V) -> Self::V;
    /// `a` where it is above `b`, else `b`: a NaN in `b` survives.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where it is below `b`, else `b`: a NaN in `b` survives.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `x` where `gate` is above zero, else zero.
    fn gate(self, gate: Self::V, x: Self::V) -> Self::V;

    /// # Safety
    /// `p` points to `N` readable elements.
    unsafe fn load(self, p: *const Self::T) -> Self::V;
    /// # Safety
    /// `p` points to `N` writable elements.
    unsafe fn store(self, p: *mut Self::T, v: Self::V);
    /// The first `n` elements, the rest zero.
    ///
    /// # Safety
    /// `p` points to `n ≤ N` readable elements.
    unsafe fn load_n(self, p: *const Self::T, n: usize) -> Self::V;
    /// # Safety
    /// `p` points to `n ≤ N` writable elements.
    unsafe fn store_n(self, p: *mut Self::T, v: Self::V, n: usize);

    /// [`Lanes::load`] where `n = N`, else [`Lanes::load_n`].
    ///
    /// # Safety
    /// `p` points to `n ≤ N` readable elements.
    #[inline(always)]
    unsafe fn load_part(self, p: *const Self::T, n: usize) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe {
            if n == Self::N {
                self.load(p)
            } else {
                self.load_n(p, n)
            }
        }
    }

    /// [`Lanes::store`] where `n = N`, else [`Lanes::store_n`].
    ///
    /// # Safety
    /// `p` points to `n ≤ N` writable elements.
    #[inline(always)]
    unsafe fn store_part(self, p: *mut Self::T, v: Self::V, n: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if n == Self::N {
                self.store(p, v);
            } else {
                self.store_n(p, v, n);
            }
        }
    }
}

/// Work that is written once and compiled for every instruction set.
pub(crate) trait Kernel<T: Element> {
    /// What `run` returns.
    type Out;
    /// Does the work; must be `#[inline(always)]`.
    fn run<L: Lanes<T = T>>(self, lanes: L) -> Self::Out;
}

/// An element type with kernels: `f32` and `f64`.
pub(crate) trait Element:
    WithDType + Default + std::ops::AddAssign + std::ops::Neg<Output = Self>
{
    /// Runs a kernel on the widest instruction set of this processor.
    fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Out;
    /// Rounds from double precision.
    fn of(x: f64) -> Self;
    /// The elements of a storage of this type.
    fn elements_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

/// Name of the instruction set that float32 kernels run on, on this processor: `AVX-512`, `AVX2`, `NEON` or `portable`.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    match x86::detect() {
        x86::Level::Avx512(_) => return "AVX-512",
        x86::Level::Avx2(_) => return "AVX2",
        x86::Level::Baseline => {}
    }
    if cfg!(target_arch = "aarch64") {
        "NEON"
    } else {
        "portable"
    }
}

impl Element for f32 {
    fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Out {
        #[cfg(target_arch = "x86_64")]
        match x86::detect() {
            x86::Level::Avx512(lanes) => return lanes.vectorize(kernel),
            x86::Level::Avx2(lanes) => return lanes.vectorize(kernel),
            x86::Level::Baseline => {}
        }
        #[cfg(target_arch = "aarch64")]
        return neon::detect().vectorize(kernel);
        #[cfg(not(target_arch = "aarch64"))]
        kernel.run(portable::PortableF32)
    }

    fn of(x: f64) -> Self {
        x as f32
    }

    fn elements_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F32(elements) => Some(elements),
            _ => None,
        }
    }
}

impl Element for f64 {
    fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Out {
        kernel.run(portable::PortableF64)
    }

    fn of(x: f64) -> Self {
        x
    }

    fn elements_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F64(elements) => Some(elements),
            _ => None,
        }
    }
}
