"""One whole step of every method that draws nothing: network, terms, total and gradients in float64 PyTorch.

Written from the papers' formulas with the network of step.py, not from the Rust code. Run by `cargo xtask golden`; writes
methods.safetensors beside itself.

Tensors, float32 unless said: `initial/NAME`, every parameter and running statistic (`backbone.*`, `branches.K.*` as in step.py, `teacher.*` of
FRSKD's pyramid; `backbone.fc.bias` is 0); `images` [16, 16, 16, 3], `labels` [16], uint32: four anchors, then three blocks of their
companions, of which a method takes what it needs; `past` [4, class], predictions of an earlier epoch. `METHOD/part/TERM`, `METHOD/total`,
[1], float64: terms before their weights. `METHOD/grad/NAME`, float64: gradients of some parameters.

Settings: cifar_resnet18 at width 0.03125 on images of 16 pixels, 5 classes; every method at its defaults, or METHOD is `name+key=value`;
epoch 1 (from 0) of 4.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn

import step
from step import CLASSES, pooled

ANCHORS, T = 4, 4.0


class Fusion(nn.Module):
    def __init__(self, inputs, channels):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = Point(channels, channels)

    def forward(self, *maps):
        w = F.relu(self.weights)
        w = w / (w.sum() + 1e-4)
        return F.relu(self.pointwise(self.depthwise(sum(s * m for s, m in zip(w, maps)))))


class Point(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x):
        return self.norm(self.conv(x))


class Pyramid(nn.Module):
    def __init__(self, c):
        super().__init__()
        last = len(c) - 1
        self.lateral = nn.ModuleDict({str(k): Point(c[k], c[k]) for k in range(last + 1)})
        self.up = nn.ModuleDict({str(k): Point(c[k + 1], c[k]) for k in range(last)})
        self.top = nn.ModuleDict({str(k): Fusion(2, c[k]) for k in range(last)})
        self.down = nn.ModuleDict({str(k): Point(c[k - 1], c[k]) for k in range(1, last + 1)})
        self.out = nn.ModuleDict({str(k): Fusion(2 if k == last else 3, c[k]) for k in range(1, last + 1)})
        self.fc = nn.Linear(c[-1], CLASSES)

    def forward(self, stages):
        lateral = [self.lateral[str(k)](x) for k, x in enumerate(stages)]
        last = len(stages) - 1
        passed = {last: lateral[last]}
        for k in reversed(range(last)):
            above = F.interpolate(self.up[str(k)](passed[k + 1]), lateral[k].shape[2:], mode="nearest")
            passed[k] = self.top[str(k)](lateral[k], above)
        refined = [passed[0]]
        for k in range(1, last + 1):
            below = self.down[str(k)](refined[k - 1])
            if below.shape != lateral[k].shape:
                below = F.max_pool2d(below, 3, 2, 1)
            inputs = (lateral[k], below) if k == last else (lateral[k], passed[k], below)
            refined.append(self.out[str(k)](*inputs))
        return refined, self.fc(pooled(refined[-1]))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = step.Backbone(False)
        self.branches = nn.ModuleList(step.Branch(k) for k in range(3))
        self.teacher = Pyramid(step.CHANNELS)


def kl(student, teacher, t=T):
    p = F.softmax(teacher.detach() / t, 1)
    return t**2 * F.kl_div(F.log_softmax(student / t, 1), p, reduction="batchmean")


def logits(network, images):
    return network.backbone.fc(pooled(network.backbone.stages(images)[-1]))


def ce(n, x, y, past):
    return {"task": (1, F.cross_entropy(logits(n, x), y))}


def label_smoothing(n, x, y, past):
    return {"task": (1, F.cross_entropy(logits(n, x), y, label_smoothing=0.1))}


def focal(n, x, y, past):
    log_p = F.log_softmax(logits(n, x), 1)[range(len(y)), y]
    return {"task": (1, -((1 - log_p.exp()) ** 2 * log_p).mean())}


def max_entropy(n, x, y, past):
    z = logits(n, x)
    return {"task": (1, F.cross_entropy(z, y)), "entropy": (-0.5, torch.distributions.Categorical(logits=z).entropy().mean())}


def virtual_softmax(n, x, y, past):
    f, w = pooled(n.backbone.stages(x)[-1]), n.backbone.fc.weight
    z = torch.cat([f @ w.T, (w[y].norm(dim=1) * f.norm(dim=1))[:, None]], 1)
    return {"task": (1, F.cross_entropy(z, y))}


def tf_kd(n, x, y, past):
    z = logits(n, x)
    teacher = torch.full_like(z, 0.1 / (CLASSES - 1)).scatter(1, y[:, None], 0.9).log()
    return {"task": (1, F.cross_entropy(z, y)), "teacher": (1, kl(z, teacher, 20.0))}


def cs_kd(n, x, y, past):
    z = logits(n, x[:ANCHORS])
    with torch.no_grad():
        companion = logits(n, x[ANCHORS:])
    return {"task": (1, F.cross_entropy(z, y[:ANCHORS])), "class_wise": (1, kl(z, companion))}


def ps_kd(n, x, y, past):
    alpha = 0.8 * 2 / 4
    targets = (1 - alpha) * F.one_hot(y, CLASSES) + alpha * past
    return {"task": (1, F.cross_entropy(logits(n, x), targets))}


def deep(n, x, stages):
    maps = n.backbone.stages(x)
    features = [n.branches[k].alignment(maps[k]) for k in stages] + [maps[-1]]
    heads = [n.branches[k].fc for k in stages] + [n.backbone.fc]
    return features, [fc(pooled(f)) for fc, f in zip(heads, features)]


def byot(n, x, y, past):
    f, z = deep(n, x, [0, 1, 2])
    return {
        "task": (1, sum(F.cross_entropy(v, y) for v in z)),
        "probability": (1, sum(kl(v, z[-1]) for v in z[:-1])),
        "feature": (0.05, sum(F.mse_loss(v, f[-1].detach()) for v in f[:-1])),
    }


def dks(n, x, y, past):
    _, z = deep(n, x, [1, 2])
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    return {"task": (1, sum(F.cross_entropy(v, y) for v in z)), "synergy": (1, sum(kl(z[i], z[j]) for i, j in pairs))}


def sad(n, x, y, past):
    maps = n.backbone.stages(x)
    attention = 0
    for a, b in zip(maps, maps[1:]):
        b = b.detach().pow(2).mean(1, keepdim=True)
        b = F.interpolate(b, a.shape[2:], mode="bilinear", align_corners=False)
        attention += F.mse_loss(F.softmax(a.pow(2).mean(1).flatten(1), 1), F.softmax(b.flatten(1), 1))
    return {"task": (1, F.cross_entropy(n.backbone.fc(pooled(maps[-1])), y)), "attention": (1000, attention)}


def ddgsd(n, x, y, past):
    f = pooled(n.backbone.stages(x)[-1])
    z = n.backbone.fc(f)
    a, b = z[:ANCHORS], z[ANCHORS:]
    d = ((f[:, None] - f[None]) ** 2).sum(2)
    s = d.detach().sum() / (len(f) * (len(f) - 1))
    k = sum(torch.exp(-d / (w * s)) for w in (0.25, 0.5, 1.0, 2.0, 4.0)) / 5
    mmd = k[:ANCHORS, :ANCHORS].mean() + k[ANCHORS:, ANCHORS:].mean() - 2 * k[:ANCHORS, ANCHORS:].mean()
    return {"task": (1, F.cross_entropy(z, y)), "probability": (1, kl(a, b) + kl(b, a)), "discrepancy": (5e-4, mmd)}


def bake(n, x, y, past, again=lambda targets: targets):
    f = pooled(n.backbone.stages(x)[-1])
    z = n.backbone.fc(f)
    with torch.no_grad():
        g = F.normalize(f, dim=1)
        similarity = g @ g.T
        similarity.fill_diagonal_(-torch.inf)
        a = F.softmax(similarity, 1)
        targets = 0.5 * torch.linalg.solve(torch.eye(len(g), dtype=g.dtype) - 0.5 * a, F.softmax(z / T, 1))
    ensemble = T**2 * F.kl_div(F.log_softmax(z / T, 1), again(targets), reduction="batchmean")
    return {"task": (1, F.cross_entropy(z, y)), "ensemble": (1, ensemble)}


def bake_softened(n, x, y, past):
    return bake(n, x, y, past, lambda targets: F.softmax(targets / T, 1))


def frskd(n, x, y, past, teacher=torch.Tensor.detach):
    maps = n.backbone.stages(x)
    z = n.backbone.fc(pooled(maps[-1]))
    refined, h = n.teacher(maps)
    def phi(v):
        return F.normalize(v.pow(2).mean(1).flatten(1), dim=1)

    return {
        "task": (1, F.cross_entropy(z, y)),
        "self_teacher_task": (1, F.cross_entropy(h, y)),
        "probability": (2, T**2 * F.kl_div(F.log_softmax(z / T, 1), F.softmax(teacher(h) / T, 1), reduction="batchmean")),
        "attention": (100, sum(F.mse_loss(phi(a), phi(b.detach())) for a, b in zip(maps, refined))),
    }


def frskd_mutual(n, x, y, past):
    return frskd(n, x, y, past, lambda h: h)


METHODS = {
    "ce": (ce, 1), "label-smoothing": (label_smoothing, 1), "focal": (focal, 1), "max-entropy": (max_entropy, 1),
    "virtual-softmax": (virtual_softmax, 1), "tf-kd": (tf_kd, 1), "cs-kd": (cs_kd, 2), "ps-kd": (ps_kd, 1),
    "byot": (byot, 1), "dks": (dks, 1), "sad": (sad, 1), "ddgsd": (ddgsd, 2), "bake": (bake, 4), "frskd": (frskd, 1),
    "bake+soften_targets=true": (bake_softened, 4), "frskd+mutual=true": (frskd_mutual, 1),
}  # fmt: skip
SHOWN = [
    "backbone.conv1.weight", "backbone.layer2.0.conv1.weight", "backbone.layer4.1.bn2.weight", "backbone.fc.weight",
    "branches.1.alignment.layer3.0.conv1.weight", "branches.2.fc.bias", "teacher.lateral.0.conv.weight",
    "teacher.top.1.weights", "teacher.out.2.weights", "teacher.out.3.depthwise.weight", "teacher.fc.weight",
]  # fmt: skip


if __name__ == "__main__":
    step.CHANNELS[:] = [2, 4, 8, 16]
    rng = np.random.default_rng(5)
    network = Network().double()
    step.initialise(network, rng)
    for name, p in network.named_parameters():
        if name.endswith("norm.weight") or name.endswith("weights"):
            p.data = torch.tensor(rng.uniform(0.3, 0.7, p.shape).astype(np.float32)).double()
    network.backbone.fc.bias.data.zero_()
    initial = step.state(network)
    images = rng.standard_normal((4 * ANCHORS, 16, 16, 3)).astype(np.float32)
    labels = np.tile(np.array([3, 0, 4, 1], np.uint32), 4)
    past = F.softmax(torch.tensor(rng.standard_normal((ANCHORS, CLASSES))), 1).numpy().astype(np.float32)
    store = {f"initial/{k}": v.astype(np.float32) for k, v in initial.items()}
    store |= {"images": images, "labels": labels, "past": past}
    x = torch.tensor(images).permute(0, 3, 1, 2).double()
    y = torch.tensor(labels.astype(np.int64))
    for name, (method, blocks) in METHODS.items():
        network = Network().double().train()
        network.load_state_dict({k: torch.tensor(v) for k, v in initial.items()}, strict=False)
        rows = blocks * ANCHORS
        parts = method(network, x[:rows], y[:rows], torch.tensor(past).double())
        total = sum(weight * value for weight, value in parts.values())
        total.backward()
        store |= {f"{name}/part/{k}": np.array([v.item()]) for k, (_, v) in parts.items()}
        store[f"{name}/total"] = np.array([total.item()])
        gradients = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
        store |= {f"{name}/grad/{k}": gradients[k].numpy().copy() for k in SHOWN if k in gradients}
        print(name, {k: round(v.item(), 5) for k, (_, v) in parts.items()})
    save_file(store, Path(__file__).parent / "methods.safetensors")
