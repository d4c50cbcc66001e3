//! Convolutions on the processor, by their definition: sums in float, results rounded to the maps' type once, as cuDNN does it.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::{Convolution, Convolve};
use crate::{Address, Element, Emulator, Result};

/// Floats of an array of either type.
///
/// # Safety
/// `at` has `len` elements.
unsafe fn read(at: Address, len: usize, element: Element) -> Vec<f32> {
    // SAFETY: the caller's promise.
    unsafe {
        match element {
            Element::F32 => from_raw_parts(at as *const f32, len).to_vec(),
            Element::Bf16 => from_raw_parts(at as *const u16, len)
                .iter()
                .map(|&bits| f32::from_bits(u32::from(bits) << 16))
                .collect(),
        }
    }
}

/// # Safety
/// `at` has as many elements as there are values.
unsafe fn write(at: Address, values: &[f32], element: Element) {
    // SAFETY: the caller's promise.
    unsafe {
        match element {
            Element::F32 => {
                from_raw_parts_mut(at as *mut f32, values.len()).copy_from_slice(values);
            }
            Element::Bf16 => {
                let to = from_raw_parts_mut(at as *mut u16, values.len());
                for (to, &value) in to.iter_mut().zip(values) {
                    *to = rounded(value);
                }
            }
        }
    }
}

/// The upper half of a float, rounded to even.
fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return 0x7fff;
    }
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

impl Convolution {
    fn lengths(&self) -> [usize; 3] {
        let weight = self.output[3] * self.kernel[0] * self.kernel[1] * self.in_group();
        [
            self.input.iter().product(),
            weight,
            self.output.iter().product(),
        ]
    }

    fn in_group(&self) -> usize {
        self.input[3] / self.groups
    }

    /// Calls `work` with the places of the first input channel, of the first weight and of the output, for every tap of every output
    /// that lies on the input.
    fn each_tap(&self, mut work: impl FnMut(usize, usize, usize)) {
        let [batch, in_h, in_w, in_c] = self.input;
        let [_, out_h, out_w, out_c] = self.output;
        let [kernel_h, kernel_w] = self.kernel;
        let (inputs, outputs) = (self.in_group(), out_c / self.groups);
        let at = |out: usize, tap: usize, size: usize| {
            let at = (out * self.stride + tap * self.dilation).checked_sub(self.padding)?;
            (at < size).then_some(at)
        };
        for b in 0..batch {
            for oh in 0..out_h {
                for ow in 0..out_w {
                    for kh in 0..kernel_h {
                        let Some(ih) = at(oh, kh, in_h) else { continue };
                        for kw in 0..kernel_w {
                            let Some(iw) = at(ow, kw, in_w) else {
                                continue;
                            };
                            for out in 0..out_c {
                                let x =
                                    ((b * in_h + ih) * in_w + iw) * in_c + out / outputs * inputs;
                                let w = ((out * kernel_h + kh) * kernel_w + kw) * inputs;
                                let y = ((b * out_h + oh) * out_w + ow) * out_c + out;
                                work(x, w, y);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Convolve for Emulator {
    unsafe fn forward(&self, c: Convolution, x: Address, w: Address, y: Address) -> Result<()> {
        let [inputs, weights, outputs] = c.lengths();
        // SAFETY: the caller's promise.
        let (from, weight) = unsafe { (read(x, inputs, c.element), read(w, weights, c.element)) };
        let mut to = vec![0.0; outputs];
        c.each_tap(|x, w, y| {
            for i in 0..c.in_group() {
                to[y] += from[x + i] * weight[w + i];
            }
        });
        // SAFETY: the caller's promise.
        unsafe { write(y, &to, c.element) };
        Ok(())
    }

    unsafe fn data_gradient(
        &self,
        c: Convolution,
        w: Address,
        dy: Address,
        dx: Address,
    ) -> Result<()> {
        let [inputs, weights, outputs] = c.lengths();
        // SAFETY: the caller's promise.
        let (weight, from) = unsafe { (read(w, weights, c.element), read(dy, outputs, c.element)) };
        let mut to = vec![0.0; inputs];
        c.each_tap(|x, w, y| {
            for i in 0..c.in_group() {
                to[x + i] += from[y] * weight[w + i];
            }
        });
        // SAFETY: the caller's promise.
        unsafe { write(dx, &to, c.element) };
        Ok(())
    }

    unsafe fn filter_gradient(
        &self,
        c: Convolution,
        x: Address,
        dy: Address,
        dw: Address,
    ) -> Result<()> {
        let [inputs, weights, outputs] = c.lengths();
        // SAFETY: the caller's promise.
        let (map, from) = unsafe { (read(x, inputs, c.element), read(dy, outputs, c.element)) };
        let mut to = vec![0.0; weights];
        c.each_tap(|x, w, y| {
            for i in 0..c.in_group() {
                to[w + i] += from[y] * map[x + i];
            }
        });
        // SAFETY: the caller's promise.
        unsafe { write(dw, &to, c.element) };
        Ok(())
    }
}
