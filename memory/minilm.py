"""The default model in two forms, built from its weights: rounded for the compiled pass (minilm.cpp), and as one ONNX graph for
where that cannot run: 70 nodes, where a traced export has 344 that mostly move shapes.

BERT (Devlin and others, 2019) as sentence-transformers runs it: six layers, twelve heads, mean pooling, unit length. Weights are
int8 with a scale per output (per word in the table of words); activations are rounded as they come: each word piece's by itself
in the compiled pass, in the graph those of a whole batch together (onnxruntime's DynamicQuantizeMatMul). Word pieces leave it
projected on the main axes (memory/late.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory import compiled

Array = NDArray[Any]
LAYERS = 6
HEADS = 12
WIDTH = 384
_ASKED = ("query", "key", "value")
_EPSILON = 1e-12  # of the layer norms, as the model was trained
_MICROSOFT = "com.microsoft"  # operators of onnxruntime that stand for several of the standard ones


def write(weights: Path, axes: NDArray[np.float32], target: Path) -> None:
    """Write the graph to `target`: `input_ids`, `attention_mask` (batch, length) int64 → `embedding` (batch, 384) and `pieces`
    (batch, length, axes) float32, both of unit length. `weights`: the model's folder; `axes`: (384, axes)."""
    import onnx
    from safetensors.numpy import load_file

    onnx.save(_Graph(load_file(weights / "model.safetensors")).model(axes), target)


def write_rounded(weights: Path, axes: NDArray[np.float32], target: Path) -> None:
    """Write what the compiled pass reads to `target`; arguments as of `write`."""
    from safetensors.numpy import load_file, save_file

    arrays = _in_order(load_file(weights / "model.safetensors"), axes)
    save_file({f"{n:03}": np.ascontiguousarray(array) for n, array in enumerate(arrays)}, target)


def read_rounded(path: Path, *, tiles: bool = True) -> compiled.Pass | None:
    """The compiled pass with the weights that `write_rounded` has written; None where it cannot run, see compiled.Pass.of."""
    from safetensors.numpy import load_file

    if not compiled.is_built():
        return None
    found = load_file(path)
    arrays = [found[name] for name in sorted(found)]
    return compiled.Pass.of(arrays, arrays[_AXES].shape[1], tiles=tiles)


_AXES = 3  # the place of the axes in what follows


