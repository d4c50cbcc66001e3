//! How a step's time on a GPU divides among its kernels.

use candle_core::Device;
use mixskd_kernels::{GpuSpan, GpuWatch};
use serde::Serialize;

use crate::gpu_step::REHEARSALS;
use crate::{Error, Result};

/// A GPU's time of one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelTimes {
    /// From the first kernel's beginning to the last one's end, in milliseconds. The marks between kernels take a part of it, and where the step was not
    /// captured the host's time does.
    pub total_ms: f64,
    /// Of that, what was none of the kernels below: candle's own, copies, and waiting.
    pub between_ms: f64,
    /// The longest first.
    pub kernels: Vec<KernelTime>,
}

/// All launches of one kernel in a step, or all convolutions of one shape and pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelTime {
    /// Its name.
    pub name: String,
    /// How often it was launched.
    pub launches: usize,
    /// How long all launches took together, in milliseconds.
    pub ms: f64,
}

impl KernelTimes {
    fn of(spans: &[GpuSpan]) -> Self {
        let mut kernels: Vec<KernelTime> = Vec::new();
        for span in spans {
            let ms = f64::from(span.ms);
            match kernels.iter_mut().find(|k| k.name == span.what) {
                Some(kernel) => {
                    kernel.launches += 1;
                    kernel.ms += ms;
                }
                None => kernels.push(KernelTime {
                    name: span.what.clone(),
                    launches: 1,
                    ms,
                }),
            }
        }
        kernels.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let end = |span: &GpuSpan| f64::from(span.begin_ms) + f64::from(span.ms);
        let total_ms = spans.last().map_or(0.0, end);
        let within: f64 = kernels.iter().map(|kernel| kernel.ms).sum();
        Self {
            total_ms,
            between_ms: total_ms - within,
            kernels,
        }
    }
}

/// Steps after the one in which kernels are noted: a graph's first launch uploads it.
const LAUNCHES: usize = 2;

/// Watches a step. `take` takes one, and says whether it was launched as a captured graph; where it captures any, it is the one after the rehearsals,
/// and its last launch is the one that is read.
///
/// # Errors
/// `take`'s, the driver's, and that `device` is no GPU.
pub(super) fn watch(
    device: &Device,
    mut take: impl FnMut() -> Result<bool>,
) -> Result<KernelTimes> {
    for _ in 0..REHEARSALS {
        take()?;
    }
    let mut watch = GpuWatch::start(device)?.ok_or_else(no_gpu)?;
    if take()? {
        watch.stop();
        for _ in 0..LAUNCHES {
            take()?;
        }
    } else {
        // An attempt to capture it may have waited for the GPU, which then waits for the host.
        watch = GpuWatch::start(device)?.ok_or_else(no_gpu)?;
        take()?;
        watch.stop();
    }
    Ok(KernelTimes::of(&watch.spans()?))
}

/// What to say where there is no GPU to be watched.
pub(super) fn no_gpu() -> Error {
    Error::Config {
        place: "bench.kernels".into(),
        message: "only a GPU's kernels are timed one by one".into(),
        hint: Some("on the CPU, `perf record` does it".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_added_up_and_the_rest_is_between() {
        let span = |what: &str, begin_ms: f32, ms: f32| GpuSpan {
            what: what.into(),
            begin_ms,
            ms,
        };
        let times = KernelTimes::of(&[
            span("a", 0.0, 1.0),
            span("b", 1.5, 4.0),
            span("a", 6.0, 2.0),
        ]);
        let found: Vec<_> = times
            .kernels
            .iter()
            .map(|k| (k.name.as_str(), k.launches, k.ms))
            .collect();
        assert_eq!(found, [("b", 1, 4.0), ("a", 2, 3.0)]);
        assert!((times.total_ms - 8.0).abs() < 1e-9 && (times.between_ms - 1.0).abs() < 1e-9);
        assert_eq!(KernelTimes::of(&[]).kernels, []);
    }

    #[test]
    fn a_cpu_is_not_watched() {
        let error = watch(&Device::Cpu, || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("only a GPU"), "{error}");
    }
}
