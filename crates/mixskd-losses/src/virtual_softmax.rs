//! Cross-entropy beside a virtual class.

use candle_core::{D, Tensor};

use crate::precision::raised;
use crate::{Error, Result, check, cross_entropy};

/// Cross-entropy of the softmax over the logits and one more, `‖W_y‖·‖x‖`: the logit of a virtual class whose weight points
/// along the sample itself and is as long as its label's (Chen et al., Virtual Class Enhanced Discriminative Embedding
/// Learning, NeurIPS 2018, equation 2). Only a label that beats it costs nothing.
///
/// Reduction: batch mean. Temperature: none. Detached: nothing; the gradient flows through both norms, and is 0 where a norm is.
///
/// # Shapes
/// - `logits`: `[batch, class]`, `x·Wᵀ` without a bias
/// - `features`: `[batch, channel]`, the classifier's input x
/// - `weight`: `[class, channel]`, the classifier's W
/// - `labels`: `[batch]`, u32, below the number of classes
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit or labels are not u32.
pub fn virtual_softmax(
    logits: &Tensor,
    features: &Tensor,
    weight: &Tensor,
    labels: &Tensor,
) -> Result<Tensor> {
    const OP: &str = "virtual_softmax";
    let (batch, classes) = check::logits(OP, "logits", logits)?;
    let Ok((_, channels)) = features.dims2() else {
        return Err(Error::Shape {
            op: OP,
            what: "features".into(),
            wanted: "[batch, channel]".into(),
            got: features.dims().to_vec(),
        });
    };
    check::exactly(OP, "features", features, &[batch, channels])?;
    check::exactly(OP, "weight", weight, &[classes, channels])?;
    check::labels(OP, "labels", labels, batch)?;
    let own = raised(weight)?.index_select(labels, 0)?;
    let virtual_logit = (norm(&raised(features)?)? * norm(&own)?)?;
    let all = Tensor::cat(&[&raised(logits)?, &virtual_logit], 1)?;
    cross_entropy(&all, labels)
}

/// `[row, 1]`: the length of each row, with a gradient of 0 at length 0.
fn norm(x: &Tensor) -> Result<Tensor> {
    Ok((x.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?)
}
