//! What a network costs, computed from its geometry alone.

use serde::Serialize;

/// Shape of one feature map of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StageShape {
    /// Height, in pixels.
    pub h: usize,
    /// Width, in pixels.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl StageShape {
    /// Number of values in the map.
    pub fn elements(&self) -> u64 {
        (self.h * self.w * self.c) as u64
    }
}

/// Cost of one sample's forward pass, and the parameters it needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Multiply-adds of the convolutions and linear layers, exact; biases, batch norm and pooling are not counted (the
    /// convention of torchvision's model table).
    pub macs: u64,
    /// Trainable parameters (no running statistics).
    pub parameters: u64,
    /// Values written by all operations; with gradients kept, an estimate of a training step's memory per sample is
    /// `activations · size of a value`.
    pub activations: u64,
    /// Output of each stage, for a backbone; empty otherwise.
    pub stages: Vec<StageShape>,
}

impl Cost {
    /// Adds another module's multiply-adds, parameters and activations; the stages stay.
    pub fn add(&mut self, other: &Self) {
        self.macs += other.macs;
        self.parameters += other.parameters;
        self.activations += other.activations;
    }
}
