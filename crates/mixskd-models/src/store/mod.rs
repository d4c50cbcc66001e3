//! Where parameters live: made on first request from a seed and their name, kept in sorted order.

mod init;
mod report;
mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use crate::{Error, Result};

pub(crate) use report::shown;
pub use report::{LoadReport, Misfit};
pub(crate) use shapes::Shapes;

/// Whether loaded tensors must cover a model exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Every tensor of the model is there in the right shape, and nothing else is.
    Exact,
    /// What fits is taken; the rest is reported and left alone.
    Partial,
}

/// The tensors of one or several modules, behind candle's [`VarBuilder`].
///
/// A tensor is made when a module first asks for it. Its values are drawn by a ChaCha8 generator seeded from (seed, name),
/// so they do not depend on the order in which modules are built. Names ending in `running_mean` or `running_var` are
/// buffers: no gradient, no decay. A clone shares the tensors.
///
/// ```
/// use candle_core::{DType, Device};
/// use mixskd_models::{ModelConfig, ParamStore};
///
/// # fn main() -> mixskd_models::Result<()> {
/// let store = ParamStore::new(7, DType::F32, &Device::Cpu);
/// let config = ModelConfig { width: 0.25, ..ModelConfig::new("cifar_resnet18", 100)? };
/// config.build(store.builder().pp("backbone"))?;
/// assert_eq!(store.parameters()[0].0, "backbone.bn1.bias");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ParamStore {
    seed: Option<u64>,
    dtype: DType,
    device: Device,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    vars: BTreeMap<String, Var>,
    frozen: BTreeSet<String>,
}

impl ParamStore {
    /// An empty store.
    pub fn new(seed: u64, dtype: DType, device: &Device) -> Self {
        Self {
            seed: Some(seed),
            dtype,
            device: device.clone(),
            inner: Arc::default(),
        }
    }

    /// An empty store whose tensors start as zeros: for weights about to be loaded, and for counting.
    pub fn blank(dtype: DType, device: &Device) -> Self {
        Self {
            seed: None,
            ..Self::new(0, dtype, device)
        }
    }

    /// A builder that makes its tensors in this store.
    pub fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), self.dtype, self.device.clone())
    }

    /// What an optimiser updates: every tensor that is neither a buffer nor frozen, by name.
    pub fn parameters(&self) -> Vec<(String, Var)> {
        let inner = self.lock();
        let trained = |name: &str| {
            !is_buffer(name) && !inner.frozen.iter().any(|prefix| is_under(name, prefix))
        };
        collect(&inner, |name| trained(name))
    }

    /// Running statistics, by name.
    pub fn buffers(&self) -> Vec<(String, Var)> {
        collect(&self.lock(), is_buffer)
    }

    /// Every tensor by name, sharing its storage with the store: later training changes it.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let inner = self.lock();
        inner
            .vars
            .iter()
            .map(|(name, var)| (name.clone(), var.as_detached_tensor()))
            .collect()
    }

    /// A copy of every tensor by name, which later training leaves alone; [`Self::load`] puts it back.
    ///
    /// # Errors
    /// candle's.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        self.tensors()
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.copy()?)))
            .collect()
    }

    /// Number of parameter values under `prefix` (`""` for all), frozen ones included, buffers not.
    pub fn count(&self, prefix: &str) -> usize {
        let inner = self.lock();
        collect(&inner, |name| is_under(name, prefix) && !is_buffer(name))
            .iter()
            .map(|(_, var)| var.elem_count())
            .sum()
    }

    /// Takes every parameter under `prefix`, present or future, out of [`Self::parameters`].
    pub fn freeze(&self, prefix: &str) {
        self.lock().frozen.insert(prefix.into());
    }

    /// Sets the store's tensors from `tensors`, converted to the store's dtype; see [`Self::load_under`].
    ///
    /// # Errors
    /// See [`Self::load_under`].
    pub fn load(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        strictness: Strictness,
    ) -> Result<LoadReport> {
        self.load_under("", tensors, strictness)
    }

    /// Sets the tensors under `prefix`, which the names in `tensors` lack. PyTorch's `num_batches_tracked` counters are
    /// passed over.
    ///
    /// # Errors
    /// With [`Strictness::Exact`], when a tensor is missing, extra or of another shape: all are listed, and the store is
    /// as it was.
    pub fn load_under(
        &self,
        prefix: &str,
        tensors: &BTreeMap<String, Tensor>,
        strictness: Strictness,
    ) -> Result<LoadReport> {
        let given = given(prefix, tensors);
        let inner = self.lock();
        let report = compare(&inner.shapes(prefix), &given);
        if strictness == Strictness::Exact && !report.is_exact() {
            return Err(Error::Weights {
                source_name: "weights".into(),
                report: Box::new(report),
            });
        }
        // Every conversion comes before the first change, so an error leaves the store as it was.
        let fitting = report.loaded.iter();
        let fitting = fitting.filter_map(|name| Some((inner.vars.get(name)?, given.get(name)?)));
        let converted = fitting
            .map(|(var, tensor)| {
                // Copied, since candle refuses to set a variable from its own storage.
                let tensor = tensor
                    .to_device(&self.device)?
                    .to_dtype(self.dtype)?
                    .copy()?;
                Ok((var, tensor))
            })
            .collect::<Result<Vec<(&Var, Tensor)>>>()?;
        for (var, tensor) in converted {
            var.set(&tensor)?;
        }
        Ok(report)
    }

    /// What [`Self::load_under`] with [`Strictness::Partial`] would do; nothing is changed.
    pub fn compare_under(&self, prefix: &str, tensors: &BTreeMap<String, Tensor>) -> LoadReport {
        compare(&self.lock().shapes(prefix), &given(prefix, tensors))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing done under the lock leaves the maps half-changed, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Shapes of the tensors under `prefix`, by full name.
    fn shapes(&self, prefix: &str) -> BTreeMap<String, Vec<usize>> {
        let under = self.vars.iter().filter(|(name, _)| is_under(name, prefix));
        under
            .map(|(name, var)| (name.clone(), var.dims().to_vec()))
            .collect()
    }
}

