"""Runs the ONNX files of a samples folder through onnx's checker and onnxruntime.

python onnx_check.py SAMPLES ROWS
SAMPLES is what the example `samples` of mixskd-models wrote; ROWS gets a JSON list of {network, check, error, limit}. An error is
the largest difference from mixskd's own output, relative to its largest value, over all files of the network, for a batch of three and a
batch of one.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

samples, rows_file = map(pathlib.Path, sys.argv[1:])


def run(path, inputs):
    """The output's name and values for each of `inputs`, and the file's own metadata."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    assert session.get_inputs()[0].shape[0] == "batch", f"{path}: the batch is not free"
    properties = session.get_modelmeta().custom_metadata_map
    image = pixels_or_normalised(inputs, properties)
    return output.name, [session.run(None, {"image": part})[0] for part in (image, image[:1])]


def pixels_or_normalised(pixels, properties):
    if properties["normalized"] == "true":
        return pixels
    mean, std = (np.array(json.loads(properties[key]), np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    return (pixels - mean) / std


rows = []
for folder in sorted(path for path in samples.iterdir() if path.is_dir()):
    data = load_file(folder / "samples.safetensors")
    logits = data["logits"].astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = {"logits": logits, "probabilities": exponentials / exponentials.sum(axis=1, keepdims=True)}
    files = sorted(folder.glob("*.onnx"))
    assert files, f"{folder} holds no ONNX file"
    worst = 0.0
    for file in files:
        onnx.checker.check_model(str(file), full_check=True)
        name, (three, one) = run(str(file), data["pixels"])
        want = expected[name]
        for got, want in ((three, want), (one, want[:1])):
            assert got.shape == want.shape, f"{file}: {got.shape} instead of {want.shape}"
            error = np.abs(got - want).max() / np.abs(want).max()
            worst = max(worst, error if np.isfinite(error) else float("inf"))
    print(f"{folder.name}: {len(files)} files, onnxruntime within {worst:.1e}", flush=True)
    rows.append({"network": folder.name, "check": "onnxruntime", "error": float(worst), "limit": 1e-4})
rows_file.write_text(json.dumps(rows))
