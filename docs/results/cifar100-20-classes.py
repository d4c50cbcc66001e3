"""Plain cross-entropy in PyTorch under the protocol of cifar100-20-classes.md: an independent check of the training loop.

Prints epoch, training loss, training top-1, test top-1, seconds. Needs torch and numpy.

usage: cifar100-20-classes.py DIR SEED     (DIR holds train.bin and test.bin of the subset)
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

EPOCHS, WARMUP, BATCH, LR = 20, 2, 64, 0.05
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(2)
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
        logits = net(augment(images[chosen]))[1][0]
        loss = F.cross_entropy(logits, labels[chosen])
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
