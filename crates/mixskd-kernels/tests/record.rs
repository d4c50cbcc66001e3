//! Gradients that go from kernel to kernel are those that candle's own sums give, whatever is mixed in between.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, Var};
use common::{random, relative};
use mixskd_kernels::{
    Conv2dConfig, Pool2dConfig, avg_pool2d, backward, compose, conv_norm_train, conv2d, mse, relu6,
};

const TWO: Pool2dConfig = Pool2dConfig {
    kernel: 2,
    stride: 2,
    padding: 0,
};
const SAME: Conv2dConfig = Conv2dConfig {
    stride: 1,
    padding: 1,
    dilation: 1,
    groups: 1,
};

fn var(dims: &[usize], seed: u64) -> Var {
    Var::from_tensor(&random(dims, seed).to_dtype(DType::F64).unwrap()).unwrap()
}

/// Outputs read by kernels, by candle's ops, by both and more than once; one weight in two places; an output nobody reads.
fn network(x: &Tensor, w: &Tensor, kernels: bool) -> Tensor {
    let conv = |x: &Tensor| {
        if kernels {
            conv2d(x, w, SAME).unwrap()
        } else {
            compose::conv2d(x, w, SAME).unwrap()
        }
    };
    let relu = |x: &Tensor| {
        if kernels {
            relu6(x).unwrap()
        } else {
            compose::relu6(x).unwrap()
        }
    };
    let a = relu(&conv(x));
    let b = conv(&a);
    let _unread = relu(&b);
    let c = (&a + &b).unwrap();
    let d = relu(&c.narrow(0, 1, 2).unwrap());
    let e = relu(&a.narrow(0, 0, 2).unwrap().contiguous().unwrap());
    let detached = relu(&b.detach());
    let last = (d * e).unwrap().sum_all().unwrap();
    (last + (detached.sum_all().unwrap() + b.sqr().unwrap().mean_all().unwrap()).unwrap()).unwrap()
}

#[test]
fn mixed_graphs_have_candles_gradients() {
    let (x, w) = (var(&[3, 5, 5, 9], 1), var(&[9, 9, 3, 3], 2));
    let want = network(&x, &w, false).backward().unwrap();
    let loss = network(&x, &w, true);
    // Twice over one graph: nothing of the first time is left for the second.
    for gradients in [
        loss.backward().unwrap(),
        backward(&loss).unwrap(),
        backward(&loss).unwrap(),
    ] {
        for v in [&x, &w] {
            let difference = relative(gradients.get(v).unwrap(), want.get(v).unwrap());
            assert!(difference < 1e-12, "{difference}");
        }
    }
}

#[test]
fn only_what_is_wanted_has_a_gradient() {
    let (x, w) = (var(&[2, 4, 4, 8], 1), var(&[8, 8, 3, 3], 2));
    let scale = var(&[8], 3);
    let shift = scale.as_tensor().detach();
    let y = conv_norm_train(
        &x.as_tensor().detach(),
        &w,
        SAME,
        [&scale, &shift],
        1e-5,
        None,
        true,
    )
    .unwrap()
    .0;
    let gradients = backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
    assert!(gradients.get(&w).is_some() && gradients.get(&scale).is_some());
    assert!(gradients.get(&x).is_none() && gradients.get(&shift).is_none());
    // A part that no loss reads gets none either.
    let pooled = avg_pool2d(&y, TWO).unwrap();
    let zero = Tensor::zeros(pooled.dims(), DType::F64, &Device::Cpu).unwrap();
    let gradients = backward(&mse(&zero, &pooled).unwrap()).unwrap();
    assert!(gradients.get(&w).is_some());
}

#[test]
fn a_deep_network_fits_on_a_tests_stack() {
    let x = var(&[1, 2, 2, 8], 1);
    let mut y = x.as_tensor().clone();
    for _ in 0..1000 {
        y = relu6(&y).unwrap();
    }
    let gradients = backward(&y.sum_all().unwrap()).unwrap();
    assert!(gradients.get(&x).is_some());
}

