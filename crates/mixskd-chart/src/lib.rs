//! Charts as SVG and PNG: axes with ticks at round numbers, labels that do not overlap.
//!
//! ```
//! use mixskd_chart::{Anchor, Axis, Svg, png};
//!
//! # fn main() -> mixskd_chart::Result<()> {
//! let seconds = Axis::new(12.0, 1900.0, 80.0, 830.0);
//! let mut svg = Svg::new(860.0, 560.0);
//! svg.text((seconds.at(600.0), 500.0), Anchor::Middle, "ten minutes");
//! let picture = svg.finish();
//! assert!(png(&picture, 2.0)?.starts_with(b"\x89PNG"));
//! # Ok(())
//! # }
//! ```

mod axis;
mod error;
mod heat;
mod labels;
mod lines;
mod raster;
mod svg;

pub use axis::Axis;
pub use error::{Error, Result};
pub use heat::HeatMap;
pub use labels::Labels;
pub use lines::{LineChart, Series};
pub use raster::png;
pub use svg::{Anchor, Svg, escape};
