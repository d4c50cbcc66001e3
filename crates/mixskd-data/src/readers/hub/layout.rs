//! Image tensors of candle-datasets to pixels.

use candle_core::{DType, Tensor};

use crate::Result;

/// How a set's image tensors are laid out.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// `[image, channel, width, height]`: candle-datasets 0.11 transposes the images of its Parquet reader for CIFAR-10.
    ChannelWidthHeight,
    /// `[image, height · width]`, grey, square.
    Flat,
}

/// Images of 0…1 as bytes, `[image, height, width, channel]`, with height, width and channels.
pub(super) fn bytes(images: &Tensor, layout: Layout) -> Result<(Vec<u8>, (usize, usize, usize))> {
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
}
