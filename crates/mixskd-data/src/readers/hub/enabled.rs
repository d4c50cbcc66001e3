//! With the `hub` feature: candle-datasets downloads and reads.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use candle_datasets::vision::{self, Dataset as HubDataset};

use super::layout::{Layout, bytes};
use crate::nearest::did_you_mean;
use crate::readers::Source;
use crate::recipe::recipe;
use crate::{DataConfig, Dataset, Error, PackedSamples, Result};

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
        crop: true,
        augment: Vec::new(),
        skipped: Vec::new(),
        notes: Vec::new(),
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

#[cfg(test)]
mod tests {
    use super::*;

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
