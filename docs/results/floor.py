#!/usr/bin/env python3
"""The floor of a training step of CIFAR's ResNet-18: operations over the matrix product's rate, bytes over the memory's.

Counts every convolution of the backbone, and for MixSKD of its three branches and the self-teacher's fusion:
- operations of the direct form, forward, data gradient and weight gradient (two to a multiply-add);
- operations left where the stride-1 3x3 convolutions take F(4x4, 3x3): 36 multiplications a tile of 16 outputs instead of 144
  (tiles that reach over the border are whole tiles; the transforms' additions are not counted);
- bytes, if each pass over a map that leaves the cache goes to memory once: PASSES below, four bytes an element.

usage: floor.py --gflops RATE --gbytes RATE [--width F] [--batch N] [--method ce|mixskd]
"""

import argparse

# Passes over a convolution's output map and its batch norm's: forward, the map is written, read for the statistics, read and
# written by the normalisation (4), and read by the next convolution (1); backward, gradient and map are read for the sums (2),
# read again and the new gradient written (3), read for the data gradient, which writes one (2), and both sides read for the
# weight gradient (2); candle adds each gradient to zeros (3).
PASSES = 17
BYTES = 4


def layers(width, method):
    """(input channels, output channels, kernel, stride, output side) of every convolution."""
    planes = [round(p * width) for p in (64, 128, 256, 512)]
    sides = [32, 16, 8, 4]

    def stage(k):
        cin = planes[max(k - 1, 0)]
        stride = 1 if k == 0 else 2
        yield cin, planes[k], 3, stride, sides[k]
        for _ in range(3):
            yield planes[k], planes[k], 3, 1, sides[k]
        if k:
            yield cin, planes[k], 1, stride, sides[k]

    yield 3, planes[0], 3, 1, 32
    for k in range(4):
        yield from stage(k)
    if method == "mixskd":
        for branch in range(3):
            for k in range(branch + 1, 4):
                yield from stage(k)
        yield 4 * planes[3], planes[3], 1, 1, 4


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gflops", type=float, required=True)
    parser.add_argument("--gbytes", type=float, required=True)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--method", choices=["ce", "mixskd"], default="mixskd")
    args = parser.parse_args()
    images = args.batch * (2 if args.method == "mixskd" else 1)
    direct = left = moved = 0.0
    for cin, cout, kernel, stride, side in layers(args.width, args.method):
        operations = 2 * cin * cout * kernel**2 * side**2
        direct += 3 * operations
        winograd = kernel == 3 and stride == 1 and min(cin, cout) >= 8
        tiles = (-(-side // 4)) ** 2
        left += 3 * (2 * cin * cout * 36 * tiles if winograd else operations)
        moved += PASSES * BYTES * cout * side**2
    for name, amount, rate in [
        ("direct operations, 10^9", direct * images / 1e9, args.gflops),
        ("operations left by Winograd, 10^9", left * images / 1e9, args.gflops),
        ("bytes, 10^9", moved * images / 1e9, args.gbytes),
    ]:
        print(f"{name:34} {amount:8.1f}   {amount / rate:6.3f} s")


if __name__ == "__main__":
    main()
