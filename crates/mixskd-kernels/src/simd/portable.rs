//! One element at a time, for every processor and for double precision.

use super::Lanes;

macro_rules! portable {
    ($name:ident, $t:ty) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Lanes for $name {
            type T = $t;
            type V = $t;
            const N: usize = 1;
            const TILE: usize = 2;

            #[inline(always)]
            fn splat(self, x: $t) -> $t {
                x
            }
            #[inline(always)]
            fn add(self, a: $t, b: $t) -> $t {
                a + b
            }
            #[inline(always)]
            fn sub(self, a: $t, b: $t) -> $t {
                a - b
            }
            #[inline(always)]
            fn mul(self, a: $t, b: $t) -> $t {
                a * b
            }
            #[inline(always)]
            fn fma(self, a: $t, b: $t, c: $t) -> $t {
                // Not `mul_add`, which without hardware support calls a slow function.
                a * b + c
            }
            #[inline(always)]
            fn max(self, a: $t, b: $t) -> $t {
                if a > b { a } else { b }
            }
            #[inline(always)]
            fn min(self, a: $t, b: $t) -> $t {
                if a < b { a } else { b }
            }
            #[inline(always)]
            fn div(self, a: $t, b: $t) -> $t {
                a / b
            }
            #[inline(always)]
            fn exp(self, x: $t) -> $t {
                x.clamp(-87.0, 88.0).exp()
            }
            #[inline(always)]
            fn gate(self, gate: $t, x: $t) -> $t {
                if gate > 0.0 { x } else { 0.0 }
            }
            #[inline(always)]
            unsafe fn load(self, p: *const $t) -> $t {
                // SAFETY: the caller gives one readable element.
                unsafe { p.read() }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $t, v: $t) {
                // SAFETY: the caller gives one writable element.
                unsafe { p.write(v) }
            }
            #[inline(always)]
            unsafe fn load_n(self, p: *const $t, n: usize) -> $t {
                // SAFETY: the caller gives `n` readable elements.
                if n == 0 { 0.0 } else { unsafe { p.read() } }
            }
            #[inline(always)]
            unsafe fn store_n(self, p: *mut $t, v: $t, n: usize) {
                if n > 0 {
                    // SAFETY: the caller gives `n` writable elements.
                    unsafe { p.write(v) }
                }
            }
        }
    };
}

#[cfg(not(target_arch = "aarch64"))]
portable!(PortableF32, f32);
portable!(PortableF64, f64);
