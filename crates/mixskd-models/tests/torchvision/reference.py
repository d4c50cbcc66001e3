"""A torchvision network with random weights, and what it says: for the test `torchvision.rs`.

python reference.py NAME WEIGHTS EXPECTED
WEIGHTS gets the state dict, EXPECTED `x` [batch, height, width, channel], `logits` in evaluation, and the gradients `grad.*` of
`sum(train logits * direction)` in training mode without dropout and stochastic depth.
"""

import sys

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

name, weights, expected = sys.argv[1:]
torch.manual_seed(3)
net = getattr(torchvision.models, name)()
for module in net.modules():
    if isinstance(module, nn.BatchNorm2d):
        # As after training: no norm is at its starting point.
        nn.init.uniform_(module.weight, 0.7, 1.3)
        nn.init.uniform_(module.bias, -0.3, 0.3)
        nn.init.uniform_(module.running_mean, -0.3, 0.3)
        nn.init.uniform_(module.running_var, 0.7, 1.3)
    if isinstance(module, (nn.Dropout, torchvision.ops.StochasticDepth)):
        module.p = 0.0
save_file({k: v.contiguous() for k, v in net.state_dict().items()}, weights)

x = torch.randn(4, 64, 64, 3)
images = x.permute(0, 3, 1, 2).contiguous()
out = {"x": x}
with torch.no_grad():
    out["logits"] = net.eval()(images)
# In float64: gradients through many batch norms of few values each lose digits in float32 on either side.
net = net.double().train()
out["direction"] = torch.randn(4, 1000)
(net(images.double()) * out["direction"].double()).sum().backward()
out |= {f"grad.{k}": p.grad.float() for k, p in net.named_parameters()}
save_file(out, expected)
