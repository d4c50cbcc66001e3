//! Activations, numbers for each channel, channels taken and shuffled, pooling by attention.

use anyhow::Result;
use candle_core::Tensor;
use mixskd_kernels::{
    add_bias, attention_pool2d, relu, relu6, scale_channels, shift_channels, shuffle_channels,
    sigmoid, silu, slice_channels, tanh,
};

use crate::parity::Case;

type Activation = fn(&Tensor) -> mixskd_kernels::Result<Tensor>;
type PerChannel = fn(&Tensor, &Tensor) -> mixskd_kernels::Result<Tensor>;

/// What is compared with the CPU.
pub(crate) fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let map: &[usize] = &[4, 17, 17, 24];
    let activations: [(&str, Activation); 5] = [
        ("ReLU", relu),
        ("ReLU6", relu6),
        ("SiLU", silu),
        ("sigmoid", sigmoid),
        ("tanh", tanh),
    ];
    for (name, activation) in activations {
        // Both ends of ReLU6 are reached.
        let run = move |maps: &[Tensor], _: &[Tensor]| Ok(activation(&(&maps[0] * 8.0)?)?);
        cases.push(Case::new(name, &[map], &[], run)?);
    }
    let numbers: [(&str, PerChannel, &[usize]); 3] = [
        ("factors of channels", scale_channels, &[4, 24]),
        ("numbers added to channels", shift_channels, &[4, 24]),
        ("bias of channels", add_bias, &[24]),
    ];
    for (name, function, shape) in numbers {
        let run = move |maps: &[Tensor], floats: &[Tensor]| Ok(function(&maps[0], &floats[0])?);
        cases.push(Case::new(name, &[map], &[shape], run)?);
    }
    for (first, count) in [(8, 16), (3, 10)] {
        cases.push(Case::new(
            format!("{count} channels from {first}"),
            &[map],
            &[],
            move |maps, _| Ok(slice_channels(&maps[0], first, count)?),
        )?);
    }
    cases.push(Case::new("shuffled channels", &[map], &[], |maps, _| {
        Ok(shuffle_channels(&maps[0], 3)?)
    })?);
    cases.push(Case::new(
        "pool by attention",
        &[map, &[4, 17, 17, 1]],
        &[],
        |maps, _| Ok(attention_pool2d(&maps[0], &(&maps[1] * 4.0)?)?),
    )?);
    Ok(cases)
}
