"""torchvision's augmentation operations on Pillow images: golden values of tests/operations.rs and of augment/space.rs.

Writes operations.safetensors (a picture, a grey square of it, a flat picture and one of two levels, and each operation's result, named
`picture|operation|magnitude|fill`, fill the grey level of what a geometric operation uncovers) and policies.json (magnitude tables and policies) beside itself; needs torch, torchvision, pillow and safetensors. The picture is a part
of tests/images/cat.jpg, made small.
"""

import base64
import io
import json
import pathlib

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode, autoaugment

CAT = (
    "UklGRqAGAABXRUJQVlA4TJQGAAAvHoAGAA0obNu2QbOUZvx/cHtERP8ngLMicPER8U5y5IUAVGJ3V7wD9o2Iz4BRJEmKcnn9K90XHuhg20iSorYu"
    "/+CYnpnZfCly27ZRkvbU//90L7f/AQCmiAIFnQP9Xg7oZEsKgO3jaqaDcWQcgFKF8DXLsVjtJuUGDyaxGCr2a7Vjnhu7QLbqgWFvOd9i4fpS/GXY"
    "BgAYgIvUj+EwAFrWtqeNJNEvS6ZQV6CZYZiZdjCzkVnenLllnitmLIaALYPI0jYoOZLkSJJMzT2yapZzduP/f9LeON/t7pnKDDfKkSQ5sp3IrO7Z"
    "3f/BOZMCZ9wgGNcAGuEEOTjndN+bqox4/4dvxExw1k6sns7o+KwtmV4wZ5ULbKw4Kh6YXy8mURN25dvpk42CKwUl8z4z09bt+KMRGf7nM3xPgAoE"
    "J/WAfFJqu8E4xceJCmzd2R4V8A24wBwSkoRquNbho7mhCFfr2uE6ZhR9/TwldsozwpMy1ljoUjibZSsesgaUuBC3IcWC6iypjNJQVaHHyrtBIqhu"
    "psaEvyZsH+allMYChOCR1OAc82u7WGtKg7KsQ+2+i9hTh1fkETDrXqsjfevWZl1xxRwUcFrue7U/3fdnX1zu1xGXQ5PKOeu86p8g94TWY/uATeLo"
    "pQmRkTe3yNBavJXbNYieyLS7coOqnPLrTq4jf9xu5wN1v4VXW5q8tr/fv+/bhy/V6nfx+tx/4o9i+u6z7c170eThnd1LqzN5cVnnpaxyVjnOKG+Q"
    "h1hxIOPZ5tqcL7nZwYy+etV90V+1yl+v65fj67V9niX+/bR/+UCkj2f3Xp4x7FpWqdEjUok0uq46BdVzCxWZM59rki13yvR0b+ZeNxBfC1Zl0qP9"
    "73/G1P3Bdb3rrl//++NVSa40G0k6VJhfxTz9LA1c679/6c/a+PrU20oLHEwgZUI7pwlGYtL6PCfXX4G/Qyh1z7iVxenLpkFkkWpvvIhZIfbdYuvr"
    "8/mPfnzXvpivv389/Nf9r7VrW5vjjaZJtVn/cMTuQLnkvb6t9lddPv9otznfaRQT8ljkJO4BIuNLfDhO/xRRH9n2bf6+LuVeha+ruiTQQFR8nIQz"
    "DEv5/fYDPz1xPn5bc/C4rTc9UwvGKUH4BLdzd91ectNiHpvzvHz72+9nl3D7vC7MvKAITTVYBC5BrAVdXOu3D29g5bF6uPn1D/SoNf+SvgeJ+CT9"
    "oH12PZTB1c/oy3c/+6JRjm/Xe/7vnOzn8SDdqE2zmaWYkYUtAdVppHNyy+1F/pZ375ahydGlGSK/Wjis45Uw9dNxVaqDvvkrJ7Tt/sU50/zl+w/W"
    "/vJa26p6N1NoQjGHSCp0wsLEly5W2GqYO3N4RVaKrZ+scNcLx3rhA4S7GrqWf2BDbezsbja1C0sGLDdUMCgAySGR2bQZ4VZ2iNAyjRblrnyOw+5K"
    "64r+25/WPMh9wnHKS87qXU/iOTMWeBX2xriVuCMSCgWhpkN+odsXFF9ilVgUp9muqrreB1xqvDgEE11wFdGKqf0H1HHl1FUYWZUHV00aJPcQWQT5"
    "+8pQjTfltBCBqJxnW7GBDUFbafOpa/vqs3YezFyg1CogwTRFK7yqBFr4mqHlauVyibv71qu6C9BKJmSKnoe1kdMA2lCpTM/7/Zs6H5vhOqcQrDHK"
    "ykBBYG5Lq4PQALXDjhpLuHffZZ8cH4vrYMl2/wfj7Fa4VJJVpe+u9Z7XOZJKkUGHVTw1ZSpGhJk0XFKlOvjAame75q/r1/y7e+3w6qnqI8z6bTh5"
    "ShI64MAmDRzm4dvSvrSnnnkSy0CLnFSItOg6qki9spZYqrcT1WTfnpZ+eu/2r4U+Y/vVceDL1b915+Vx20siyEWagEzfrbGz06woBssQLaIoXLTG"
    "OQpOWJoqesh144+nc/uJR3+Wy+6Dcndd/ZV34N86hB/TbB2hFGemLsUcZbIAgVFoQEon/AZLFiwrBo7kPkgOJ7d4cdZk5bvTV3/S24v/7hzdWrjE"
    "gFJq8BAEHRKZIQ+WGkQqQ7AqGsXIBhPbuYR9sVLLGKlbiCfwrzy/dHDLBcmM2NDZEffREPJ4T3sSSIiAlaAYaxBYAHICZbmU24eiDLKiw5rYu57p"
    "nJ+z3UUWxXShvWG0NB2u4LGMRgZhKWYcWCVKAZDwBiVIDFFQ0WCrgo2K2JrtgT1sJluAoLGNCEeZc2kA+9iCi4IIMIiBDBJSPHIkmEEZAAkMPCQS"
    "yaRb6W6uxiUk2aC16WgJM4SwwYMIKisA"
)
MAGNITUDES = {
    "Identity": [0.0],
    "ShearX": [-0.99, -0.1, 0.0, 0.3],
    "ShearY": [-0.99, -0.1, 0.0, 0.3],
    "TranslateX": [-40.0, -3.9, 0.0, 14.5],
    "TranslateY": [-40.0, -3.9, 0.0, 14.5],
    "Rotate": [-135.0, -90.0, -30.0, 3.3333, 180.0],
    "Brightness": [-0.99, -0.3, 0.0, 0.9],
    "Color": [-0.99, -0.3, 0.0, 0.9],
    "Contrast": [-0.99, -0.3, 0.0, 0.9],
    "Sharpness": [-0.99, -0.3, 0.0, 0.9],
    "Posterize": [1.0, 2.0, 5.0, 8.0],
    "Solarize": [0.0, 85.0, 119.5, 255.0],
    "AutoContrast": [0.0],
    "Equalize": [0.0],
    "Invert": [0.0],
}


