//! Shape checks that name the operation, the argument and what came.

use candle_core::Tensor;

use crate::{Error, Result};

/// The four dimensions of a `[batch, height, width, channel]` tensor.
pub(crate) fn nhwc(
    op: &'static str,
    what: &'static str,
    x: &Tensor,
) -> Result<(usize, usize, usize, usize)> {
    x.dims4().map_err(|_| Error::Shape {
        op,
        what,
        wanted: "[batch, height, width, channel]".into(),
        got: x.dims().to_vec(),
    })
}

/// Checks that `x` has exactly the dimensions `wanted`.
pub(crate) fn exactly(
    op: &'static str,
    what: &'static str,
    x: &Tensor,
    wanted: &[usize],
) -> Result<()> {
    if x.dims() == wanted {
        return Ok(());
    }
    Err(Error::Shape {
        op,
        what,
        wanted: format!("{wanted:?}"),
        got: x.dims().to_vec(),
    })
}

/// Output length of a sliding window along one axis, or why there is none.
pub(crate) fn window_out(
    op: &'static str,
    input: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
) -> Result<usize> {
    let longest = 1 << 30;
    if [input, kernel, padding, dilation]
        .iter()
        .any(|&size| size > longest)
    {
        return Err(Error::Config {
            op,
            message: format!(
                "an axis of {input}, a window of {kernel}, a padding of {padding} and a dilation of {dilation} are to be at most {longest} each"
            ),
        });
    }
    let span = dilation * (kernel.max(1) - 1) + 1;
    if stride == 0 || dilation == 0 || kernel == 0 {
        return Err(Error::Config {
            op,
            message: "kernel, stride and dilation must be at least 1".into(),
        });
    }
    if input + 2 * padding < span {
        return Err(Error::Config {
            op,
            message: format!(
                "a window of {span} does not fit an axis of {input} with padding {padding}"
            ),
        });
    }
    Ok((input + 2 * padding - span) / stride + 1)
}
