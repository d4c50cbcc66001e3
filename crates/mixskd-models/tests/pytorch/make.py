"""Writes the checkpoints that the PyTorch reader's tests read: python make.py FOLDER

The same state dict in the zip layout (PyTorch 1.6 and later) and in the one before it. The values are those that
`crates/mixskd-models/src/weights/pytorch/tests.rs` expects.
"""

import collections
import sys
from pathlib import Path

import numpy as np
import torch

folder = Path(sys.argv[1])
table = torch.arange(6, dtype=torch.float32).reshape(2, 3)
state = collections.OrderedDict(
    [
        ("module.float32", table),
        ("module.transposed", table.t()),
        ("module.part", table[1:, 1:]),
        ("module.float64", table.double() / 2),
        ("module.float16", table.half() / 2),
        ("module.bfloat16", table.bfloat16() / 2),
        ("module.parameter", torch.nn.Parameter(table * 3)),
        ("module.counter", torch.tensor(7)),
        ("module.int32", torch.tensor([-1, 2], dtype=torch.int32)),
        ("module.flags", torch.tensor([True, False])),
        ("module.empty", torch.zeros(0, 4)),
    ]
)
state._metadata = collections.OrderedDict([("", {"version": 1})])
checkpoint = {"net": state, "acc": np.float64(61.5), "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
torch.save(checkpoint, folder / "zip.pth")
torch.save(checkpoint, folder / "legacy.pth", _use_new_zipfile_serialization=False)
