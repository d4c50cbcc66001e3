#!/usr/bin/env python3
"""Images a second of a PyTorch DataLoader: the peer of benches/benches/loader.rs, on the same files.

torchvision's transforms on PIL images, as its own data sets give them: random crop after padding (of files: a random box scaled to
224 × 224), flip, to tensor, normalise. Prints one line for each round and the median. The first epoch starts the workers and is not counted.

usage: loader.py [DIR] [--workers 2] [--batch 64] [--rounds 3] [--json]
  DIR   CIFAR-100's binary files: holds train.bin, or cifar-100-binary/train.bin; or a folder of images: holds train/CLASS/.
        Without it $MIXSKD_BENCH_DATA, else the set that ships with the project.
                                                                (needs: pip install torch torchvision numpy pillow)
"""

import argparse
import gzip
import json
import os
import pathlib
import statistics
import time

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "datasets" / "fashion-mnist-mini"


class Images(Dataset):
    def __init__(self, pixels, labels, padding, mean, std):
        self.pixels, self.labels = pixels, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(pixels.shape[1], padding=padding),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def cifar100(folder):
    path = next(p for p in (folder / "train.bin", folder / "cifar-100-binary" / "train.bin") if p.exists())
    records = np.fromfile(path, np.uint8).reshape(-1, 3074)
    pixels = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy()
    return Images(pixels, records[:, 1].tolist(), 4, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


def folder(path):
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return datasets.ImageFolder(path / "train", transform)


def opened(path):
    return folder(path) if (path / "train").is_dir() else cifar100(path)


def shipped():
    def read(name, offset):
        return np.frombuffer(gzip.decompress((SHIPPED / name).read_bytes()), np.uint8, offset=offset)

    pixels = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return Images(pixels, read("train-labels-idx1-ubyte.gz", 8).tolist(), 2, (0.2860,), (0.3530,))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", nargs="?", default=os.environ.get("MIXSKD_BENCH_DATA"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON document: seconds of each round, images in one")
    args = parser.parse_args()
    loader = DataLoader(
        opened(pathlib.Path(args.dir)) if args.dir else shipped(),
        batch_size=args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )
    seconds = []
    for number in range(args.rounds + 1):
        start = time.perf_counter()
        images = sum(len(labels) for _, labels in loader)
        if number:
            seconds.append(time.perf_counter() - start)
            if not args.json:
                print(f"round {number}: {images / seconds[-1]:.0f} images/s", flush=True)
    if args.json:
        print(json.dumps({"rows": {"loader": {"seconds": seconds, "amount": images}}}))
    else:
        rate = images / statistics.median(seconds)
        print(f"median of {args.rounds}: {rate:.0f} images/s, {args.workers} workers, batch {args.batch}")


if __name__ == "__main__":
    main()
