"""Golden values of the networks beyond the plain ResNets, from PyTorch: torchvision's own where it has the network, else
implementations of the published description under the names of the usual PyTorch port.

Run: python zoo.py       (needs torch, torchvision; writes zoo.json beside itself)

No weights are stored: both sides compute them from names (`draw`), exactly. All else is float64. Per network:
`eval` and `train`, logits in both modes (training normalises by the batch), and for the loss `sum(train * draw("weight"))`,
`grad[name]` = [sum(g * draw(name + ".probe")), norm(g)] of every parameter and `after[name]` = sum(b * draw(name + ".probe")) of
every running statistic after that one training pass. `parameters` and `macs` are those at full width for 1000 (torchvision) or 100
classes at `side` pixels.
"""

import json
from functools import partial
from pathlib import Path

import numpy
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models import densenet, efficientnet, mobilenetv2, shufflenetv2

HERE = Path(__file__).parent
MASK = (1 << 64) - 1


def draw(name, count):
    """`count` numbers in [-1, 1) from a name: FNV-1a of the name, then SplitMix64 of hash + index, its upper 53 bits."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(seed) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z = z ^ (z >> numpy.uint64(31))
    unit = (z >> numpy.uint64(11)).astype(numpy.float64) / float(1 << 53)
    return torch.from_numpy(unit * 2.0 - 1.0)


def value(name, shape):
    """What a tensor of that name and shape holds: weights of unit gain, no norm at its starting point."""
    noise = draw(name, int(numpy.prod(shape))).reshape(tuple(shape))
    if len(shape) >= 2:
        return noise * (3.0 / numpy.prod(shape[1:])) ** 0.5
    if name.endswith("running_var") or (name.endswith("weight")):
        return 1.0 + 0.3 * noise
    return 0.3 * noise


# ---- networks torchvision lacks


class PreActivated(nn.Module):
    """Residual unit that normalises first; the names of its projection differ from port to port."""

    def __init__(self, inputs, outputs, stride, projection):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.projection = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.projection = projection
            setattr(self, projection, nn.Sequential(conv) if projection == "shortcut" else conv)

    def forward(self, x):
        a = F.relu(self.bn1(x))
        skip = getattr(self, self.projection)(a) if self.projection else x
        return self.conv2(F.relu(self.bn2(self.conv1(a)))) + skip


def units(count, inputs, outputs, stride, projection):
    plan = [(inputs, stride)] + [(outputs, 1)] * (count - 1)
    return nn.Sequential(*(PreActivated(i, outputs, s, projection) for i, s in plan))


def holder(**children):
    module = nn.Module()
    for name, child in children.items():
        setattr(module, name, child)
    return module


def pooled(x):
    return x.mean((2, 3))


class WideResNet(nn.Module):
    def __init__(self, depth, widen, classes, base=16):
        super().__init__()
        n = (depth - 4) // 6
        widths = [base, base * widen, 2 * base * widen, 4 * base * widen]
        self.conv1 = nn.Conv2d(3, base, 3, 1, 1, bias=False)
        for i in (1, 2, 3):
            layer = units(n, widths[i - 1], widths[i], 1 if i == 1 else 2, "convShortcut")
            setattr(self, f"block{i}", holder(layer=layer))
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], classes)

    def forward(self, x):
        x = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            x = block.layer(x)
        return self.fc(pooled(F.relu(self.bn1(x))))


class PreActResNet18(nn.Module):
    def __init__(self, classes, base=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, base, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        widths = [base, base, 2 * base, 4 * base, 8 * base]
        for i in range(1, 5):
            layer = units(2, widths[i - 1], widths[i], 1 if i == 1 else 2, "shortcut")
            setattr(self, f"layer{i}", layer)
        self.linear = nn.Linear(widths[4], classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return self.linear(pooled(x))


class Vgg13(nn.Module):
    def __init__(self, classes, base=64):
        super().__init__()
        inputs = 3
        for i, factor in enumerate((1, 2, 4, 8, 8)):
            layers = []
            for _ in range(2):
                layers += [nn.Conv2d(inputs, base * factor, 3, padding=1), nn.BatchNorm2d(base * factor), nn.ReLU()]
                inputs = base * factor
            setattr(self, f"block{i}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x):
        for i in range(5):
            x = F.max_pool2d(x, 2) if 0 < i < 4 else x
            x = F.relu(getattr(self, f"block{i}")(x))
        return self.classifier(pooled(x))


class NormReluConv(nn.Module):
    """`norm` and `conv` under names of the caller's."""

    def __init__(self, inputs, outputs, kernel, names, **geometry):
        super().__init__()
        self.names = names
        setattr(self, names[0], nn.BatchNorm2d(inputs))
        setattr(self, names[1], nn.Conv2d(inputs, outputs, kernel, bias=False, **geometry))

    def forward(self, x):
        return getattr(self, self.names[1])(F.relu(getattr(self, self.names[0])(x)))


