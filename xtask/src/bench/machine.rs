//! What the figures were measured on.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xshell::Shell;

use super::programs::Ours;

/// The processor's name and the peaks that floors are reckoned with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    processor: String,
    threads: usize,
    /// 10⁹ float32 operations per second of a large matrix product of this project's.
    pub(super) gemm_gflop_per_s: f64,
    /// 10⁹ bytes per second of `a = b + s·c`, the reading of `a`'s lines before they are written not counted.
    memory_gb_per_s: f64,
}

impl Machine {
    pub(super) fn measure(sh: &Shell, ours: &Ours, threads: usize) -> Result<Self> {
        let peak = ours.row(sh, threads, &["peak".into()])?;
        let best = |name: &str| -> Result<f64> {
            let row = &peak["rows"][name];
            let seconds = row["seconds"].as_array().into_iter().flatten();
            let least = seconds.filter_map(Value::as_f64).fold(f64::NAN, f64::min);
            let amount = row["amount"].as_f64();
            Ok(amount.with_context(|| format!("no figure of {name}"))? / least / 1e9)
        };
        Ok(Self {
            processor: processor(),
            threads,
            gemm_gflop_per_s: best("matrix product")?,
            memory_gb_per_s: best("memory")?,
        })
    }

    /// Of two measurements of one machine the better peaks; of two machines, this one.
    pub(super) fn best_of(mut self, before: &Self) -> Self {
        if (&self.processor, self.threads) == (&before.processor, before.threads) {
            self.gemm_gflop_per_s = self.gemm_gflop_per_s.max(before.gemm_gflop_per_s);
            self.memory_gb_per_s = self.memory_gb_per_s.max(before.memory_gb_per_s);
        }
        self
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        format!(
            "{}, {} threads, float32; matrix product {:.0} GFLOP/s, memory {:.1} GB/s",
            self.processor, self.threads, self.gemm_gflop_per_s, self.memory_gb_per_s
        )
    }
}

/// The processor as Linux names it; elsewhere its architecture.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(':').nth(1));
    let avx512 = if info.contains("avx512f") {
        " (AVX-512)"
    } else {
        ""
    };
    name.map_or_else(
        || std::env::consts::ARCH.into(),
        |name| format!("{}{avx512}", name.trim()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_figures_of_one_machine_are_joined() {
        let machine = |processor: &str, gemm| Machine {
            processor: processor.into(),
            threads: 2,
            gemm_gflop_per_s: gemm,
            memory_gb_per_s: 10.0,
        };
        let join = |a: Machine, b: Machine| a.best_of(&b).gemm_gflop_per_s;
        assert_eq!(join(machine("a", 1.0), machine("a", 2.0)), 2.0);
        assert_eq!(join(machine("a", 1.0), machine("b", 2.0)), 1.0);
    }
}