impl SimpleBackend for ParamStore {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        _: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        let mut inner = self.lock();
        if let Some(var) = inner.vars.get(name) {
            if var.shape() == &shape {
                return Ok(var.as_tensor().clone());
            }
            return Err(Error::Shape {
                module: "parameter store",
                what: "second request of a tensor",
                wanted: format!("{name} {:?}", var.dims()),
                got: format!("{:?}", shape.dims()),
            }
            .into());
        }
        let var = match self.seed {
            Some(seed) => init::draw(init, &shape, seed, name, self.dtype, &self.device)?,
            None => Var::zeros(shape, self.dtype, &self.device)?,
        };
        let tensor = var.as_tensor().clone();
        inner.vars.insert(name.into(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.lock().vars.get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => Err(candle_core::Error::CannotFindTensor { path: name.into() }),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.lock().vars.contains_key(name)
    }
}

/// Tensors to be loaded, under the names they would have in the store.
fn given<'a>(prefix: &str, tensors: &'a BTreeMap<String, Tensor>) -> BTreeMap<String, &'a Tensor> {
    let full = |name: &str| match prefix.trim_end_matches('.') {
        "" => name.to_string(),
        prefix => format!("{prefix}.{name}"),
    };
    tensors
        .iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, tensor)| (full(name), tensor))
        .collect()
}

/// Which of the given tensors fit those of a model without a prefix, by the model's shapes alone.
pub(crate) fn compare_shapes(
    wanted: &BTreeMap<String, Vec<usize>>,
    tensors: &BTreeMap<String, Tensor>,
) -> LoadReport {
    compare(wanted, &given("", tensors))
}

/// Which of the given tensors have the shapes that are wanted.
fn compare(wanted: &BTreeMap<String, Vec<usize>>, given: &BTreeMap<String, &Tensor>) -> LoadReport {
    let mut report = LoadReport::default();
    for (name, tensor) in given {
        match wanted.get(name) {
            None => report.extra.push(name.clone()),
            Some(shape) if shape != tensor.dims() => report.mismatched.push(Misfit {
                name: name.clone(),
                wanted: shape.clone(),
                got: tensor.dims().to_vec(),
            }),
            Some(_) => report.loaded.push(name.clone()),
        }
    }
    let missing = wanted.keys().filter(|name| !given.contains_key(*name));
    report.missing = missing.cloned().collect();
    report
}

fn collect(inner: &Inner, keep: impl Fn(&str) -> bool) -> Vec<(String, Var)> {
    inner
        .vars
        .iter()
        .filter(|(name, _)| keep(name))
        .map(|(name, var)| (name.clone(), var.clone()))
        .collect()
}

/// Whether a name is that of a running statistic.
fn is_buffer(name: &str) -> bool {
    matches!(
        name.rsplit('.').next(),
        Some("running_mean" | "running_var")
    )
}

/// Whether `name` is `prefix` or lies below it, a level being what stands between dots.
fn is_under(name: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('.');
    prefix.is_empty()
        || name
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
