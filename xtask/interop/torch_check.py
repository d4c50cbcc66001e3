"""Weights to and from the real torchvision and timm, and predictions on real photographs.

python torch_check.py SAMPLES MIXSKD PREPARE SCRATCH ROWS
SAMPLES is what the example `samples` of mixskd-models wrote at full width; MIXSKD is the program, PREPARE the example `prepare` of
mixskd-data; SCRATCH is an empty folder. ROWS gets a JSON list of {network, check, error, limit}. The photographs come with matplotlib (a
portrait in the public domain) and scikit-learn (two, CC BY 2.0, flickr users danielbuechele and vultilion); neither package is imported.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import transforms

samples, mixskd, prepare, scratch, rows_file = sys.argv[1:]
samples, scratch = pathlib.Path(samples), pathlib.Path(scratch)
NETWORKS = sorted(path.name for path in samples.iterdir() if not path.name.startswith("cifar_"))
TIMM = {"mobilenet_v2": "mobilenetv2_100", "shufflenet_v2_x1_0": None}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
normalise = transforms.Normalize(MEAN, STD)
rows = []


def say(network, check, error, limit):
    print(f"{network}: {check} {error:.2g}", flush=True)
    rows.append({"network": network, "check": check, "error": float(error), "limit": limit})


def relative(got, want):
    error = (got - want).abs().max() / want.abs().max()
    return error.item() if torch.isfinite(error) else float("inf")


def of_timm(network, classes=1000):
    name = TIMM.get(network, network)
    return name and timm.create_model(name, num_classes=classes).eval()


def of_torchvision(network):
    return getattr(torchvision.models, network)(num_classes=1000).eval()


def package_file(package, path):
    root = pathlib.Path(importlib.util.find_spec(package).submodule_search_locations[0])
    return root / path


PHOTOS = [
    package_file("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    package_file("sklearn", "datasets/images/china.jpg"),
    package_file("sklearn", "datasets/images/flower.jpg"),
]


def as_trained(net, batch):
    """Random weights, norms away from their start, and running statistics that fit `batch`."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = None
            module.reset_running_stats()
    net.train()
    with torch.no_grad():
        net(batch)
    return net.eval()


def command(*arguments):
    return subprocess.run([mixskd, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def predicted(weights, files):
    """mixskd's logits and its five most probable labels for image files."""
    told = json.loads(command("predict", "--weights", weights, "--logits", "--json", *files))
    return torch.tensor([one["logits"] for one in told]), [[guess["label"] for guess in one["top"]] for one in told]


def out(network):
    """Our weights with strict=True there: the same logits."""
    data = load_file(samples / network / "samples.safetensors")
    images = normalise(data["pixels"])
    own = samples / network / "model.safetensors"
    theirs = of_torchvision(network)
    theirs.load_state_dict(load_file(own), strict=True)
    with torch.no_grad():
        say(network, "strict in torchvision", relative(theirs(images), data["logits"]), 1e-4)
    theirs = of_timm(network)
    if theirs is None:
        return
    renamed = scratch / f"{network}-timm.safetensors"
    command("export", "--weights", own, "--format", "timm", "-o", renamed)
    theirs.load_state_dict(load_file(renamed), strict=True)
    with torch.no_grad():
        say(network, "strict in timm", relative(theirs(images), data["logits"]), 1e-4)


def into(network, batch, prepared):
    """Their weights here: the same logits of images that need no resizing, and of photographs."""
    theirs = as_trained(of_torchvision(network), batch)
    file, own = scratch / f"{network}.pth", scratch / f"{network}.safetensors"
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, file)
    command("import", file, "--model", network, "-o", own)
    plain = [scratch / f"plain-{i}.png" for i in range(2)]
    with torch.no_grad():
        logits, _ = predicted(own, plain)
        crop = transforms.Compose([transforms.CenterCrop(224), transforms.ToTensor(), normalise])
        want = theirs(torch.stack([crop(Image.open(file)) for file in plain]))
        say(network, "import from torchvision", relative(logits, want), 1e-4)

        # Of random weights no prediction survives a change of one grey level: theirs sees the pixels that ours prepared.
        photographs(network, own, theirs(prepared), "photographs, same pixels", 1e-4)

    theirs = of_timm(network)
    if theirs is None:
        return
    theirs = as_trained(theirs, batch)
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, file.with_suffix(".timm"))
    command("import", file.with_suffix(".timm"), "--model", network, "-o", own)
    with torch.no_grad():
        logits, _ = predicted(own, plain)
        want = theirs(torch.stack([crop(Image.open(file)) for file in plain]))
        say(network, "import from timm", relative(logits, want), 1e-4)


