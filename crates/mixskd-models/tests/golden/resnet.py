"""Golden values of the ResNets and of the modules MixSKD hangs on them, from an independent PyTorch implementation.

Run: python resnet.py       (needs torch, torchvision, safetensors; writes *.safetensors beside itself, about 1 MB in all)

Each file holds `param.*` (float32, so that both sides start from the same numbers), `x` and feature maps channels last, and
what they give in float64: `eval.*`, then `train.*` with the gradients `grad.*` (rounded to float32) of
`sum over outputs of <logits, weight.*>`, and the running statistics after that one training pass, `after.*`.
"""

from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent


def scaled(base, width):
    """Channels at a width multiplier: nearest integer, at least one."""
    return max(1, int(base * width + 0.5))


class Block(nn.Module):
    """Residual block; `deep` is the bottleneck with the stride in its 3x3 convolution."""

    def __init__(self, inputs, planes, stride, deep):
        super().__init__()
        outputs = planes * 4 if deep else planes
        shapes = (
            [(inputs, planes, 1, 1), (planes, planes, 3, stride), (planes, outputs, 1, 1)]
            if deep
            else [(inputs, planes, 3, stride), (planes, outputs, 3, 1)]
        )
        self.depth = len(shapes)
        for i, (a, b, k, s) in enumerate(shapes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = F.relu(y)
        return F.relu(y + (self.downsample(x) if self.downsample else x))


def stage(index, width, deep, counts):
    """The blocks of stage `index` (0-based)."""
    growth = 4 if deep else 1
    planes = scaled(64 << index, width)
    inputs = scaled(64, width) if index == 0 else scaled(64 << (index - 1), width) * growth
    blocks = []
    for i in range(counts[index]):
        blocks.append(Block(inputs, planes, 2 if i == 0 and index > 0 else 1, deep))
        inputs = planes * growth
    return nn.Sequential(*blocks)


class ResNet(nn.Module):
    def __init__(self, small, deep, counts, width, channels, classes, stem_relu):
        super().__init__()
        self.small, self.stem_relu = small, stem_relu
        first = scaled(64, width)
        self.conv1 = (
            nn.Conv2d(channels, first, 3, 1, 1, bias=False)
            if small
            else nn.Conv2d(channels, first, 7, 2, 3, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(first)
        for i in range(4):
            setattr(self, f"layer{i + 1}", stage(i, width, deep, counts))
        self.last = scaled(512, width) * (4 if deep else 1)
        self.fc = nn.Linear(self.last, classes)

    def stages(self, x):
        x = self.bn1(self.conv1(x))
        if self.stem_relu:
            x = F.relu(x)
        if not self.small:
            x = F.max_pool2d(x, 3, 2, 1)
        maps = []
        for i in range(4):
            x = getattr(self, f"layer{i + 1}")(x)
            maps.append(x)
        return maps

    def outputs(self, x):
        maps = self.stages(x)
        named = {f"stage.{i}": m for i, m in enumerate(maps)}
        return {**named, "logits": self.fc(maps[-1].mean((2, 3)))}


class Branch(nn.Module):
    def __init__(self, first, last, classes, *plan):
        super().__init__()
        self.alignment = nn.Module()
        self.names = [f"layer{i + 1}" for i in range(first, 4)]
        for i, name in enumerate(self.names, first):
            setattr(self.alignment, name, stage(i, *plan))
        self.fc = nn.Linear(last, classes)

    def forward(self, x):
        for name in self.names:
            x = getattr(self.alignment, name)(x)
        return x, self.fc(x.mean((2, 3)))


class MixSKD(nn.Module):
    """Backbone, branches, self-teacher and one discriminator."""

    def __init__(self, deep, counts, width, classes):
        super().__init__()
        self.backbone = ResNet(True, deep, counts, width, 3, classes, True)
        last = self.backbone.last
        self.branches = nn.ModuleList(
            Branch(first, last, classes, width, deep, counts) for first in (1, 2, 3)
        )
        self.self_teacher = nn.Module()
        self.self_teacher.conv = nn.Conv2d(4 * last, last, 1, bias=False)
        self.self_teacher.fc = nn.Linear(last, classes)
        self.discriminator = nn.Sequential(nn.Linear(last, 128), nn.ReLU(), nn.Linear(128, 2))

    def outputs(self, x):
        maps = self.backbone.stages(x)
        pairs = [branch(m) for branch, m in zip(self.branches, maps)]
        pairs.append((maps[-1], self.backbone.fc(maps[-1].mean((2, 3)))))
        named = {}
        for i, (features, logits) in enumerate(pairs):
            named[f"features.{i}"], named[f"logits.{i}"] = features, logits
        fused = self.self_teacher.conv(torch.cat([f for f, _ in pairs], 1))
        named["logits.teacher"] = self.self_teacher.fc(fused.mean((2, 3)))
        named["logits.discriminator"] = self.discriminator(maps[-1].mean((2, 3)))
        return named


def channels_last(x):
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).detach().contiguous()


def randomise(net, generator):
    """Values that exercise everything: no batch norm at its starting point. Exact in float32."""
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if tensor.dim() == 4:
            value = noise * (1.5 / tensor[0].numel()) ** 0.5
        elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            value = 1 + 0.3 * torch.tanh(noise)
        else:
            value = 0.3 * noise
        tensor.copy_(value.float().double())


def write(name, net, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    net = net.double()
    randomise(net, generator)
    out = {f"param.{k}": v.float().clone() for k, v in net.state_dict().items() if v.dim() > 0}
    x = torch.randn(shape, generator=generator, dtype=torch.float64).float().double()
    out["x"] = x.float()
    x = x.permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        out |= {f"eval.{k}": channels_last(v) for k, v in net.eval().outputs(x).items()}
    outputs = net.train().outputs(x)
    out |= {f"train.{k}": channels_last(v) for k, v in outputs.items()}
    loss = 0.0
    for key, value in outputs.items():
        if key.startswith("logits"):
            weight = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            out[f"weight.{key}"] = weight
            loss = loss + (value * weight).sum()
    loss.backward()
    out |= {f"grad.{k}": p.grad.float() for k, p in net.named_parameters()}
    out |= {f"after.{k}": b.clone() for k, b in net.named_buffers() if b.dim() > 0}
    path = HERE / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in out.items()}, path)
    print(path.name, path.stat().st_size)


def agrees_with_torchvision():
    """At full width the implementation above is torchvision's network: same names, same numbers."""
    for name, deep, counts in [("resnet18", False, [2, 2, 2, 2]), ("resnet50", True, [3, 4, 6, 3])]:
        theirs = getattr(torchvision.models, name)().eval()
        ours = ResNet(False, deep, counts, 1.0, 3, 1000, True).eval()
        ours.load_state_dict(theirs.state_dict(), strict=True)
        x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(ours.outputs(x)["logits"], theirs(x))


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    agrees_with_torchvision()
    narrow = 1 / 32
    write(
        "cifar_resnet18",
        ResNet(True, False, [2, 2, 2, 2], narrow, 3, 7, stem_relu=False),
        (2, 14, 14, 3),
        1,
    )
    write(
        "resnet18",
        ResNet(False, False, [2, 2, 2, 2], narrow, 1, 5, stem_relu=True),
        (3, 47, 40, 1),
        2,
    )
    write(
        "resnet50",
        ResNet(False, True, [3, 4, 6, 3], narrow, 3, 5, stem_relu=True),
        (2, 48, 48, 3),
        3,
    )
    write("mixskd", MixSKD(False, [2, 2, 2, 2], narrow / 2, 5), (3, 14, 14, 3), 4)
