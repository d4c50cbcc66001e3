//! Pixel buffers that go from one image to the next, so that an operation allocates nothing.

use std::cell::RefCell;

/// Buffers a thread keeps.
const KEPT: usize = 8;
/// Larger ones, in bytes, are given back to the system.
const LARGEST: usize = 4 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// `len` bytes of `fill`.
pub(super) fn take(len: usize, fill: u8) -> Vec<u8> {
    let mut buffer = FREE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(len));
    buffer.clear();
    buffer.resize(len, fill);
    buffer
}

/// Keeps `buffer` for a later [`take`].
pub(super) fn give_back(buffer: Vec<u8>) {
    if (1..=LARGEST).contains(&buffer.capacity()) {
        // A canvas may be dropped while its thread ends, when the list is gone already; the buffer then goes too.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(buffer);
            }
        });
    }
}