/// An op inside of which another graph is gone back through, as those do that make their inputs anew.
struct Inside(Tensor);

impl CustomOp1 for Inside {
    fn name(&self) -> &'static str {
        "inside"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((x.clone(), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        assert!(backward(&self.0).is_ok());
        Ok(Some(dy.clone()))
    }
}

#[test]
fn a_pass_inside_of_another_keeps_its_gradients_to_itself() {
    let (x, w) = (var(&[1, 4, 4, 8], 1), var(&[8, 8, 3, 3], 2));
    let loss = |middle: &dyn Fn(&Tensor) -> Tensor| {
        let y = conv2d(&middle(&conv2d(&x, &w, SAME).unwrap()), &w, SAME);
        y.unwrap().sqr().unwrap().sum_all().unwrap()
    };
    let inner = loss(&Tensor::clone);
    let want = backward(&inner).unwrap();
    let outer = loss(&|y| y.apply_op1(Inside(inner.clone())).unwrap());
    let got = backward(&outer).unwrap();
    for v in [&x, &w] {
        let difference = relative(got.get(v).unwrap(), want.get(v).unwrap());
        assert!(difference < 1e-12, "{difference}");
    }
}

/// An op that has no gradient the first time it is asked.
struct Once(AtomicBool);

impl CustomOp1 for Once {
    fn name(&self) -> &'static str {
        "once"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((x.clone(), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if self.0.swap(false, Ordering::SeqCst) {
            candle_core::bail!("not now");
        }
        Ok(Some(dy.clone()))
    }
}

/// The sum of three parts that read `x`, the middle one after `op`: whichever end candle begins at, it has been through a part when it
/// comes to the op.
fn three(x: &Tensor, w: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Tensor {
    let part = |x: &Tensor| conv2d(x, w, SAME).unwrap().sqr().unwrap();
    let middle = part(&x.apply_op1(op).unwrap());
    let sum = ((part(x) + middle).unwrap() + part(x)).unwrap();
    sum.sum_all().unwrap()
}

#[test]
fn a_pass_that_fails_leaves_nothing_to_the_next() {
    let (x, w) = (var(&[1, 4, 4, 8], 1), var(&[8, 8, 3, 3], 2));
    let stem = relu6(&conv2d(&x, &w, SAME).unwrap()).unwrap();
    let loss = three(&stem, &w, Once(AtomicBool::new(true)));
    assert!(backward(&loss).is_err());
    let first = backward(&loss).unwrap();
    let again = backward(&loss).unwrap();
    for v in [&x, &w] {
        let difference = relative(first.get(v).unwrap(), again.get(v).unwrap());
        assert!(difference < 1e-12, "{difference}");
    }
}

/// An op at which two passes wait for one another.
struct Meet(Arc<Barrier>);

impl CustomOp1 for Meet {
    fn name(&self) -> &'static str {
        "meet"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((x.clone(), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        self.0.wait();
        Ok(Some(dy.clone()))
    }
}

#[test]
fn threads_may_share_a_part_of_their_graphs() {
    let (x, w) = (var(&[1, 4, 4, 8], 1), var(&[8, 8, 3, 3], 2));
    let stem = relu6(&conv2d(&x, &w, SAME).unwrap()).unwrap();
    let want = backward(&three(&stem, &w, Once(AtomicBool::new(false)))).unwrap();
    let barrier = Arc::new(Barrier::new(2));
    let losses = [0; 2].map(|_| three(&stem, &w, Meet(barrier.clone())));
    std::thread::scope(|scope| {
        for loss in &losses {
            let (x, w, want) = (&x, &w, &want);
            scope.spawn(move || {
                let got = backward(loss).unwrap();
                for v in [x, w] {
                    let difference = relative(got.get(v).unwrap(), want.get(v).unwrap());
                    assert!(difference < 1e-12, "{difference}");
                }
            });
        }
    });
}
