"""One training step in PyTorch on a GPU: the peer of `gpu-check`, which hands `network.py` and this text after it to a Python.

--mode eager: float32 as PyTorch has it by default (TensorFloat-32 in convolutions), channels first, kernel by kernel, as the authors' script trains.
--mode best: bfloat16 autocast, channels last, torch.compile with CUDA graphs, fused SGD; where compiling fails the same without it.
Writes one JSON object: seconds_per_step (median, synchronised), gpu_memory_bytes (in use on the GPU after the last step), compiled,
graph_skips (parts of the step that Inductor kept out of CUDA graphs), notices.

usage: step_gpu.py [--model NAME] [--method ce|mixskd] [--batch N] [--size N] [--classes N] [--steps N] [--mode eager|best]
"""

import argparse
import gc
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F


def measure(args, compiled):
    torch.manual_seed(0)
    device = torch.device("cuda")
    best = args.mode == "best"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = best
    # cudnn.allow_tf32 is left as PyTorch has it, on.
    block, layers = KINDS[args.model[-2:]]
    net = Network(block, layers, args.model.startswith("cifar"), 1.0, args.classes, args.method == "mixskd").to(device)
    x = torch.randn(args.batch, 3, args.size, args.size, device=device)
    if best:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    y = torch.randint(0, args.classes, (args.batch,), device=device)
    lam = torch.tensor(0.3, device=device)
    perm = torch.randperm(args.batch, device=device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True if best else None)

    def loss_of(x, y, lam, perm):
        with torch.autocast("cuda", torch.bfloat16, enabled=best):
            if args.method == "mixskd":
                return mixskd_loss(net, x, y, lam, perm)
            return F.cross_entropy(net(x)[1][0], y)

    if compiled:
        import torch._inductor.config as inductor

        # What was compiled may be kept from another process; which of several kernels is the fastest is tried out in this one, which has the GPU to itself.
        inductor.autotune_local_cache = False
        loss_of = torch.compile(loss_of, mode="reduce-overhead")

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y, lam, perm)
        loss.backward()
        optimizer.step()
        # As in training: the loss is read once a step.
        return loss.item()

    for _ in range(10):
        step()
    seconds = []
    for _ in range(args.steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    free, total = torch.cuda.mem_get_info()
    skips = 0
    if compiled:
        from torch._dynamo.utils import counters

        # A step that Inductor kept out of CUDA graphs is not PyTorch at its best.
        skips = counters["inductor"]["cudagraph_skips"]
    return {"seconds_per_step": statistics.median(seconds), "seconds": seconds, "gpu_memory_bytes": total - free, "compiled": compiled, "graph_skips": skips}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="cifar_resnet18")
    parser.add_argument("--method", choices=["ce", "mixskd"], default="mixskd")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--mode", choices=["eager", "best"], default="best")
    args = parser.parse_args()
    report = failure = None
    if args.mode == "best":
        try:
            report = measure(args, True)
        except Exception as error:  # a machine without a C compiler, for one
            failure = f"torch.compile failed: {error}"
            print(failure, file=sys.stderr)
    if failure:
        # Of the attempt nothing is to be left in memory.
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()
    if report is None:
        report = measure(args, False)
    report["notices"] = [failure] if failure else []
    report["torch"] = torch.__version__
    report["gpu"] = torch.cuda.get_device_name()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
