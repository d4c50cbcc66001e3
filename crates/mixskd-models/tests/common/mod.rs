//! Helpers of the tests.
#![allow(dead_code, reason = "each test binary uses some of them")]

use candle_core::{DType, Device, Tensor};
use mixskd_models::ModelConfig;

/// A small network for tests: `width` 1/16 unless changed.
pub(crate) fn small(name: &str, classes: usize) -> ModelConfig {
    ModelConfig {
        width: 0.0625,
        ..ModelConfig::new(name, classes).unwrap()
    }
}

/// Images whose values are a fixed function of their position, `[batch, side, side, channels]`.
pub(crate) fn images(batch: usize, side: usize, channels: usize, dtype: DType) -> Tensor {
    let count = batch * side * side * channels;
    let values: Vec<f64> = (0..count).map(|i| (i as f64 * 0.7311).sin()).collect();
    Tensor::from_vec(values, (batch, side, side, channels), &Device::Cpu)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

/// All values, as float64.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.flatten_all().unwrap();
    flat.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// Checks that two tensors have one shape and differ by at most `tolerance` times the largest expected value.
pub(crate) fn check_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let (got, expected) = (values(got), values(expected));
    let scale = expected.iter().fold(1e-30, |a: f64, b| a.max(b.abs()));
    let pairs = got.iter().zip(&expected);
    let worst = pairs.fold(0.0, |worst: f64, (g, e)| {
        let error = (g - e).abs() / scale;
        if error.is_nan() {
            f64::INFINITY
        } else {
            worst.max(error)
        }
    });
    assert!(worst <= tolerance, "{what}: relative error {worst:e}");
}
