//! Names of what lies in a run directory, whoever writes it.

/// Every setting, resolved.
pub const CONFIG_TOML: &str = "config.toml";
/// Held by whoever trains in the directory.
pub(crate) const LOCK: &str = "lock";
/// The folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// One line for each epoch.
pub const METRICS_JSONL: &str = "metrics.jsonl";
/// The weights of the network that is kept.
pub const MODEL_SAFETENSORS: &str = "model.safetensors";
/// The result, once the run is done.
pub const REPORT_JSON: &str = "report.json";
/// Who worked on the run, and where.
pub const RUN_JSON: &str = "run.json";
/// The epochs as a table.
pub const METRICS_CSV: &str = "metrics.csv";
/// What the network says of each test image.
pub const PREDICTIONS_CSV: &str = "predictions.csv";
/// The run's page.
pub const REPORT_HTML: &str = "report.html";
/// How the names of TensorBoard's files begin.
pub const EVENTS: &str = "events.out.tfevents.";
