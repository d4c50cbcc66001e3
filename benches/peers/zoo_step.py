"""A cross-entropy training step of every network in PyTorch: the peer of `mixskd bench step --method ce`.

Writes one JSON object a network: model, seconds_per_step (median), seconds (of each step), peak_mib (of the process so far), and layout: the
memory layout in which it is faster. The networks are torchvision's, and for small images those of
crates/mixskd-models/tests/golden/zoo.py and of step.py.

usage: zoo_step.py [--batch N] [--steps N] [--threads N] [MODEL ...]
"""

import argparse
import importlib.util
import json
import resource
import statistics
import time
from pathlib import Path

import torch
import torchvision
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def zoo():
    """Name -> (function that makes the network, side of its images)."""
    step = load("step", HERE / "step.py")
    golden = load("zoo", HERE.parents[1] / "crates/mixskd-models/tests/golden/zoo.py")
    networks = {}
    for depth, (block, layers) in step.KINDS.items():
        networks[f"cifar_resnet{depth}"] = (lambda b=block, n=layers: OneHead(step.Network(b, n, True, 1.0, 100, False)), 32)
        networks[f"resnet{depth}"] = (getattr(torchvision.models, f"resnet{depth}"), 224)
    return networks | {name: (full, side) for name, (_, _, _, full, side) in golden.NETWORKS.items()}


class OneHead(torch.nn.Module):
    """The logits alone of a network that gives feature maps and a list of logits."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)[1][0]


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
    return seconds[1:]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    for name, (network, side) in zoo().items():
        if args.models and name not in args.models:
            continue
        classes = 100 if side == 32 else 1000
        runs = {key: measure(network(), side, classes, args, layout) for key, layout in layouts.items()}
        best = min(runs, key=lambda key: statistics.median(runs[key]))
        report = {"model": name, "seconds_per_step": statistics.median(runs[best]), "seconds": runs[best]}
        report |= {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "layout": best}
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
