"""Two consecutive whole MixSKD steps in float64 PyTorch: network, every term, SGD with momentum.

Written from the paper's definitions (MixSKD, Yang et al. 2022) with torchvision's residual blocks, not from the Rust code.
Run by `cargo xtask golden`; writes step-NETWORK.safetensors beside itself, and for one network step-NETWORK-MODE.safetensors with the
discriminators frozen (they never learn) and with the gradient reversed between features and discriminators.

Tensors (float32 but labels and partners, which are uint32; computed in float64 from the float32 values stored):
- `initial/NAME`, `after/NAME`: every parameter, and batch norm's running statistics, before the first and after the second
  update. NAME is `backbone.*` (torchvision's names), `branches.K.alignment.layerN.*`, `branches.K.fc.*`, `teacher.conv.*`,
  `teacher.fc.*` or `discriminators.K.{0,2}.*`, K from 0; the branch K = 0 hangs on the first stage, the last discriminator
  on the backbone.
- `step{0,1}/images` [batch, height, width, channel], `/labels`, `/partner`, `/lambda`, each [batch];
- `step{0,1}/part/TERM` and `step{0,1}/total`, [1], float64: the terms before their weights, which are all 1.

Settings: cifar_resnet18 at width 0.0625 on images of 16 pixels, resnet18 at width 0.046875 on 48; 3 channels, 5 classes, batch
3; temperature 3, two-logit discriminators trained jointly but where MODE says otherwise; SGD lr 0.05, momentum 0.9, Nesterov, weight decay 5e-4 on every
parameter; images and mixes through the network as one batch.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock

CLASSES, BATCH, TEMPERATURE = 5, 3, 3.0
CHANNELS = [0, 0, 0, 0]  # of the four stages, set for each network
STRIDES = [1, 2, 2, 2]


def stage(index):
    """Stage `index` (from 0) of a ResNet-18: two basic blocks."""
    before = CHANNELS[max(index - 1, 0)]
    out, stride = CHANNELS[index], STRIDES[index]
    shortcut = None
    if stride != 1 or before != out:
        shortcut = nn.Sequential(nn.Conv2d(before, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    return nn.Sequential(BasicBlock(before, out, stride, shortcut), BasicBlock(out, out))


def pooled(x):
    return x.mean((2, 3))


class Backbone(nn.Module):
    def __init__(self, imagenet):
        super().__init__()
        self.imagenet = imagenet
        self.conv1 = (
            nn.Conv2d(3, CHANNELS[0], 7, 2, 3, bias=False) if imagenet else nn.Conv2d(3, CHANNELS[0], 3, 1, 1, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(CHANNELS[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = (stage(i) for i in range(4))
        self.fc = nn.Linear(CHANNELS[-1], CLASSES)

    def stages(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.imagenet:
            x = F.max_pool2d(x, 3, 2, 1)
        outputs = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            outputs.append(x)
        return outputs


class Branch(nn.Module):
    """Replays the stages after stage `after` (from 0), then classifies."""

    def __init__(self, after):
        super().__init__()
        self.alignment = nn.Sequential(OrderedDict((f"layer{i + 1}", stage(i)) for i in range(after + 1, 4)))
        self.fc = nn.Linear(CHANNELS[-1], CLASSES)


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4 * CHANNELS[-1], CHANNELS[-1], 1, bias=False)
        self.fc = nn.Linear(CHANNELS[-1], CLASSES)

    def forward(self, maps):
        return self.fc(pooled(self.conv(torch.cat(maps, 1))))


class Discriminator(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(CHANNELS[-1], 128), nn.ReLU(), nn.Linear(128, 2))

    def forward(self, x):
        return super().forward(pooled(x))


class Network(nn.Module):
    def __init__(self, imagenet):
        super().__init__()
        self.backbone = Backbone(imagenet)
        self.branches = nn.ModuleList(Branch(k) for k in range(3))
        self.teacher = Teacher()
        self.discriminators = nn.ModuleList(Discriminator() for _ in range(4))

    def forward(self, x):
        """Feature maps and logits of the three branches and, last, the backbone."""
        stages = self.backbone.stages(x)
        maps = [branch.alignment(s) for branch, s in zip(self.branches, stages)] + [stages[-1]]
        heads = [branch.fc for branch in self.branches] + [self.backbone.fc]
        return maps, [fc(pooled(m)) for fc, m in zip(heads, maps)]


class Reversal(torch.autograd.Function):
    """The identity, its gradient turned round."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return -grad


def kl(student, teacher):
    p = F.softmax(teacher.detach() / TEMPERATURE, 1)
    q = F.log_softmax(student / TEMPERATURE, 1)
    return TEMPERATURE**2 * F.kl_div(q, p, reduction="batchmean")


