#!/usr/bin/env python3
"""A folder of pictures as people have them, for the loader's row: 500 × 375 JPEGs, cut out of larger photographs.

Each photograph is a class; `train/NAME/*.jpg` are random boxes of it, scaled down, of 4:3, quality 90, chroma halved. The same seed and
photographs give the same boxes.

usage: photographs.py OUT PHOTOGRAPH... [--each 200] [--quality 90]        (needs: pip install pillow)
"""

import argparse
import pathlib
import random

from PIL import Image

SIZE = (500, 375)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("photographs", nargs="+", type=pathlib.Path)
    parser.add_argument("--each", type=int, default=200)
    parser.add_argument("--quality", type=int, default=90)
    args = parser.parse_args()
    draw = random.Random(0)
    count = size = 0
    for path in args.photographs:
        photograph = Image.open(path).convert("RGB")
        most = min(photograph.width / SIZE[0], photograph.height / SIZE[1])
        if most < 1:
            print(f"{path}: smaller than {SIZE[0]} × {SIZE[1]}, left out")
            continue
        for part, each in (("train", args.each), ("val", max(1, args.each // 10))):
            folder = args.out / part / path.stem
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(each):
                scale = draw.uniform(1, most)
                width, height = (int(side * scale) for side in SIZE)
                left = draw.randint(0, photograph.width - width)
                top = draw.randint(0, photograph.height - height)
                box = (left, top, left + width, top + height)
                file = folder / f"{number:05}.jpg"
                photograph.resize(SIZE, Image.BILINEAR, box).save(file, quality=args.quality)
                count, size = count + 1, size + file.stat().st_size
    print(f"{count} images in {args.out}, {size / max(count, 1) / 1000:.0f} kB each")


if __name__ == "__main__":
    main()
