"""Loads a weights file that mixskd wrote into torchvision with strict=True and compares the logits.

Run by the test `torchvision.rs`: python strict.py WEIGHTS EXPECTED
WEIGHTS' metadata names the network; EXPECTED holds `x` [batch, height, width, channel] and mixskd's `logits`.
"""

import json
import sys

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file

weights, expected = sys.argv[1:]
with safe_open(weights, "pt") as file:
    model = json.loads(file.metadata()["model"])
net = getattr(torchvision.models, model["name"])(num_classes=model["classes"]).eval()
net.load_state_dict(load_file(weights), strict=True)
expected = load_file(expected)
with torch.no_grad():
    logits = net(expected["x"].permute(0, 3, 1, 2))
error = ((logits - expected["logits"]).abs().max() / logits.abs().max()).item()
print(f"{model['name']}: largest difference {error:.2e} of the largest logit")
sys.exit(0 if error < 1e-4 else 1)
