//! A training loop of one's own, of the crates' parts and a network of candle-nn's: `cargo run --release -p mixskd-train --example own_loop`.
//!
//! The network says something of two images and of their mix; what it says of the mix is to agree with both labels, and with the mix of what it
//! says of the two (MixSKD's agreement of probabilities, without its branches).

use candle_core::{DType, Device, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, Module, VarBuilder, VarMap};
use mixskd_data::{DataConfig, LambdaPer, Loader, LoaderConfig, PairSampler};
use mixskd_kernels::{backward, interpolate};
use mixskd_losses::{cross_entropy, kl_divergence, mix_cross_entropy};
use mixskd_train::{OptimizerConfig, ScheduleConfig};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const EPOCHS: usize = 3;
const BATCH: usize = 64;

/// Two convolutions and a linear layer.
struct Network {
    first: Conv2d,
    second: Conv2d,
    head: Linear,
}

impl Network {
    fn new(channels: usize, classes: usize, vb: &VarBuilder) -> candle_core::Result<Self> {
        let config = Conv2dConfig {
            stride: 2,
            padding: 1,
            ..Conv2dConfig::default()
        };
        Ok(Self {
            first: candle_nn::conv2d(channels, 16, 3, config, vb.pp("first"))?,
            second: candle_nn::conv2d(16, 32, 3, config, vb.pp("second"))?,
            head: candle_nn::linear(32, classes, vb.pp("head"))?,
        })
    }

    /// Batches are `[batch, height, width, channel]`, candle-nn's convolutions want the channels second.
    fn logits(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        let x = images.permute((0, 3, 1, 2))?.contiguous()?;
        let x = self.first.forward(&x)?.relu()?;
        let x = self.second.forward(&x)?.relu()?;
        self.head.forward(&x.flatten_from(2)?.mean(2)?)
    }
}

fn main() -> Outcome<()> {
    let dataset = DataConfig::default().open()?;
    let size = dataset.input_size();
    let train = LoaderConfig {
        batch: BATCH,
        ..LoaderConfig::default()
    };
    let test = LoaderConfig {
        shuffle: false,
        drop_last: false,
        ..train.clone()
    };
    let train = Loader::new(dataset.train.clone(), dataset.train_pipeline(size)?, train)?;
    let test = Loader::new(dataset.test.clone(), dataset.eval_pipeline(size)?, test)?;

    let parameters = VarMap::new();
    let vb = VarBuilder::from_varmap(&parameters, DType::F32, &Device::Cpu);
    let network = Network::new(dataset.channels, dataset.classes.len(), &vb)?;
    let named = parameters.data().lock().map_err(|e| e.to_string())?.clone();
    let mut optimizer = OptimizerConfig::default().build(named.into_iter().collect())?;
    let steps = train.steps_per_epoch();
    let schedule = ScheduleConfig::default().build(0.1, EPOCHS, steps)?;
    let pairs = PairSampler {
        alpha: 0.4,
        per: LambdaPer::Batch,
        seed: 0,
    };

    for epoch in 0..EPOCHS {
        let mut total = 0.0;
        for (step, batch) in train.epoch(epoch as u64).enumerate() {
            let batch = batch?;
            let drawn = pairs.draw(epoch as u64, step as u64, batch.labels.len())?;
            let of_partners = drawn.partner.iter().map(|&i| batch.labels[i as usize]);
            let of_partners = Tensor::from_iter(of_partners, &Device::Cpu)?;
            let labels = Tensor::new(batch.labels, &Device::Cpu)?;
            let partner = Tensor::new(drawn.partner, &Device::Cpu)?;
            let lambda = Tensor::new(drawn.lambda, &Device::Cpu)?;

            let originals = network.logits(&batch.images)?;
            let mixes = network.logits(&interpolate(&batch.images, &partner, &lambda)?)?;
            let agreed = interpolate(&originals, &partner, &lambda)?;
            let task = (cross_entropy(&originals, &labels)?
                + mix_cross_entropy(&mixes, &labels, &of_partners, &lambda)?)?;
            let loss = (task + kl_divergence(&mixes, &agreed, 3.0)?)?;

            optimizer.step(&backward(&loss)?, schedule.lr(epoch, step))?;
            total += loss.to_scalar::<f32>()?;
        }
        let (mut right, mut images) = (0, 0);
        for batch in test.epoch(0) {
            let batch = batch?;
            let said = network.logits(&batch.images)?.argmax(1)?.to_vec1::<u32>()?;
            right += said
                .iter()
                .zip(&batch.labels)
                .filter(|(a, b)| a == b)
                .count();
            images += said.len();
        }
        println!(
            "epoch {}: loss {:.3}, {right} of {images} test images right",
            epoch + 1,
            total / steps as f32
        );
    }
    Ok(())
}
