//! `mixskd models`: the table of networks.

use clap::Parser;
use mixskd_models::registry::{self, ModelSpec};
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

impl Args {
    /// Prints the table.
    pub(crate) fn run(&self) -> Result<()> {
        if self.json {
            let row = |spec: &ModelSpec| json!({ "name": spec.name, "summary": spec.summary, "input": spec.input });
            return output::json(
                &json!({ "models": registry::ALL.iter().map(row).collect::<Vec<_>>() }),
            );
        }
        let mut rows = vec![vec!["model".into(), "input".into(), "what it is".into()]];
        rows.extend(registry::ALL.iter().map(|spec| {
            vec![
                spec.name.into(),
                format!("{} px", spec.input),
                spec.summary.into(),
            ]
        }));
        output::line(&output::table(&rows))
    }
}
