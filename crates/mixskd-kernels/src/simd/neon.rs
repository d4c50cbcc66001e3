//! NEON, which every 64-bit ARM processor has.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddq_s32, vandq_u32, vcgtq_f32, vcvtnq_s32_f32, vdivq_f32,
    vdupq_n_f32, vdupq_n_s32, vfmaq_f32, vld1q_f32, vmaxq_f32, vminq_f32, vmulq_f32,
    vreinterpretq_f32_s32, vreinterpretq_f32_u32, vreinterpretq_u32_f32, vshlq_n_s32, vst1q_f32,
    vsubq_f32,
};

use super::{Kernel, Lanes, exp};

/// Proof of NEON; made by [`detect`] alone.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

/// NEON is part of the architecture's baseline.
pub(crate) fn detect() -> Neon {
    Neon(())
}

impl Neon {
    pub(crate) fn vectorize<K: Kernel<f32>>(self, kernel: K) -> K::Out {
        kernel.run(self)
    }
}

impl Lanes for Neon {
    type T = f32;
    type V = float32x4_t;
    const N: usize = 4;
    const TILE: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        unsafe { vmaxq_f32(a, b) }
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        unsafe { vminq_f32(a, b) }
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    fn exp(self, x: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        exp::exp(self, x, |p, n| unsafe {
            let whole = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32::<23>(whole)))
        })
    }
    #[inline(always)]
    fn gate(self, gate: float32x4_t, x: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline of this architecture.
        unsafe {
            let mask = vcgtq_f32(gate, vdupq_n_f32(0.0));
            vreinterpretq_f32_u32(vandq_u32(mask, vreinterpretq_u32_f32(x)))
        }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: the caller gives four readable elements.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: the caller gives four writable elements.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> float32x4_t {
        let mut whole = [0.0f32; 4];
        for (i, x) in whole.iter_mut().enumerate().take(n) {
            // SAFETY: the caller gives `n` readable elements.
            *x = unsafe { p.add(i).read() };
        }
        // SAFETY: the array has four elements.
        unsafe { vld1q_f32(whole.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: float32x4_t, n: usize) {
        let mut whole = [0.0f32; 4];
        // SAFETY: the array has four elements.
        unsafe { vst1q_f32(whole.as_mut_ptr(), v) };
        for (i, x) in whole.into_iter().enumerate().take(n) {
            // SAFETY: the caller gives `n` writable elements.
            unsafe { p.add(i).write(x) };
        }
    }
}
