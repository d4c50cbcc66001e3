//! `mixskd models`: the table of networks.

use candle_core::{DType, Device};
use clap::Parser;
use mixskd_models::registry::{self, ModelSpec};
use mixskd_models::{ModelConfig, ParamStore};
use serde_json::json;

use crate::failure::Result;
use crate::output;

/// Flags of `mixskd models`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A network at full width for images of its recommended size.
struct Row {
    spec: &'static ModelSpec,
    classes: usize,
    parameters: u64,
    macs: u64,
    stages: usize,
}

/// Networks for small images are counted with CIFAR-100's classes, the others with ImageNet's.
fn row(spec: &'static ModelSpec) -> Result<Row> {
    let classes = if spec.input <= 32 { 100 } else { 1000 };
    let config = ModelConfig::new(spec.name, classes)?;
    // Zeros that nobody writes to take no memory.
    let store = ParamStore::blank(DType::F32, &Device::Cpu);
    let backbone = config.build(store.builder())?;
    let cost = backbone.cost((config.input, config.input))?;
    Ok(Row {
        spec,
        classes,
        parameters: cost.parameters,
        macs: cost.macs,
        stages: cost.stages.len(),
    })
}

impl Args {
    /// Prints the table.
    pub(crate) fn run(&self) -> Result<()> {
        let rows = registry::ALL.iter().map(row).collect::<Result<Vec<_>>>()?;
        if self.json {
            let row = |row: &Row| {
                json!({
                    "name": row.spec.name,
                    "summary": row.spec.summary,
                    "input": row.spec.input,
                    "classes": row.classes,
                    "parameters": row.parameters,
                    "macs": row.macs,
                    "stages": row.stages,
                })
            };
            return output::json(&json!({ "models": rows.iter().map(row).collect::<Vec<_>>() }));
        }
        let heading = [
            "model",
            "input",
            "parameters",
            "multiply-adds",
            "stages",
            "what it is",
        ];
        let mut table = vec![heading.map(String::from).to_vec()];
        table.extend(rows.iter().map(|row| {
            vec![
                row.spec.name.into(),
                format!("{} px", row.spec.input),
                format!("{:.2} M", row.parameters as f64 / 1e6),
                format!("{:.3} G", row.macs as f64 / 1e9),
                row.stages.to_string(),
                row.spec.summary.into(),
            ]
        }));
        output::line(&output::table(&table))
    }
}