def _in_order(weights: Mapping[str, Array], axes: NDArray[np.float32]) -> Iterator[Array]:
    """As minilm.cpp reads them."""
    yield from _rounded(weights["embeddings.word_embeddings.weight"], axis=1)
    yield _places(weights)
    yield axes
    yield from _norm(weights, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."
        at = f"{name}attention."
        yield from _linear(weights, [f"{at}self.{part}" for part in _ASKED])
        yield from _linear(weights, [f"{at}output.dense"])
        yield from _norm(weights, f"{at}output.LayerNorm")
        yield from _linear(weights, [f"{name}intermediate.dense"])
        yield from _linear(weights, [f"{name}output.dense"])
        yield from _norm(weights, f"{name}output.LayerNorm")


def _linear(weights: Mapping[str, Array], names: Sequence[str]) -> tuple[Array, Array, Array]:
    """(weights (inputs, outputs) as int8, scale, bias): one product for all layers that read the same."""
    small, scale = _rounded(np.concatenate([weights[f"{name}.weight"].T for name in names], axis=1), axis=0)
    return small, scale[0], np.concatenate([weights[f"{name}.bias"] for name in names])


def _norm(weights: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _places(weights: Mapping[str, Array]) -> Array:
    """Of each place in a text; all pieces are of the first sentence."""
    found: Array = (
        weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    )
    return found


class _Graph:
    """Nodes and constants as they are added; a tensor goes by its name."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self, axes: NDArray[np.float32]) -> Any:
        """The whole graph as an onnx.ModelProto."""
        from onnx import TensorProto, helper

        self._op("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        hidden = self._words(TensorProto.FLOAT)
        for layer in range(LAYERS):
            hidden = self._layer(hidden, f"encoder.layer.{layer}.")
        self._op("Cast", ["attention_mask"], "counted", to=TensorProto.FLOAT)
        second = self._constant("second", np.array([1], np.int64))
        self._op("Unsqueeze", ["counted", second], "counts")
        self._op("MatMul", ["counts", hidden], "sum")  # the mean, but for its length
        self._op("Squeeze", ["sum", second], "summed")
        self._op("LpNormalization", ["summed"], "embedding", axis=-1, p=2)
        self._op("MatMul", [hidden, self._constant("axes", axes)], "projected")
        self._op("LpNormalization", ["projected"], "pieces", axis=-1, p=2)
        table = helper.make_tensor_value_info
        taken = [table(name, TensorProto.INT64, ["batch", "length"]) for name in ("input_ids", "attention_mask")]
        given = [
            table("embedding", TensorProto.FLOAT, ["batch", WIDTH]),
            table("pieces", TensorProto.FLOAT, ["batch", "length", axes.shape[1]]),
        ]
        graph = helper.make_graph(self._nodes, "minilm", taken, given, self._constants)
        sets = [helper.make_opsetid("", 18), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=sets, ir_version=9)

    def _words(self, floats: int) -> str:
        """Each word piece's vector, with its place's."""
        table = self._weights["embeddings.word_embeddings.weight"]
        small, scale = _rounded(table, axis=1)
        self._op("Gather", [self._constant("words", small), "input_ids"], "words.small")
        self._op("Cast", ["words.small"], "words.float", to=floats)
        self._op("Gather", [self._constant("words.scale", scale), "input_ids"], "words.scales")
        self._op("Mul", ["words.float", "words.scales"], "words.found")
        self._op("Shape", ["input_ids"], "length", start=1, end=2)
        first = self._constant("first", np.array([0], np.int64))
        self._op("Slice", [self._constant("places", _places(self._weights)), first, "length"], "places.found")
        self._op("Add", ["words.found", "places.found"], "placed")
        norm = self._norm("embeddings.LayerNorm")
        return self._op("LayerNormalization", ["placed", *norm], "embedded", axis=-1, epsilon=_EPSILON)

    def _layer(self, hidden: str, name: str) -> str:
        at = f"{name}attention."
        asked = self._linear(hidden, [f"{at}self.{part}" for part in _ASKED])
        parts = [f"{name}{part}" for part in _ASKED]
        self._op("Split", [asked], parts, axis=2, num_outputs=3)
        self._op("MultiHeadAttention", [*parts, "", "mask"], f"{name}heads", _MICROSOFT, num_heads=HEADS)
        hidden = self._beside(self._linear(f"{name}heads", [f"{at}output.dense"]), hidden, f"{at}output.LayerNorm")
        wide = self._linear(hidden, [f"{name}intermediate.dense"])
        self._op("Gelu", [wide], f"{name}gelu", _MICROSOFT)
        return self._beside(self._linear(f"{name}gelu", [f"{name}output.dense"]), hidden, f"{name}output.LayerNorm")

    def _linear(self, source: str, names: Sequence[str]) -> str:
        """One product for all layers that read the same."""
        small, scale, bias = _linear(self._weights, names)
        name = names[0]
        given = {"small": small, "scale": scale, "zero": np.zeros(len(bias), np.int8), "bias": bias}
        constants = [self._constant(f"{name}.{key}", value) for key, value in given.items()]
        return self._op("DynamicQuantizeMatMul", [source, *constants], f"{name}.out", _MICROSOFT)

    def _beside(self, source: str, hidden: str, norm: str) -> str:
        given = [source, hidden, *self._norm(norm)]
        return self._op("SkipLayerNormalization", given, f"{norm}.out", _MICROSOFT, epsilon=_EPSILON)

    def _norm(self, name: str) -> list[str]:
        parts = zip(("weight", "bias"), _norm(self._weights, name), strict=True)
        return [self._constant(f"{name}.{part}", value) for part, value in parts]

    def _constant(self, name: str, value: Array) -> str:
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _op(self, kind: str, given: Sequence[str], out: str | list[str], domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        outputs = [out] if isinstance(out, str) else out
        self._nodes.append(helper.make_node(kind, list(given), outputs, domain=domain, **attributes))
        return outputs[0]


def _rounded(values: Array, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(int8, scale along the other axis): symmetric, so that zero stays zero."""
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True), 1e-12) / 127.0
    return np.round(values / scale).astype(np.int8), scale.astype(np.float32)
