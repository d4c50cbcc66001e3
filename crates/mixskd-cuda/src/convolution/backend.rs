//! Descriptors of cuDNN's backend interface: made empty, given attributes, finished, and freed with their owner.

use std::ffi::{c_char, c_void};
use std::ptr::null_mut;

use cudarc::cudnn::sys;
use sys::cudnnBackendAttributeName_t as Name;
use sys::cudnnBackendAttributeType_t as Kind;

use super::cudnn::asked;
use crate::Result;

/// A value as cuDNN knows it.
///
/// # Safety
/// Values lie in memory as cuDNN's of that kind do.
pub(super) unsafe trait Attribute: Copy {
    /// The kind.
    const KIND: Kind;
}

/// A finished descriptor as an attribute of another.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Part(sys::cudnnBackendDescriptor_t);

/// An address in the GPU's memory.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Place(pub(super) *mut c_void);

/// A property of an engine's arithmetic, by its number: a later cuDNN may know some that this build does not.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Note(pub(super) u32);

/// Says of which kind the values of a type are.
macro_rules! attributes {
    ($($type:ty: $kind:ident,)*) => {
        $(
            // SAFETY: the type is cuDNN's own, or a transparent wrapper of it.
            unsafe impl Attribute for $type {
                const KIND: Kind = Kind::$kind;
            }
        )*
    };
}

attributes! {
    i64: CUDNN_TYPE_INT64,
    f32: CUDNN_TYPE_FLOAT,
    c_char: CUDNN_TYPE_CHAR,
    Part: CUDNN_TYPE_BACKEND_DESCRIPTOR,
    Place: CUDNN_TYPE_VOID_PTR,
    Note: CUDNN_TYPE_NUMERICAL_NOTE,
    sys::cudnnHandle_t: CUDNN_TYPE_HANDLE,
    sys::cudnnDataType_t: CUDNN_TYPE_DATA_TYPE,
    sys::cudnnConvolutionMode_t: CUDNN_TYPE_CONVOLUTION_MODE,
    sys::cudnnBackendHeurMode_t: CUDNN_TYPE_HEUR_MODE,
}

/// One descriptor.
pub(super) struct Descriptor {
    handle: sys::cudnnBackendDescriptor_t,
    /// What it is, for errors.
    what: &'static str,
}

impl Descriptor {
    /// An empty one.
    pub(super) fn new(what: &'static str, kind: sys::cudnnBackendDescriptorType_t) -> Result<Self> {
        let mut handle = null_mut();
        // SAFETY: the place for the handle is there.
        unsafe { sys::cudnnBackendCreateDescriptor(kind, &raw mut handle) }
            .result()
            .map_err(asked(what))?;
        Ok(Self { handle, what })
    }

    /// Gives it an attribute.
    pub(super) fn set<T: Attribute>(&self, name: Name, values: &[T]) -> Result<()> {
        let (count, values) = (values.len() as i64, values.as_ptr().cast());
        // SAFETY: there are that many values, of the kind that is said; cuDNN copies them.
        unsafe { sys::cudnnBackendSetAttribute(self.handle, name, T::KIND, count, values) }
            .result()
            .map_err(asked(self.what))
    }

    /// Makes other descriptors, finished ones, its parts. They have to live as long as it does.
    pub(super) fn set_parts(&self, name: Name, parts: &[&Self]) -> Result<()> {
        let parts: Vec<_> = parts.iter().map(|part| Part(part.handle)).collect();
        self.set(name, &parts)
    }

    /// Has cuDNN check it; from here on it does not change.
    pub(super) fn finish(self) -> Result<Self> {
        // SAFETY: it is open.
        unsafe { sys::cudnnBackendFinalize(self.handle) }
            .result()
            .map_err(asked(self.what))?;
        Ok(self)
    }

    /// The values of an attribute, `most` at most; `blank` is overwritten.
    pub(super) fn get<T: Attribute>(&self, name: Name, blank: T, most: usize) -> Result<Vec<T>> {
        let mut values = vec![blank; most];
        let mut count = 0;
        // SAFETY: there is room for that many values of that kind.
        unsafe {
            let values = values.as_mut_ptr().cast();
            sys::cudnnBackendGetAttribute(
                self.handle,
                name,
                T::KIND,
                most as i64,
                &raw mut count,
                values,
            )
        }
        .result()
        .map_err(asked(self.what))?;
        values.truncate(usize::try_from(count).unwrap_or(0));
        Ok(values)
    }

    /// Has cuDNN fill `parts` in, as many as it has; the others are dropped.
    pub(super) fn get_parts(&self, name: Name, mut parts: Vec<Self>) -> Result<Vec<Self>> {
        let mut handles: Vec<_> = parts.iter().map(|part| Part(part.handle)).collect();
        let mut count = 0;
        // SAFETY: there are that many descriptors, which cuDNN writes to and does not exchange.
        unsafe {
            sys::cudnnBackendGetAttribute(
                self.handle,
                name,
                Part::KIND,
                handles.len() as i64,
                &raw mut count,
                handles.as_mut_ptr().cast(),
            )
        }
        .result()
        .map_err(asked(self.what))?;
        parts.truncate(usize::try_from(count).unwrap_or(0));
        Ok(parts)
    }

    /// How many values an attribute has.
    pub(super) fn count<T: Attribute>(&self, name: Name) -> Result<usize> {
        let mut count = 0;
        // SAFETY: none is asked for.
        unsafe {
            sys::cudnnBackendGetAttribute(self.handle, name, T::KIND, 0, &raw mut count, null_mut())
        }
        .result()
        .map_err(asked(self.what))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Runs it, a plan, with `pack`'s arrays.
    ///
    /// # Safety
    /// The arrays are as long as the plan's tensors, and the workspace as it asks.
    pub(super) unsafe fn execute(&self, handle: sys::cudnnHandle_t, pack: &Self) -> Result<()> {
        // SAFETY: all three are open; the arrays are the caller's promise.
        unsafe { sys::cudnnBackendExecute(handle, self.handle, pack.handle) }
            .result()
            .map_err(asked(self.what))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // What cannot be freed is left.
        // SAFETY: it was made by `new` and is freed once.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.handle) };
    }
}
