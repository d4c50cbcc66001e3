//! Targets from a batch that asks its neighbours.

use candle_core::{D, DType, Device, Tensor};
use mixskd_kernels::linear;

use crate::kl_divergence::from_logarithms;
use crate::log_softmax::log_softmax;
use crate::precision::doubled;
use crate::{Error, Result, check};

/// BAKE's soft targets `Q = (1 − ω)·(I − ω·A)⁻¹·softmax(logits / T)` (Ge et al., Self-distillation with Batch Knowledge
/// Ensembling, 2021, equation 8): predictions carried to and fro among the batch until nothing changes. `A` is the row-softmax
/// of the features' cosine similarity with no sample its own neighbour; `ω = 0` gives each sample's own prediction.
///
/// Temperature: of the softmax over classes. Detached: both arguments; the result has no graph. Computed in f64, on the CPU: one system
/// of `batch` equations.
///
/// # Shapes
/// - `features`: `[batch, channel]`
/// - `logits`: `[batch, class]`
/// - result: `[batch, class]`, f64 on the device of `logits`; rows sum to 1
///
/// # Errors
/// When a shape does not fit, the batch is 1, `omega` is not from 0 to below 1, or `temperature` is not a finite number above 0.
pub fn ensemble_targets(
    features: &Tensor,
    logits: &Tensor,
    omega: f64,
    temperature: f64,
) -> Result<Tensor> {
    const OP: &str = "ensemble_targets";
    let (batch, classes) = check::logits(OP, "logits", logits)?;
    check::temperature(temperature)?;
    if batch < 2 || !matches!(features.dims2(), Ok((rows, _)) if rows == batch) {
        return Err(Error::Shape {
            op: OP,
            what: "features".into(),
            wanted: "[batch, channel], at least two rows, as many as logits".into(),
            got: features.dims().to_vec(),
        });
    }
    if !(0.0..1.0).contains(&omega) {
        return Err(Error::Range {
            key: "omega",
            value: omega,
            hint: "the share of the neighbours is from 0 to below 1; the paper uses 0.5",
        });
    }
    let here = |x: &Tensor| x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64);
    let features = here(features)?;
    let length = (features.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?;
    let unit = features.broadcast_div(&length)?.contiguous()?;
    let similarity = linear(&unit, &unit, None)?.to_vec2::<f64>()?;
    let predicted = log_softmax(&(here(logits)? / temperature)?)?.exp()?;

    // I − ω·A, row by row; a sample is no neighbour of its own.
    let mut system = vec![0.0; batch * batch];
    for (i, (row, similar)) in system.chunks_exact_mut(batch).zip(&similarity).enumerate() {
        let others = || similar.iter().enumerate().filter(|&(j, _)| j != i);
        let most = others().fold(f64::NEG_INFINITY, |most, (_, &s)| most.max(s));
        let sum: f64 = others().map(|(_, &s)| (s - most).exp()).sum();
        for (j, &s) in others() {
            row[j] = -omega * (s - most).exp() / sum;
        }
        row[i] = 1.0;
    }
    let mut targets = (predicted * (1.0 - omega))?
        .flatten_all()?
        .to_vec1::<f64>()?;
    solve(&mut system, &mut targets, batch, classes);
    let targets = Tensor::from_vec(targets, (batch, classes), &Device::Cpu)?;
    let dtype = if logits.device().is_metal() {
        DType::F32
    } else {
        DType::F64
    };
    Ok(targets.to_dtype(dtype)?.to_device(logits.device())?)
}

/// Solves `system · x = right` in place by elimination. Each row's diagonal outweighs the rest of it, so no pivot is needed.
fn solve(system: &mut [f64], right: &mut [f64], n: usize, columns: usize) {
    for pivot in 0..n {
        let (done, below) = system.split_at_mut((pivot + 1) * n);
        let (known, unknown) = right.split_at_mut((pivot + 1) * columns);
        let (row, answer) = (&done[pivot * n..], &known[pivot * columns..]);
        for (other, out) in below
            .chunks_exact_mut(n)
            .zip(unknown.chunks_exact_mut(columns))
        {
            let factor = other[pivot] / row[pivot];
            for (o, r) in other[pivot..].iter_mut().zip(&row[pivot..]) {
                *o -= factor * r;
            }
            for (o, a) in out.iter_mut().zip(answer) {
                *o -= factor * a;
            }
        }
    }
    for at in (0..n).rev() {
        let (before, rest) = right.split_at_mut((at + 1) * columns);
        let own = &mut before[at * columns..];
        let row = &system[at * n..(at + 1) * n];
        for (weight, later) in row[at + 1..].iter().zip(rest.chunks_exact(columns)) {
            for (o, l) in own.iter_mut().zip(later) {
                *o -= weight * l;
            }
        }
        for o in own {
            *o /= row[at];
        }
    }
}

/// `T²·mean_i Σ_c t_ic·(log t_ic − log q_ic)`, `q = softmax(student / T)`: [`kl_divergence`](crate::kl_divergence) from a teacher
/// given by its probabilities.
///
/// Reduction: sum over classes, batch mean. Temperature: the student is divided by `T`, the sum multiplied by `T²`; the targets
/// are taken as they are. Detached: the targets. A target of 0 adds nothing. Computed in f64.
///
/// # Shapes
/// - `student`: `[batch, class]`, logits
/// - `targets`: `[batch, class]`, probabilities
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit or `temperature` is not a finite number above 0.
pub fn kl_from_targets(student: &Tensor, targets: &Tensor, temperature: f64) -> Result<Tensor> {
    let (batch, classes) = check::logits("kl_from_targets", "student", student)?;
    check::exactly("kl_from_targets", "targets", targets, &[batch, classes])?;
    check::temperature(temperature)?;
    let targets = doubled(&targets.detach())?;
    let log_t = targets.maximum(1e-37)?.log()?;
    from_logarithms(student, &targets, &log_t, temperature)
}
