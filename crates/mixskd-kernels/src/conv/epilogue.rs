//! What an inference convolution does to its sums before they leave the cache: bias, residual, activation.

use crate::par::Shared;
use crate::simd::{Element, Kernel, Lanes};

/// Function applied to each element of a layer's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// `x`.
    #[default]
    None,
    /// `max(0, x)`.
    Relu,
    /// `min(6, max(0, x))` (Howard et al., MobileNets, 2017).
    Relu6,
    /// `x / (1 + e^−x)` (Ramachandran et al., Searching for activation functions, 2017).
    Silu,
}

/// `activation(sum + bias + residual)`.
#[derive(Clone, Copy)]
pub(super) struct Epilogue<'a, T> {
    /// Per output channel.
    pub(super) bias: Option<&'a [T]>,
    /// Of the output's shape.
    pub(super) residual: Option<&'a [T]>,
    pub(super) activation: Activation,
}

impl<T: Element> Epilogue<'_, T> {
    /// Finishes `n` sums of element `at` of the output, which is of channel `channel`.
    ///
    /// # Safety
    /// The output has `n` elements from `at` on, and `n` channels from `channel` on.
    #[inline(always)]
    pub(super) unsafe fn apply<L: Lanes<T = T>>(
        &self,
        lanes: L,
        mut v: L::V,
        at: usize,
        channel: usize,
        n: usize,
    ) -> L::V {
        // SAFETY: the bias has an element for every channel, the residual one for every element of the output.
        unsafe {
            if let Some(bias) = self.bias {
                v = lanes.add(v, lanes.load_part(bias.as_ptr().add(channel), n));
            }
            if let Some(residual) = self.residual {
                v = lanes.add(v, lanes.load_part(residual.as_ptr().add(at), n));
            }
        }
        let zero = lanes.splat(T::default());
        match self.activation {
            Activation::None => v,
            Activation::Relu => lanes.max(zero, v),
            Activation::Relu6 => lanes.min(lanes.splat(T::of(6.0)), lanes.max(zero, v)),
            Activation::Silu => {
                let down = lanes.exp(lanes.sub(zero, v));
                lanes.div(v, lanes.add(lanes.splat(T::of(1.0)), down))
            }
        }
    }

    /// Finishes rows of sums that lie in the output already: `n` channels from `channel` on, of the pixels that begin
    /// at `pixels`.
    ///
    /// # Safety
    /// The pixels' channels are inside the output, and no other thread touches them.
    pub(super) unsafe fn finish(&self, dst: Shared<T>, pixels: &[usize], channel: usize, n: usize) {
        T::dispatch(Finish {
            epilogue: *self,
            dst,
            pixels,
            channel,
            n,
        });
    }
}

struct Finish<'a, T> {
    epilogue: Epilogue<'a, T>,
    dst: Shared<T>,
    pixels: &'a [usize],
    channel: usize,
    n: usize,
}

impl<T: Element> Kernel<T> for Finish<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        for &pixel in self.pixels {
            for c in (0..self.n).step_by(L::N) {
                let n = L::N.min(self.n - c);
                let channel = self.channel + c;
                // SAFETY: the promise of `Epilogue::finish`.
                unsafe {
                    let p = self.dst.at(pixel + channel);
                    let v = lanes.load_part(p, n);
                    let v = self.epilogue.apply(lanes, v, pixel + channel, channel, n);
                    lanes.store_part(p, v, n);
                }
            }
        }
    }
}
