//! Settings of the process that a training step's speed hangs on, made before anything runs.

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// Keeps the big buffers of a training step instead of handing them back to the system after each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`: milliseconds until freed memory goes back to the system.
const PURGE_DELAY: mi_option_t = 15;

/// Tunes allocator and candle. To be called first in `main`, while there is one thread.
///
/// - Freed memory is kept. A step frees and takes the same feature maps again; handing them back costs a page fault and a
///   zeroed page for each.
/// - candle runs its element-wise operations on the calling thread. By default it starts threads of its own that wait in a
///   spin loop, and take the cores away from the kernels' threads. `CANDLE_NUM_THREADS` overrides.
pub(crate) fn prepare() {
    // SAFETY: an option of the allocator that may be set at any time.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread exists yet that could read the environment.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
}
