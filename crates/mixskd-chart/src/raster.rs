//! From SVG to PNG.

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use crate::{Error, Result};

/// The longest side of a PNG.
const LONGEST: u32 = 16384;

/// `svg` drawn with `scale` pixels for each of its own, as a PNG file. Its letters are DejaVu Sans whatever the machine has, so
/// that the same chart is the same picture everywhere.
///
/// # Errors
/// If `svg` is no SVG, or the picture would be empty or too large.
pub fn png(svg: &str, scale: f32) -> Result<Vec<u8>> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let fonts = FONTS.get_or_init(|| {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    });
    let options = Options {
        font_family: "DejaVu Sans".into(),
        fontdb: fonts.clone(),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(|error| Error::Svg(error.to_string()))?;
    let size = tree.size();
    let (width, height) = (
        (size.width() * scale).ceil() as u32,
        (size.height() * scale).ceil() as u32,
    );
    let mut picture = (width.max(height) <= LONGEST)
        .then(|| Pixmap::new(width, height))
        .flatten()
        .ok_or(Error::Size { width, height })?;
    resvg::render(
        &tree,
        Transform::from_scale(scale, scale),
        &mut picture.as_mut(),
    );
    picture
        .encode_png()
        .map_err(|error| Error::Svg(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Anchor, Svg};

    fn picture(words: &str) -> Pixmap {
        let mut svg = Svg::new(100.0, 40.0);
        svg.text((10.0, 25.0), Anchor::Start, words);
        Pixmap::decode_png(&png(&svg.finish(), 2.0).unwrap()).unwrap()
    }

    #[test]
    fn letters_are_drawn_at_the_asked_scale() {
        let (blank, written) = (picture(""), picture("λ 57 %"));
        assert_eq!((written.width(), written.height()), (200, 80));
        assert!(blank.pixels().iter().all(|pixel| pixel.red() == 255));
        let dark = written.pixels().iter().filter(|p| p.red() < 128).count();
        assert!((100..3000).contains(&dark), "{dark} dark pixels");
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        assert!(matches!(png("no svg", 1.0), Err(Error::Svg(_))));
        let svg = Svg::new(100.0, 40.0).finish();
        assert!(matches!(png(&svg, 0.0), Err(Error::Size { .. })));
        assert!(matches!(png(&svg, 1e4), Err(Error::Size { .. })));
    }
}
