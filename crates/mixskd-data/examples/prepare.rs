//! An image file as `mixskd predict` prepares it: `cargo run -p mixskd-data --example prepare -- IN OUT.png SHORTER CROP` resizes the shorter
//! side, cuts the centre out and writes the pixels. `cargo xtask interop` compares them with torchvision's.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use mixskd_data::augment::{Augment, CentreCrop, Resize};
use mixskd_data::{Pipeline, read_image};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, shorter, crop] = arguments.as_slice() else {
        return Err("wanted: IN OUT.png SHORTER CROP".into());
    };
    let crop: usize = crop.parse()?;
    let ops: Vec<Arc<dyn Augment>> = vec![
        Arc::new(Resize {
            size: shorter.parse()?,
        }),
        Arc::new(CentreCrop { size: crop }),
    ];
    // A mean of 0 and a deviation of 1 leave pixels in 0…1.
    let pipeline = Pipeline::new(ops, &[0.0; 3], &[1.0; 3])?;
    let image = pipeline.tensor(&read_image(Path::new(from), 3)?)?;
    let values = image.flatten_all()?.to_vec1::<f32>()?;
    let pixels: Vec<u8> = values.iter().map(|v| (v * 255.0).round() as u8).collect();
    image::save_buffer(
        to,
        &pixels,
        crop as u32,
        crop as u32,
        image::ColorType::Rgb8,
    )?;
    Ok(())
}
