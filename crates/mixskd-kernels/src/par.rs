//! Parallel loops, output buffers and scratch memory.
//!
//! Work is always cut at places that depend on shapes alone, so that results do not depend on the number of threads.

use std::any::Any;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use rayon::prelude::*;

use crate::simd::Element;

/// Runs `work(i)` for every `i` below `count`, in parallel where there is more than one.
pub(crate) fn each(count: usize, work: impl Fn(usize) + Send + Sync) {
    if count == 1 {
        work(0);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(work);
    }
}

/// [`each`], or the same on this thread alone.
pub(crate) fn each_if(parallel: bool, count: usize, work: impl Fn(usize) + Send + Sync) {
    if parallel {
        each(count, work);
    } else {
        (0..count).for_each(work);
    }
}

/// A mutable array that parallel tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: every user of `Shared` writes parts that no other task touches (stated where it does so).
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// The address of element `offset`.
    ///
    /// # Safety
    /// `offset` is inside the array or one past it.
    #[inline(always)]
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// A vector of `len` elements that `fill` writes in full.
///
/// # Safety
/// `fill` writes every element.
pub(crate) unsafe fn filled<T: Element>(len: usize, fill: impl FnOnce(Shared<T>)) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    fill(Shared(out.as_mut_ptr()));
    // SAFETY: the capacity is `len` and the caller promises that `fill` wrote all of it.
    unsafe { out.set_len(len) };
    out
}

thread_local! {
    static POOL: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Scratch memory of this thread, of unspecified content; it goes back to the thread's pool when dropped.
pub(crate) struct Scratch<T: Element> {
    buffer: Vec<T>,
    len: usize,
}

impl<T: Element> Scratch<T> {
    /// Borrows `len` elements.
    pub(crate) fn take(len: usize) -> Self {
        let taken = POOL.with_borrow_mut(|pool| {
            let fit = pool
                .iter()
                .position(|b| b.downcast_ref::<Vec<T>>().is_some_and(|v| v.len() >= len))
                .or_else(|| pool.iter().position(|b| b.is::<Vec<T>>()));
            fit.map(|i| pool.swap_remove(i))
        });
        let mut buffer: Vec<T> = taken
            .and_then(|b| b.downcast::<Vec<T>>().ok())
            .map_or_else(Vec::new, |b| *b);
        if buffer.len() < len {
            // No need to keep the old content, so free before growing.
            buffer = Vec::new();
            buffer.resize(len, T::default());
        }
        Self { buffer, len }
    }
}

impl<T: Element> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.buffer[..self.len]
    }
}

impl<T: Element> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer[..self.len]
    }
}

impl<T: Element> Drop for Scratch<T> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // At thread exit the pool may be gone already; then the buffer is simply freed.
        let _ = POOL.try_with(|pool| pool.borrow_mut().push(Box::new(buffer)));
    }
}
