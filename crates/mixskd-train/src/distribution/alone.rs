//! A run of one process.

use candle_core::Var;

use super::Collective;
use crate::gradients::Gradients;
use crate::{Error, Result};

/// Nobody else is there, and nothing changes.
pub(super) struct Alone;

impl Collective for Alone {
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own.to_vec()])
    }

    fn average(&self, _gradients: &mut Gradients, _buffers: &[(String, Var)]) -> Result<()> {
        Ok(())
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn farewell(&self, _error: &Error) {}
}
