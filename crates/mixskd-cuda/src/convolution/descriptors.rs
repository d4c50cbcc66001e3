//! cuDNN's descriptions of a convolution's arrays, freed with their owner.

use std::ffi::c_int;
use std::ptr::null_mut;

use cudarc::cudnn::{result, sys};

use super::cudnn::asked;
use super::{Arithmetic, Convolution};
use crate::{Element, Error, Result};

/// Input, weight, output and the convolution itself.
pub(super) struct Descriptors {
    pub(super) x: sys::cudnnTensorDescriptor_t,
    pub(super) w: sys::cudnnFilterDescriptor_t,
    pub(super) y: sys::cudnnTensorDescriptor_t,
    pub(super) convolution: sys::cudnnConvolutionDescriptor_t,
}

fn int(size: usize) -> Result<c_int> {
    c_int::try_from(size).map_err(|_| Error::Size {
        what: "convolution",
        size,
    })
}

/// cuDNN names dimensions as batch, channel, height, width, whatever their order in memory.
fn named([batch, height, width, channels]: [usize; 4]) -> Result<[c_int; 4]> {
    Ok([int(batch)?, int(channels)?, int(height)?, int(width)?])
}

impl Descriptors {
    pub(super) fn new(c: &Convolution) -> Result<Self> {
        let kind = match c.element {
            Element::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            Element::Bf16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
        };
        let math = match (c.element, c.arithmetic) {
            (Element::F32, Arithmetic::Exact) => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            _ => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        };
        let order = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let group = int(c.input[3] / c.groups.max(1))?;
        let [kernel_h, kernel_w] = [int(c.kernel[0])?, int(c.kernel[1])?];
        let (stride, padding, dilation) = (int(c.stride)?, int(c.padding)?, int(c.dilation)?);
        // Filled in one by one, so that what is there is freed when the next cannot be had.
        let mut all = Self {
            x: null_mut(),
            w: null_mut(),
            y: null_mut(),
            convolution: null_mut(),
        };
        let failed = || asked("describe a convolution");
        all.x = result::create_tensor_descriptor().map_err(failed())?;
        all.y = result::create_tensor_descriptor().map_err(failed())?;
        all.w = result::create_filter_descriptor().map_err(failed())?;
        all.convolution = result::create_convolution_descriptor().map_err(failed())?;
        // SAFETY: all four have just been made.
        unsafe {
            result::set_tensor4d_descriptor(all.x, order, kind, named(c.input)?)
                .map_err(failed())?;
            result::set_tensor4d_descriptor(all.y, order, kind, named(c.output)?)
                .map_err(failed())?;
            let out = int(c.output[3])?;
            result::set_filter4d_descriptor(all.w, kind, order, [out, group, kernel_h, kernel_w])
                .map_err(failed())?;
            result::set_convolution2d_descriptor(
                all.convolution,
                padding,
                padding,
                stride,
                stride,
                dilation,
                dilation,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            )
            .map_err(failed())?;
            result::set_convolution_math_type(all.convolution, math).map_err(failed())?;
            result::set_convolution_group_count(all.convolution, int(c.groups)?)
                .map_err(failed())?;
        }
        Ok(all)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // What cannot be freed is left.
        // SAFETY: each was made by `new` and is freed once.
        unsafe {
            if !self.x.is_null() {
                let _ = result::destroy_tensor_descriptor(self.x);
            }
            if !self.y.is_null() {
                let _ = result::destroy_tensor_descriptor(self.y);
            }
            if !self.w.is_null() {
                let _ = result::destroy_filter_descriptor(self.w);
            }
            if !self.convolution.is_null() {
                let _ = result::destroy_convolution_descriptor(self.convolution);
            }
        }
    }
}
