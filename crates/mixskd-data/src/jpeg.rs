//! What a JPEG file's markers say before it is decoded: whether it is whole, and whether it can hold what it declares.
//!
//! Segments are as ITU-T T.81, annex B has them.

/// Refuses a file that is cut short, or whose pixels cannot be in so few bytes.
///
/// Huffman codes spend at least one bit on each 8×8 block of the component that is sampled most, so a file of n bytes holds no more than 8n
/// blocks. Only files that declare nonsense or miss most of their data have fewer.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    if !bytes.starts_with(&[0xFF, 0xD8]) {
        return Err("is no picture of a known kind, in spite of its name".into());
    }
    let mut at = 2;
    loop {
        let Some((marker, after)) = next_marker(bytes, at) else {
            return Err("the JPEG is cut short: its end is missing".into());
        };
        at = after;
        match marker {
            // The end of the image; what follows is nobody's business.
            0xD9 => return Ok(()),
            // Restarts and the like have no length.
            0x01 | 0xD0..=0xD8 => {}
            _ => {
                let Some(length) = number(bytes, at) else {
                    continue;
                };
                // Frames; C4, C8 and CC among them are tables.
                if matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) {
                    frame(bytes, at)?;
                }
                at += length.max(2);
            }
        }
    }
}

/// The next marker from `at` on and the place behind it. Bytes that are no marker are passed over, as decoders do.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let mut rest = bytes.get(at..)?;
    loop {
        let found = rest.iter().position(|&byte| byte == 0xFF)?;
        rest = &rest[found..];
        // Any number of FF may stand before a marker.
        let marker = *rest.iter().find(|&&byte| byte != 0xFF)?;
        let fill = rest.iter().take_while(|&&byte| byte == 0xFF).count();
        rest = &rest[fill + 1..];
        // FF00 is an FF among coded data.
        if marker != 0 {
            return Some((marker, bytes.len() - rest.len()));
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let pair = bytes.get(at..at + 2)?;
    Some(usize::from(pair[0]) << 8 | usize::from(pair[1]))
}

/// Compares what a frame header declares (length, precision, height, width, …) with the file's length.
fn frame(bytes: &[u8], at: usize) -> Result<(), String> {
    let (Some(height), Some(width)) = (number(bytes, at + 3), number(bytes, at + 5)) else {
        return Ok(());
    };
    if height.div_ceil(8) * width.div_ceil(8) > 8 * bytes.len() {
        return Err(format!(
            "declares {width}×{height} pixels, more than a JPEG of {} bytes can hold",
            bytes.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SOI, APP0 with an end marker inside (as of a thumbnail), a frame of 16×24, a scan with FF00 and a restart in it, EOI, rubbish.
    const SMALL: &[u8] = &[
        0xFF, 0xD8, //
        0xFF, 0xE0, 0, 4, 0xFF, 0xD9, //
        0xFF, 0xFF, 0xC0, 0, 11, 8, 0, 16, 0, 24, 1, 1, 0x11, 0, //
        0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0, //
        0x12, 0xFF, 0x00, 0x34, 0xFF, 0xD0, 0x56, //
        0xFF, 0xD9, 0xAB, 0xFF,
    ];

    #[test]
    fn a_whole_file_is_taken_and_every_cut_is_told() {
        assert_eq!(check(SMALL), Ok(()));
        let end = SMALL.len() - 2;
        assert_eq!(check(&SMALL[..end]), Ok(()));
        for cut in 0..end {
            assert!(check(&SMALL[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn more_pixels_than_the_bytes_can_hold_are_refused_with_both_figures() {
        let declared = |height: u16, width: u16| {
            let mut bytes = SMALL.to_vec();
            bytes[14..16].copy_from_slice(&height.to_be_bytes());
            bytes[16..18].copy_from_slice(&width.to_be_bytes());
            check(&bytes)
        };
        // 8 blocks a byte, and not one more.
        let blocks = 8 * SMALL.len() as u16;
        assert_eq!(declared(8, 8 * blocks), Ok(()));
        let message = declared(8, 8 * blocks + 1).unwrap_err();
        let wanted = format!("declares {}×8 pixels", 8 * blocks + 1);
        assert!(message.contains(&wanted), "{message}");
        assert!(declared(7687, 8457).is_err());
    }
}