def terms(network, images, labels, partner, lam, mode):
    per_image = lam.view(-1, *[1] * (images.dim() - 1))
    mixes = per_image * images + (1 - per_image) * images[partner]

    def mix(v):
        w = lam.view(-1, *[1] * (v.dim() - 1))
        return w * v + (1 - w) * v[partner]

    def mix_ce(z):
        own, other = (F.cross_entropy(z, y, reduction="none") for y in (labels, labels[partner]))
        return (lam * own + (1 - lam) * other).mean()

    maps, logits = network(torch.cat([images, mixes]))
    b = len(images)
    z, z_mix = [v[:b] for v in logits], [v[b:] for v in logits]
    z_hat, f_hat = [mix(v) for v in z], [mix(v[:b]) for v in maps]
    f_mix = [v[b:] for v in maps]
    h_hat, h_mix = network.teacher(f_hat), network.teacher(f_mix)

    def told_apart(d, a, m):
        target = torch.tensor([[1.0, 0.0]] * b + [[0.0, 1.0]] * b, dtype=a.dtype)
        judged = torch.cat([a, m])
        judged = Reversal.apply(judged) if mode == "reversal" else judged
        return F.binary_cross_entropy_with_logits(d(judged), target)

    return {
        "task_original": sum(F.cross_entropy(v, labels) for v in z),
        "task_mix": sum(mix_ce(v) for v in z_mix),
        "feature": sum(F.mse_loss(a, m) for a, m in zip(f_hat, f_mix)),
        "adversarial": sum(told_apart(d, a, m) for d, a, m in zip(network.discriminators, f_hat, f_mix)),
        "branch_probability": sum(kl(a, m) + kl(m, a) for a, m in zip(z_hat[:-1], z_mix[:-1])),
        "self_teacher_task": mix_ce(h_hat) + mix_ce(h_mix),
        "backbone_probability": kl(z_hat[-1], h_mix) + kl(z_mix[-1], h_hat),
    }


def initialise(network, rng):
    """Random values for everything, batch norm and biases too, so that no parameter's part in the step is invisible.

    Batch norm's and the classifiers' gains are small: float32 must be able to follow float64 over two updates.
    """
    for name, p in network.named_parameters():
        if p.dim() > 1:
            gain = 0.1 if p.dim() == 2 else 1.0
            value = gain * rng.standard_normal(p.shape) * np.sqrt(2.0 / p[0].numel())
        else:
            value = 0.1 * rng.standard_normal(p.shape)
            if "bn" in name or "downsample" in name:
                value += 0.5
        p.data = torch.tensor(value.astype(np.float32)).to(p.dtype)
    for name, p in network.named_buffers():
        if p.is_floating_point():
            value = rng.uniform(0.5, 1.5, p.shape) if "var" in name else 0.1 * rng.standard_normal(p.shape)
            p.data = torch.tensor(value.astype(np.float32)).to(p.dtype)


def state(network):
    return {k: v.detach().numpy().copy() for k, v in network.state_dict().items() if v.is_floating_point()}


def run(imagenet, batches, initial, dtype, mode):
    network = Network(imagenet).to(dtype).train()
    network.load_state_dict({k: torch.tensor(v) for k, v in initial.items()}, strict=False)
    if mode == "frozen":
        network.discriminators.requires_grad_(False)
    sgd = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    seen = []
    for images, labels, partner, lam in batches:
        images = torch.tensor(images).permute(0, 3, 1, 2).to(dtype)
        labels, partner = torch.tensor(labels.astype(np.int64)), torch.tensor(partner.astype(np.int64))
        parts = terms(network, images, labels, partner, torch.tensor(lam).to(dtype), mode)
        total = sum(parts.values())
        sgd.zero_grad()
        total.backward()
        sgd.step()
        seen.append({**{f"part/{k}": v.item() for k, v in parts.items()}, "total": total.item()})
    return seen, state(network)


def write(name, imagenet, width, size, seed, folder, mode="joint"):
    CHANNELS[:] = [round(width * c) for c in (64, 128, 256, 512)]
    rng = np.random.default_rng(seed)
    network = Network(imagenet).double()
    initialise(network, rng)
    initial = state(network)
    partners = [np.array([1, 2, 0], np.uint32), np.array([2, 1, 0], np.uint32)]
    # One lambda for the batch in the first step, one a sample in the second.
    lambdas = [np.full(BATCH, 0.3, np.float32), np.array([0.85, 0.4, 0.6], np.float32)]
    batches = [
        (rng.standard_normal((BATCH, size, size, 3)).astype(np.float32), rng.integers(0, CLASSES, BATCH).astype(np.uint32), p, l)
        for p, l in zip(partners, lambdas)
    ]
    seen, after = run(imagenet, batches, initial, torch.float64, mode)
    _, single = run(imagenet, batches, initial, torch.float32, mode)
    off = max(np.abs(single[k] - after[k]).max() / np.abs(after[k]).max() for k in after)

    store = {f"initial/{k}": v.astype(np.float32) for k, v in initial.items()}
    store |= {f"after/{k}": v.astype(np.float32) for k, v in after.items()}
    for i, (batch, values) in enumerate(zip(batches, seen)):
        store |= {f"step{i}/{k}": v for k, v in zip(("images", "labels", "partner", "lambda"), batch)}
        store |= {f"step{i}/{k}": np.array([v]) for k, v in values.items()}
    name = name if mode == "joint" else f"{name}-{mode}"
    save_file(store, folder / f"step-{name}.safetensors")
    print(f"step-{name}.safetensors: {len(store)} tensors; PyTorch's own float32 run is off by {off:.1e}")
    for values in seen:
        print("  ", {k: round(v, 4) for k, v in values.items()})


if __name__ == "__main__":
    out = Path(__file__).parent
    write("cifar_resnet18", False, 0.0625, 16, 19, out)
    write("resnet18", True, 0.046875, 48, 14, out)
    for other in ("frozen", "reversal"):
        write("cifar_resnet18", False, 0.03125, 16, 23, out, other)
