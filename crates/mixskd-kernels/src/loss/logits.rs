//! Losses on logits. A row is a few thousand numbers at most: it is read in its own precision and computed with in double
//! precision, where differences of nearly equal distributions survive.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};

use crate::Result;
use crate::par::{self, Shared};
use crate::record;
use crate::simd::Element;
use crate::storage::{self, by_dtype};

/// Elements of one task.
const BLOCK: usize = 4096;

/// Classes with a weight, two for each row.
type Targets = Vec<[(usize, f64); 2]>;

/// The logarithm of the softmax of a row of logits times `scale`: `log p_c = (scale·z_c − max) − log_sum`.
#[derive(Clone, Copy)]
struct LogSoftmax {
    scale: f64,
    max: f64,
    log_sum: f64,
}

impl LogSoftmax {
    fn of<T: Element>(row: &[T], scale: f64) -> Self {
        let max = row
            .iter()
            .fold(f64::NEG_INFINITY, |m, z| m.max(scale * z.to_f64()));
        // A NaN, which the maximum passes over, comes out here.
        let sum: f64 = row.iter().map(|z| (scale * z.to_f64() - max).exp()).sum();
        Self {
            scale,
            max,
            log_sum: sum.ln(),
        }
    }

    fn at<T: Element>(self, z: T) -> f64 {
        (self.scale * z.to_f64() - self.max) - self.log_sum
    }
}

/// Calls `work(row)` for each row, several rows to a task.
fn each_row(rows: usize, classes: usize, work: impl Fn(usize) + Send + Sync) {
    let per_task = (BLOCK / classes).max(1);
    par::each(rows.div_ceil(per_task), |task| {
        (task * per_task..((task + 1) * per_task).min(rows)).for_each(&work);
    });
}

/// The mean over rows of `loss(row)`, added up in order.
fn mean_of_rows(rows: usize, classes: usize, loss: impl Fn(usize) -> f64 + Send + Sync) -> f64 {
    // SAFETY: each row's loss is written by the one task that has the row.
    let losses = unsafe {
        par::filled::<f64>(rows, |out: Shared<f64>| {
            each_row(rows, classes, |i| out.at(i).write(loss(i)));
        })
    };
    losses.iter().sum::<f64>() / rows as f64
}

/// A `[rows, classes]` matrix; `row(i)` gives the function from class to value.
fn filled_rows<T: Element, G: Fn(usize) -> f64>(
    rows: usize,
    classes: usize,
    row: impl Fn(usize) -> G + Send + Sync,
) -> Vec<T> {
    // SAFETY: each row is written, all classes of it, by the one task that has it.
    unsafe {
        par::filled(rows * classes, |out: Shared<T>| {
            each_row(rows, classes, |i| {
                let value = row(i);
                for c in 0..classes {
                    out.at(i * classes + c).write(T::of(value(c)));
                }
            });
        })
    }
}

/// The one element of a scalar's gradient.
pub(super) fn scalar<T: Element>(gradient: &Tensor) -> candle_core::Result<f64> {
    storage::with_slice::<T, _>(&gradient.contiguous()?, |g| Ok(g[0].to_f64()))
}

/// Cross-entropy with up to two weighted labels a row.
pub(super) fn label_cross_entropy(logits: &Tensor, targets: Targets) -> Result<Tensor> {
    Ok(record::apply1(
        &logits.contiguous()?,
        LabelCrossEntropy { targets },
    )?)
}

struct LabelCrossEntropy {
    targets: Targets,
}

impl LabelCrossEntropy {
    fn value<T: Element>(&self, z: &[T]) -> f64 {
        let classes = z.len() / self.targets.len();
        mean_of_rows(self.targets.len(), classes, |i| {
            let row = &z[i * classes..(i + 1) * classes];
            let log_p = LogSoftmax::of(row, 1.0);
            let weighted = self.targets[i].iter().filter(|(_, weight)| *weight != 0.0);
            weighted
                .map(|&(y, weight)| -weight * log_p.at(row[y]))
                .sum()
        })
    }

    /// `dL/dz_c = g/B · (w·p_c − Σ of the weights of c)`, `w` the sum of all weights.
    fn gradient<T: Element>(&self, z: &[T], g: f64) -> Vec<T> {
        let rows = self.targets.len();
        let classes = z.len() / rows;
        let g = g / rows as f64;
        filled_rows(rows, classes, |i| {
            let row = &z[i * classes..(i + 1) * classes];
            let log_p = LogSoftmax::of(row, 1.0);
            let [(own, a), (partner, b)] = self.targets[i];
            move |c| {
                let mut value = (a + b) * log_p.at(row[c]).exp();
                if c == own {
                    value -= a;
                }
                if c == partner {
                    value -= b;
                }
                g * value
            }
        })
    }
}

impl CustomOp1 for LabelCrossEntropy {
    fn name(&self) -> &'static str {
        "mixskd-cross-entropy"
    }

    fn cpu_fwd(&self, z: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(z.dtype(), T => {
            let value = self.value(storage::slice::<T>(z, layout)?);
            Ok(storage::own(vec![T::of(value)], ()))
        })
    }

    fn bwd(&self, z: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        by_dtype!(z.dtype(), T => {
            let g = scalar::<T>(dy)?;
            let dz = storage::with_slice::<T, _>(z, |z| Ok(self.gradient(z, g)))?;
            Ok(Some(Tensor::from_vec(dz, z.shape(), z.device())?))
        })
    }
}

