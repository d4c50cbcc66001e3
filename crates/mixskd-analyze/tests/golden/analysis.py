"""Golden values of tests/golden.rs: calibration, temperature, input gradients, FGSM and Grad-CAM of a small network.

Written from the papers' formulas and with other people's code where it exists: torchmetrics for the calibration errors, torch's
LBFGS for the temperature, torchvision's BasicBlock for the network, autograd for its gradients, `interpolate` for the heat. Float64 from float32 inputs. Run by `cargo xtask golden`; writes analysis.safetensors.

- `calibration/logits` [400, 10], `/labels` [400]; `/ece`, `/mce` (15 bins), `/nll`, `/brier`, `/accuracy`, `/temperature`, `/nll_scaled`, [1].
- `network/NAME`: cifar_resnet18 at width 0.03125 for 5 classes, torchvision's names; `network/mean`, `/std` [3].
- `images` [4, 16, 16, 3], pixels in 0..1, and `labels` [4]; `logits` [4, 5]; `gradient` [4, 16, 16, 3], of the mean cross-entropy with respect to
  the normalised images; `fgsm/4`, `fgsm/16`: normalised images attacked with eps 4/255 and 16/255.
- `cam/STAGE/CLASS` [4, h, w], Grad-CAM after stage 2 and 4 (from 1), and `cam/4/CLASS/resized` [4, 16, 16], bilinear, before any scaling.
- `rescaling/theta` [5]: E max(l, 1-l) for l ~ Beta(a, a) at a = 0.1, 0.2, 0.4, 1, 3, by numerical integration.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error
from torchvision.models.resnet import BasicBlock

torch.set_default_dtype(torch.float64)
RNG = np.random.default_rng(17062017)
STORE = {}


def single(x):
    """Rounded to float32, so that a float32 run starts from the same numbers."""
    return torch.tensor(np.asarray(x).astype(np.float32).astype(np.float64))


def keep(name, value):
    array = value.detach().numpy() if torch.is_tensor(value) else np.asarray(value)
    array = np.atleast_1d(array)
    STORE[name] = np.ascontiguousarray(array if array.dtype == np.uint32 else array.astype(np.float64))


def calibration():
    images, classes = 400, 10
    labels = RNG.integers(0, classes, images)
    logits = RNG.standard_normal((images, classes)) * 1.5
    logits[np.arange(images), labels] += 2.0
    logits = single(logits * 2.0)  # over-confident
    labels = torch.tensor(labels)
    probabilities = logits.softmax(1)
    for name, norm in [("ece", "l1"), ("mce", "max")]:
        keep(f"calibration/{name}", multiclass_calibration_error(probabilities, labels, classes, n_bins=15, norm=norm))
    temperature = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([temperature], lr=0.1, max_iter=1000, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / temperature, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    keep("calibration/logits", logits)
    keep("calibration/labels", labels.numpy().astype(np.uint32))
    keep("calibration/accuracy", (logits.argmax(1) == labels).double().mean())
    keep("calibration/nll", F.cross_entropy(logits, labels))
    keep("calibration/brier", ((probabilities - F.one_hot(labels, classes)) ** 2).sum(1).mean())
    keep("calibration/temperature", temperature)
    keep("calibration/nll_scaled", F.cross_entropy(logits / temperature, labels))


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        channels = [2, 4, 8, 16]
        self.conv1, self.bn1 = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False), nn.BatchNorm2d(channels[0])
        before = channels[0]
        for index, out in enumerate(channels):
            stride = 1 if index == 0 else 2
            shortcut = None
            if stride != 1:
                shortcut = nn.Sequential(nn.Conv2d(before, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            self.add_module(f"layer{index + 1}", nn.Sequential(BasicBlock(before, out, stride, shortcut), BasicBlock(out, out)))
            before = out
        self.fc = nn.Linear(before, classes)

    def stages(self, x, first=0):
        if first == 0:
            x = F.relu(self.bn1(self.conv1(x)))
        maps = []
        for index in range(first, 4):
            x = getattr(self, f"layer{index + 1}")(x)
            maps.append(x)
        return maps

    def head(self, x):
        return self.fc(x.mean((2, 3)))


def network():
    classes, images, side = 5, 4, 16
    net = Network(classes).eval()
    state = net.state_dict()
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        shape = tuple(value.shape)
        if name.endswith(("running_var",)) or (len(shape) == 1 and name.endswith("weight")):
            drawn = RNG.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            drawn = RNG.standard_normal(shape) * 0.2
        else:
            drawn = RNG.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:])) * (0.2 if name == "fc.weight" else 1.0)
        state[name] = single(drawn)
        keep(f"network/{name}", state[name])
    net.load_state_dict(state)
    mean, std = single([0.4, 0.5, 0.6]), single([0.2, 0.25, 0.3])
    keep("network/mean", mean)
    keep("network/std", std)
    # Whole bytes, some of them black and white: the attack has something to clip.
    pixels = single(RNG.integers(-40, 296, (images, side, side, 3)).clip(0, 255) / 255.0)
    labels = torch.tensor(RNG.integers(0, classes, images))
    keep("images", pixels)
    keep("labels", labels.numpy().astype(np.uint32))

    normalised = single((pixels - mean) / std).requires_grad_()
    first_last = lambda x: x.permute(0, 3, 1, 2)
    logits = net.head(net.stages(first_last(normalised))[-1])
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels), normalised)
    keep("logits", logits)
    keep("gradient", gradient)
    for eps in (4, 16):
        attacked = (pixels + eps / 255.0 * gradient.sign()).clamp(0.0, 1.0)
        keep(f"fgsm/{eps}", (attacked - mean) / std)

    for stage in (2, 4):
        for class_index in (0, 1):
            with torch.no_grad():
                shallow = net.stages(first_last(normalised))[stage - 1]
            shallow = shallow.clone().requires_grad_()
            deepest = net.stages(shallow, stage)[-1] if stage < 4 else shallow
            (slope,) = torch.autograd.grad(net.head(deepest)[:, class_index].sum(), shallow)
            weights = slope.mean((2, 3), keepdim=True)
            cam = F.relu((weights * shallow).sum(1))
            keep(f"cam/{stage}/{class_index}", cam)
            if stage == 4:
                resized = F.interpolate(cam[:, None], (side, side), mode="bilinear", align_corners=False)
                keep(f"cam/{stage}/{class_index}/resized", resized[:, 0])


def theta():
    values = []
    for alpha in (0.1, 0.2, 0.4, 1.0, 3.0):
        # The mean of max(l, 1-l) by the substitution l = u^(1/alpha) on (0, 1/2), which takes the pole at 0 away.
        u = (np.arange(400_000) + 0.5) / 400_000 * 0.5**alpha
        small = u ** (1.0 / alpha)
        density = (1.0 - small) ** (alpha - 1.0)
        values.append(float(np.sum((1.0 - small) * density) / np.sum(density)))
    keep("rescaling/theta", np.array(values))


calibration()
network()
theta()
path = Path(__file__).resolve().parent / "analysis.safetensors"
save_file(dict(sorted(STORE.items())), path)
