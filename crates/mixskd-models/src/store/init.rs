//! Initial values as a function of (seed, name).

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::Init;
use candle_nn::init::NormalOrUniform;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Where values come from: every value is drawn in float64 and rounded, so dtypes agree up to rounding.
enum Source {
    Constant(f64),
    Normal { mean: f64, stdev: f64 },
    Uniform { low: f64, high: f64 },
}

impl Source {
    fn new(init: Init, shape: &Shape) -> Self {
        match init {
            Init::Const(value) => Self::Constant(value),
            Init::Randn { mean, stdev } => Self::Normal { mean, stdev },
            Init::Uniform { lo, up } => Self::Uniform { low: lo, high: up },
            Init::Kaiming {
                dist,
                fan,
                non_linearity,
            } => {
                let stdev = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
                match dist {
                    NormalOrUniform::Normal => Self::Normal { mean: 0.0, stdev },
                    NormalOrUniform::Uniform => {
                        let bound = 3f64.sqrt() * stdev;
                        Self::Uniform {
                            low: -bound,
                            high: bound,
                        }
                    }
                }
            }
        }
    }

    fn draw(&self, generator: &mut ChaCha8Rng) -> f64 {
        match *self {
            Self::Constant(value) => value,
            Self::Normal { mean, stdev } => {
                mean + stdev * generator.sample::<f64, _>(StandardNormal)
            }
            Self::Uniform { low, high } => low + (high - low) * generator.random::<f64>(),
        }
    }
}

/// A variable of the given shape, its values drawn for `name`.
pub(super) fn draw(
    init: Init,
    shape: &Shape,
    seed: u64,
    name: &str,
    dtype: DType,
    device: &Device,
) -> Result<Var> {
    let source = Source::new(init, shape);
    let mut generator = ChaCha8Rng::from_seed(key(seed, name));
    let count = shape.elem_count();
    if dtype == DType::F32 {
        let values: Vec<f32> = (0..count)
            .map(|_| source.draw(&mut generator) as f32)
            .collect();
        return Var::from_vec(values, shape, device);
    }
    let values: Vec<f64> = (0..count).map(|_| source.draw(&mut generator)).collect();
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
    Var::from_tensor(&tensor.to_dtype(dtype)?.to_device(device)?)
}

/// The generator's key: the seed, a hash of the name, its length, and the purpose.
fn key(seed: u64, name: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&fnv1a(name).to_le_bytes());
    key[16..24].copy_from_slice(&(name.len() as u64).to_le_bytes());
    key[24..].copy_from_slice(b"mixskd:p");
    key
}

/// FNV-1a, 64 bits: a hash that is the same in every build, which the standard library's does not promise.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
