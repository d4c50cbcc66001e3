//! Convolutions on the processor, by their definition: sums in float, results rounded to the maps' type once, as cuDNN does it.

use std::slice::{from_raw_parts, from_raw_parts_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chosen::Numbers;
use super::{Choices, Convolution, Convolve, Pass};
use crate::{Address, Element, Place, Result, races};

/// What the processor calls itself where choices are kept.
const MADE_ON: &str = "the processor";

/// Convolutions on the processor. It has two algorithms, which add in opposite orders; `timed`, one of them wins by chance, as it may on a
/// GPU.
#[derive(Debug, Default)]
pub struct EmulatedConvolutions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    timed: bool,
    chosen: Numbers,
    /// Choices ever made by time.
    races: u32,
}

impl EmulatedConvolutions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channels of a group in the order in which the chosen algorithm adds them.
    fn order(&self, pass: Pass, c: Convolution) -> Vec<usize> {
        let state = &mut *self.state();
        let algorithm = *state.chosen.entry((pass, c)).or_insert_with(|| {
            if !state.timed {
                return 0;
            }
            state.races += 1;
            // The upper bit of a product is as good as chance.
            state.races.wrapping_mul(0x9e37_79b9) >> 31
        });
        let channels = 0..c.in_group();
        if algorithm == 0 {
            channels.collect()
        } else {
            channels.rev().collect()
        }
    }

    /// The weight's gradient `dw`.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    unsafe fn weight(&self, c: Convolution, [x, dy, dw]: [Address; 3]) {
        let [inputs, weights, outputs] = c.lengths();
        // SAFETY: the caller's promise.
        let (map, from) = unsafe { (read(x, inputs, c.element), read(dy, outputs, c.element)) };
        let mut to = vec![0.0; weights];
        let order = self.order(Pass::Filter, c);
        c.each_tap(|x, w, y| {
            for &i in &order {
                to[w + i] += from[y] * map[x + i];
            }
        });
        // SAFETY: the caller's promise.
        unsafe { write(dw, &to, c.element) };
    }
}

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

impl Convolve for EmulatedConvolutions {
    unsafe fn forward(&self, c: Convolution, x: Address, w: Address, y: Address) -> Result<()> {
        let [inputs, weights, outputs] = c.lengths();
        let launch = races::before([x, w, y].into_iter());
        // SAFETY: the caller's promise.
        let (from, weight) = unsafe { (read(x, inputs, c.element), read(w, weights, c.element)) };
        let mut to = vec![0.0; outputs];
        let order = self.order(Pass::Forward, c);
        c.each_tap(|x, w, y| {
            for &i in &order {
                to[y] += from[x + i] * weight[w + i];
            }
        });
        // SAFETY: the caller's promise.
        unsafe { write(y, &to, c.element) };
        launch.done("convolution", false);
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
        let launch = races::before([w, dy, dx].into_iter());
        // SAFETY: the caller's promise.
        let (weight, from) = unsafe { (read(w, weights, c.element), read(dy, outputs, c.element)) };
        let mut to = vec![0.0; inputs];
        let order = self.order(Pass::Data, c);
        c.each_tap(|x, w, y| {
            for &i in &order {
                to[x + i] += from[y] * weight[w + i];
            }
        });
        // SAFETY: the caller's promise.
        unsafe { write(dx, &to, c.element) };
        launch.done("data gradient", false);
        Ok(())
    }

    unsafe fn filter_gradient(
        &self,
        c: Convolution,
        x: Address,
        dy: Address,
        dw: Address,
    ) -> Result<()> {
        let launch = races::before([x, dy, dw].into_iter());
        // SAFETY: the caller's promise.
        unsafe { self.weight(c, [x, dy, dw]) };
        launch.done("filter gradient", false);
        Ok(())
    }

    unsafe fn filter_gradient_beside(
        &self,
        c: Convolution,
        x: Address,
        dy: Address,
        dw: Address,
    ) -> Result<Option<Place>> {
        let launch = races::before([x, dy, dw].into_iter());
        // SAFETY: the caller's promise.
        unsafe { self.weight(c, [x, dy, dw]) };
        Ok(Some(launch.done("filter gradient beside", true)))
    }

    fn set_lanes(&self, _: bool) {}

    fn set_timed(&self, timed: bool) {
        let mut state = self.state();
        if state.timed != timed {
            state.timed = timed;
            state.chosen.clear();
        }
    }

    fn choices(&self) -> Choices {
        Choices::of(MADE_ON, &self.state().chosen)
    }

    fn recall(&self, choices: &Choices) -> bool {
        let fits = choices.made_on == MADE_ON;
        if fits {
            self.state().chosen = choices.numbers();
        }
        fits
    }
}
