"""Golden values of the other methods' losses: inputs, values and gradients, in float64.

Written from the formulas in the papers (see the function docs), not from the Rust code. Run by `cargo xtask golden`; writes
methods.safetensors beside itself. Tensors are named as losses.py names them; settings are scalars among the inputs.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

torch.set_default_dtype(torch.float64)
STORE = {}
RNG = np.random.default_rng(20261123)


def normal(*shape, scale=1.0):
    return torch.tensor((RNG.standard_normal(shape) * scale).astype(np.float32).astype(np.float64))


def extreme(batch, classes):
    """Logits at +-50 with some ordinary ones between."""
    z = normal(batch, classes, scale=2.0)
    z[:, 0] = torch.tensor([50.0 if i % 2 == 0 else -50.0 for i in range(batch)])
    z[:, -1] = torch.tensor([-50.0 if i % 3 == 0 else 50.0 for i in range(batch)])
    return z


def labels(batch, classes):
    return torch.tensor(RNG.integers(0, classes, batch))


def scalar(x):
    return torch.tensor(float(x))


# --- the formulas ---------------------------------------------------------------------------------------------------


def label_smoothing(logits, labels, epsilon):
    return F.cross_entropy(logits, labels, label_smoothing=epsilon.item())


def focal_loss(logits, labels, gamma):
    log_p = F.log_softmax(logits, 1)[torch.arange(len(labels)), labels]
    return -((1 - log_p.exp()) ** gamma.item() * log_p).mean()


def entropy(logits):
    return torch.distributions.Categorical(logits=logits).entropy().mean()


def virtual_softmax(logits, features, weight, labels):
    virtual = weight[labels].norm(dim=1) * features.norm(dim=1)
    return F.cross_entropy(torch.cat([logits, virtual[:, None]], 1), labels)


def kl(student, teacher, temperature):
    p = F.softmax(teacher.detach() / temperature, 1)
    return F.kl_div(F.log_softmax(student / temperature, 1), p, reduction="batchmean") * temperature**2


def hand_made_teacher(logits, labels, epsilon, temperature):
    classes = logits.shape[1]
    p = torch.full_like(logits, epsilon.item() / (classes - 1))
    p[torch.arange(len(labels)), labels] = 1 - epsilon
    # A distribution at a temperature: its powers of 1/T, made to sum to 1.
    p = p ** (1 / temperature)
    p = p / p.sum(1, keepdim=True)
    q = F.log_softmax(logits / temperature, 1)
    return temperature**2 * (p * (p.log() - q)).sum(1).mean()


def kernel_mmd(a, b):
    x = torch.cat([a, b])
    n = len(a)
    d = ((x[:, None] - x[None]) ** 2).sum(2)
    s = d.detach().sum() / (len(x) * (len(x) - 1))
    k = sum(torch.exp(-d / (w * s)) for w in (0.25, 0.5, 1.0, 2.0, 4.0)) / 5
    return k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()


def scalar_mean_difference(a, b):
    return (a.mean() - b.mean()) ** 2


def mutual_kl(temperature, **heads):
    heads = list(heads.values())
    return sum(kl(s, t, temperature) for i, s in enumerate(heads) for j, t in enumerate(heads) if i != j)


def nchw(x):
    return x.permute(0, 3, 1, 2)


def attention_distillation(shallow, deep):
    shallow, deep = nchw(shallow), nchw(deep.detach())
    target = F.interpolate(deep.pow(2).mean(1, keepdim=True), shallow.shape[2:], mode="bilinear", align_corners=False)
    learner = F.softmax(shallow.pow(2).mean(1).flatten(1), 1)
    return F.mse_loss(learner, F.softmax(target.flatten(1), 1))


def attention_distance(a, b):
    a, b = (F.normalize(nchw(x).pow(2).mean(1).flatten(1), dim=1) for x in (a, b.detach()))
    return F.mse_loss(a, b)


def ensemble_targets(features, logits, omega, temperature):
    x = F.normalize(features, dim=1)
    similarity = x @ x.T
    similarity.fill_diagonal_(-torch.inf)
    a = F.softmax(similarity, 1)
    return (1 - omega) * torch.linalg.inv(torch.eye(len(x)) - omega * a) @ F.softmax(logits / temperature, 1)


def kl_divergence_attached(student, teacher, temperature):
    q, p = F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean")


def kl_from_targets(student, targets, temperature):
    q = F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(q, targets.detach(), reduction="batchmean")


# --- storing --------------------------------------------------------------------------------------------------------


def put(key, tensor):
    array = tensor.detach().numpy()
    STORE[key] = np.array(array, dtype=np.uint32 if array.dtype == np.int64 else np.float64, order="C")


def case(key, fn, **inputs):
    """Stores inputs, value and the gradient with respect to every float input of two or more dimensions."""
    leaves = {}
    for name, x in inputs.items():
        put(f"{key}/in/{name}", x)
        if x.is_floating_point() and x.dim() > 1:
            inputs[name] = leaves[name] = x.clone().requires_grad_()
    value = fn(**inputs)
    put(f"{key}/value", value)
    grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    for (name, leaf), grad in zip(leaves.items(), grads):
        put(f"{key}/grad/{name}", torch.zeros_like(leaf) if grad is None else grad)


def on_logits():
    for batch, classes in [(1, 2), (4, 5), (7, 10)]:
        for kind in ("normal", "extreme"):
            logits = extreme if kind == "extreme" else (lambda b, c: normal(b, c, scale=3.0))
            tag = f"{batch}x{classes}-{kind}"
            y = labels(batch, classes)
            for epsilon in (0.0, 0.1):
                case(f"label_smoothing/{tag}-{epsilon:g}", label_smoothing,
                     logits=logits(batch, classes), labels=y, epsilon=scalar(epsilon))
            for gamma in (0.0, 1.0, 2.0, 3.5):
                case(f"focal_loss/{tag}-{gamma:g}", focal_loss, logits=logits(batch, classes), labels=y, gamma=scalar(gamma))
            case(f"entropy/{tag}", entropy, logits=logits(batch, classes))
            case(f"virtual_softmax/{tag}", virtual_softmax, logits=logits(batch, classes), features=normal(batch, 6),
                 weight=normal(classes, 6), labels=y)
            for temperature in (1.0, 20.0):
                case(f"hand_made_teacher/{tag}-T{temperature:g}", hand_made_teacher, logits=logits(batch, classes),
                     labels=y, epsilon=scalar(0.1), temperature=scalar(temperature))
            for heads in (2, 3):
                case(f"mutual_kl/{tag}-{heads}", mutual_kl, temperature=scalar(4.0),
                     **{f"heads.{k}": logits(batch, classes) for k in range(heads)})
            targets = F.softmax(normal(batch, classes, scale=2.0), 1).float().double()
            case(f"kl_from_targets/{tag}", kl_from_targets, student=logits(batch, classes), targets=targets,
                 temperature=scalar(4.0))


def on_features():
    for batch, channels in [(1, 2), (4, 5), (8, 16)]:
        for shift in (0.0, 1.0):
            case(f"kernel_mmd/{batch}x{channels}-{shift:g}", kernel_mmd, a=normal(batch, channels),
                 b=normal(batch, channels) + shift)
        case(f"scalar_mean_difference/{batch}x{channels}", scalar_mean_difference, a=normal(batch, channels),
             b=normal(batch, channels))
    for tag, shallow, deep in [("double", (2, 4, 4, 3), (2, 2, 2, 5)), ("same", (3, 3, 3, 2), (3, 3, 3, 4)),
                               ("odd", (2, 7, 5, 2), (2, 4, 3, 3))]:
        case(f"attention_distillation/{tag}", attention_distillation, shallow=normal(*shallow), deep=normal(*deep))
        case(f"attention_distance/{tag}", attention_distance, a=normal(*shallow), b=normal(*shallow[:3], deep[3]))
    for batch, channels, classes, omega in [(2, 3, 4, 0.5), (8, 5, 10, 0.5), (12, 4, 3, 0.9), (5, 6, 4, 0.0)]:
        key = f"ensemble_targets/{batch}x{classes}-{omega:g}"
        inputs = {"features": normal(batch, channels), "logits": normal(batch, classes, scale=3.0),
                  "omega": scalar(omega), "temperature": scalar(4.0)}
        for name, x in inputs.items():
            put(f"{key}/in/{name}", x)
        put(f"{key}/value", ensemble_targets(**inputs))


def on_pairs():
    for batch, classes in [(1, 2), (4, 5), (7, 10)]:
        for temperature in (1.0, 4.0):
            case(f"kl_divergence_attached/{batch}x{classes}-T{temperature:g}", kl_divergence_attached, student=normal(batch, classes, scale=3.0),
                 teacher=normal(batch, classes, scale=3.0), temperature=scalar(temperature))


if __name__ == "__main__":
    on_logits()
    on_features()
    on_pairs()
    folder = Path(__file__).parent
    save_file(STORE, folder / "methods.safetensors")
    print(f"{folder / 'methods.safetensors'}: {len(STORE)} tensors")
