//! cuDNN's engines: for a convolution's pass, the configurations that its heuristics rank, as plans that can be run.
//!
//! This is what PyTorch runs its convolutions by, and knows kernels that cuDNN's older interface, `legacy`, does not.

use std::rc::Rc;

use cudarc::cudnn::sys;
use sys::cudnnBackendAttributeName_t as Name;
use sys::cudnnBackendDescriptorType_t as Type;
use sys::cudnnBackendHeurMode_t as Mode;
use sys::cudnnBackendNumericalNote_t as N;

use super::backend::{Descriptor, Note, Part, Place};
use super::{Arithmetic, Convolution, Pass};
use crate::{Element, Result};

/// What a plan is made for.
pub(super) enum Target {
    /// The GPU of a handle.
    Handle(sys::cudnnHandle_t),
    /// A GPU that is not there.
    #[cfg(test)]
    Described(Descriptor),
}

/// Bytes that the addresses of all arrays are multiples of.
pub(super) const ALIGNMENT: u64 = 16;

/// Names of the three arrays.
const IDS: [i64; 3] = [1, 2, 3];
/// Engines whose properties are asked for have fewer.
const NOTES: usize = 32;

/// A pass as cuDNN's graph of one operation, with the descriptors that it is made of.
struct Graph {
    whole: Descriptor,
    /// Freed in this order, before what it is made of.
    _operation: Descriptor,
    _parts: [Descriptor; 4],
}

/// The configurations of one pass, best guess first: those that cuDNN ranks by speed, and those that it falls back on.
pub(super) struct Offers<'a> {
    target: &'a Target,
    configurations: Vec<Descriptor>,
    graph: Rc<Graph>,
    exact: bool,
}

/// A configuration that can be run.
pub(super) struct Plan {
    descriptor: Descriptor,
    /// The engine's number among those that cuDNN has for the pass.
    pub(super) engine: u32,
    /// Bytes of scratch memory.
    pub(super) workspace: usize,
    /// Whether it gives the same bits every time.
    pub(super) repeats: bool,
    _configuration: Descriptor,
    _graph: Rc<Graph>,
}

/// A channels-last array. cuDNN orders dimensions as batch, channel, height, width, wherever they lie.
fn tensor(
    id: i64,
    [batch, height, width, channels]: [usize; 4],
    kind: Element,
) -> Result<Descriptor> {
    let kind = match kind {
        Element::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        Element::Bf16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
    };
    let [n, h, w, c] = [batch, height, width, channels].map(|size| size as i64);
    let tensor = Descriptor::new(
        "array of a convolution",
        Type::CUDNN_BACKEND_TENSOR_DESCRIPTOR,
    )?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, &[kind])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[ALIGNMENT as i64])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &[n, c, h, w])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_STRIDES, &[h * w * c, 1, w * c, c])?;
    tensor.finish()
}

/// A pass's operation and its attributes: the convolution, input, weight, output, and the two factors.
fn names(pass: Pass) -> (Type, [Name; 6]) {
    match pass {
        Pass::Forward => (
            Type::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Pass::Data => (
            Type::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Pass::Filter => (
            Type::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    }
}

impl Graph {
    fn new(c: &Convolution, pass: Pass, target: &Target) -> Result<Self> {
        let window = Descriptor::new("convolution", Type::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
        let both = |size: usize| [size as i64; 2];
        let float = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, &[float])?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, &[mode])?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2i64])?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &both(c.dilation))?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &both(c.stride))?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &both(c.padding))?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &both(c.padding))?;
        let window = window.finish()?;
        let group = c.input[3] / c.groups.max(1);
        let x = tensor(IDS[0], c.input, c.element)?;
        let w = tensor(
            IDS[1],
            [c.output[3], c.kernel[0], c.kernel[1], group],
            c.element,
        )?;
        let y = tensor(IDS[2], c.output, c.element)?;
        let (kind, names) = names(pass);
        let operation = Descriptor::new("pass of a convolution", kind)?;
        for (name, part) in names.into_iter().zip([&window, &x, &w, &y]) {
            operation.set_parts(name, &[part])?;
        }
        operation.set(names[4], &[1.0f32])?;
        operation.set(names[5], &[0.0f32])?;
        let operation = operation.finish()?;
        let graph = Descriptor::new("graph", Type::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
        graph.set_parts(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[&operation])?;
        match target {
            Target::Handle(handle) => {
                graph.set(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, &[*handle])?;
            }
            #[cfg(test)]
            Target::Described(_) => {}
        }
        Ok(Self {
            whole: graph.finish()?,
            _operation: operation,
            _parts: [window, x, w, y],
        })
    }

    /// The configurations that one of cuDNN's heuristics names.
    fn configurations(&self, mode: Mode, target: &Target) -> Result<Vec<Descriptor>> {
        let ranked = Descriptor::new("heuristics", Type::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
        ranked.set_parts(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[&self.whole])?;
        ranked.set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, &[mode])?;
        match target {
            Target::Handle(_) => {}
            #[cfg(test)]
            Target::Described(gpu) => {
                ranked.set_parts(Name::CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, &[gpu])?;
            }
        }
        let ranked = ranked.finish()?;
        let name = Name::CUDNN_ATTR_ENGINEHEUR_RESULTS;
        let blank = |_| Descriptor::new("configuration", Type::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
        let count = ranked.count::<Part>(name)?;
        ranked.get_parts(name, (0..count).map(blank).collect::<Result<_>>()?)
    }
}

