//! `mixskd methods`: the tables of methods and of objectives.

use clap::Parser;
use mixskd_losses::objective;
use mixskd_train::method;
use serde_json::json;

use crate::failure::Result;
use crate::output;

/// Flags of `mixskd methods`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Prints the tables.
    pub(crate) fn run(&self) -> Result<()> {
        if self.json {
            let methods = method::ALL
                .iter()
                .map(|spec| json!({ "name": spec.name, "summary": spec.summary, "source": spec.source }))
                .collect::<Vec<_>>();
            let objectives = objective::ALL
                .iter()
                .map(|preset| json!({ "name": preset.name, "summary": preset.summary, "config": preset.config }))
                .collect::<Vec<_>>();
            return output::json(&json!({ "methods": methods, "objectives": objectives }));
        }
        let mut rows = vec![vec![
            "method".into(),
            "what it does".into(),
            "source".into(),
        ]];
        rows.extend(
            method::ALL
                .iter()
                .map(|spec| vec![spec.name.into(), spec.summary.into(), spec.source.into()]),
        );
        output::line(&output::table(&rows))?;
        let mut rows = vec![vec!["objective".into(), "what it is".into()]];
        rows.extend(
            objective::ALL
                .iter()
                .map(|preset| vec![preset.name.into(), preset.summary.into()]),
        );
        output::line(&format!("\n{}", output::table(&rows)))
    }
}