def pixels(image):
    array = np.array(image)
    return torch.from_numpy(array.reshape(array.shape[0], array.shape[1], -1).copy())


# What geometric operations are tried with besides black.
FILLED = {"ShearX": [-0.5], "ShearY": [0.5], "TranslateX": [-9.0, 9.0], "TranslateY": [-9.0, 9.0], "Rotate": [-30.0, 45.0]}


def results(picture, image, magnitudes, fill):
    for op, values in magnitudes.items():
        for magnitude in values:
            level = [float(fill)] * len(image.getbands()) if fill else None
            result = autoaugment._apply_op(image, op, magnitude, InterpolationMode.NEAREST, level)
            yield f"{picture}|{op}|{magnitude}|{fill}", pixels(result)


cat = Image.open(io.BytesIO(base64.b64decode("".join(CAT))))
square = cat.crop((2, 0, 29, 27)).convert("L")
flat = Image.new("RGB", (7, 5), (90, 90, 200))
levels = Image.fromarray(np.where(np.indices((6, 8)).sum(0) % 3 == 0, 255, 31).astype(np.uint8))
tensors = {}
for picture, image in [("cat", cat), ("square", square), ("flat", flat), ("levels", levels)]:
    tensors[picture] = pixels(image)
    tensors.update(results(picture, image, MAGNITUDES, 0))
    tensors.update(results(picture, image, FILLED, 137))

SIZES = [(32, 32), (28, 28), (224, 224), (375, 500)]
MAKERS = {
    "autoaugment": (lambda size: autoaugment.AutoAugment()._augmentation_space(10, size), 10),
    "randaugment": (lambda size: autoaugment.RandAugment()._augmentation_space(31, size), 31),
    "trivialaugment": (lambda size: autoaugment.TrivialAugmentWide()._augmentation_space(31), 31),
    "augmix": (lambda size: autoaugment.AugMix()._augmentation_space(10, size), 10),
}
spaces = []
for name, (make, bins) in MAKERS.items():
    for size in SIZES:
        rows = [
            {"op": op, "signed": signed, "magnitudes": magnitudes.double().flatten().tolist()}
            for op, (magnitudes, signed) in make(size).items()
        ]
        spaces.append({"policy": name, "bins": bins, "size": size, "rows": rows})
policies = {
    policy.value: autoaugment.AutoAugment(policy).policies
    for policy in [autoaugment.AutoAugmentPolicy.CIFAR10, autoaugment.AutoAugmentPolicy.IMAGENET]
}

folder = pathlib.Path(__file__).resolve().parent
save_file(tensors, folder / "operations.safetensors")
text = json.dumps({"spaces": spaces, "policies": policies}, separators=(",", ":"))
(folder / "policies.json").write_text(text + "\n")