impl<'a> Offers<'a> {
    /// What cuDNN has for one pass.
    pub(super) fn new(c: &Convolution, pass: Pass, target: &'a Target) -> Result<Self> {
        let graph = Graph::new(c, pass, target)?;
        let mut configurations = graph.configurations(Mode::CUDNN_HEUR_MODE_A, target)?;
        // Some passes have no engine that repeats, or multiplies floats as they are, but among these.
        if let Ok(more) = graph.configurations(Mode::CUDNN_HEUR_MODE_FALLBACK, target) {
            configurations.extend(more);
        }
        Ok(Self {
            target,
            graph: Rc::new(graph),
            configurations,
            exact: c.element == Element::F32 && c.arithmetic == Arithmetic::Exact,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.configurations.len()
    }

    /// The plan of the configuration at `place`, taken out of the list; `None` where its arithmetic is not the convolution's, or it is not there.
    ///
    /// # Errors
    /// cuDNN's, which makes no plan of some configurations that it names.
    pub(super) fn plan(&mut self, place: usize) -> Result<Option<Plan>> {
        let Some(configuration) = self.configurations.get_mut(place) else {
            return Ok(None);
        };
        let blank = Descriptor::new("configuration", Type::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)?;
        let configuration = std::mem::replace(configuration, blank);
        self.try_plan(configuration)
    }

    fn try_plan(&self, configuration: Descriptor) -> Result<Option<Plan>> {
        let engine = Descriptor::new("engine", Type::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
        let engines = configuration.get_parts(Name::CUDNN_ATTR_ENGINECFG_ENGINE, vec![engine])?;
        let Some(engine) = engines.first() else {
            return Ok(None);
        };
        let index = engine.get(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 0i64, 1)?;
        let Some(index) = index.first().and_then(|&index| u32::try_from(index).ok()) else {
            return Ok(None);
        };
        let notes = engine.get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Note(0), NOTES)?;
        let has = |note: N| notes.contains(&Note(note as u32));
        let loose = has(N::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
            || has(N::CUDNN_NUMERICAL_NOTE_FFT)
            || has(N::CUDNN_NUMERICAL_NOTE_WINOGRAD);
        let cut = has(N::CUDNN_NUMERICAL_NOTE_TENSOR_CORE)
            || has(N::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
        if loose || (self.exact && cut) {
            return Ok(None);
        }
        let plan = Descriptor::new("plan", Type::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
        plan.set_parts(
            Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
            &[&configuration],
        )?;
        match self.target {
            Target::Handle(handle) => {
                plan.set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, &[*handle])?;
            }
            #[cfg(test)]
            Target::Described(gpu) => {
                plan.set_parts(Name::CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, &[gpu])?;
            }
        }
        let plan = plan.finish()?;
        let size = plan.get(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 0i64, 1)?;
        let workspace = size.first().and_then(|&size| usize::try_from(size).ok());
        Ok(workspace.map(|workspace| Plan {
            descriptor: plan,
            engine: index,
            workspace,
            repeats: !has(N::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC),
            _configuration: configuration,
            _graph: self.graph.clone(),
        }))
    }
}

impl Plan {
    /// Runs it on the input, the weight and the output, whichever of them are gradients.
    ///
    /// # Safety
    /// The arrays are as long as the convolution says and aligned to [`ALIGNMENT`], the workspace has the plan's bytes.
    pub(super) unsafe fn run(
        &self,
        handle: sys::cudnnHandle_t,
        arrays: [Place; 3],
        workspace: Place,
    ) -> Result<()> {
        let pack = Descriptor::new("arrays", Type::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &IDS)?;
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &arrays)?;
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[workspace])?;
        let pack = pack.finish()?;
        // SAFETY: the caller's promise.
        unsafe { self.descriptor.execute(handle, &pack) }
    }
}

#[cfg(test)]
mod tests;