class DenseNet40(nn.Module):
    def __init__(self, classes, first=16, growth=12):
        super().__init__()
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        channels, names = first, ("bn1", "conv1")
        for i in (1, 2, 3):
            layer = nn.Sequential()
            for _ in range(12):
                layer.append(NormReluConv(channels, growth, 3, names, padding=1))
                channels += growth
            setattr(self, f"block{i}", holder(layer=layer))
            if i < 3:
                setattr(self, f"trans{i}", NormReluConv(channels, channels, 1, names))
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.conv1(x)
        for i in (1, 2, 3):
            for layer in getattr(self, f"block{i}").layer:
                x = torch.cat([x, layer(x)], 1)
            if i < 3:
                x = F.avg_pool2d(getattr(self, f"trans{i}")(x), 2)
        return self.fc(pooled(F.relu(self.bn1(x))))


class Gate(nn.Module):
    """The paper's forget and update gates on a map of c channels."""

    def add_gate(self, c, squeeze):
        inner, joined = c // squeeze, 2 * c // squeeze
        norm_conv = partial(NormReluConv, c, c, 3, ("norm", "conv"), groups=c)
        self.conv_3x3 = norm_conv(padding=1)
        self.conv_5x5 = norm_conv(padding=2, dilation=2)
        for name in ("global_context3x3", "global_context5x5", "global_forget_context"):
            setattr(self, name, nn.Conv2d(c, 1, 1))
        self.fcall = nn.Conv2d(2 * c, joined, 1)
        self.bn_attention = nn.BatchNorm1d(joined)
        self.fc3x3, self.fc5x5 = nn.Conv2d(joined, c, 1), nn.Conv2d(joined, c, 1)
        self.fc1, self.fc2 = nn.Conv2d(c, inner, 1), nn.Conv2d(inner, c, 1)
        self.bn_forget = nn.BatchNorm1d(inner)

    @staticmethod
    def attend(x, scores):
        weights = scores(x).flatten(1).softmax(1)
        return torch.einsum("bcp,bp->bc", x.flatten(2), weights)[..., None, None]

    def gate(self, x):
        seen = self.fc1(self.attend(x, self.global_forget_context)).flatten(1)
        keep = torch.sigmoid(self.fc2(torch.tanh(self.bn_forget(seen))[..., None, None]))
        near = self.attend(self.conv_3x3(x), self.global_context3x3)
        far = self.attend(self.conv_5x5(x), self.global_context5x5)
        seen = self.fcall(torch.cat([near, far], 1)).flatten(1)
        seen = torch.tanh(self.bn_attention(seen))[..., None, None]
        shares = torch.stack([self.fc3x3(seen), self.fc5x5(seen)]).softmax(0)
        return x * keep + shares[0] * near + shares[1] * far


class GatedLayer(Gate):
    def __init__(self, inputs, growth):
        super().__init__()
        names = ("norm", "conv")
        self.conv1_1x1 = NormReluConv(inputs, 4 * growth, 1, names)
        self.conv2_3x3 = NormReluConv(4 * growth, growth, 3, names, padding=1, groups=4)
        self.add_gate(growth, 2)

    def forward(self, x):
        return torch.cat([x, self.gate(self.conv2_3x3(self.conv1_1x1(x)))], 1)


class GatedTransition(Gate):
    def __init__(self, inputs, outputs):
        super().__init__()
        names = ("norm", "conv")
        middle = inputs - (inputs - outputs) // 2
        self.conv1_1x1 = NormReluConv(inputs, middle, 1, names)
        self.conv2_3x3 = NormReluConv(middle, outputs, 3, names, padding=1, stride=2)
        self.add_gate(outputs, 4)

    def forward(self, x):
        return self.gate(self.conv2_3x3(self.conv1_1x1(x)))


