//! Gradients by parameter name: checked, added up over batches, clipped.

use std::collections::BTreeMap;

use candle_core::{DType, Storage, Tensor};
use mixskd_kernels::judge;
use rayon::prelude::*;

use crate::Result;

/// Gradients by parameter name.
pub(crate) type Gradients = BTreeMap<String, Tensor>;

/// Values of one partial sum; a fixed number, so that the sum does not depend on the number of threads.
const BLOCK: usize = 1 << 15;

/// Calls `use_values` with the values of a tensor of contiguous floats on the CPU; `None` for any other.
fn with_values<T>(tensor: &Tensor, use_values: impl FnOnce(&[f32]) -> T) -> Result<Option<T>> {
    if tensor.dtype() != DType::F32 || !tensor.is_contiguous() {
        return Ok(None);
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Ok(None);
    };
    let start = layout.start_offset();
    let values = &storage.as_slice::<f32>()?[start..start + tensor.elem_count()];
    Ok(Some(use_values(values)))
}

/// `Σ x²` in float64. It is finite exactly where every value is.
pub(crate) fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let of = |block: &[f32]| -> f64 { block.iter().map(|&x| f64::from(x) * f64::from(x)).sum() };
    let sum = with_values(tensor, |values| {
        if values.len() <= BLOCK {
            return of(values);
        }
        let sums: Vec<f64> = values.par_chunks(BLOCK).map(of).collect();
        sums.iter().sum()
    })?;
    if let Some(sum) = sum {
        return Ok(sum);
    }
    let squares = tensor.to_dtype(DType::F64)?.sqr()?;
    Ok(squares.sum_all()?.to_scalar()?)
}

/// [`sum_of_squares`] of each, in name order. A GPU is waited for once.
fn sums_of_squares(gradients: &Gradients) -> Result<Vec<f64>> {
    let Some(first) = gradients
        .values()
        .find(|gradient| !gradient.device().is_cpu())
    else {
        return gradients.values().map(sum_of_squares).collect();
    };
    let sums = gradients.values().map(|gradient| {
        let squares = gradient.to_dtype(DType::F64)?.sqr()?;
        squares.sum_all()?.to_device(first.device())
    });
    let sums = sums.collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::stack(&sums, 0)?.to_vec1()?)
}

/// Whether every value is finite.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    // By the greatest exponent of a block, which vectors find without a branch.
    let exponents = f32::INFINITY.to_bits();
    let of = |block: &[f32]| {
        let bits = block.iter().map(|x| x.to_bits() & exponents);
        bits.fold(0, u32::max) < exponents
    };
    match with_values(tensor, |values| values.par_chunks(BLOCK).all(of))? {
        Some(all) => Ok(all),
        None => Ok(sum_of_squares(tensor)?.is_finite()),
    }
}

/// The first gradient in name order that holds NaN or an infinity, with one or the other.
pub(crate) fn first_not_finite(gradients: &Gradients) -> Result<Option<(String, f64)>> {
    let all: Vec<&Tensor> = gradients.values().collect();
    if let Some(verdict) = judge(&all, None)?
        && verdict.to_vec1::<f32>()? == [1.0]
    {
        return Ok(None);
    }
    for (name, gradient) in gradients {
        if !is_finite(gradient)? {
            return Ok(Some((name.clone(), sum_of_squares(gradient)?)));
        }
    }
    Ok(None)
}

/// The gradients of several batches on their way to one update.
#[derive(Default)]
pub(crate) struct Accumulator {
    sums: Gradients,
    batches: usize,
}

impl Accumulator {
    /// Adds the gradients of one batch.
    pub(crate) fn add(&mut self, gradients: Gradients) -> Result<()> {
        self.batches += 1;
        for (name, gradient) in gradients {
            let sum = match self.sums.remove(&name) {
                None => gradient,
                Some(sum) => (sum + gradient)?,
            };
            self.sums.insert(name, sum);
        }
        Ok(())
    }