def photographs(network, own, want, what, limit, order=0):
    logits, top = predicted(own, PHOTOS)
    five = want.topk(5).indices.tolist()
    say(network, f"{what}: other five classes", sum(set(a) != set(b) for a, b in zip(top, five)), 0)
    say(network, f"{what}: in another order", sum(a != b for a, b in zip(top, five)), order)
    say(network, f"{what}: logits", relative(logits, want), limit)


def trained(network, photos):
    """A network trained a little, to tell the photographs from each other, from grey, inverted and upside-down ones; then
    predictions from the files, each program with its own decoding, resize and crop."""
    changes = [lambda x: x, transforms.functional.rgb_to_grayscale, transforms.functional.invert, transforms.functional.vflip]
    images = [transforms.functional.to_tensor(Image.open(photo).convert("RGB")) for photo in PHOTOS]
    crop = transforms.RandomResizedCrop(128, (0.3, 1.0), antialias=True)
    net = getattr(torchvision.models, network)(num_classes=len(PHOTOS) * len(changes))
    optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9, nesterov=True)
    for step in range(100):
        labels = torch.randint(len(PHOTOS) * len(changes), (16,))
        pieces = [changes[k % 4](crop(images[k // 4])).expand(3, -1, -1) for k in labels.tolist()]
        loss = nn.functional.cross_entropy(net(normalise(torch.stack(pieces))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    file, own = scratch / "trained.pth", scratch / "trained.safetensors"
    torch.save(net.eval().state_dict(), file)
    command("import", file, "--model", network, "-o", own)
    with torch.no_grad():
        # Two classes as good as tied may change places.
        photographs(network, own, net(photos), "photographs, trained a little", 1e-2, order=1)


def resizing():
    """Grey levels between our resize and crop and PIL's, and how much of it is the JPEG decoder's."""
    cut = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for photo in PHOTOS:
        image = Image.open(photo).convert("RGB")
        lossless = scratch / "photo.png"
        image.save(lossless)
        want = np.asarray(cut(image)).astype(int)
        for source, what, limit in ((lossless, "resize", 1), (photo, "JPEG and resize", 16)):
            subprocess.run([prepare, source, scratch / "prepared.png", "256", "224"], check=True)
            apart = np.abs(np.asarray(Image.open(scratch / "prepared.png")).astype(int) - want)
            say(photo.name, f"{what}: grey levels, largest", apart.max(), limit)
            say(photo.name, f"{what}: grey levels, mean", apart.mean(), limit / 4)
        (scratch / "prepared.png").rename(scratch / f"{photo.stem}.png")


torch.manual_seed(3)
whole = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalise])
photos = torch.stack([whole(Image.open(photo).convert("RGB")) for photo in PHOTOS])
# Crops of the photographs: what the running statistics are taken from, and images that need no resizing.
cut = transforms.Compose([transforms.RandomResizedCrop(224, (0.2, 1.0)), transforms.ToTensor(), normalise])
batch = torch.stack([cut(Image.open(photo).convert("RGB")) for photo in PHOTOS for _ in range(6)])
for i, photo in enumerate(PHOTOS[:2]):
    Image.open(photo).convert("RGB").resize((256, 256)).save(scratch / f"plain-{i}.png")
resizing()
plain = transforms.Compose([transforms.ToTensor(), normalise])
prepared = torch.stack([plain(Image.open(scratch / f"{photo.stem}.png")) for photo in PHOTOS])
for network in NETWORKS:
    out(network)
    into(network, batch, prepared)
for network in ("resnet18", "mobilenet_v2"):
    trained(network, photos)
pathlib.Path(rows_file).write_text(json.dumps(rows))