class HcgNet(nn.Module):
    def __init__(self, growth, classes):
        super().__init__()
        channels = 2 * growth[0]
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, channels, 3, padding=1, bias=False))
        for i, rate in enumerate(growth, 1):
            block = nn.Sequential()
            for j in range(1, 9):
                block.add_module(f"SMG{j}", GatedLayer(channels, rate))
                channels += rate
            self.features.add_module(f"HybridBlock{i}", block)
            if i < len(growth):
                self.features.add_module(f"Transition{i}", GatedTransition(channels, channels // 2))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        return self.classifier(pooled(F.relu(self.features(x))))


class CifarInverted(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        inner = inputs * expansion
        self.add = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *conv_norm_relu(inputs, inner, 1),
            *conv_norm_relu(inner, inner, 3, stride=stride, padding=1, groups=inner),
            *conv_norm_relu(inner, outputs, 1)[:2],
        )

    def forward(self, x):
        return x + self.conv(x) if self.add else self.conv(x)


def conv_norm_relu(inputs, outputs, kernel, **geometry):
    conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **geometry)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class CifarMobileNetV2(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        plan = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        channels = int(32 * width)
        self.conv1 = nn.Sequential(*conv_norm_relu(3, channels, 3, padding=1))
        self.blocks = nn.ModuleList()
        for expansion, base, count, stride in plan:
            group = nn.Sequential()
            for i in range(count):
                group.append(CifarInverted(channels, int(base * width), stride if i == 0 else 1, expansion))
                channels = int(base * width)
            self.blocks.append(group)
        last = int(1280 * max(1.0, width))
        self.conv2 = nn.Sequential(*conv_norm_relu(channels, last, 1))
        self.classifier = nn.Linear(last, classes)

    def forward(self, x):
        x = self.conv1(x)
        for group in self.blocks:
            x = group(x)
        return self.classifier(pooled(self.conv2(x)))


class CifarShuffleUnit(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half, self.stride = outputs // 2, stride
        into = half if stride == 1 else inputs
        left = [] if stride == 1 else [(inputs, inputs, 3), (inputs, half, 1)]
        self.left = len(left)
        for i, (a, b, k) in enumerate(left + [(into, half, 1), (half, half, 3), (half, half, 1)], 1):
            deep = dict(stride=stride, padding=1, groups=a) if k == 3 else {}
            setattr(self, f"conv{i}", nn.Conv2d(a, b, k, bias=False, **deep))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))

    def run(self, x, first, last):
        for i in range(first, last + 1):
            conv = getattr(self, f"conv{i}")
            x = getattr(self, f"bn{i}")(conv(x))
            x = x if conv.kernel_size == (3, 3) else F.relu(x)
        return x

    def forward(self, x):
        kept, other = x.chunk(2, 1) if self.stride == 1 else (self.run(x, 1, 2), x)
        y = torch.cat([kept, self.run(other, self.left + 1, self.left + 3)], 1)
        b, c, h, w = y.shape
        return y.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class CifarShuffleNetV2(nn.Module):
    def __init__(self, stem, channels, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        inputs = stem
        for i, (count, outputs) in enumerate(zip((4, 8, 4), channels), 1):
            plan = [(inputs, 2)] + [(outputs, 1)] * (count - 1)
            setattr(self, f"layer{i}", nn.Sequential(*(CifarShuffleUnit(a, outputs, s) for a, s in plan)))
            inputs = outputs
        self.conv2 = nn.Conv2d(inputs, channels[3], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels[3])
        self.linear = nn.Linear(channels[3], classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(pooled(F.relu(self.bn2(self.conv2(x)))))


# ---- torchvision's, narrowed


class NarrowBottlenecks(torchvision.models.ResNet):
    """torchvision's ResNet, its channels scaled: `planes` of each stage, `inner` inside its blocks."""

    def __init__(self, counts, planes, inner, groups, classes):
        nn.Module.__init__(self)
        block = torchvision.models.resnet.Bottleneck
        self.conv1 = nn.Conv2d(3, planes[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        self.avgpool, inputs = nn.AdaptiveAvgPool2d(1), planes[0]
        for i, (count, width) in enumerate(zip(counts, planes)):
            layers, outputs = nn.Sequential(), 4 * width
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                down = None
                if j == 0:
                    down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
                # base_width such that int(width * base / 64) * groups is the inner number of channels
                base = 64.0 * inner[i] / groups / width
                layers.append(block(inputs, width, stride, down, groups, base))
                inputs = outputs
            setattr(self, f"layer{i + 1}", layers)
        self.fc = nn.Linear(inputs, classes)


def narrow_efficientnet(width, classes):
    settings, last = efficientnet._efficientnet_conf("efficientnet_b0", width_mult=width, depth_mult=1.0)
    return efficientnet.EfficientNet(settings, 0.0, 0.0, classes, last_channel=last)


CLASSES = 5
# name: (narrow network, its width, input side, full network, its side)
NETWORKS = {
    "cifar_wrn_16_2": (lambda: WideResNet(16, 2, CLASSES, 4), 0.25, 12, lambda: WideResNet(16, 2, 100), 32),
    "cifar_wrn_28_10": (lambda: WideResNet(28, 10, CLASSES, 1), 1 / 16, 9, lambda: WideResNet(28, 10, 100), 32),
    "cifar_preact_resnet18": (lambda: PreActResNet18(CLASSES, 4), 1 / 16, 13, lambda: PreActResNet18(100), 32),
    "cifar_vgg13_bn": (lambda: Vgg13(CLASSES, 4), 1 / 16, 16, lambda: Vgg13(100), 32),
    "cifar_densenet40_12": (lambda: DenseNet40(CLASSES, 4, 3), 0.25, 12, lambda: DenseNet40(100), 32),
    "cifar_hcgnet_a1": (lambda: HcgNet((4, 8, 12), CLASSES), 1 / 3, 11, lambda: HcgNet((12, 24, 36), 100), 32),
    "cifar_mobilenetv2": (lambda: CifarMobileNetV2(0.125, CLASSES), 0.125, 16, lambda: CifarMobileNetV2(1.0, 100), 32),
    "cifar_shufflenetv2": (
        lambda: CifarShuffleNetV2(6, (30, 58, 116, 256), CLASSES),
        0.25,
        16,
        lambda: CifarShuffleNetV2(24, (116, 232, 464, 1024), 100),
        32,
    ),
    "resnet101": (
        lambda: NarrowBottlenecks([3, 4, 23, 3], [2, 4, 8, 16], [2, 4, 8, 16], 1, CLASSES),
        1 / 32,
        40,
        torchvision.models.resnet101,
        224,
    ),
    "resnext50_32x4d": (
        lambda: NarrowBottlenecks([3, 4, 6, 3], [16, 32, 64, 128], [32, 64, 128, 256], 32, CLASSES),
        0.25,
        40,
        torchvision.models.resnext50_32x4d,
        224,
    ),
    "densenet121": (
        lambda: densenet.DenseNet(4, (6, 12, 24, 16), 8, num_classes=CLASSES),
        0.125,
        40,
        torchvision.models.densenet121,
        224,
    ),
    "mobilenet_v2": (
        lambda: mobilenetv2.MobileNetV2(CLASSES, 0.25, dropout=0.0),
        0.25,
        40,
        torchvision.models.mobilenet_v2,
        224,
    ),
    "shufflenet_v2_x1_0": (
        lambda: shufflenetv2.ShuffleNetV2([4, 8, 4], [24, 48, 96, 192, 1024], CLASSES),
        0.5,
        40,
        torchvision.models.shufflenet_v2_x1_0,
        224,
    ),
    "efficientnet_b0": (lambda: narrow_efficientnet(0.25, CLASSES), 0.25, 40, torchvision.models.efficientnet_b0, 224),
}


def counts(net, side):
    """Parameters, and multiply-adds of convolutions and linear layers for one image."""
    macs = 0

    def count(module, _, output):
        nonlocal macs
        positions = output[0].numel() // module.weight.shape[0]
        macs += positions * module.weight.numel()

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, side, side))
    return sum(p.numel() for p in net.parameters()), macs


def measure(net, side):
    net = net.double()
    for name, tensor in net.state_dict().items():
        if tensor.dim() > 0:
            tensor.copy_(value(name, tensor.shape))
    x = draw("x", 3 * side * side * 3).reshape(3, side, side, 3).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        evaluated = net.eval()(x)
    trained = net.train()(x)
    (trained * draw("weight", trained.numel()).reshape(trained.shape)).sum().backward()
    probe = lambda name, t: (t.flatten() * draw(name + ".probe", t.numel())).sum().item()
    return {
        "eval": evaluated.flatten().tolist(),
        "train": trained.detach().flatten().tolist(),
        "grad": {n: [probe(n, p.grad), p.grad.norm().item()] for n, p in net.named_parameters()},
        "after": {n: probe(n, b) for n, b in net.named_buffers() if b.dim() > 0},
    }


def rounded(x):
    """Ten digits: well below the tests' tolerance, and half the size."""
    if isinstance(x, float):
        return float(f"{x:.10g}")
    if isinstance(x, list):
        return [rounded(y) for y in x]
    return {k: rounded(y) for k, y in x.items()} if isinstance(x, dict) else x


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    out = {}
    for name, (narrow, width, side, full, full_side) in NETWORKS.items():
        parameters, macs = counts(full(), full_side)
        out[name] = {"parameters": parameters, "macs": macs, "width": width, "side": side} | rounded(measure(narrow(), side))
        print(name, parameters, macs, out[name]["train"][:2])
    (HERE / "zoo.json").write_text(json.dumps(out, indent=0, sort_keys=True) + "\n")
