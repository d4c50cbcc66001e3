#!/usr/bin/env python3
"""Convolutions by shape in PyTorch: the peer of `row conv` (benches/src/bin/row.rs).

Forward, data gradient and weight gradient, each in the memory layout in which it is faster. Prints one JSON document,
{"rows": {"SHAPE forward|data|weight": {"seconds": [...], "layout": NAME}}}.

usage: conv.py [--threads N] SHAPE...       SHAPE is batch,side,in,out,kernel,stride,groups      (needs: pip install torch)
"""

import argparse
import json
import statistics
import time

import torch

BUDGET = 0.15
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def repeat(work):
    work()
    begin, seconds = time.perf_counter(), []
    while len(seconds) < 5 or time.perf_counter() - begin < BUDGET:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def works(shape, layout):
    batch, side, cin, cout, kernel, stride, groups = shape
    x = torch.randn(batch, cin, side, side).to(memory_format=layout)
    w = torch.randn(cout, cin // groups, kernel, kernel).to(memory_format=layout)
    pad = [kernel // 2] * 2

    def forward():
        return torch.nn.functional.conv2d(x, w, None, stride, kernel // 2, 1, groups)

    dy = torch.randn_like(forward()).to(memory_format=layout)

    def backward(mask):
        return lambda: torch.ops.aten.convolution_backward(
            dy, x, w, None, [stride] * 2, pad, [1, 1], False, [0, 0], groups, mask
        )

    return {"forward": forward, "data": backward([True, False, False]), "weight": backward([False, True, False])}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("shapes", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = {}
    with torch.inference_mode():
        for text in args.shapes:
            shape = [int(n) for n in text.split(",")]
            for name, layout in LAYOUTS.items():
                for kind, work in works(shape, layout).items():
                    seconds = repeat(work)
                    row = rows.setdefault(f"{text} {kind}", {"seconds": seconds, "layout": name})
                    if statistics.median(seconds) < statistics.median(row["seconds"]):
                        row.update(seconds=seconds, layout=name)
    print(json.dumps({"rows": rows, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
