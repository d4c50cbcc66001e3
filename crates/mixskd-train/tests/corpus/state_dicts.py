"""State dicts as PyTorch writes them, in both layouts: the good inputs that `cargo xtask fuzz` damages."""

from collections import OrderedDict
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "pickle"

torch.manual_seed(0)
state = OrderedDict(
    [("module.fc.weight", torch.randn(3, 4)), ("module.fc.bias", torch.zeros(3)), ("module.bn.num_batches_tracked", torch.tensor(7))]
)
torch.save(state, FOLDER / "plain.pt")
torch.save({"net": state, "epoch": 3, "acc": 0.5}, FOLDER / "wrapped.pt")
torch.save(state, FOLDER / "legacy.pt", _use_new_zipfile_serialization=False)
torch.save({"half": torch.randn(5).half(), "view": torch.arange(12.0).reshape(3, 4).t()}, FOLDER / "views.pt")
