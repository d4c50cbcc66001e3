//! Resizing against Pillow, on which torchvision's transforms stand.

use mixskd_data::ImageView;
use mixskd_data::augment::Canvas;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    #[serde(rename = "box")]
    cut: [usize; 4],
    size: [usize; 2],
    pixels: Vec<u8>,
}

#[test]
fn pixels_are_pillows_to_one_grey_level() {
    let (height, width) = (45, 60);
    // The formula of golden/resize.py.
    let value =
        |y: usize, x: usize, c: usize| ((y * y * 3 + x * 7 + (x * y) / 5 + c * 50) % 256) as u8;
    let pixels: Vec<u8> = (0..height * width * 3)
        .map(|i| value(i / 3 / width, i / 3 % width, i % 3))
        .collect();
    let cases: Vec<Case> = serde_json::from_str(include_str!("golden/resize.json")).unwrap();
    assert_eq!(cases.len(), 5);
    for Case {
        cut: [top, left, h, w],
        size: [new_h, new_w],
        pixels: expected,
    } in cases
    {
        let mut canvas = Canvas::new(ImageView {
            height,
            width,
            channels: 3,
            pixels: &pixels,
        });
        canvas.crop(top as i64, left as i64, h, w);
        canvas.resize(new_h, new_w).unwrap();
        let got = canvas.to_image();
        assert_eq!((got.height, got.width), (new_h, new_w));
        let worst = got
            .pixels
            .iter()
            .zip(&expected)
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(
            worst <= Some(1),
            "{h}×{w} to {new_h}×{new_w}: {worst:?} grey levels apart"
        );
    }
}
