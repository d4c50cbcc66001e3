//! Something that runs kernels.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where an array begins in the memory of an engine.
pub type Address = u64;

/// Channels that a block takes where it adds up rows, as `down_rows` has it.
pub(crate) const ACROSS: usize = 32;

/// No array: an argument that is left out.
pub const NULL: Address = 0;

/// Threads of a block, in every kernel.
pub(crate) const BLOCK: usize = 256;

/// One argument of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    /// An array, or [`NULL`].
    Address(Address),
    /// A count or a switch.
    U32(u32),
    /// A factor.
    F32(f32),
    /// A structure, in words of eight bytes.
    Words(Vec<u64>),
}

impl Arg {
    /// Where the value itself lies, which is what a launch is given.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn place(&self) -> *mut std::ffi::c_void {
        match self {
            Self::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::U32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Words(words) => words.as_ptr().cast_mut().cast(),
        }
    }

    /// What may be addresses in it.
    #[cfg(feature = "emulator")]
    pub(crate) fn words(&self) -> impl Iterator<Item = Address> {
        match self {
            Self::Address(value) => std::slice::from_ref(value),
            Self::Words(words) => words,
            Self::U32(_) | Self::F32(_) => &[],
        }
        .iter()
        .copied()
    }
}

impl From<Address> for Arg {
    fn from(value: Address) -> Self {
        Self::Address(value)
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl From<bool> for Arg {
    fn from(value: bool) -> Self {
        Self::U32(u32::from(value))
    }
}

impl From<Vec<u64>> for Arg {
    fn from(words: Vec<u64>) -> Self {
        Self::Words(words)
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::F32(value)
    }
}

/// An array of arguments out of values of their own types.
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        &[$(crate::Arg::from($value)),*]
    };
}
pub(crate) use args;

/// The type of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// IEEE 754 single precision.
    F32,
    /// The upper half of it.
    Bf16,
}

impl Element {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// The ending of a kernel's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Elements of a pack: 16 bytes where `channels` is a multiple of that and every address is too, otherwise one.
    pub(crate) fn width(self, channels: usize, addresses: &[Address]) -> usize {
        let width = 16 / self.size();
        let aligned = addresses.iter().all(|address| address.is_multiple_of(16));
        if aligned && channels.is_multiple_of(width) {
            width
        } else {
            1
        }
    }
}

/// Runs kernels, one after the other.
pub trait Engine {
    /// Runs `kernel` on `grid` blocks, columns and rows.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and its arrays are as long as it takes them to be and live in this engine's memory.
    ///
    /// # Errors
    /// When there is no such kernel or the launch fails.
    unsafe fn launch(&self, kernel: &str, grid: (u32, u32), args: &[Arg]) -> Result<()>;
}

impl<E: Engine + ?Sized> Engine for std::sync::Arc<E> {
    unsafe fn launch(&self, kernel: &str, grid: (u32, u32), args: &[Arg]) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { (**self).launch(kernel, grid, args) }
    }
}

/// Two halves of a word, the lower first.
pub(crate) fn word(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// `size` as kernels count.
pub(crate) fn count(what: &'static str, size: usize) -> Result<u32> {
    u32::try_from(size).map_err(|_| Error::Size { what, size })
}

/// Blocks that give each of `threads` elements a thread.
pub(crate) fn blocks(what: &'static str, threads: usize) -> Result<(u32, u32)> {
    Ok((count(what, threads.div_ceil(BLOCK))?, 1))
}

/// Most blocks of a grid whose threads take several elements each, as long as there are no more rows.
const PARTS: usize = 4096;

/// A grid over `rows` rows of `length` elements, a row cut into parts. Depends on the shape alone, as the order of sums does.
pub(crate) fn parts(rows: usize, length: usize) -> Result<(u32, u32)> {
    let most = (PARTS / rows.max(1)).max(1);
    let columns = length.div_ceil(4 * BLOCK).clamp(1, most);
    Ok((count("row", columns)?, count("batch", rows)?))
}
