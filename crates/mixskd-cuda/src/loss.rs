//! Losses on logits and the mean square of two maps. Losses and the gradient that comes in are one float in the engine's memory.

use crate::engine::{args, count, parts};
use crate::{Address, Element, Engine, NULL, Result};

/// A loss's gradient: `factor`, times the float at `at` unless that is [`NULL`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gradient {
    /// One float, or nothing.
    pub at: Address,
    /// What it is multiplied by.
    pub factor: f32,
}

/// `[rows, classes]`, neither of them 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logits {
    /// Samples.
    pub rows: usize,
    /// Classes.
    pub classes: usize,
    /// Type of the logits.
    pub element: Element,
}

/// What the logits are compared with.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Labels, u32, of weight λ, and their partners' of weight 1 − λ (floats); [`NULL`] for both leaves the own label alone.
    Labels {
        /// The samples' own.
        own: Address,
        /// Their partners'.
        partner: Address,
        /// λ.
        lambda: Address,
    },
    /// A weight for every class, of the logits' shape and type.
    Soft(Address),
    /// A teacher's logits, of the same shape and type, at a temperature.
    Teacher(Address, f32),
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Labels { .. } => "label_loss",
            Self::Soft(_) => "soft_loss",
            Self::Teacher(..) => "divergence",
        }
    }
}

impl Logits {
    fn kernel(self, name: &str) -> String {
        format!("{name}_{}", self.element.suffix())
    }

    /// The mean loss of the rows into `loss`; `scratch` has a float for each row.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// When a launch fails.
    pub unsafe fn forward(
        self,
        engine: &dyn Engine,
        z: Address,
        target: Target,
        scratch: Address,
        loss: Address,
    ) -> Result<()> {
        let (rows, classes) = (count("batch", self.rows)?, count("classes", self.classes)?);
        let all = match target {
            Target::Labels {
                own,
                partner,
                lambda,
            } => args![z, own, partner, lambda, scratch, classes].to_vec(),
            Target::Soft(t) => args![z, t, scratch, classes].to_vec(),
            Target::Teacher(t, temperature) => args![z, t, scratch, classes, temperature].to_vec(),
        };
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(&self.kernel(target.name()), (rows, 1), &all)?;
            scaled_sum(engine, scratch, rows, 1.0 / self.rows as f32, loss)
        }
    }

    /// The logits' gradient, given the loss's.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn backward(
        self,
        engine: &dyn Engine,
        z: Address,
        target: Target,
        gradient: Gradient,
        dz: Address,
    ) -> Result<()> {
        let (rows, classes) = (count("batch", self.rows)?, count("classes", self.classes)?);
        let Gradient { at, factor } = gradient;
        let all = match target {
            Target::Labels {
                own,
                partner,
                lambda,
            } => args![z, own, partner, lambda, at, factor, dz, rows, classes].to_vec(),
            Target::Soft(t) => args![z, t, at, factor, dz, rows, classes].to_vec(),
            Target::Teacher(t, temperature) => {
                args![z, t, at, factor, dz, rows, classes, temperature].to_vec()
            }
        };
        let name = format!("{}_backward", target.name());
        // SAFETY: the caller's promise.
        unsafe { engine.launch(&self.kernel(&name), (rows, 1), &all) }
    }
}

/// `out = scale · Σ values`.
///
/// # Safety
/// `values` has `count` floats, `out` one.
pub(crate) unsafe fn scaled_sum(
    engine: &dyn Engine,
    values: Address,
    count: u32,
    scale: f32,
    out: Address,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { engine.launch("scaled_sum", (1, 1), args![values, out, count, scale]) }
}

/// The mean square of `λ_i·x_i + (1 − λ_i)·x_π(i) − y_i`, or of `x − y`, over `[rows, length]`.
#[derive(Debug, Clone, Copy)]
pub struct MeanSquare {
    /// Samples.
    pub rows: usize,
    /// Elements of a sample.
    pub length: usize,
    /// π, u32, or [`NULL`] for no interpolation.
    pub partner: Address,
    /// λ, floats, or [`NULL`].
    pub lambda: Address,
    /// Type of the maps.
    pub element: Element,
}

impl MeanSquare {
    /// Floats of scratch memory that [`Self::forward`] needs.
    ///
    /// # Errors
    /// When there are more samples than a kernel counts.
    pub fn scratch(&self) -> Result<usize> {
        let (columns, rows) = parts(self.rows, self.length)?;
        Ok(columns as usize * rows as usize)
    }

    /// The loss.
    ///
    /// # Safety
    /// `x` and `y` are `[rows, length]`, `scratch` as long as [`Self::scratch`] says; partners are samples.
    ///
    /// # Errors
    /// When a launch fails.
    pub unsafe fn forward(
        &self,
        engine: &dyn Engine,
        x: Address,
        y: Address,
        scratch: Address,
        loss: Address,
    ) -> Result<()> {
        let grid = parts(self.rows, self.length)?;
        let length = count("sample", self.length)?;
        let name = format!("square_partial_{}", self.element.suffix());
        let scale = 1.0 / (self.rows * self.length) as f32;
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(
                &name,
                grid,
                args![x, self.partner, self.lambda, y, scratch, length],
            )?;
            scaled_sum(engine, scratch, grid.0 * grid.1, scale, loss)
        }
    }

    /// The gradient of the interpolation into `d_first` and its negative, that of `y`, into `d_second`, [`NULL`] where it is not
    /// wanted. From the first, [`update::interpolate_backward`](crate::update::interpolate_backward) makes `x`'s.
    ///
    /// # Safety
    /// `x`, `y` and the gradients are `[rows, length]`; partners are samples.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn backward(
        &self,
        engine: &dyn Engine,
        x: Address,
        y: Address,
        gradient: Gradient,
        [d_first, d_second]: [Address; 2],
    ) -> Result<()> {
        if d_first == NULL && d_second == NULL {
            return Ok(());
        }
        let length = count("sample", self.length)?;
        let name = format!("square_backward_{}", self.element.suffix());
        let scale = 2.0 / (self.rows * self.length) as f32;
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(
                &name,
                parts(self.rows, self.length)?,
                args![
                    x,
                    self.partner,
                    self.lambda,
                    y,
                    gradient.at,
                    gradient.factor,
                    d_first,
                    d_second,
                    length,
                    scale
                ],
            )
        }
    }
}
