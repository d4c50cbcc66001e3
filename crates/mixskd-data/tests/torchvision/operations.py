"""Applies torchvision's augmentation operations to images.

Run by the test `operations.rs`: python operations.py IN OUT
IN is a safetensors file of images, [height, width, channel] bytes; OUT gets each operation's result at many magnitudes, named
`image|operation|magnitude|fill`.
"""

import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op


def spaced(low, high, steps):
    return torch.linspace(low, high, steps).double().tolist()


slopes = spaced(-0.99, 0.99, 13)
shifts = spaced(-32.0, 32.0, 9) + [-101.5, 67.9]
factors = spaced(-0.99, 0.99, 11)
MAGNITUDES = {
    "Identity": [0.0],
    "ShearX": slopes,
    "ShearY": slopes,
    "TranslateX": shifts,
    "TranslateY": shifts,
    "Rotate": spaced(-135.0, 135.0, 31) + [0.5, 179.0, 180.0],
    "Brightness": factors,
    "Color": factors,
    "Contrast": factors,
    "Sharpness": factors,
    "Posterize": [float(bits) for bits in range(1, 9)],
    "Solarize": spaced(0.0, 255.0, 11) + [256.0],
    "AutoContrast": [0.0],
    "Equalize": [0.0],
    "Invert": [0.0],
}

# Operations that uncover what is filled.
FILLED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")

out = {}
for name, tensor in load_file(sys.argv[1]).items():
    array = tensor.numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    for op, magnitudes in MAGNITUDES.items():
        for magnitude in magnitudes:
            for fill in (0, 137) if op in FILLED else (0,):
                level = [float(fill)] * array.shape[2] if fill else None
                result = np.array(_apply_op(image, op, magnitude, InterpolationMode.NEAREST, level))
                out[f"{name}|{op}|{magnitude}|{fill}"] = torch.from_numpy(result.reshape(array.shape).copy())
save_file(out, sys.argv[2])