    /// The mean over the batches added, whose norm over all parameters is at most `clip_norm` (0 for no limit); then begins anew.
    /// `None` where no batch was added.
    ///
    /// Clipping is `torch.nn.utils.clip_grad_norm_`'s: `g·min(1, clip_norm / (‖g‖₂ + 10⁻⁶))`.
    pub(crate) fn take(&mut self, clip_norm: f64) -> Result<Option<Gradients>> {
        let Self { sums, batches } = std::mem::take(self);
        if batches == 0 {
            return Ok(None);
        }
        let mut gradients = sums;
        if batches > 1 {
            scale(&mut gradients, 1.0 / batches as f64)?;
        }
        if clip_norm > 0.0 {
            let squares: f64 = sums_of_squares(&gradients)?.iter().sum();
            let factor = clip_norm / (squares.sqrt() + 1e-6);
            if factor < 1.0 {
                scale(&mut gradients, factor)?;
            }
        }
        Ok(Some(gradients))
    }
}

fn scale(gradients: &mut Gradients, factor: f64) -> Result<()> {
    for gradient in gradients.values_mut() {
        *gradient = (&*gradient * factor)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn gradients(values: [f32; 2]) -> Gradients {
        let tensor = |v: f32| Tensor::new(&[v], &Device::Cpu).unwrap();
        BTreeMap::from([
            ("a".into(), tensor(values[0])),
            ("b".into(), tensor(values[1])),
        ])
    }

    fn values(gradients: &Gradients) -> Vec<f32> {
        let value = |g: &Tensor| g.to_vec1::<f32>().unwrap()[0];
        gradients.values().map(value).collect()
    }

    #[test]
    fn batches_are_averaged() {
        let mut accumulator = Accumulator::default();
        assert!(accumulator.take(0.0).unwrap().is_none());
        accumulator.add(gradients([1.0, 2.0])).unwrap();
        accumulator.add(gradients([3.0, -2.0])).unwrap();
        assert_eq!(values(&accumulator.take(0.0).unwrap().unwrap()), [2.0, 0.0]);
        assert!(accumulator.take(0.0).unwrap().is_none());
    }

    #[test]
    fn a_long_gradient_is_cut_to_the_norm_and_a_short_one_is_left_alone() {
        let clipped = |limit| {
            let mut accumulator = Accumulator::default();
            accumulator.add(gradients([3.0, 4.0])).unwrap();
            values(&accumulator.take(limit).unwrap().unwrap())
        };
        assert_eq!(clipped(5.1), [3.0, 4.0]);
        let cut = clipped(1.0);
        assert!(
            (cut[0] - 0.6).abs() < 1e-6 && (cut[1] - 0.8).abs() < 1e-6,
            "{cut:?}"
        );
    }

    #[test]
    fn the_sum_is_the_same_for_any_number_of_threads_and_any_layout() {
        let values: Vec<f32> = (0..100_000).map(|k| (k as f32 * 0.37).sin()).collect();
        let tensor = Tensor::from_vec(values, (250, 400), &Device::Cpu).unwrap();
        let sums = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            pool.install(|| sum_of_squares(&tensor).unwrap())
        });
        assert_eq!(sums[0], sums[1]);
        let turned = sum_of_squares(&tensor.t().unwrap()).unwrap();
        assert!((turned - sums[0]).abs() < 1e-9 * sums[0]);
    }

    #[test]
    fn what_is_not_finite_is_named() {
        assert_eq!(first_not_finite(&gradients([1.0, 3e38])).unwrap(), None);
        let (name, value) = first_not_finite(&gradients([1.0, f32::NAN]))
            .unwrap()
            .unwrap();
        assert!(name == "b" && value.is_nan());
        let (name, value) = first_not_finite(&gradients([f32::NEG_INFINITY, 1.0]))
            .unwrap()
            .unwrap();
        assert!(name == "a" && value == f64::INFINITY);
        // Anywhere in a long one, in any type and layout.
        let len = 2 * BLOCK + 7;
        for at in [0, BLOCK - 1, BLOCK, len - 1] {
            let mut values = vec![1f32; len];
            values[at] = f32::NEG_INFINITY;
            let long = Tensor::from_vec(values, (1, len), &Device::Cpu).unwrap();
            let half = long.to_dtype(DType::BF16).unwrap();
            let turned = Tensor::cat(&[&long, &long], 0).unwrap().t().unwrap();
            for (k, tensor) in [long, half, turned].into_iter().enumerate() {
                let found = first_not_finite(&BTreeMap::from([("c".into(), tensor)])).unwrap();
                assert!(found.is_some(), "{at}, {k}");
            }
        }
    }
}
