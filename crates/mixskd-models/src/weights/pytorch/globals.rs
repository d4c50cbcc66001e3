//! The names a state dict's pickle may use.

use super::Result;

/// Type of a storage's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Scalar {
    /// Bytes of one value.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// A dictionary class.
    Dict,
    /// The function that makes a tensor of a storage, offset, size and stride.
    Tensor,
    /// The function that wraps a tensor as a parameter.
    Parameter,
    /// A class of storages.
    Storage(Scalar),
    /// Harmless data of no interest here: what it makes is passed over.
    Opaque,
}

/// The meaning of `module.name`.
///
/// Opaque ones are what training scripts put beside the state dict (an accuracy as a NumPy number, command-line options); they
/// are not made, only stepped over.
pub(super) fn lookup(module: &str, name: &str) -> Result<Global> {
    let found = match (module, name) {
        ("collections", "OrderedDict" | "defaultdict") => Some(Global::Dict),
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Some(Global::Tensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::Parameter),
        ("torch" | "torch.cuda", name) if name.ends_with("Storage") => {
            storage(name).map(Global::Storage)
        }
        (
            "torch",
            "Size" | "device" | "float32" | "float64" | "float16" | "bfloat16" | "int64" | "int32",
        )
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
        | ("numpy", "dtype" | "float64" | "float32")
        | ("_codecs", "encode")
        | ("argparse", "Namespace") => Some(Global::Opaque),
        _ => None,
    };
    found.ok_or_else(|| {
        format!("it asks for `{module}.{name}`, which no state dict needs; nothing was run")
    })
}

fn storage(name: &str) -> Option<Scalar> {
    Some(match name {
        "DoubleStorage" => Scalar::F64,
        "FloatStorage" => Scalar::F32,
        "HalfStorage" => Scalar::F16,
        "BFloat16Storage" => Scalar::BF16,
        "LongStorage" => Scalar::I64,
        "IntStorage" => Scalar::I32,
        "ShortStorage" => Scalar::I16,
        "CharStorage" => Scalar::I8,
        "ByteStorage" => Scalar::U8,
        "BoolStorage" => Scalar::Bool,
        _ => return None,
    })
}
