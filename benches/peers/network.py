"""The network and the MixSKD objective that the peers `step.py` and `step_gpu.py` train."""

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
    real = torch.ones(b, dtype=torch.long, device=x.device)
    fake = torch.zeros_like(real)
    for judge, p, q in zip(net.judges, fi, fm):
        loss = loss + 0.5 * (F.cross_entropy(judge(p.mean((2, 3))), real) + F.cross_entropy(judge(q.mean((2, 3))), fake))
    loss = loss + sum(kl(p, q) + kl(q, p) for p, q in zip(zi[:-1], zm[:-1]))
    hi, hm = net.teach(fi), net.teach(fm)
    loss = loss + mix_ce(hi) + mix_ce(hm)
    return loss + kl(zi[-1], hm) + kl(zm[-1], hi)


KINDS = {"18": (Basic, [2, 2, 2, 2]), "34": (Basic, [3, 4, 6, 3]), "50": (Bottleneck, [3, 4, 6, 3])}