/// Cross-entropy with a dense target, the second input, which has no gradient.
pub(super) struct SoftCrossEntropy;

impl SoftCrossEntropy {
    fn value<T: Element>(z: &[T], t: &[T], classes: usize) -> f64 {
        mean_of_rows(z.len() / classes, classes, |i| {
            let part = i * classes..(i + 1) * classes;
            let (row, target) = (&z[part.clone()], &t[part]);
            let log_p = LogSoftmax::of(row, 1.0);
            let terms = row.iter().zip(target);
            terms.map(|(&z, t)| -t.to_f64() * log_p.at(z)).sum()
        })
    }

    /// `dL/dz_c = g/B · (p_c·Σ t − t_c)`.
    fn gradient<T: Element>(z: &[T], t: &[T], classes: usize, g: f64) -> Vec<T> {
        let rows = z.len() / classes;
        let g = g / rows as f64;
        filled_rows(rows, classes, |i| {
            let part = i * classes..(i + 1) * classes;
            let (row, target) = (&z[part.clone()], &t[part]);
            let log_p = LogSoftmax::of(row, 1.0);
            let sum: f64 = target.iter().map(|t| t.to_f64()).sum();
            move |c| g * (sum * log_p.at(row[c]).exp() - target[c].to_f64())
        })
    }
}

impl CustomOp2 for SoftCrossEntropy {
    fn name(&self) -> &'static str {
        "mixskd-soft-cross-entropy"
    }

    fn cpu_fwd(
        &self,
        z: &CpuStorage,
        z_layout: &Layout,
        t: &CpuStorage,
        t_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, classes) = z_layout.shape().dims2()?;
        by_dtype!(z.dtype(), T => {
            let (z, t) = (storage::slice::<T>(z, z_layout)?, storage::slice::<T>(t, t_layout)?);
            Ok(storage::own(vec![T::of(Self::value(z, t, classes))], ()))
        })
    }

    fn bwd(
        &self,
        z: &Tensor,
        t: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, classes) = z.dims2()?;
        by_dtype!(z.dtype(), T => {
            let g = scalar::<T>(dy)?;
            let dz = storage::with_slice::<T, _>(z, |z| {
                storage::with_slice::<T, _>(t, |t| Ok(Self::gradient(z, t, classes, g)))
            })?;
            Ok((Some(Tensor::from_vec(dz, z.shape(), z.device())?), None))
        })
    }
}

/// Kullback–Leibler divergence from the teacher, the second input, which has no gradient.
pub(super) struct Divergence {
    pub(super) temperature: f64,
}

impl Divergence {
    fn value<T: Element>(&self, student: &[T], teacher: &[T], classes: usize) -> f64 {
        let scale = 1.0 / self.temperature;
        let mean = mean_of_rows(student.len() / classes, classes, |i| {
            let part = i * classes..(i + 1) * classes;
            let (student, teacher) = (&student[part.clone()], &teacher[part]);
            let (log_q, log_p) = (
                LogSoftmax::of(student, scale),
                LogSoftmax::of(teacher, scale),
            );
            let pairs = student.iter().zip(teacher);
            let term = |(&s, &t): (&T, &T)| {
                let log_p = log_p.at(t);
                log_p.exp() * (log_p - log_q.at(s))
            };
            pairs.map(term).sum()
        });
        self.temperature * self.temperature * mean
    }

    /// `dL/dz_c = g·T/B · (q_c − p_c)`.
    fn gradient<T: Element>(&self, student: &[T], teacher: &[T], classes: usize, g: f64) -> Vec<T> {
        let rows = student.len() / classes;
        let (scale, g) = (1.0 / self.temperature, g * self.temperature / rows as f64);
        filled_rows(rows, classes, |i| {
            let part = i * classes..(i + 1) * classes;
            let (student, teacher) = (&student[part.clone()], &teacher[part]);
            let (log_q, log_p) = (
                LogSoftmax::of(student, scale),
                LogSoftmax::of(teacher, scale),
            );
            move |c| g * (log_q.at(student[c]).exp() - log_p.at(teacher[c]).exp())
        })
    }
}

impl CustomOp2 for Divergence {
    fn name(&self) -> &'static str {
        "mixskd-kl-divergence"
    }

    fn cpu_fwd(
        &self,
        student: &CpuStorage,
        student_layout: &Layout,
        teacher: &CpuStorage,
        teacher_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, classes) = student_layout.shape().dims2()?;
        by_dtype!(student.dtype(), T => {
            let student = storage::slice::<T>(student, student_layout)?;
            let teacher = storage::slice::<T>(teacher, teacher_layout)?;
            let value = self.value(student, teacher, classes);
            Ok(storage::own(vec![T::of(value)], ()))
        })
    }

    fn bwd(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, classes) = student.dims2()?;
        by_dtype!(student.dtype(), T => {
            let g = scalar::<T>(dy)?;
            let dz = storage::with_slice::<T, _>(student, |s| {
                storage::with_slice::<T, _>(teacher, |t| Ok(self.gradient(s, t, classes, g)))
            })?;
            Ok((Some(Tensor::from_vec(dz, student.shape(), student.device())?), None))
        })
    }
}
