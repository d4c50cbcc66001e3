"""Golden values of every loss: inputs, values and gradients, in float64.

Written from the formulas (MixSKD, Yang et al. 2022; see the function docs), not from the Rust code. Run by
`cargo xtask golden`; writes losses.safetensors beside itself.

Tensors: `TERM/CASE/in/NAME`, `TERM/CASE/value`, `TERM/CASE/grad/NAME` (zeros where a side is detached). Inputs are rounded
to float32, so that a float32 run starts from the same numbers. A term of the objective has `value/PART` as well.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

torch.set_default_dtype(torch.float64)
STORE = {}
RNG = np.random.default_rng(20220805)


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


def lambdas(batch, per_sample):
    draw = RNG.beta(0.4, 0.4, batch if per_sample else 1).astype(np.float32).astype(np.float64)
    return torch.tensor(np.broadcast_to(draw, (batch,)).copy())


def partner(batch):
    return torch.tensor(RNG.permutation(batch))


# --- the formulas ---------------------------------------------------------------------------------------------------


def ce_each(z, y):
    return torch.logsumexp(z, 1) - z[torch.arange(len(y)), y]


def cross_entropy(z, y):
    return ce_each(z, y).mean()


def mix_cross_entropy(z, y, y_partner, lam):
    return (lam * ce_each(z, y) + (1 - lam) * ce_each(z, y_partner)).mean()


def soft_cross_entropy(z, t):
    return -(t.detach() * F.log_softmax(z, 1)).sum(1).mean()


def kl(student, teacher, temperature):
    teacher = F.softmax(teacher.detach() / temperature, 1)
    student = F.log_softmax(student / temperature, 1)
    return F.kl_div(student, teacher, reduction="batchmean") * temperature**2


def feature_mse(a, b):
    return F.mse_loss(a, b)


def discriminator_loss(interpolated, mixed):
    answers = torch.cat([interpolated, mixed])
    target = torch.zeros_like(answers)
    half = len(interpolated)
    target[:half, 0] = 1.0
    if answers.shape[1] == 2:
        target[half:, 1] = 1.0
    return F.binary_cross_entropy_with_logits(answers, target)


def objective_parts(t, heads, temperature):
    y, y_partner, lam = t["labels"], t["partner_labels"], t["lambda"]
    z, zm, zi = ([t[f"{n}.{k}"] for k in range(heads)] for n in ("original", "mixed", "interpolated"))
    fi, fm = ([t[f"{n}.{k}"] for k in range(heads)] for n in ("interpolated_features", "mixed_features"))
    di, dm = ([t[f"{n}.{k}"] for k in range(heads)] for n in ("discriminator_interpolated", "discriminator_mixed"))
    hi, hm = t["teacher_interpolated"], t["teacher_mixed"]
    zero = torch.zeros(())
    return {
        "task_original": sum(cross_entropy(a, y) for a in z),
        "task_mix": sum(mix_cross_entropy(a, y, y_partner, lam) for a in zm),
        "feature": sum(feature_mse(a, b) for a, b in zip(fi, fm)),
        "adversarial": sum(discriminator_loss(a, b) for a, b in zip(di, dm)),
        "branch_probability": sum(
            (kl(a, b, temperature) + kl(b, a, temperature) for a, b in zip(zi[:-1], zm[:-1])), zero
        ),
        "self_teacher_task": mix_cross_entropy(hi, y, y_partner, lam) + mix_cross_entropy(hm, y, y_partner, lam),
        "backbone_probability": kl(zi[-1], hm, temperature) + kl(zm[-1], hi, temperature),
    }


# --- storing --------------------------------------------------------------------------------------------------------


def put(key, tensor):
    array = tensor.detach().numpy()
    STORE[key] = np.array(array, dtype=np.uint32 if array.dtype == np.int64 else np.float64, order="C")


def case(key, fn, **inputs):
    """Stores inputs, value and the gradient with respect to every float input but lambda and scalars."""
    leaves = {}
    for name, x in inputs.items():
        put(f"{key}/in/{name}", x)
        if x.is_floating_point() and x.dim() > 1:
            inputs[name] = leaves[name] = x.clone().requires_grad_()
    out = fn(**inputs)
    value, parts = out if isinstance(out, tuple) else (out, {})
    put(f"{key}/value", value)
    for part, x in parts.items():
        put(f"{key}/value/{part}", x)
    grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    for (name, leaf), grad in zip(leaves.items(), grads):
        put(f"{key}/grad/{name}", torch.zeros_like(leaf) if grad is None else grad)


def scalar(x):
    return torch.tensor(float(x))


def single_losses():
    for batch, classes in [(1, 2), (4, 5), (7, 10)]:
        for kind in ("normal", "extreme"):
            logits = extreme if kind == "extreme" else (lambda b, c: normal(b, c, scale=3.0))
            tag = f"{batch}x{classes}-{kind}"
            y, y2 = labels(batch, classes), labels(batch, classes)
            case(f"cross_entropy/{tag}", lambda logits, labels: cross_entropy(logits, labels),
                 logits=logits(batch, classes), labels=y)
            for per_sample in (False, True):
                case(f"mix_cross_entropy/{tag}-{'sample' if per_sample else 'batch'}",
                     lambda logits, labels, partner_labels, lam: mix_cross_entropy(logits, labels, partner_labels, lam),
                     logits=logits(batch, classes), labels=y, partner_labels=y2, lam=lambdas(batch, per_sample))
            targets = F.softmax(normal(batch, classes, scale=2.0), 1).float().double()
            case(f"soft_cross_entropy/{tag}", lambda logits, targets: soft_cross_entropy(logits, targets),
                 logits=logits(batch, classes), targets=targets)
            for temperature in (1.0, 3.0, 20.0):
                case(f"kl_divergence/{tag}-T{temperature:g}",
                     lambda student, teacher, temperature: kl(student, teacher, temperature),
                     student=logits(batch, classes), teacher=normal(batch, classes, scale=3.0),
                     temperature=scalar(temperature))
            for answers in (1, 2):
                d = (lambda: normal(batch, answers, scale=2.0)) if kind == "normal" else (
                    lambda: normal(batch, answers).sign() * 50.0)
                case(f"discriminator_loss/{tag}-{answers}",
                     lambda interpolated, mixed: discriminator_loss(interpolated, mixed),
                     interpolated=d(), mixed=d())
    for shape in [(1, 1, 1, 2), (3, 2, 2, 4), (5, 4, 4, 8)]:
        case(f"feature_mse/{'x'.join(map(str, shape))}", lambda a, b: feature_mse(a, b), a=normal(*shape), b=normal(*shape))



def objectives():
    variants = [
        # name, heads, batch, classes, answers, temperature, lambda per sample, weights
        ("mixskd", 4, 3, 5, 2, 3.0, False, [1, 1, 1, 1, 1, 1, 1]),
        ("reference-cifar", 4, 3, 5, 2, 3.0, False, [1, 0, 1, 1, 1, 0, 1]),
        ("weighted", 3, 6, 4, 1, 4.0, True, [0.5, 2, 0.25, 0.125, 1.5, 0.75, 3]),
        ("backbone-only", 1, 2, 3, 2, 1.0, True, [1, 1, 0, 0, 1, 1, 1]),
    ]
    for name, heads, batch, classes, answers, temperature, per_sample, weights in variants:
        pi = partner(batch)
        y = labels(batch, classes)
        t = {"labels": y, "partner_labels": y[pi], "lambda": lambdas(batch, per_sample),
             "temperature": scalar(temperature), "weights": torch.tensor([float(w) for w in weights])}
        for k in range(heads):
            for kind in ("original", "mixed", "interpolated"):
                t[f"{kind}.{k}"] = normal(batch, classes, scale=2.0)
            for kind in ("interpolated_features", "mixed_features"):
                t[f"{kind}.{k}"] = normal(batch, 2, 2, 3)
            for kind in ("discriminator_interpolated", "discriminator_mixed"):
                t[f"{kind}.{k}"] = normal(batch, answers)
        for kind in ("teacher_interpolated", "teacher_mixed"):
            t[kind] = normal(batch, classes, scale=2.0)

        def total(**t):
            parts = objective_parts(t, heads, t["temperature"])
            return sum(w * p for w, p in zip(weights, parts.values())), parts

        case(f"objective/{name}", total, **t)


if __name__ == "__main__":
    single_losses()
    objectives()
    folder = Path(__file__).parent
    save_file(STORE, folder / "losses.safetensors")
    print(f"{folder / 'losses.safetensors'}: {len(STORE)} tensors")
