//! AVX-512 and AVX2 with FMA.

use std::arch::x86_64::{
    __m256, __m512, _CMP_GT_OQ, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps,
    _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps,
    _mm512_min_ps, _mm512_mul_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{Kernel, Lanes, exp};

/// Proof of AVX-512F; made by [`detect`] alone.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());
/// Proof of AVX2 and FMA; made by [`detect`] alone.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// The best instruction set of this processor.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Avx512(Avx512),
    Avx2(Avx2),
    Baseline,
}

/// Looks the processor up; the standard library remembers the answer.
#[inline]
pub(crate) fn detect() -> Level {
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
    {
        Level::Avx512(Avx512(()))
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Level::Avx2(Avx2(()))
    } else {
        Level::Baseline
    }
}

impl Avx512 {
    pub(crate) fn vectorize<K: Kernel<f32>>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        fn inner<K: Kernel<f32>>(lanes: Avx512, kernel: K) -> K::Out {
            kernel.run(lanes)
        }
        // SAFETY: `self` exists, so `detect` found the features (AVX-512F implies AVX2 and FMA).
        unsafe { inner(self, kernel) }
    }
}

impl Avx2 {
    pub(crate) fn vectorize<K: Kernel<f32>>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx2,fma")]
        fn inner<K: Kernel<f32>>(lanes: Avx2, kernel: K) -> K::Out {
            kernel.run(lanes)
        }
        // SAFETY: `self` exists, so `detect` found the features.
        unsafe { inner(self, kernel) }
    }
}

// In both impls below every intrinsic is sound to call because `self` proves that the processor has it; loads and stores
// rest on their callers' promises.

impl Lanes for Avx512 {
    type T = f32;
    type V = __m512;
    const N: usize = 16;
    const TILE: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn exp(self, x: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        exp::exp(self, x, |p, n| unsafe { _mm512_scalef_ps(p, n) })
    }
    #[inline(always)]
    fn gate(self, gate: __m512, x: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(mask, x)
        }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller gives sixteen readable elements; `self` proves AVX-512F.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller gives sixteen writable elements; `self` proves AVX-512F.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> __m512 {
        let mask = ((1u32 << n) - 1) as u16;
        // SAFETY: lanes outside the mask are not accessed; the caller gives `n` readable elements.
        unsafe { _mm512_maskz_loadu_ps(mask, p) }
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: __m512, n: usize) {
        let mask = ((1u32 << n) - 1) as u16;
        // SAFETY: lanes outside the mask are not accessed; the caller gives `n` writable elements.
        unsafe { _mm512_mask_storeu_ps(p, mask, v) }
    }
}

impl Lanes for Avx2 {
    type T = f32;
    type V = __m256;
    const N: usize = 8;
    const TILE: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn exp(self, x: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        exp::exp(self, x, |p, n| unsafe {
            let whole = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(whole)))
        })
    }
    #[inline(always)]
    fn gate(self, gate: __m256, x: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe {
            let mask = _mm256_cmp_ps::<_CMP_GT_OQ>(gate, _mm256_setzero_ps());
            _mm256_and_ps(mask, x)
        }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the caller gives eight readable elements; `self` proves AVX2.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: the caller gives eight writable elements; `self` proves AVX2.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> __m256 {
        let mut whole = [0.0f32; 8];
        for (i, x) in whole.iter_mut().enumerate().take(n) {
            // SAFETY: the caller gives `n` readable elements.
            *x = unsafe { p.add(i).read() };
        }
        // SAFETY: the array has eight elements.
        unsafe { _mm256_loadu_ps(whole.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: __m256, n: usize) {
        let mut whole = [0.0f32; 8];
        // SAFETY: the array has eight elements.
        unsafe { _mm256_storeu_ps(whole.as_mut_ptr(), v) };
        for (i, x) in whole.into_iter().enumerate().take(n) {
            // SAFETY: the caller gives `n` writable elements.
            unsafe { p.add(i).write(x) };
        }
    }
}
