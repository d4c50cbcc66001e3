//! How loaded tensors fit a model.

use std::fmt;

/// Names listed before the rest is only counted.
const LISTED: usize = 12;

/// A tensor whose shape is not the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The tensor.
    pub name: String,
    /// The model's shape.
    pub wanted: Vec<usize>,
    /// The shape that came.
    pub got: Vec<usize>,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, wanted, got } = self;
        write!(f, "{name} (wanted {wanted:?}, got {got:?})")
    }
}

/// What became of a set of loaded tensors, names sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Taken over.
    pub loaded: Vec<String>,
    /// In the model, not among the loaded.
    pub missing: Vec<String>,
    /// Among the loaded, not in the model.
    pub extra: Vec<String>,
    /// In both, with different shapes.
    pub mismatched: Vec<Misfit>,
}

impl LoadReport {
    /// Whether every tensor of the model was given in its shape, and nothing else.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mismatched: Vec<String> = self.mismatched.iter().map(Misfit::to_string).collect();
        let lists = [
            ("missing", &self.missing),
            ("extra", &self.extra),
            ("of another shape", &mismatched),
        ];
        let parts: Vec<String> = lists
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| list(what, names))
            .collect();
        match parts.as_slice() {
            [] => f.write_str("all tensors fit"),
            _ => f.write_str(&parts.join("; ")),
        }
    }
}

fn list(what: &str, names: &[String]) -> String {
    format!("{} {what}: {}", names.len(), shown(names))
}

/// The first names, and how many more there are.
pub(crate) fn shown(names: &[String]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
