"""Cross-entropy, Mixup or CutMix in PyTorch under the protocol of cifar100-20-classes.md: an independent check of the training loop.

Prints epoch, training loss, training top-1, test top-1, seconds. Needs torch and numpy.

usage: cifar100-20-classes.py DIR SEED [ce|mixup|cutmix] [EPOCHS] [THREADS]     (DIR holds train.bin and test.bin of the subset)
"""

import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches" / "peers"))
from network import Basic, Network

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
method, epochs, threads = (sys.argv[3:] + ["ce", "20", "2"][len(sys.argv) - 3 :])[:3]
EPOCHS, WARMUP, BATCH, LR = int(epochs), 2, 64, 0.05
ALPHA = {"ce": None, "mixup": 0.4, "cutmix": 1.0}[method]
torch.set_num_threads(int(threads))
torch.manual_seed(seed)


def load(split):
    rows = np.fromfile(folder / f"{split}.bin", np.uint8).reshape(-1, 3074)
    return torch.tensor(rows[:, 2:].reshape(-1, 3, 32, 32)), torch.tensor(rows[:, 1].astype(np.int64))


mean = torch.tensor([0.5071, 0.4867, 0.4408]).view(1, 3, 1, 1)
std = torch.tensor([0.2675, 0.2565, 0.2761]).view(1, 3, 1, 1)


def normalise(x):
    return (x.float() / 255 - mean) / std


def augment(images):
    padded = F.pad(images, (4, 4, 4, 4))
    crops = []
    for image, (top, left), flip in zip(padded, torch.randint(0, 9, (len(images), 2)), torch.rand(len(images)) < 0.5):
        crop = image[:, top : top + 32, left : left + 32]
        crops.append(crop.flip(2) if flip else crop)
    return normalise(torch.stack(crops)).contiguous(memory_format=torch.channels_last)


images, labels = load("train")
test_images, test_labels = load("test")
steps = len(images) // BATCH
net = Network(Basic, [2, 2, 2, 2], True, 0.25, 20, False).to(memory_format=torch.channels_last)
for module in net.modules():
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, nesterov=True, weight_decay=5e-4)

for epoch in range(EPOCHS):
    start, total, hits = time.time(), 0.0, 0
    net.train()
    order = torch.randperm(len(images))
    for step in range(steps):
        done, warm = epoch * steps + step, WARMUP * steps
        cosine = 0.5 * (1 + math.cos(math.pi * (done - warm) / (EPOCHS * steps - warm)))
        for group in optimizer.param_groups:
            group["lr"] = LR * (done + 1) / warm if done < warm else LR * cosine
        chosen = order[step * BATCH : (step + 1) * BATCH]
        x, y, z, kept = augment(images[chosen]), labels[chosen], labels[chosen], 1.0
        if ALPHA:
            kept = float(np.random.default_rng([seed, epoch, step]).beta(ALPHA, ALPHA))
            other = torch.randperm(BATCH)
            z = y[other]
            if method == "mixup":
                x = kept * x + (1 - kept) * x[other]
            else:
                # Yun et al., Algorithm A1: a box of area 1 - kept around a uniform centre, cut at the border; kept is then its true share.
                side = 32 * math.sqrt(1 - kept)
                (top, bottom), (left, right) = (
                    (max(int(c - side / 2), 0), min(int(c + side / 2), 32)) for c in torch.randint(0, 32, (2,)).tolist()
                )
                x[:, :, top:bottom, left:right] = x[other, :, top:bottom, left:right]
                kept = 1 - (bottom - top) * (right - left) / 1024
        logits = net(x)[1][0]
        loss = kept * F.cross_entropy(logits, y) + (1 - kept) * F.cross_entropy(logits, z)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        hits += (logits.argmax(1) == labels[chosen]).sum().item()
    net.eval()
    with torch.no_grad():
        right = sum(
            (net(normalise(test_images[i : i + 250]))[1][0].argmax(1) == test_labels[i : i + 250]).sum().item()
            for i in range(0, len(test_images), 250)
        )
    print(epoch + 1, round(total / steps, 3), round(hits / (steps * BATCH), 3), right / len(test_images), round(time.time() - start, 1), flush=True)
