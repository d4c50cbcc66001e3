//! The batches of one epoch, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Batch;
use super::build::Builder;
use super::order::Order;
use crate::{Error, Result};

/// Iterator over the batches of one epoch.
///
/// An error is an item, and the last one. Dropping the iterator stops the building thread and waits for it, at most for the
/// images that are being read at that moment.
pub struct Epoch {
    inner: Inner,
    /// Batches still to come.
    left: u64,
}

enum Inner {
    /// Built when asked for.
    Direct {
        builder: Arc<Builder>,
        order: Order,
        epoch: u64,
        step: u64,
    },
    /// Built ahead.
    Ahead(Ahead),
}

struct Ahead {
    /// `None` once the iterator is being dropped.
    batches: Option<Receiver<Result<Batch>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Epoch {
    pub(super) fn start(
        builder: Arc<Builder>,
        epoch: u64,
        first_step: u64,
        prefetch: usize,
    ) -> Self {
        let steps = builder.steps();
        let left = steps.saturating_sub(first_step);
        if prefetch == 0 || left == 0 {
            let order = if left == 0 {
                Order::empty()
            } else {
                builder.order(epoch)
            };
            return Self {
                inner: Inner::Direct {
                    builder,
                    order,
                    epoch,
                    step: first_step,
                },
                left,
            };
        }
        // One batch lies in the thread's own hands while it waits to hand it over.
        let (sender, receiver) = sync_channel(prefetch - 1);
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let shared = Arc::clone(&builder);
        let work = move || {
            let order = shared.order(epoch);
            for step in first_step..steps {
                let batch = shared.batch(&order, epoch, step, &seen);
                let failed = batch.is_err();
                if seen.load(Ordering::Relaxed) || sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        if let Ok(thread) = std::thread::Builder::new()
            .name("mixskd-loader".into())
            .spawn(work)
        {
            let ahead = Ahead {
                batches: Some(receiver),
                stop,
                thread: Some(thread),
            };
            return Self {
                inner: Inner::Ahead(ahead),
                left,
            };
        }
        // Without a thread to spare, batches come just in time instead of ahead of it.
        let order = builder.order(epoch);
        Self {
            inner: Inner::Direct {
                builder,
                order,
                epoch,
                step: first_step,
            },
            left,
        }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let item = match &mut self.inner {
            Inner::Direct {
                builder,
                order,
                epoch,
                step,
            } => {
                let item = builder.batch(order, *epoch, *step, &AtomicBool::new(false));
                *step += 1;
                item
            }
            Inner::Ahead(ahead) => ahead.receive(),
        };
        self.left = if item.is_ok() { self.left - 1 } else { 0 };
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error may end it early.
        (0, Some(self.left as usize))
    }
}

impl Ahead {
    fn receive(&self) -> Result<Batch> {
        let gone = || {
            let message = "the thread that builds batches has died";
            Error::config(
                "loader",
                message,
                "this is a bug in a reader or an augmentation; its message stands above",
            )
        };
        let batches = self.batches.as_ref().ok_or_else(gone)?;
        if rayon::current_thread_index().is_none() {
            return batches.recv().unwrap_or_else(|_| Err(gone()));
        }
        // A worker of the pool that waits for a batch must not keep the pool from building it.
        loop {
            match batches.try_recv() {
                Ok(batch) => return batch,
                Err(TryRecvError::Disconnected) => return Err(gone()),
                Err(TryRecvError::Empty) => {}
            }
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                match batches.recv_timeout(Duration::from_micros(200)) {
                    Ok(batch) => return batch,
                    Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes a thread that waits to hand a batch over.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            while rayon::current_thread_index().is_some() && !thread.is_finished() {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            // A panic in there has been reported by `receive`, or nobody asked.
            let _ = thread.join();
        }
    }
}
