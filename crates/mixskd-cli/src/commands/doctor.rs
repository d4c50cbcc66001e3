//! `mixskd doctor`: what this build is, and what it finds on this machine.

use clap::Parser;
use mixskd_data::data_root;
use mixskd_train::Machine;
use serde_json::json;

use crate::failure::Result;
use crate::output;

/// Flags of `mixskd doctor`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Prints the table.
    pub(crate) fn run(&self) -> Result<()> {
        let machine = Machine::detect();
        let features = [
            ("cuda", cfg!(feature = "cuda")),
            ("nccl", cfg!(feature = "nccl")),
            ("hub", cfg!(feature = "hub")),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect::<Vec<_>>();
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        if self.json {
            return output::json(&json!({
                "version": env!("CARGO_PKG_VERSION"),
                "profile": profile,
                "features": features,
                "threads_used": rayon::current_num_threads(),
                "data_root": data_root(),
                "machine": machine,
            }));
        }
        let unknown = || "unknown".to_string();
        let gib = |bytes: Option<u64>| {
            bytes.map_or_else(unknown, |bytes| {
                format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
            })
        };
        let list = if features.is_empty() {
            "none".to_string()
        } else {
            features.join(", ")
        };
        let cpu = if machine.cpu_features.is_empty() {
            unknown()
        } else {
            machine.cpu_features.join(", ")
        };
        let rows = [
            (
                "version",
                format!("{} ({profile})", env!("CARGO_PKG_VERSION")),
            ),
            ("features", list),
            ("system", machine.system),
            ("processor", machine.processor.unwrap_or_else(unknown)),
            ("CPU features", cpu),
            ("kernels", machine.instruction_set),
            (
                "threads",
                format!("{} of {}", rayon::current_num_threads(), machine.threads),
            ),
            (
                "memory",
                format!(
                    "{}, {} free",
                    gib(machine.memory_bytes),
                    gib(machine.memory_available_bytes)
                ),
            ),
            ("GPU", machine.gpu),
            ("fetched data", data_root().display().to_string()),
        ];
        output::line(&output::columns(&rows))?;
        if cfg!(debug_assertions) {
            output::line(
                "\nThis is a debug build: its training loop is slower. Build with `--release`.",
            )?;
        }
        Ok(())
    }
}
