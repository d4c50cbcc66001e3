"""One training step in PyTorch: the peer that `mixskd bench step` is measured beside.

Writes one JSON object: samples_per_s (original images), seconds_per_step (median), seconds (of each step), peak_mib, layout. Both
memory layouts are timed and the faster one is reported, unless --layout names one.

usage: step.py [--model cifar_resnet18|cifar_resnet50|resnet18|resnet50] [--width F] [--method ce|mixskd] [--batch N] [--size N]
               [--classes N] [--threads N] [--steps N]
               [--warm-up N] [--layout contiguous|channels_last|both] [--eval]
"""

import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F

from network import KINDS, Network, mixskd_loss


def measure(args, layout):
    torch.manual_seed(0)
    block, layers = KINDS[args.model[-2:]]
    net = Network(block, layers, args.model.startswith("cifar"), args.width, args.classes, args.method == "mixskd")
    net = net.to(memory_format=layout)
    x = torch.randn(args.batch, 3, args.size, args.size).to(memory_format=layout)
    y = torch.randint(0, args.classes, (args.batch,))
    perm = torch.randperm(args.batch)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def infer():
        with torch.inference_mode():
            net(x)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = mixskd_loss(net, x, y, 0.3, perm) if args.method == "mixskd" else F.cross_entropy(net(x)[1][0], y)
        loss.backward()
        optimizer.step()

    work = step
    if args.eval:
        net.eval()
        work = infer
    for _ in range(args.warm_up):
        work()
    seconds = []
    for _ in range(args.steps):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="cifar_resnet18")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--method", choices=["ce", "mixskd"], default="mixskd")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2, help="steps before them that do not count")
    parser.add_argument("--eval", action="store_true", help="inference instead of a training step")
    parser.add_argument("--layout", choices=["contiguous", "channels_last", "both"], default="both")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    if args.layout != "both":
        layouts = {args.layout: layouts[args.layout]}
    runs = {name: measure(args, layout) for name, layout in layouts.items()}
    name = min(runs, key=lambda name: statistics.median(runs[name]))
    median = statistics.median(runs[name])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = {"samples_per_s": args.batch / median, "seconds_per_step": median, "seconds": runs[name], "peak_mib": peak, "layout": name}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
