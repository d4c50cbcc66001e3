//! `mixskd methods`: the tables of methods, objectives and augmentations.

use clap::Parser;
use mixskd_data::augment;
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
                .map(|spec| {
                    let settings = spec.settings.defaults();
                    json!({
                        "name": spec.name, "summary": spec.summary, "source": spec.source, "settings": settings,
                        "objective": spec.objective,
                    })
                })
                .collect::<Vec<_>>();
            let objectives = objective::ALL
                .iter()
                .map(|preset| json!({ "name": preset.name, "summary": preset.summary, "config": preset.config }))
                .collect::<Vec<_>>();
            let augmentations = augment::ALL
                .iter()
                .map(|entry| json!({ "name": entry.name, "summary": entry.summary, "options": (entry.defaults)() }))
                .collect::<Vec<_>>();
            return output::json(&json!({
                "methods": methods,
                "objectives": objectives,
                "augmentations": augmentations,
            }));
        }
        let width = method::ALL
            .iter()
            .map(|spec| spec.name.len())
            .max()
            .unwrap_or(0);
        output::line("methods:")?;
        for spec in method::ALL {
            output::line(&format!("  {:width$}  {}", spec.name, spec.summary))?;
            output::line(&format!("  {:width$}  {}", "", spec.source))?;
            let settings = spec.settings.defaults();
            if !settings.is_empty() {
                let settings: Vec<_> = settings
                    .iter()
                    .map(|(key, v)| format!("{key} = {v}"))
                    .collect();
                output::line(&format!(
                    "  {:width$}  [method] {}",
                    "",
                    settings.join(", ")
                ))?;
            }
        }
        let width = objective::ALL
            .iter()
            .map(|preset| preset.name.len())
            .max()
            .unwrap_or(0);
        output::line("\nobjectives of mixskd:")?;
        for preset in objective::ALL {
            output::line(&format!("  {:width$}  {}", preset.name, preset.summary))?;
        }
        let width = augment::ALL
            .iter()
            .map(|entry| entry.name.len())
            .max()
            .unwrap_or(0);
        output::line("\naugmentations:")?;
        for entry in augment::ALL {
            output::line(&format!("  {:width$}  {}", entry.name, entry.summary))?;
        }
        Ok(())
    }
}
