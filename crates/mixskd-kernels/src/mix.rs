//! Linear interpolation between each sample of a batch and its partner.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

use crate::par::{self, Shared};
use crate::record;
use crate::simd::{Element, Kernel, Lanes};
use crate::storage::{self, by_dtype};
use crate::{Error, Result, compose, gpu, shape};

/// `λ·x + (1 − λ)·x[partner]`, row by row (Zhang et al., mixup, 2018): images, feature maps and logits alike.
///
/// # Shapes
/// - `x`, result: `[batch, …]`
/// - `partner`: `[batch]`, u32, indices into the batch
/// - `lambda`: `[batch]`, of `x`'s dtype; no gradient flows to it
///
/// # Errors
/// When a shape does not fit, `x` is not of floats, or a partner is out of range.
pub fn interpolate(x: &Tensor, partner: &Tensor, lambda: &Tensor) -> Result<Tensor> {
    let Some(&batch) = x.dims().first() else {
        return Err(Error::Shape {
            op: "interpolate",
            what: "input",
            wanted: "[batch, …]".into(),
            got: vec![],
        });
    };
    if !x.dtype().is_float() {
        return Err(Error::Config {
            op: "interpolate",
            message: format!(
                "input must be floats, got {:?}: bytes of images are normalised, or made floats, before they are mixed",
                x.dtype()
            ),
        });
    }
    shape::exactly("interpolate", "partner", partner, &[batch])?;
    shape::exactly("interpolate", "lambda", lambda, &[batch])?;
    if let Some(y) = gpu::interpolate(x, partner, lambda)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x, lambda]) || x.elem_count() == 0 {
        return compose::interpolate(x, partner, lambda);
    }
    let partner: Vec<u32> = partner.to_vec1()?;
    if let Some(&bad) = partner.iter().find(|&&p| p as usize >= batch) {
        return Err(Error::Config {
            op: "interpolate",
            message: format!("partner {bad} is not in a batch of {batch}"),
        });
    }
    let lambda = lambda.to_dtype(DType::F64)?.to_vec1()?;
    Ok(record::apply1(
        &x.contiguous()?,
        Interpolate { partner, lambda },
    )?)
}

struct Interpolate {
    partner: Vec<u32>,
    lambda: Vec<f64>,
}

/// `y = Σ weight · row` over some rows.
struct WeightedSum<'a, T> {
    terms: &'a [(T, &'a [T])],
    y: *mut T,
}

impl<T: Element> Kernel<T> for WeightedSum<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let Some((_, first)) = self.terms.first() else {
            return;
        };
        let len = first.len();
        let mut at = 0;
        while at < len {
            let n = L::N.min(len - at);
            let mut sum = lanes.splat(T::default());
            for &(weight, row) in self.terms {
                // SAFETY: all rows have `len` elements.
                let x = unsafe { lanes.load_part(row.as_ptr().add(at), n) };
                sum = lanes.fma(lanes.splat(weight), x, sum);
            }
            // SAFETY: the output has `len` elements.
            unsafe { lanes.store_part(self.y.add(at), sum, n) };
            at += n;
        }
    }
}

impl Interpolate {
    fn forward<T: Element>(&self, x: &[T]) -> Vec<T> {
        let batch = self.partner.len();
        let row = x.len() / batch;
        // SAFETY: every row is written by its own task.
        unsafe {
            par::filled(x.len(), |y: Shared<T>| {
                par::each(batch, |i| {
                    let (l, p) = (self.lambda[i], self.partner[i] as usize);
                    let terms = [
                        (T::of(l), &x[i * row..(i + 1) * row]),
                        (T::of(1.0 - l), &x[p * row..(p + 1) * row]),
                    ];
                    T::dispatch(WeightedSum {
                        terms: &terms,
                        y: y.at(i * row),
                    });
                });
            })
        }
    }
}

/// The gradient of the interpolation, times `scale`: row j gets `λ_j · dy_j`, and `(1 − λ_i) · dy_i` from every i whose partner
/// it is.
pub(crate) fn backward<T: Element>(
    partner: &[u32],
    lambda: &[f64],
    dy: &[T],
    scale: f64,
) -> Vec<T> {
    let batch = partner.len();
    let row = dy.len() / batch;
    let mut sources = vec![vec![]; batch];
    for (i, &p) in partner.iter().enumerate() {
        sources[p as usize].push(i);
    }
    // SAFETY: every row is written by its own task.
    unsafe {
        par::filled(dy.len(), |dx: Shared<T>| {
            par::each(batch, |j| {
                let own = &dy[j * row..(j + 1) * row];
                let mut terms = vec![(T::of(scale * lambda[j]), own)];
                for &i in &sources[j] {
                    let weight = scale * (1.0 - lambda[i]);
                    terms.push((T::of(weight), &dy[i * row..(i + 1) * row]));
                }
                T::dispatch(WeightedSum {
                    terms: &terms,
                    y: dx.at(j * row),
                });
            });
        })
    }
}

impl CustomOp1 for Interpolate {
    fn name(&self) -> &'static str {
        "mixskd-interpolate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), T => {
            let y = self.forward::<T>(storage::slice(x, layout)?);
            Ok(storage::own(y, layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), T => {
            let dx = storage::with_slice::<T, _>(&dy, |dy| {
                Ok(backward(&self.partner, &self.lambda, dy, 1.0))
            })?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}
