//! Memory of the emulated GPU, and what is asked of what a kernel leaves there.

use candle_core::{Device, Tensor, Var};
use half::bf16;
use mixskd_cuda::loss::Gradient;
use mixskd_cuda::{Address, Element, Known};

use crate::common::{self, random, relative};

/// What the project asks of a GPU's kernels.
pub(crate) fn bound(element: Element) -> f64 {
    match element {
        Element::F32 => 1e-4,
        Element::Bf16 => 1e-2,
    }
}

/// Memory of the emulated GPU, on a boundary of 16 bytes as CUDA's is.
pub(crate) struct Array {
    data: Vec<u128>,
    _known: Known,
    pub(crate) len: usize,
    pub(crate) element: Element,
}

impl Array {
    pub(crate) fn empty(len: usize, element: Element) -> Self {
        // Not zero: a kernel that leaves something unwritten is to be found out.
        let data = vec![u128::MAX; (len * element.size()).div_ceil(16)];
        let _known = Known::new(data.as_ptr() as Address, len * element.size());
        Self {
            data,
            _known,
            len,
            element,
        }
    }

    pub(crate) fn of(tensor: &Tensor, element: Element) -> Self {
        let values = common::values(tensor);
        let mut array = Self::empty(values.len(), element);
        for (i, value) in values.into_iter().enumerate() {
            // SAFETY: inside the array.
            unsafe {
                match element {
                    Element::F32 => array
                        .data
                        .as_mut_ptr()
                        .cast::<f32>()
                        .add(i)
                        .write(value as f32),
                    Element::Bf16 => {
                        let value = bf16::from_f64(value);
                        array.data.as_mut_ptr().cast::<bf16>().add(i).write(value);
                    }
                }
            }
        }
        array
    }

    pub(crate) fn at(&self) -> Address {
        self.data.as_ptr() as Address
    }

    pub(crate) fn tensor(&self, like: &Tensor) -> Tensor {
        let value = |i| {
            // SAFETY: inside the array.
            unsafe {
                match self.element {
                    Element::F32 => f64::from(*self.data.as_ptr().cast::<f32>().add(i)),
                    Element::Bf16 => self.data.as_ptr().cast::<bf16>().add(i).read().to_f64(),
                }
            }
        };
        let values: Vec<f64> = (0..self.len).map(value).collect();
        Tensor::from_vec(values, like.dims(), &Device::Cpu).unwrap()
    }
}

/// The address of what kernels may use from now on.
pub(crate) fn lent<T>(values: &[T]) -> Address {
    let address = values.as_ptr() as Address;
    std::mem::forget(Known::new(address, size_of_val(values)));
    address
}

/// Random numbers that `element` represents exactly, so that both sides begin with the same.
pub(crate) fn rounded(shape: &[usize], seed: u64, element: Element) -> Tensor {
    let exact = random(shape, seed);
    Array::of(&exact, element).tensor(&exact)
}

#[track_caller]
pub(crate) fn check(got: &Array, want: &Tensor, what: &str) {
    let error = relative(&got.tensor(want), want);
    let most = bound(got.element);
    assert!(
        error <= most,
        "{what}, {:?}: {error:.2e} > {most:.0e}",
        got.element
    );
}

pub(crate) fn var(tensor: &Tensor) -> Var {
    Var::from_tensor(tensor).unwrap()
}

pub(crate) fn float(tensor: &Tensor) -> Array {
    Array::of(tensor, Element::F32)
}

pub(crate) fn one() -> Array {
    Array::empty(1, Element::F32)
}

/// A number other than 1 that arrives as the loss's gradient.
pub(crate) const INCOMING: f64 = 1.75;

pub(crate) fn incoming() -> Array {
    float(&Tensor::new(&[INCOMING], &Device::Cpu).unwrap())
}

/// The gradient that is this one float.
pub(crate) fn of_one(float: &Array) -> Gradient {
    Gradient {
        at: float.at(),
        factor: 1.0,
    }
}
