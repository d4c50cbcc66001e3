"""Pillow's antialiased bilinear resize, as torchvision's transforms call it on PIL images: golden values of tests/resize.rs.

The image is made by a formula that the test repeats. Writes resize.json beside itself; needs numpy and pillow.
"""

import json
import pathlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 45, 60
y, x, c = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(3), indexing="ij")
pixels = ((y * y * 3 + x * 7 + (x * y) // 5 + c * 50) % 256).astype(np.uint8)
image = Image.fromarray(pixels)

# Top, left, height and width of the box that is cut out first; height and width of the result.
cases = [
    (0, 0, 45, 60, 20, 26),
    (0, 0, 45, 60, 45, 30),
    (0, 0, 45, 60, 70, 90),
    (5, 11, 17, 23, 32, 32),
    (10, 3, 30, 40, 8, 8),
]
out = []
for top, left, h, w, new_h, new_w in cases:
    box = image.crop((left, top, left + w, top + h))
    resized = np.asarray(box.resize((new_w, new_h), Image.Resampling.BILINEAR))
    out.append({"box": [top, left, h, w], "size": [new_h, new_w], "pixels": resized.flatten().tolist()})
path = pathlib.Path(__file__).resolve().parent / "resize.json"
path.write_text(json.dumps(out, separators=(",", ":")) + "\n")
