//! Plans for a GPU that is not there: cuDNN 9.8 and later ranks engines and makes plans for one that is described to it. What it says of
//! passes, engines and scratch memory is then cuDNN's own word; nothing runs.
//!
//! Needs cuDNN's, CUDA's runtime's and NVRTC's libraries and a libcuda.so.1, which may be a stub: `MIXSKD_CUDNN_TESTS=1`.

use std::ffi::c_char;

use super::*;

/// An H100 (SXM), as cuDNN describes GPUs.
const H100: &str = r#"{"maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,
"multiProcessorCount": 132, "warpSize": 32, "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
"reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024,
"maxThreadsPerSM": 2048, "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1, "totalGlobalMem": 85000000000,
"smClockRateKHz": 1980000, "memClockRateKHz": 2619000, "memoryBusWidth": 5120, "l2CacheSize": 52428800, "cudaDeviceId": 0,
"deviceVer": 900, "driverVer": 13000, "deviceName": "NVIDIA H100 80GB HBM3"}"#;

fn h100() -> Target {
    let gpu = Descriptor::new("GPU", Type::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR).unwrap();
    let text: Vec<c_char> = H100.bytes().chain([0]).map(|b| b as c_char).collect();
    gpu.set(Name::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, &text)
        .unwrap();
    Target::Described(gpu.finish().unwrap())
}

/// Batch and side, channels in and out, window, step, groups.
type Shape = (usize, usize, usize, usize, usize, usize, usize);

/// The convolutions of MixSKD's CIFAR ResNet-18 at 64 + 64 images, of evaluation at 250, of ResNet-50, grouped ones, and those of
/// gpu-check: narrow networks, pictures of one channel, and channels that are no multiple of anything.
const SHAPES: [Shape; 37] = [
    (128, 32, 3, 64, 3, 1, 1),
    (128, 32, 64, 64, 3, 1, 1),
    (128, 32, 64, 128, 3, 2, 1),
    (128, 32, 64, 128, 1, 2, 1),
    (128, 16, 128, 128, 3, 1, 1),
    (128, 16, 128, 256, 3, 2, 1),
    (128, 8, 256, 256, 3, 1, 1),
    (128, 8, 256, 512, 1, 2, 1),
    (128, 4, 512, 512, 3, 1, 1),
    (128, 4, 2048, 512, 1, 1, 1),
    (250, 32, 3, 64, 3, 1, 1),
    (250, 4, 512, 512, 3, 1, 1),
    (1024, 32, 64, 64, 3, 1, 1),
    (64, 224, 3, 64, 7, 2, 1),
    (64, 56, 64, 64, 1, 1, 1),
    (64, 56, 64, 256, 1, 1, 1),
    (64, 56, 256, 512, 1, 2, 1),
    (64, 14, 256, 256, 3, 1, 1),
    (64, 7, 512, 2048, 1, 1, 1),
    (64, 14, 256, 256, 3, 1, 32),
    (64, 28, 144, 144, 3, 1, 144),
    (8, 28, 2, 2, 3, 1, 1),
    (32, 28, 1, 8, 3, 1, 1),
    (32, 28, 8, 8, 3, 1, 1),
    (32, 28, 8, 16, 3, 2, 1),
    (32, 28, 8, 16, 1, 2, 1),
    (32, 4, 256, 64, 1, 1, 1),
    (16, 28, 1, 8, 3, 1, 1),
    (50, 28, 1, 8, 3, 1, 1),
    (50, 4, 64, 64, 3, 1, 1),
    (128, 28, 1, 32, 3, 1, 1),
    (250, 28, 1, 32, 3, 1, 1),
    (250, 28, 32, 32, 3, 1, 1),
    (4, 40, 3, 64, 7, 2, 1),
    (8, 9, 24, 24, 3, 1, 24),
    (8, 9, 24, 48, 3, 2, 3),
    (3, 7, 5, 11, 3, 1, 1),
];

fn convolution(shape: Shape, element: Element, arithmetic: Arithmetic) -> Convolution {
    let (batch, side, inputs, outputs, window, stride, groups) = shape;
    let out = (side + 2 * (window / 2) - window) / stride + 1;
    Convolution {
        input: [batch, side, side, inputs],
        output: [batch, out, out, outputs],
        kernel: [window; 2],
        stride,
        padding: window / 2,
        dilation: 1,
        groups,
        element,
        arithmetic,
    }
}

#[test]
fn every_pass_has_a_plan_that_repeats() {
    if std::env::var_os("MIXSKD_CUDNN_TESTS").is_none_or(|value| value != "1") {
        eprintln!("left out: needs cuDNN's libraries, MIXSKD_CUDNN_TESTS=1");
        return;
    }
    let target = h100();
    let kinds = [
        (Element::Bf16, Arithmetic::Exact),
        (Element::F32, Arithmetic::Tf32),
        (Element::F32, Arithmetic::Exact),
    ];
    for shape in SHAPES {
        for (element, arithmetic) in kinds {
            let c = convolution(shape, element, arithmetic);
            for pass in [Pass::Forward, Pass::Data, Pass::Filter] {
                let mut offers = Offers::new(&c, pass, &target).unwrap();
                let count = offers.count();
                let plans: Vec<_> = (0..count)
                    .filter_map(|at| Some((at, offers.plan(at).ok()??)))
                    .collect();
                let good: Vec<_> = plans
                    .iter()
                    .filter(|(_, plan)| plan.repeats && plan.workspace <= 1 << 30)
                    .collect();
                eprintln!(
                    "{shape:?} {element:?} {arithmetic:?} {pass:?}: {count} configurations, {} plans, {} repeat and fit, the first at {:?} with {:?} bytes",
                    plans.len(),
                    good.len(),
                    good.first().map(|(at, _)| at),
                    good.first().map(|(_, plan)| plan.workspace)
                );
                assert!(!good.is_empty(), "{c:?} {pass:?}");
            }
        }
    }
}
