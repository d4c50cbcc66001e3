//! Where a tensor's gradient is gathered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::Tensor;

use super::collect::{Pass, pass};
use crate::par;
use crate::simd::{Element, Kernel, Lanes};
use crate::storage::{self, by_dtype};

/// The sum of the gradients delivered so far, of each pass its own: two threads may go back through what their losses share, and a pass
/// that an error cut short leaves nothing to the next.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Vec<(Pass, Tensor)>>);

impl Inbox {
    fn content(&self) -> MutexGuard<'_, Vec<(Pass, Tensor)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn deliver(&self, gradient: Tensor) -> candle_core::Result<()> {
        // Added up with the lock free: threads that wait in a kernel take on other work, which may come here.
        let sum = match self.take() {
            Some(sum) => add(&sum, &gradient)?,
            None => gradient,
        };
        self.content().push((pass(), sum));
        Ok(())
    }

    pub(super) fn take(&self) -> Option<Tensor> {
        let (pass, mut content) = (pass(), self.content());
        let at = content.iter().position(|(other, _)| *other == pass)?;
        Some(content.swap_remove(at).1)
    }
}

/// Elements of a task.
const BLOCK: usize = 32 * 1024;

struct Add<'a, T> {
    a: &'a [T],
    b: &'a [T],
    y: *mut T,
}

impl<T: Element> Kernel<T> for Add<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let len = self.a.len();
        let mut at = 0;
        while at < len {
            let n = L::N.min(len - at);
            // SAFETY: both operands and the output have `len` elements.
            unsafe {
                let a = lanes.load_part(self.a.as_ptr().add(at), n);
                let b = lanes.load_part(self.b.as_ptr().add(at), n);
                lanes.store_part(self.y.add(at), lanes.add(a, b), n);
            }
            at += n;
        }
    }
}

/// `a + b` on all threads.
pub(super) fn add(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    if a.dims() != b.dims() || !storage::has_kernel(&[a, b]) {
        return a + b;
    }
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    by_dtype!(a.dtype(), T => {
        let sum = storage::with_slice::<T, _>(&a, |x| {
            storage::with_slice::<T, _>(&b, |y| Ok(sum(x, y)))
        })?;
        Tensor::from_vec(sum, a.shape(), a.device())
    })
}

fn sum<T: Element>(a: &[T], b: &[T]) -> Vec<T> {
    // SAFETY: blocks are disjoint, and each writes all of its part.
    unsafe {
        par::filled(a.len(), |y| {
            par::each(a.len().div_ceil(BLOCK), |block| {
                let part = block * BLOCK..((block + 1) * BLOCK).min(a.len());
                T::dispatch(Add {
                    a: &a[part.clone()],
                    b: &b[part.clone()],
                    y: y.at(part.start),
                });
            });
        })
    }
}
