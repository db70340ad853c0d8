"""A trained adapter as a GGUF file that llama.cpp lays over its model, and back.

One pair of matrices a layer's weight: A (rank, in) and B (out, rank); the change of the weight is (alpha / rank) · B · A. Raises
Unsupported for weights whose name in GGUF is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from memory.parametric.errors import Unsupported

Matrix = NDArray[np.float32]
_ROTATED = ("llama",)  # in these architectures GGUF stores the rows of q and k in another order than transformers
TRAINABLE = ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices of one weight, as transformers has them."""

    a: Matrix
    b: Matrix


@dataclass(frozen=True, slots=True)
class Shape:
    """What the model's file says of itself."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int


def shape_of(model: Path) -> Shape:
    """Read from the head of a GGUF file. Raises Unsupported."""
    try:
        fields = gguf.GGUFReader(model).fields
        name = str(fields["general.architecture"].contents())
        heads = int(fields[f"{name}.attention.head_count"].contents())
        kv = fields.get(f"{name}.attention.head_count_kv")
        return Shape(name, int(fields[f"{name}.block_count"].contents()), heads, int(kv.contents()) if kv else heads)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise Unsupported(f"the model file says too little of itself: {error}") from error


def gguf_name(shape: Shape, module: str) -> str | None:
    """What llama.cpp calls the weight of a module of transformers; None: it is none that can be trained."""
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    if shape.architecture not in kinds:
        return None
    names = gguf.get_tensor_name_map(kinds[shape.architecture], shape.layers)
    found = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
    return found if found and found.rpartition(".weight")[0].rpartition(".")[2] in TRAINABLE else None


def write(path: Path, shape: Shape, alpha: float, pairs: Mapping[str, Pair]) -> None:
    """Write the adapter: `pairs` by the name of the module in transformers."""
    out = gguf.GGUFWriter(path, arch=shape.architecture)
    out.add_string(gguf.Keys.General.TYPE, gguf.GGUFType.ADAPTER)
    out.add_string(gguf.Keys.Adapter.TYPE, "lora")
    out.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for module, pair in pairs.items():
        name = gguf_name(shape, module)
        if name is None:
            raise Unsupported(f"llama.cpp has no name for {module} of a {shape.architecture}")
        out.add_tensor(f"{name}.lora_a", pair.a.astype(np.float16))
        out.add_tensor(f"{name}.lora_b", _stored(shape, name, pair.b).astype(np.float16))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def read(path: Path, shape: Shape) -> tuple[float, dict[str, Pair]]:
    """(alpha, pairs by the weight's name in GGUF), rows as transformers has them."""
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: np.asarray(tensor.data, np.float32) for tensor in reader.tensors}
    found = {}
    for name, a in tensors.items():
        weight, kind = name.rsplit(".", 1)
        if kind == "lora_a":
            found[weight] = Pair(a, _loaded(shape, weight, tensors[f"{weight}.lora_b"]))
    return float(reader.fields[gguf.Keys.Adapter.LORA_ALPHA].contents()), found


def _heads(shape: Shape, name: str) -> int:
    """Heads whose rows are reordered; 0: none."""
    if shape.architecture not in _ROTATED:
        return 0
    return shape.heads if ".attn_q." in name else shape.kv_heads if ".attn_k." in name else 0


def _stored(shape: Shape, name: str, b: Matrix) -> Matrix:
    """In each head: first all even rows of the rotation and then the odd ones become pairs side by side."""
    heads = _heads(shape, name)
    if not heads:
        return b
    return b.reshape(heads, 2, b.shape[0] // heads // 2, b.shape[1]).swapaxes(1, 2).reshape(b.shape)


def _loaded(shape: Shape, name: str, b: Matrix) -> Matrix:
    heads = _heads(shape, name)
    if not heads:
        return b
    return b.reshape(heads, b.shape[0] // heads // 2, 2, b.shape[1]).swapaxes(1, 2).reshape(b.shape)
