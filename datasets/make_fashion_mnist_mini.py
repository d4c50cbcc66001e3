#!/usr/bin/env python3
"""Makes the image set that ships with mixskd: the first images of every class of Fashion-MNIST, in their original order.

The result is a folder of four gzipped IDX files, byte for byte the same on every run (no time stamps).

usage: make_fashion_mnist_mini.py SOURCE OUT [--train 600] [--test 100]
  SOURCE   folder with Fashion-MNIST's own four .gz files (`mixskd datasets fetch fashion-mnist`, or Debian's
           package dataset-fashion-mnist: /usr/share/datasets/fashion-mnist)
  OUT      folder to write, here datasets/fashion-mnist-mini
  --train  training images of each class
  --test   test images of each class
"""
import argparse
import gzip
import pathlib
import struct
import zlib


def read_idx(path, magic, dims):
    data = gzip.decompress(path.read_bytes())
    header = struct.unpack(f">{1 + dims}I", data[: 4 * (1 + dims)])
    assert header[0] == magic, (path, header[0])
    return header[1:], data[4 * (1 + dims) :]


def write_gz(path, data):
    # A gzip header without name and time, so that the same images give the same bytes.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    body = packer.compress(data) + packer.flush()
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    path.write_bytes(header + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--test", type=int, default=100)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for split, per_class in (("train", args.train), ("t10k", args.test)):
        (_, height, width), pixels = read_idx(args.source / f"{split}-images-idx3-ubyte.gz", 2051, 3)
        _, labels = read_idx(args.source / f"{split}-labels-idx1-ubyte.gz", 2049, 1)
        left = [per_class] * 10
        kept = []
        for index, label in enumerate(labels):
            if left[label]:
                left[label] -= 1
                kept.append(index)
        assert not any(left), left
        size = height * width
        images = b"".join(pixels[i * size : (i + 1) * size] for i in kept)
        write_gz(
            args.out / f"{split}-images-idx3-ubyte.gz", struct.pack(">4I", 2051, len(kept), height, width) + images
        )
        write_gz(
            args.out / f"{split}-labels-idx1-ubyte.gz",
            struct.pack(">2I", 2049, len(kept)) + bytes(labels[i] for i in kept),
        )
        print(f"{split}: {len(kept)} images")


if __name__ == "__main__":
    main()
