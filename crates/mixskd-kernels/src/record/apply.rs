//! candle's kind of op, recorded.

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result, Storage, Tensor, bail};

use super::{Differentiable, record};

/// The CPU storage and layout of a tensor as `$storage` and `$layout`.
macro_rules! with_cpu {
    ($tensor:expr => $storage:ident, $layout:ident; $work:expr) => {{
        let (guard, $layout) = $tensor.storage_and_layout();
        let Storage::Cpu($storage) = &*guard else {
            bail!("kernel input is not on the CPU");
        };
        $work
    }};
}

struct One<C> {
    op: C,
    x: Tensor,
}

impl<C: CustomOp1 + Send + Sync> Differentiable for One<C> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn gradients(&self, y: &Tensor, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![self.op.bwd(&self.x, y, dy)?])
    }
}

/// Like [`Tensor::apply_op1`].
pub(crate) fn apply1<C: CustomOp1 + Send + Sync + 'static>(x: &Tensor, op: C) -> Result<Tensor> {
    let made = with_cpu!(x => s, l; op.cpu_fwd(s, l)?);
    record(&[x], One { op, x: x.clone() }, made)
}

struct Two<C> {
    op: C,
    x: Tensor,
    y: Tensor,
}

impl<C: CustomOp2 + Send + Sync> Differentiable for Two<C> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn gradients(&self, out: &Tensor, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (a, b) = self.op.bwd(&self.x, &self.y, out, dy)?;
        Ok(vec![a, b])
    }
}

/// Like [`Tensor::apply_op2`].
pub(crate) fn apply2<C: CustomOp2 + Send + Sync + 'static>(
    x: &Tensor,
    y: &Tensor,
    op: C,
) -> Result<Tensor> {
    let made = with_cpu!(x => s1, l1; with_cpu!(y => s2, l2; op.cpu_fwd(s1, l1, s2, l2)?));
    let inputs = Two {
        op,
        x: x.clone(),
        y: y.clone(),
    };
    record(&[x, y], inputs, made)
}

struct Three<C> {
    op: C,
    x: Tensor,
    y: Tensor,
    z: Tensor,
}

impl<C: CustomOp3 + Send + Sync> Differentiable for Three<C> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn gradients(&self, out: &Tensor, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (a, b, c) = self.op.bwd(&self.x, &self.y, &self.z, out, dy)?;
        Ok(vec![a, b, c])
    }
}

/// Like [`Tensor::apply_op3`].
pub(crate) fn apply3<C: CustomOp3 + Send + Sync + 'static>(
    x: &Tensor,
    y: &Tensor,
    z: &Tensor,
    op: C,
) -> Result<Tensor> {
    let made = with_cpu!(x => s1, l1; with_cpu!(y => s2, l2; with_cpu!(z => s3, l3; {
        op.cpu_fwd(s1, l1, s2, l2, s3, l3)?
    })));
    let inputs = Three {
        op,
        x: x.clone(),
        y: y.clone(),
        z: z.clone(),
    };
    record(&[x, y, z], inputs, made)
}
