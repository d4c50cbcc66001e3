"""Six batches in groups of two: gradients averaged, clipped, SGD, and a moving average of the weights, by PyTorch's own functions.

Run by `cargo xtask golden`; writes optimizer.safetensors beside itself.

Tensors, float32, computed in float64: `initial/NAME`; `gradient{0…5}/NAME`, those of each batch; `after/NAME` and `average/NAME` after the third update.
Settings: SGD lr 0.1, momentum 0.9, Nesterov, weight decay 5e-4; `clip_grad_norm_` to 0.75, which cuts some updates and not others;
`AveragedModel` with `get_ema_multi_avg_fn(0.8)`.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

SHAPES = {"bias": (5,), "weight": (3, 4)}


class Parameters(nn.Module):
    def __init__(self, values):
        super().__init__()
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value, dtype=torch.float64)))


def main():
    random = np.random.default_rng(11)
    out = {}
    initial = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    out |= {f"initial/{name}": value for name, value in initial.items()}
    model = Parameters(initial)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    norms = []
    for update in range(3):
        sgd.zero_grad()
        for batch in (2 * update, 2 * update + 1):
            for name, parameter in model.named_parameters():
                gradient = (random.standard_normal(SHAPES[name]) * [0.05, 1.0, 0.3][update]).astype(np.float32)
                out[f"gradient{batch}/{name}"] = gradient
                half = torch.tensor(gradient, dtype=torch.float64) / 2
                parameter.grad = half if parameter.grad is None else parameter.grad + half
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.75).item())
        sgd.step()
        average.update_parameters(model)
    assert min(norms) < 0.75 < max(norms), norms
    out |= {f"after/{name}": p.detach().numpy().astype(np.float32) for name, p in model.named_parameters()}
    out |= {f"average/{name}": p.detach().numpy().astype(np.float32) for name, p in average.module.named_parameters()}
    save_file(out, Path(__file__).with_suffix(".safetensors"))


main()
