//! With the `hub` feature: candle-datasets downloads and reads.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use candle_datasets::vision::{self, Dataset as HubDataset};

use crate::nearest::did_you_mean;
use crate::readers::Source;
use crate::recipe::recipe;
use crate::{DataConfig, Dataset, Error, PackedSamples, Result};

/// How a set's image tensors are laid out.
#[derive(Clone, Copy)]
enum Layout {
    /// `[image, channel, width, height]`: candle-datasets 0.11 transposes the images of its Parquet reader for CIFAR-10.
    ChannelWidthHeight,
    /// `[image, height · width]`, grey, square.
    Flat,
}

struct HubSet {
    name: &'static str,
    load: fn() -> candle_core::Result<HubDataset>,
    layout: Layout,
}

const SETS: &[HubSet] = &[
    HubSet {
        name: "cifar-10",
        load: vision::cifar::load,
        layout: Layout::ChannelWidthHeight,
    },
    HubSet {
        name: "mnist",
        load: vision::mnist::load,
        layout: Layout::Flat,
    },
    HubSet {
        name: "fashion-mnist",
        load: vision::fashion_mnist::load,
        layout: Layout::Flat,
    },
];

pub(super) fn open(source: &Source, config: &DataConfig) -> Result<Dataset> {
    let name = match source {
        Source::Hub(name) => name.as_str(),
        _ => "",
    };
    let Some(set) = SETS.iter().find(|set| set.name == name) else {
        let hint = did_you_mean(name, SETS.iter().map(|set| set.name));
        return Err(Error::source(
            &config.source,
            "is no set that can be read from the hub",
            hint,
        ));
    };
    let Some(recipe) = recipe(set.name) else {
        return Err(Error::source(
            &config.source,
            "has no recipe",
            "see `mixskd datasets`",
        ));
    };
    let data = (set.load)().map_err(|error| {
        Error::source(
            &config.source,
            error.to_string(),
            "check the connection; a set once loaded is kept in the hub's cache",
        )
    })?;
    let train = packed(&data.train_images, &data.train_labels, set)?;
    let test = packed(&data.test_images, &data.test_labels, set)?;
    Ok(Dataset {
        name: set.name.into(),
        classes: recipe.class_names.clone(),
        channels: recipe.channels,
        size: (recipe.size[0], recipe.size[1]),
        mean: recipe.mean.clone(),
        std: recipe.std.clone(),
        train: Arc::new(train),
        test: Arc::new(test),
        uniform: true,
        mirror: recipe.mirror,
        skipped: Vec::new(),
    })
}

fn packed(images: &Tensor, labels: &Tensor, set: &HubSet) -> Result<PackedSamples> {
    let (images, (height, width, channels)) = bytes(images, set.layout)?;
    let labels = labels.to_dtype(DType::U32)?.to_vec1()?;
    PackedSamples::new(
        (height, width, channels),
        images,
        labels,
        format!("hub:{}", set.name),
    )
}

/// Images of 0…1 as bytes, `[image, height, width, channel]`, with height, width and channels.
fn bytes(images: &Tensor, layout: Layout) -> Result<(Vec<u8>, (usize, usize, usize))> {
    let images = match layout {
        Layout::ChannelWidthHeight => images.permute((0, 3, 2, 1))?,
        Layout::Flat => {
            let (count, pixels) = images.dims2()?;
            let side = pixels.isqrt();
            images.reshape((count, side, side, 1))?
        }
    };
    let (_, height, width, channels) = images.dims4()?;
    // Thirds of 1/255 are not exact in binary: round to the byte they came from.
    let bytes = (images.to_dtype(DType::F32)? * 255.0)?
        .round()?
        .to_dtype(DType::U8)?;
    Ok((bytes.flatten_all()?.to_vec1()?, (height, width, channels)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn parquet_images_come_back_upright() {
        // Two images of 2 rows, 3 columns and 3 channels, laid out as decoders do, then turned as candle-datasets does.
        let upright: Vec<u8> = (0..36).map(|v| v * 7).collect();
        let decoded = Tensor::from_vec(upright.clone(), (2, 2, 3, 3), &Device::Cpu)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        let loaded = (decoded.permute((0, 3, 2, 1)).unwrap() / 255.0).unwrap();
        assert_eq!(loaded.dims(), [2, 3, 3, 2], "channel, width, height");
        assert_eq!(
            bytes(&loaded, Layout::ChannelWidthHeight).unwrap(),
            (upright, (2, 3, 3))
        );
    }

    #[test]
    fn every_byte_survives_the_detour_over_floats() {
        let all: Vec<u8> = (0..=255).collect();
        let flat = Tensor::from_vec(all.clone(), (1, 256), &Device::Cpu)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        assert_eq!(
            bytes(&(flat / 255.0).unwrap(), Layout::Flat).unwrap(),
            (all, (16, 16, 1))
        );
    }

    #[test]
    fn every_set_has_a_recipe_with_class_names() {
        for set in SETS {
            assert!(
                recipe(set.name).is_some_and(|recipe| recipe.class_names.len() == recipe.classes),
                "{}",
                set.name
            );
        }
    }
}
