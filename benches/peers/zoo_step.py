"""A cross-entropy training step of every network in PyTorch: the peer of `mixskd bench step --method ce`.

Writes one JSON object a network: model, seconds_per_step (median; the faster of both memory layouts), layout. The networks are torchvision's,
and for small images those of crates/mixskd-models/tests/golden/zoo.py.

usage: zoo_step.py [--batch N] [--steps N] [--threads N] [MODEL ...]
"""

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path

import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]


def zoo():
    spec = importlib.util.spec_from_file_location("zoo", ROOT / "crates/mixskd-models/tests/golden/zoo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NETWORKS


def measure(net, side, classes, args, layout):
    net = net.train().to(memory_format=layout)
    x = torch.randn(args.batch, 3, side, side).to(memory_format=layout)
    y = torch.randint(0, classes, (args.batch,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    seconds = []
    for _ in range(1 + args.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    for name, (_, _, _, full, side) in zoo().items():
        if args.models and name not in args.models:
            continue
        classes = 100 if side == 32 else 1000
        best = min((measure(full(), side, classes, args, layout), key) for key, layout in layouts.items())
        print(json.dumps({"model": name, "seconds_per_step": best[0], "layout": best[1]}), flush=True)


if __name__ == "__main__":
    main()
