"""One whole step of the methods that draw: mixup, manifold mixup, CutMix, and MixSKD's ways of mixing and switched terms.

Network, terms, total and gradients in float64 PyTorch, from the papers' formulas with the network of step.py, not from the Rust code. Run by
`cargo xtask golden`; writes drawn.safetensors beside itself.

What is drawn cannot be drawn by another program: DRAWS holds what the samplers draw with seed 0 in epoch 1, step by step, and the test says
so if they ever draw something else. From there everything is computed anew: λ of a box as the area of a mask, the mask at a map's resolution
by average pooling.

Tensors, float32 unless said: `initial/NAME` as in step.py, and `CASE/initial/NAME` where a case has another shape; `images` [4, 16, 16, 3],
`labels` [4], uint32. `CASE/step` [1], `CASE/partner` [4], uint32; `CASE/lambda` [4]; `CASE/mixed`, what goes through the network in place of the
images (the images themselves where feature maps are mixed). `CASE/part/TERM`, `CASE/total`, [1], float64: terms before their weights.
`CASE/grad/NAME`, float64: gradients of some parameters.

Settings: cifar_resnet18 at width 0.03125 on images of 16 pixels, 5 classes; temperature 3.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

import step
from step import CLASSES, pooled

BATCH, SIZE = 4, 16
PARTNERS = [[2, 1, 0, 3], [3, 0, 1, 2], [1, 3, 2, 0]]
# Mixup's and MixSKD's, α = 0.4; manifold mixup's, α = 2.
LAMBDAS = {
    "batch": [0.028582068, 0.85263616, 0.15217753],
    "sample": [0.85263616, 0.49370068, 0.00182328, 0.00025322053],
    "manifold": [0.7305268, 0.37836117, 0.6191206],
}
# Stages before manifold mixup mixes, step by step.
DEPTHS = [0, 2, 2]
# Top, left, height, width; CutMix's with α = 1, MixSKD's with α = 0.4. Some are cut by the image's border.
BOXES = {
    "cutmix": [(0, 7, 7, 9)] * BATCH,
    "cutmix-sample": [(2, 0, 8, 6), (2, 2, 14, 14), (0, 6, 5, 10), (2, 8, 14, 8)],
    "mixskd": [(3, 0, 6, 5)] * BATCH,
    "mixskd-sample": [(3, 0, 6, 5), (4, 4, 10, 10), (0, 4, 7, 12), (2, 8, 14, 8)],
}


class Pairs:
    """The pairs of one step, mixed by λ or by boxes."""

    def __init__(self, at, lam=None, boxes=None):
        self.step, self.partner = at, torch.tensor(PARTNERS[at])
        self.cut = None
        if boxes is None:
            self.lam = torch.tensor(np.broadcast_to(np.array(lam, np.float32), BATCH).copy()).double()
            return
        self.cut = torch.zeros(BATCH, 1, SIZE, SIZE, dtype=torch.float64)
        for mask, (top, left, height, width) in zip(self.cut, boxes):
            mask[:, top : top + height, left : left + width] = 1
        self.lam = 1 - self.cut.mean((1, 2, 3))

    def by_lambda(self, v):
        w = self.lam.view(-1, *[1] * (v.dim() - 1))
        return w * v + (1 - w) * v[self.partner]

    def by_box(self, v):
        share = F.adaptive_avg_pool2d(self.cut, v.shape[2:])
        return (1 - share) * v + share * v[self.partner]

    def images(self, v):
        return self.by_lambda(v) if self.cut is None else self.by_box(v)

    def ce(self, z, y):
        own, other = (F.cross_entropy(z, t, reduction="none") for t in (y, y[self.partner]))
        return (self.lam * own + (1 - self.lam) * other).mean()


def mixed(n, x, y, pairs):
    z = n.backbone.fc(pooled(n.backbone.stages(pairs.images(x))[-1]))
    return {"task_mix": (1, pairs.ce(z, y))}


def manifold(n, x, y, pairs):
    b = n.backbone
    layers = [b.layer1, b.layer2, b.layer3, b.layer4]
    depth = DEPTHS[pairs.step]

    def run(v, some):
        for layer in some:
            v = layer(v)
        return v

    def stem(v):
        return F.relu(b.bn1(b.conv1(v)))

    if depth == 0:
        last = run(stem(pairs.by_lambda(x)), layers)
    else:
        last = run(pairs.by_lambda(run(stem(x), layers[:depth])), layers[depth:])
    return {"task_mix": (1, pairs.ce(b.fc(pooled(last)), y))}


def mixskd(boxed_maps=False, branches=True, **weights):
    """The objective with some weights other than 1; a term of weight 0 is not there."""

    def objective(n, x, y, pairs):
        if branches:
            maps, logits = n(torch.cat([x, pairs.images(x)]))
        else:
            maps = [n.backbone.stages(torch.cat([x, pairs.images(x)]))[-1]]
            logits = [n.backbone.fc(pooled(maps[-1]))]
        mix_map = pairs.by_box if boxed_maps else pairs.by_lambda
        z, z_mix = [v[:BATCH] for v in logits], [v[BATCH:] for v in logits]
        z_hat = [pairs.by_lambda(v) for v in z]
        f_hat, f_mix = [mix_map(v[:BATCH]) for v in maps], [v[BATCH:] for v in maps]
        h_hat, h_mix = n.teacher(f_hat), n.teacher(f_mix)
        first = torch.tensor([[1.0, 0.0]] * BATCH + [[0.0, 1.0]] * BATCH, dtype=x.dtype)
        terms = {
            "task_original": sum(F.cross_entropy(v, y) for v in z),
            "task_mix": sum(pairs.ce(v, y) for v in z_mix),
            "feature": sum(F.mse_loss(a, m) for a, m in zip(f_hat, f_mix)),
            "adversarial": sum(
                F.binary_cross_entropy_with_logits(d(torch.cat([a, m])), first) for d, a, m in zip(n.discriminators, f_hat, f_mix)
            ),
            "branch_probability": sum(step.kl(a, m) + step.kl(m, a) for a, m in zip(z_hat[:-1], z_mix[:-1]))
            + torch.zeros((), dtype=x.dtype),
            "self_teacher_task": pairs.ce(h_hat, y) + pairs.ce(h_mix, y),
            "backbone_probability": step.kl(z_hat[-1], h_mix) + step.kl(z_mix[-1], h_hat),
        }
        return {k: (weights.get(k, 1), v) for k, v in terms.items() if weights.get(k, 1) != 0}

    return objective


def plain(at):
    return Pairs(at, lam=LAMBDAS["batch"][at])


def box(name, at):
    return Pairs(at, boxes=BOXES[name])


CASES = {
    "mixup": (mixed, plain(0)),
    "mixup-sample": (mixed, Pairs(1, lam=LAMBDAS["sample"])),
    "cutmix": (mixed, box("cutmix", 2)),
    "cutmix-sample": (mixed, box("cutmix-sample", 1)),
    "manifold-image": (manifold, Pairs(0, lam=LAMBDAS["manifold"][0])),
    "manifold-stage": (manifold, Pairs(1, lam=LAMBDAS["manifold"][1])),
    "mixskd": (mixskd(), plain(1)),
    "sample": (mixskd(), Pairs(1, lam=LAMBDAS["sample"])),
    "cut": (mixskd(), box("mixskd", 1)),
    "cut-box": (mixskd(boxed_maps=True), box("mixskd", 1)),
    "cut-box-sample": (mixskd(boxed_maps=True), box("mixskd-sample", 1)),
    "no-branches": (mixskd(branches=False), plain(1)),
    "no-branches-cut-box": (mixskd(branches=False, boxed_maps=True), box("mixskd-sample", 1)),
    "no-teacher": (mixskd(self_teacher_task=0, backbone_probability=0), plain(1)),
    "no-features": (mixskd(feature=0, adversarial=0), plain(1)),
    "no-adversarial": (mixskd(adversarial=0), box("mixskd", 1)),
    "no-branch-probability": (mixskd(branch_probability=0), plain(1)),
    "no-task": (mixskd(task_original=0, task_mix=0, self_teacher_task=0), plain(1)),
    "features-alone": (
        mixskd(boxed_maps=True, task_original=0, task_mix=0, adversarial=0, branch_probability=0, self_teacher_task=0, backbone_probability=0),
        box("mixskd-sample", 1),
    ),
    "weights": (
        mixskd(
            task_original=0.5, task_mix=1.5, feature=0.25, adversarial=0.125, branch_probability=2, self_teacher_task=0.75, backbone_probability=3
        ),
        plain(1),
    ),
    "reference-cifar": (mixskd(task_mix=0, self_teacher_task=0), plain(1)),
}  # fmt: skip
SHOWN = [
    "backbone.conv1.weight", "backbone.layer2.0.conv1.weight", "backbone.layer4.1.bn2.weight", "backbone.fc.weight", "backbone.fc.bias",
    "branches.0.alignment.layer2.0.conv1.weight", "branches.2.fc.bias", "teacher.conv.weight", "teacher.fc.weight",
    "discriminators.0.0.bias", "discriminators.3.2.weight",
]  # fmt: skip


if __name__ == "__main__":
    step.CHANNELS[:] = [2, 4, 8, 16]
    rng = np.random.default_rng(7)
    network = step.Network(False).double()
    step.initialise(network, rng)
    initial = step.state(network)
    images = rng.standard_normal((BATCH, SIZE, SIZE, 3)).astype(np.float32)
    labels = np.array([3, 0, 4, 1], np.uint32)
    assert labels.max() < CLASSES
    store = {f"initial/{k}": v.astype(np.float32) for k, v in initial.items()}
    store |= {"images": images, "labels": labels}
    x = torch.tensor(images).permute(0, 3, 1, 2).double()
    y = torch.tensor(labels.astype(np.int64))
    for name, (method, pairs) in CASES.items():
        network = step.Network(False).double().train()
        network.load_state_dict({k: torch.tensor(v) for k, v in initial.items()}, strict=False)
        if name.startswith("no-branches"):
            # The self-teacher reads the backbone's map alone.
            weight = network.teacher.conv.weight.detach()[:, -step.CHANNELS[-1] :].clone()
            network.teacher.conv.weight = torch.nn.Parameter(weight)
            store[f"{name}/initial/teacher.conv.weight"] = weight.numpy().astype(np.float32)
        parts = method(network, x, y, pairs)
        total = sum(weight * value for weight, value in parts.values())
        total.backward()
        shown = x if method is manifold and DEPTHS[pairs.step] > 0 else pairs.images(x)
        store |= {
            f"{name}/step": np.array([pairs.step], np.uint32),
            f"{name}/partner": pairs.partner.numpy().astype(np.uint32),
            f"{name}/lambda": pairs.lam.numpy().astype(np.float32),
            f"{name}/mixed": shown.permute(0, 2, 3, 1).contiguous().numpy().astype(np.float32),
            f"{name}/total": np.array([total.item()]),
        }
        store |= {f"{name}/part/{k}": np.array([v.item()]) for k, (_, v) in parts.items()}
        gradients = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
        if name == "reference-cifar":  # whose discriminators are frozen
            gradients = {k: v for k, v in gradients.items() if not k.startswith("discriminators")}
        store |= {f"{name}/grad/{k}": gradients[k].numpy().copy() for k in SHOWN if k in gradients}
        print(name, {k: round(v.item(), 5) for k, (_, v) in parts.items()})
    save_file(store, Path(__file__).parent / "drawn.safetensors")
