//! Which tensors are outputs of kernels, and how to reach them.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use candle_core::{Tensor, TensorId};

use super::inbox::Inbox;

/// An output's token and inbox.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) token: Tensor,
    pub(super) inbox: Arc<Inbox>,
}

/// An entry lives as long as its output: candle says nothing of a tensor's op, so it cannot be asked for there.
static OUTPUTS: LazyLock<Mutex<HashMap<TensorId, Entry>>> = LazyLock::new(Mutex::default);

fn outputs() -> MutexGuard<'static, HashMap<TensorId, Entry>> {
    OUTPUTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The entry of a tensor that a kernel made.
pub(super) fn find(id: TensorId) -> Option<Entry> {
    outputs().get(&id).cloned()
}

pub(super) fn add(id: TensorId, entry: Entry) {
    outputs().insert(id, entry);
}

pub(super) fn remove(id: TensorId) {
    let entry = outputs().remove(&id);
    // Only now, with the lock free: what hangs on the token may take entries of its own away.
    drop(entry);
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;

    #[test]
    fn entries_go_with_their_tensors() {
        let x = Var::ones((2, 4, 4, 8), DType::F32, &Device::Cpu).unwrap();
        let y = crate::relu6(&x).unwrap();
        let z = crate::relu6(&y).unwrap();
        let ids = [y.id(), z.id()];
        assert!(ids.iter().all(|&id| find(id).is_some()));
        let loss = z.sum_all().unwrap();
        drop((y, z));
        assert!(loss.backward().unwrap().get(&x).is_some());
        drop(loss);
        assert!(ids.iter().all(|&id| find(id).is_none()));
    }
}
