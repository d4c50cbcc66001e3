"""One training step in PyTorch on a GPU: the peer of `gpu-check`, which hands this text to a Python.

--mode eager: float32 as PyTorch has it by default (TensorFloat-32 in convolutions), channels first, kernel by kernel, as the authors' script trains.
--mode best: bfloat16 autocast, channels last, torch.compile with CUDA graphs, fused SGD; where compiling fails the same without it.
Writes one JSON object: seconds_per_step (median, synchronised), gpu_memory_bytes (in use on the GPU after the last step), compiled.

usage: step_gpu.py [--model NAME] [--method ce|mixskd] [--batch N] [--size N] [--classes N] [--steps N] [--mode eager|best]
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Basic(nn.Module):
    expansion = 1

    def __init__(self, cin, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(cin, planes, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, cin, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = shortcut(cin, 4 * planes, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def shortcut(cin, cout, stride):
    if stride == 1 and cin == cout:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))


class Network(nn.Module):
    """A ResNet of four stages with the branches and the self-teacher that MixSKD hangs on it."""

    def __init__(self, block, layers, cifar, width, classes, branches):
        super().__init__()
        planes = [max(1, round(p * width)) for p in (64, 128, 256, 512)]
        if cifar:
            stem = [nn.Conv2d(3, planes[0], 3, 1, 1, bias=False), nn.BatchNorm2d(planes[0]), nn.ReLU(True)]
        else:
            stem = [nn.Conv2d(3, planes[0], 7, 2, 3, bias=False), nn.BatchNorm2d(planes[0]), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
        self.stem = nn.Sequential(*stem)

        def stage(k):
            cin = planes[0] if k == 0 else planes[k - 1] * block.expansion
            blocks = [block(cin, planes[k], 1 if k == 0 else 2)]
            blocks += [block(planes[k] * block.expansion, planes[k], 1) for _ in range(layers[k] - 1)]
            return nn.Sequential(*blocks)

        self.stages = nn.ModuleList(stage(k) for k in range(4))
        last = planes[3] * block.expansion
        self.heads = nn.ModuleList(nn.Linear(last, classes) for _ in range(4 if branches else 1))
        if branches:
            self.align = nn.ModuleList(nn.Sequential(*(stage(j) for j in range(k + 1, 4))) for k in range(3))
            self.fuse = nn.Conv2d(4 * last, last, 1, bias=False)
            self.teacher = nn.Linear(last, classes)
            self.judges = nn.ModuleList(nn.Sequential(nn.Linear(last, 128), nn.ReLU(), nn.Linear(128, 2)) for _ in range(4))

    def forward(self, x):
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        if len(self.heads) == 1:
            return [x], [self.heads[0](x.mean((2, 3)))]
        features = [align(m) for align, m in zip(self.align, maps)] + [x]
        return features, [head(f.mean((2, 3))) for head, f in zip(self.heads, features)]

    def teach(self, features):
        return self.teacher(self.fuse(torch.cat(features, 1)).mean((2, 3)))


def kl(student, teacher, t=3.0):
    return F.kl_div(F.log_softmax(student / t, 1), F.softmax(teacher.detach() / t, 1), reduction="batchmean") * t * t


def mixskd_loss(net, x, y, lam, perm):
    b = len(x)
    features, logits = net(torch.cat([x, lam * x + (1 - lam) * x[perm]]))

    def mix_ce(z):
        return lam * F.cross_entropy(z, y) + (1 - lam) * F.cross_entropy(z, y[perm])

    def interpolated(t):
        return lam * t[:b] + (1 - lam) * t[:b][perm]

    fi, fm = [interpolated(f) for f in features], [f[b:] for f in features]
    zi, zm = [interpolated(z) for z in logits], [z[b:] for z in logits]
    loss = sum(F.cross_entropy(z[:b], y) for z in logits) + sum(mix_ce(z) for z in zm)
    loss = loss + sum(F.mse_loss(p, q) for p, q in zip(fi, fm))
    real, fake = torch.ones(b, dtype=torch.long, device=x.device), torch.zeros(b, dtype=torch.long, device=x.device)
    for judge, p, q in zip(net.judges, fi, fm):
        loss = loss + 0.5 * (F.cross_entropy(judge(p.mean((2, 3))), real) + F.cross_entropy(judge(q.mean((2, 3))), fake))
    loss = loss + sum(kl(p, q) + kl(q, p) for p, q in zip(zi[:-1], zm[:-1]))
    hi, hm = net.teach(fi), net.teach(fm)
    loss = loss + mix_ce(hi) + mix_ce(hm)
    return loss + kl(zi[-1], hm) + kl(zm[-1], hi)


KINDS = {"18": (Basic, [2, 2, 2, 2]), "34": (Basic, [3, 4, 6, 3]), "50": (Bottleneck, [3, 4, 6, 3])}


def measure(args, compiled):
    torch.manual_seed(0)
    device = torch.device("cuda")
    best = args.mode == "best"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = best
    # cudnn.allow_tf32 is left as PyTorch has it, on.
    block, layers = KINDS[args.model[-2:]]
    net = Network(block, layers, args.model.startswith("cifar"), 1.0, args.classes, args.method == "mixskd").to(device)
    x = torch.randn(args.batch, 3, args.size, args.size, device=device)
    if best:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    y = torch.randint(0, args.classes, (args.batch,), device=device)
    lam = torch.tensor(0.3, device=device)
    perm = torch.randperm(args.batch, device=device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=best)

    def loss_of(x, y, lam, perm):
        with torch.autocast("cuda", torch.bfloat16, enabled=best):
            if args.method == "mixskd":
                return mixskd_loss(net, x, y, lam, perm)
            return F.cross_entropy(net(x)[1][0], y)

    if compiled:
        loss_of = torch.compile(loss_of, mode="reduce-overhead")

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y, lam, perm)
        loss.backward()
        optimizer.step()
        # As in training: the loss is read once a step.
        return loss.item()

    for _ in range(10):
        step()
    seconds = []
    for _ in range(args.steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    free, total = torch.cuda.mem_get_info()
    if compiled:
        from torch._dynamo.utils import counters

        # A step that Inductor kept out of CUDA graphs is not PyTorch at its best.
        compiled = not counters["inductor"]["cudagraph_skips"]
    return {"seconds_per_step": statistics.median(seconds), "seconds": seconds, "gpu_memory_bytes": total - free, "compiled": compiled}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="cifar_resnet18")
    parser.add_argument("--method", choices=["ce", "mixskd"], default="mixskd")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--mode", choices=["eager", "best"], default="best")
    args = parser.parse_args()
    report = None
    if args.mode == "best":
        try:
            report = measure(args, True)
        except Exception as error:  # a machine without a C compiler, for one
            print(f"torch.compile failed: {error}", file=sys.stderr)
    report = report or measure(args, False)
    report["torch"] = torch.__version__
    report["gpu"] = torch.cuda.get_device_name()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
