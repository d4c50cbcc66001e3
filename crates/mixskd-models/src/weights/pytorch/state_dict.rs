//! From a pickle's objects to named tensors.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use half::{bf16, f16};

use super::globals::{Global, Scalar};
use super::machine::{Id, Object, Pickle};
use super::{Result, Storages};

/// Keys under which training scripts keep the state dict, in the order they are looked for.
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "net", "model", "module"];

/// Dimensions a network's tensor may have.
const RANK: usize = 8;

/// Wrappers in wrappers that are followed.
const DEPTH: usize = 4;

/// Values that may still be made. A state dict's tensors share nothing or little, so they hold hardly more values than the file
/// has bytes; a small file with many views of one storage would otherwise fill the memory.
pub(super) struct Budget(usize);

impl Budget {
    /// For a file of `length` bytes.
    pub(super) fn of_file(length: usize) -> Self {
        Self(length.saturating_mul(2))
    }

    fn spend(&mut self, values: usize) -> Result<()> {
        match self.0.checked_sub(values) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err("its tensors claim more values than the file can hold".into()),
        }
    }
}

/// The state dict's tensors by name.
pub(super) fn collect(
    pickle: &Pickle,
    storages: &mut impl Storages,
    mut budget: Budget,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for &(key, value) in state_dict(pickle)? {
        let (Some(name), Object::Tensor(arguments)) = (pickle.text(key), pickle.get(value)) else {
            continue;
        };
        let tensor = View::of(pickle, arguments)
            .and_then(|view| view.tensor(storages, &mut budget))
            .map_err(|cause| format!("tensor `{name}`: {cause}"))?;
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}

/// The dictionary that holds the tensors: the root, or what lies in it under a usual key.
fn state_dict(pickle: &Pickle) -> Result<&[(Id, Id)]> {
    let Object::Dict(root) = pickle.get(pickle.root()) else {
        return Err(
            "it holds no dictionary of tensors: save `model.state_dict()`, not the model".into(),
        );
    };
    let mut entries = root;
    for _ in 0..DEPTH {
        let inner = WRAPPERS.iter().find_map(|wrapper| {
            let mut named = entries
                .iter()
                .filter(|&&(key, _)| pickle.text(key) == Some(wrapper));
            match pickle.get(named.next()?.1) {
                Object::Dict(inner) => Some(inner),
                _ => None,
            }
        });
        match inner {
            Some(inner) => entries = inner,
            None => break,
        }
    }
    let is_tensor = |&(_, value): &(Id, Id)| matches!(pickle.get(value), Object::Tensor(_));
    if entries.iter().any(is_tensor) {
        return Ok(entries);
    }
    let keys: Vec<&str> = entries
        .iter()
        .filter_map(|&(key, _)| pickle.text(key))
        .take(8)
        .collect();
    Err(format!(
        "it holds no state dict; its keys are {}",
        keys.join(", ")
    ))
}

/// A tensor as a view of a storage; sizes and strides count values.
struct View<'a> {
    scalar: Scalar,
    key: &'a str,
    offset: usize,
    size: Vec<usize>,
    stride: Vec<usize>,
}

impl<'a> View<'a> {
    /// From the arguments `storage, offset, size, stride, …`.
    fn of(pickle: &'a Pickle, arguments: &[Id]) -> Result<Self> {
        let broken = || "its description is broken".to_string();
        let Some(&[storage, offset, size, stride]) = arguments.first_chunk() else {
            return Err(broken());
        };
        let Object::Storage(items) = pickle.get(storage) else {
            return Err(broken());
        };
        // "storage", class, key, location, number of values; old files add a view of another storage, always None in state dicts.
        let (Some(&[_, class, key, _, _]), None | Some(Object::None)) =
            (items.first_chunk(), items.get(5).map(|&id| pickle.get(id)))
        else {
            return Err(broken());
        };
        let Object::Global(Global::Storage(scalar)) = pickle.get(class) else {
            return Err("its type of values is not known".into());
        };
        let sizes = |id: Id| -> Option<Vec<usize>> {
            match pickle.get(id) {
                Object::Tuple(items) => items.iter().map(|&item| pickle.size(item)).collect(),
                _ => None,
            }
        };
        let view = Self {
            scalar: *scalar,
            key: pickle.text(key).ok_or_else(broken)?,
            offset: pickle.size(offset).ok_or_else(broken)?,
            size: sizes(size).ok_or_else(broken)?,
            stride: sizes(stride).ok_or_else(broken)?,
        };
        if view.size.len() == view.stride.len() && view.size.len() <= RANK {
            Ok(view)
        } else {
            Err(broken())
        }
    }

    /// Number of values, and number of values the storage must have; none where they are beyond counting.
    fn extent(&self) -> Option<(usize, usize)> {
        let count = self
            .size
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size))?;
        if count == 0 {
            return Some((0, 0));
        }
        let last = self
            .size
            .iter()
            .zip(&self.stride)
            .try_fold(self.offset, |last, (&size, &stride)| {
                last.checked_add((size - 1).checked_mul(stride)?)
            })?;
        Some((count, last.checked_add(1)?))
    }

    fn tensor(&self, storages: &mut impl Storages, budget: &mut Budget) -> Result<Tensor> {
        let too_large = || "its size is beyond any file".to_string();
        let (count, needed) = self.extent().ok_or_else(too_large)?;
        budget.spend(count)?;
        let width = self.scalar.size();
        let length = needed.checked_mul(width).ok_or_else(too_large)?;
        let bytes = match count {
            0 => &[],
            _ => storages.bytes(self.key, length)?,
        };
        let value = |index: usize| &bytes[index * width..(index + 1) * width];
        let tensor = match self.scalar {
            Scalar::F64 => self.gather(count, |i| f64::from_le_bytes(fixed(value(i))) as f32),
            Scalar::F32 => self.gather(count, |i| f32::from_le_bytes(fixed(value(i)))),
            Scalar::F16 => self.gather(count, |i| f16::from_le_bytes(fixed(value(i))).to_f32()),
            Scalar::BF16 => self.gather(count, |i| bf16::from_le_bytes(fixed(value(i))).to_f32()),
            Scalar::I64 => self.gather(count, |i| i64::from_le_bytes(fixed(value(i)))),
            Scalar::I32 => self.gather(count, |i| i64::from(i32::from_le_bytes(fixed(value(i))))),
            Scalar::I16 => self.gather(count, |i| i64::from(i16::from_le_bytes(fixed(value(i))))),
            Scalar::I8 => self.gather(count, |i| i64::from(i8::from_le_bytes(fixed(value(i))))),
            Scalar::U8 | Scalar::Bool => self.gather(count, |i| value(i)[0]),
        };
        tensor.map_err(|error| error.to_string())
    }

    /// The values in order, the last dimension fastest, each read by its index in the storage.
    fn gather<T: candle_core::WithDType>(
        &self,
        count: usize,
        read: impl Fn(usize) -> T,
    ) -> candle_core::Result<Tensor> {
        let mut values = Vec::with_capacity(count);
        let mut position = vec![0; self.size.len()];
        let mut index = self.offset;
        for _ in 0..count {
            values.push(read(index));
            for axis in (0..position.len()).rev() {
                position[axis] += 1;
                index += self.stride[axis];
                if position[axis] < self.size[axis] {
                    break;
                }
                index -= self.stride[axis] * self.size[axis];
                position[axis] = 0;
            }
        }
        Tensor::from_vec(values, self.size.as_slice(), &Device::Cpu)
    }
}

/// A slice that has the length of the array.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
