//! Plain arrays that the compiler turns into whatever vectors the build's target has.

use super::Lanes;

macro_rules! portable {
    ($name:ident, $t:ty, $n:literal) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Lanes for $name {
            type T = $t;
            type V = [$t; $n];
            const N: usize = $n;
            const TILE: usize = 1;

            #[inline(always)]
            fn splat(self, x: $t) -> Self::V {
                [x; $n]
            }
            #[inline(always)]
            fn add(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    a[i] += b[i];
                }
                a
            }
            #[inline(always)]
            fn sub(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    a[i] -= b[i];
                }
                a
            }
            #[inline(always)]
            fn mul(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    a[i] *= b[i];
                }
                a
            }
            #[inline(always)]
            fn fma(self, a: Self::V, b: Self::V, mut c: Self::V) -> Self::V {
                for i in 0..$n {
                    c[i] += a[i] * b[i];
                }
                c
            }
            #[inline(always)]
            fn max(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    if !(a[i] > b[i]) {
                        a[i] = b[i];
                    }
                }
                a
            }
            #[inline(always)]
            fn gate(self, gate: Self::V, mut x: Self::V) -> Self::V {
                for i in 0..$n {
                    if !(gate[i] > 0.0) {
                        x[i] = 0.0;
                    }
                }
                x
            }
            #[inline(always)]
            unsafe fn load(self, p: *const $t) -> Self::V {
                // SAFETY: the caller gives `N` readable elements.
                unsafe { p.cast::<Self::V>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $t, v: Self::V) {
                // SAFETY: the caller gives `N` writable elements.
                unsafe { p.cast::<Self::V>().write_unaligned(v) }
            }
            #[inline(always)]
            unsafe fn load_n(self, p: *const $t, n: usize) -> Self::V {
                let mut v = [0.0; $n];
                for (i, x) in v.iter_mut().enumerate().take(n) {
                    // SAFETY: the caller gives `n` readable elements.
                    *x = unsafe { p.add(i).read() };
                }
                v
            }
            #[inline(always)]
            unsafe fn store_n(self, p: *mut $t, v: Self::V, n: usize) {
                for (i, x) in v.into_iter().enumerate().take(n) {
                    // SAFETY: the caller gives `n` writable elements.
                    unsafe { p.add(i).write(x) };
                }
            }
        }
    };
}

#[cfg(not(target_arch = "aarch64"))]
portable!(PortableF32, f32, 8);
portable!(PortableF64, f64, 4);
