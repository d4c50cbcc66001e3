//! PyTorch's own files: what `torch.save(state_dict)` writes, read without running any of it.
//!
//! A pickle is a program for a small stack machine, and Python's machine may call any function. Ours ([`machine`]) knows the
//! instructions that state dicts need and a table of names ([`globals`]); a file that asks for any other name is refused with that
//! name. Memory is taken in proportion to the file's length: objects by the instructions that make them ([`machine`]), storages by their
//! places in the file, and tensors, which may be many views of one storage, by [`Budget`].

mod archive;
mod globals;
mod legacy;
mod machine;
mod state_dict;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_core::Tensor;

use state_dict::Budget;

/// Why a file was not read: the cause, to follow the file's name.
type Result<T> = std::result::Result<T, String>;

/// Where a tensor's values lie.
trait Storages {
    /// The bytes of the storage called `key`, at least `length` of them, read once.
    fn bytes(&mut self, key: &str, length: usize) -> Result<&[u8]>;
}

/// Whether the bytes begin as PyTorch's files do: a zip archive, or a pickle.
pub(super) fn is_pytorch(file: &[u8]) -> bool {
    archive::is_zip(file) || legacy::is_legacy(file)
}

/// Every tensor of a PyTorch file's state dict by name; floats as float32, integers as int64, truth values as bytes.
///
/// # Errors
/// When the file is damaged, asks for code to be run, or holds no state dict; the message says which.
pub(super) fn read(file: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let budget = Budget::of_file(file.len());
    if archive::is_zip(file) {
        let (pickle, mut storages) = archive::open(file)?;
        state_dict::collect(&pickle, &mut storages, budget)
    } else {
        let (pickle, mut storages) = legacy::open(file)?;
        state_dict::collect(&pickle, &mut storages, budget)
    }
}
