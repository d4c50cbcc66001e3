//! Graphs of every network of the registry: the same answers as the network, folded or not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{check_close, images, small};
use mixskd_kernels::Conv2dConfig;
use mixskd_models::graph::{Activation, Executor, Graph, GraphBuilder, Op};
use mixskd_models::{Backbone, Mode, ModelConfig, ParamStore, registry};

/// A small network whose running statistics have moved, and images for it.
fn trained(config: &ModelConfig, dtype: DType) -> (Box<dyn Backbone>, Tensor) {
    let store = ParamStore::new(3, dtype, &Device::Cpu);
    let backbone = config.build(store.builder()).unwrap();
    let x = images(2, config.input.min(48), config.channels, dtype);
    for _ in 0..2 {
        backbone.stages(&x, Mode::Train).unwrap();
    }
    (backbone, x)
}

fn counts(graph: &Graph, wanted: fn(&Op) -> bool) -> usize {
    graph.nodes().iter().filter(|node| wanted(&node.op)).count()
}

#[test]
fn every_network_says_the_same_as_its_graph() {
    for spec in registry::ALL {
        let config = small(spec.name, 5);
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-12)] {
            let (backbone, x) = trained(&config, dtype);
            let expected = backbone.forward(&x, Mode::Eval).unwrap();
            let plain = Graph::of(backbone.as_ref(), config.channels).unwrap();
            let folded = plain.fold_batch_norm().unwrap();
            for graph in [&plain, &folded, &plain.fuse(), &folded.fuse()] {
                let got = Executor::new(graph).unwrap().run(&x).unwrap();
                check_close(spec.name, &got, &expected, tolerance);
            }
        }
    }
}

#[test]
fn shapes_are_those_the_executor_makes() {
    for spec in registry::ALL {
        let config = small(spec.name, 5);
        let (backbone, x) = trained(&config, DType::F32);
        let graph = Graph::of(backbone.as_ref(), config.channels).unwrap();
        let (_, h, w, _) = x.dims4().unwrap();
        let shapes = graph.shapes((h, w)).unwrap();
        let stages = backbone.cost((h, w)).unwrap().stages;
        assert!(
            stages.iter().all(|stage| shapes.contains(stage)),
            "{}",
            spec.name
        );
        assert_eq!(shapes[shapes.len() - 1].c, 5);
        let folded = graph.fold_batch_norm().unwrap().fuse();
        assert_eq!(folded.shapes((h, w)).unwrap().last(), shapes.last());
    }
}

#[test]
fn no_batch_norm_is_left_and_a_residual_network_is_convolutions_alone() {
    for spec in registry::ALL {
        let config = small(spec.name, 5);
        let (backbone, _) = trained(&config, DType::F32);
        let graph = Graph::of(backbone.as_ref(), config.channels).unwrap();
        let folded = graph.fold_batch_norm().unwrap().fuse();
        assert_eq!(
            counts(&folded, |op| matches!(op, Op::Norm(_))),
            0,
            "{}",
            spec.name
        );
        if ["resnet18", "resnet50"].contains(&spec.name.trim_start_matches("cifar_")) {
            let others = counts(&folded, |op| {
                matches!(op, Op::Add | Op::Affine(_) | Op::Activation(_))
            });
            assert_eq!(others, 0, "{}", spec.name);
        }
    }
}

#[test]
fn a_parameter_is_named_as_in_the_weights_file() {
    let config = small("resnet18", 5);
    let (backbone, _) = trained(&config, DType::F32);
    let graph = Graph::of(backbone.as_ref(), config.channels).unwrap();
    let names: Vec<&str> = graph
        .nodes()
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    for name in [
        "conv1",
        "bn1",
        "layer2.0.downsample.0",
        "layer4.1.bn2",
        "fc",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

/// Like the context that a gate adds to a map: whichever of the two convolutions comes last, the sum is no part of the one of one pixel.
#[test]
fn a_sum_with_a_map_of_one_pixel_stays_right_when_fused() {
    let weight = |out: usize, side: usize| {
        let count = out * 3 * side * side;
        images(1, 1, count, DType::F32)
            .reshape((out, 3, side, side))
            .unwrap()
    };
    let padded = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    for pixel_last in [false, true] {
        let mut builder = GraphBuilder::new();
        let image = builder.input(3);
        let mean = builder.global_avg_pool(image);
        let map = |builder: &mut GraphBuilder| {
            let map = builder.conv(image, "map", &weight(8, 3), None, padded);
            map.unwrap()
        };
        let pixel = |builder: &mut GraphBuilder| {
            let plain = Conv2dConfig::default();
            let pixel = builder.conv(mean, "pixel", &weight(8, 1), None, plain);
            pixel.unwrap()
        };
        let (map, pixel) = if pixel_last {
            let map = map(&mut builder);
            (map, pixel(&mut builder))
        } else {
            let pixel = pixel(&mut builder);
            (map(&mut builder), pixel)
        };
        let sum = builder.add(map, pixel).unwrap();
        let output = builder.activation(sum, Activation::Relu);
        let graph = builder.finish(output);
        let fused = graph.fuse();
        // One image of one pixel among them: there the sum is a plain one.
        for side in [1, 2, 5] {
            let x = images(2, side, 3, DType::F32);
            let run = |graph: &Graph| Executor::new(graph).unwrap().run(&x).unwrap();
            check_close("fused", &run(&fused), &run(&graph), 1e-5);
            let shapes = |graph: &Graph| graph.shapes((side, side)).unwrap();
            assert_eq!(shapes(&fused).last(), shapes(&graph).last());
        }
    }
}

#[test]
fn an_image_of_other_channels_is_refused() {
    let config = small("cifar_resnet18", 5);
    let (backbone, _) = trained(&config, DType::F32);
    let graph = Graph::of(backbone.as_ref(), config.channels).unwrap();
    let x = images(1, 32, 1, DType::F32);
    let error = Executor::new(&graph).unwrap().run(&x).unwrap_err();
    assert!(
        error.to_string().contains("[batch, height, width, 3]"),
        "{error}"
    );
}
