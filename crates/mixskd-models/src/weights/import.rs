//! Weights that another program wrote, or another network's.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::{Metadata, names, pytorch, read};
use crate::store::{compare_shapes, shown};
use crate::{Error, LoadReport, ModelConfig, ParamStore, Result, Strictness};

/// The named tensors of a file: ours, a checkpoint of a run of ours, other safetensors, or PyTorch's `.pt` and `.pth`.
///
/// Prefixes that wrappers put before every name (`module.`, `model.`, `backbone.`, …) are gone. Of a checkpoint that holds
/// modules beside the backbone, as the released MixSKD code's does, the backbone's tensors remain.
#[derive(Debug)]
pub struct StateDict {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    metadata: Option<Metadata>,
    is_checkpoint: bool,
    left_out: Vec<String>,
}

/// What became of a file's tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Which fitted, which are missing, extra or of another shape. A dropped class head is in none of the lists.
    pub load: LoadReport,
    /// Where the class head was left as it was: the number of classes in the file, and the model's.
    pub dropped_head: Option<(usize, usize)>,
    /// Tensors of modules that only training has.
    pub left_out: Vec<String>,
}

impl StateDict {
    /// Reads a file; its beginning tells what it is.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, holds no tensors or a number that is not finite, is a pickle that asks for code to be run, or is
    /// mixskd's and what it says of its network cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read::file(path)?;
        let (tensors, metadata, is_checkpoint) = if pytorch::is_pytorch(&bytes) {
            let tensors = pytorch::read(&bytes).map_err(|cause| Error::Format {
                path: path.into(),
                message: format!("cannot be imported: {cause}"),
                hint: "a file of `torch.save(model.state_dict(), FILE)` can",
            })?;
            (tensors, None, false)
        } else {
            read::safetensors(path, &bytes)?
        };
        let (tensors, left_out) = names::unwrap(tensors);
        read::check_finite(path, &tensors)?;
        Ok(Self {
            path: path.into(),
            tensors,
            metadata,
            is_checkpoint,
            left_out,
        })
    }

    /// Whether the file is a checkpoint of a run, which does not say what network it is of.
    pub fn is_checkpoint(&self) -> bool {
        self.is_checkpoint
    }

    /// What the file says about its network, where mixskd wrote it.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Number of classes of the file's class head, if it has the head of the network that `model` names.
    ///
    /// # Errors
    /// When `model` is out of its range.
    pub fn classes(&self, model: &ModelConfig) -> Result<Option<usize>> {
        let tensors = names::of(model, self.tensors.clone())?;
        let rows = head(model)?
            .into_iter()
            .find_map(|name| tensors.get(&name)?.dims().first().copied());
        Ok(rows)
    }

    /// Refuses what [`Self::load_into`] would refuse, before memory is taken for `model`: what a file says of its network may be
    /// far larger than the file.
    ///
    /// # Errors
    /// As [`Self::load_into`], the names those of a network without a prefix.
    pub fn check(&self, model: &ModelConfig, strictness: Strictness) -> Result<()> {
        let fitting = self.fitting(model)?;
        let mut load = compare_shapes(&model.shapes()?, &fitting.tensors);
        load.missing.retain(|name| !fitting.left.contains(name));
        self.refuse(&load, strictness)
    }

    /// Sets the tensors of `model` under `prefix` in `store`, where it has been built. A class head of another number of
    /// classes is left as it is in the store, and the report says so.
    ///
    /// # Errors
    /// With [`Strictness::Exact`], when a tensor is missing, extra or of another shape: all are listed, and the store is
    /// as it was. With [`Strictness::Partial`], when none fits.
    pub fn load_into(
        &self,
        store: &ParamStore,
        prefix: &str,
        model: &ModelConfig,
        strictness: Strictness,
    ) -> Result<ImportReport> {
        let Fitting {
            tensors,
            left,
            dropped_head,
        } = self.fitting(model)?;
        // Nothing is set before it is known what fits.
        let mut load = store.compare_under(prefix, &tensors);
        let full = |name: &String| match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        let left: Vec<String> = left.iter().map(full).collect();
        load.missing.retain(|name| !left.contains(name));
        self.refuse(&load, strictness)?;
        store.load_under(prefix, &tensors, Strictness::Partial)?;
        Ok(ImportReport {
            load,
            dropped_head,
            left_out: self.left_out.clone(),
        })
    }

    /// The tensors under the names of `model`, without a class head of another number of classes.
    fn fitting(&self, model: &ModelConfig) -> Result<Fitting> {
        let mut tensors = names::of(model, self.tensors.clone())?;
        let head = head(model)?;
        let rows = head
            .iter()
            .find_map(|name| tensors.get(name)?.dims().first().copied());
        let dropped_head = rows
            .filter(|&rows| rows != model.classes)
            .map(|rows| (rows, model.classes));
        let left = if dropped_head.is_some() {
            tensors.retain(|name, _| !head.contains(name));
            head
        } else {
            Vec::new()
        };
        Ok(Fitting {
            tensors,
            left,
            dropped_head,
        })
    }

    fn refuse(&self, load: &LoadReport, strictness: Strictness) -> Result<()> {
        let refused = match strictness {
            Strictness::Exact => !load.is_exact(),
            Strictness::Partial => load.loaded.is_empty(),
        };
        if !refused {
            return Ok(());
        }
        Err(Error::Weights {
            source_name: self.path.display().to_string(),
            report: Box::new(load.clone()),
        })
    }
}

/// A file's tensors as a network takes them.
struct Fitting {
    tensors: BTreeMap<String, Tensor>,
    /// What the network is left with as it is: its class head, where the file's is dropped.
    left: Vec<String>,
    /// Numbers of classes, the file's and the network's, where they differ.
    dropped_head: Option<(usize, usize)>,
}

/// Names of the tensors whose first dimension is the number of classes: those that differ between networks of two numbers of classes.
fn head(model: &ModelConfig) -> Result<Vec<String>> {
    let shapes = |classes: usize| -> Result<BTreeMap<String, Vec<usize>>> {
        let model = ModelConfig {
            classes,
            ..model.clone()
        };
        model.shapes()
    };
    let (one, other) = (shapes(2)?, shapes(3)?);
    let differ = one
        .into_iter()
        .filter(|(name, shape)| other.get(name) != Some(shape));
    Ok(differ.map(|(name, _)| name).collect())
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors taken", self.load.loaded.len())?;
        if let Some((file, model)) = self.dropped_head {
            write!(
                f,
                "; class head of {file} classes dropped: the model has {model}, its head starts anew"
            )?;
        }
        if !self.left_out.is_empty() {
            let names = shown(&self.left_out);
            write!(
                f,
                "; {} of training alone left out: {names}",
                self.left_out.len()
            )?;
        }
        if !self.load.is_exact() {
            write!(f, "; {}", self.load)?;
        }
        Ok(())
    }
}
