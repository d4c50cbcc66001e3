//! Checks of arguments that name the loss, the argument and what came.

use candle_core::{DType, Tensor};

use crate::{Error, Result};

/// Batch and classes of a `[batch, class]` tensor with at least one of each.
pub(crate) fn logits(op: &'static str, what: &str, x: &Tensor) -> Result<(usize, usize)> {
    match x.dims2() {
        Ok((batch, classes)) if batch > 0 && classes > 0 => {
            floats(op, what, x)?;
            Ok((batch, classes))
        }
        _ => Err(Error::Shape {
            op,
            what: what.into(),
            wanted: "[batch, class], neither of them 0".into(),
            got: x.dims().to_vec(),
        }),
    }
}

/// `x` holds floats, of whatever precision.
pub(crate) fn floats(op: &'static str, what: &str, x: &Tensor) -> Result<()> {
    if x.dtype().is_float() {
        return Ok(());
    }
    Err(Error::DType {
        op,
        what: what.into(),
        wanted: "floats",
        got: x.dtype(),
    })
}

/// `x` has exactly the dimensions `wanted`.
pub(crate) fn exactly(op: &'static str, what: &str, x: &Tensor, wanted: &[usize]) -> Result<()> {
    if x.dims() == wanted {
        return Ok(());
    }
    Err(Error::Shape {
        op,
        what: what.into(),
        wanted: format!("{wanted:?}"),
        got: x.dims().to_vec(),
    })
}

/// `x` is a vector of class indices, one for each sample.
pub(crate) fn labels(op: &'static str, what: &'static str, x: &Tensor, batch: usize) -> Result<()> {
    exactly(op, what, x, &[batch])?;
    if x.dtype() == DType::U32 {
        return Ok(());
    }
    Err(Error::DType {
        op,
        what: what.into(),
        wanted: "u32 class indices",
        got: x.dtype(),
    })
}

/// A temperature is positive and finite.
pub(crate) fn temperature(value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::Range {
        key: "temperature",
        value,
        hint: "a softmax temperature is a finite number above 0; the paper uses 3",
    })
}

/// A weight is finite and not negative.
pub(crate) fn weight(key: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::Range {
        key,
        value,
        hint: "a weight is a finite number, 0 (term left out) or more; the paper uses 1",
    })
}

/// A share: from 0 to 1, both included.
pub(crate) fn fraction(key: &'static str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::Range {
        key,
        value,
        hint: "a share is a number from 0 to 1",
    })
}

/// A share strictly between 0 and 1.
pub(crate) fn open_fraction(key: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value < 1.0 {
        return Ok(());
    }
    Err(Error::Range {
        key,
        value,
        hint: "a share strictly between 0 and 1",
    })
}
