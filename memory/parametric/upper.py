"""Only the upper layers of a model are trained, so what the lower ones make of a text never changes: it is computed once and kept.

Raises Unsupported when the model cannot be cut so that it still says what it said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from memory.parametric.errors import Unsupported

_CHECK = tuple(range(5, 21))  # any tokens will do
_APART = 0.05  # share by which logits may differ, from rounding in another order


class _Reached(Exception):
    """The first of the upper layers was reached: nothing above it is computed."""


class Upper:
    """A causal model of transformers, cut below layer `first` (0: not at all). The model is changed in place."""

    def __init__(self, model: Any, first: int) -> None:
        self._first = first
        self._kept: dict[tuple[int, ...], torch.Tensor] = {}
        self._inner = model.get_decoder() if hasattr(model, "get_decoder") else model.model
        self._config = model.config
        layers = getattr(self._inner, "layers", None)
        if first == 0:
            return
        if layers is None or len(layers) <= first:
            raise Unsupported("the model's layers cannot be told apart")
        self._all, self._above = layers, torch.nn.ModuleList(layers[first:])
        self._types = getattr(self._config, "layer_types", None)
        with torch.no_grad():
            whole = model(input_ids=torch.tensor([_CHECK])).logits
            self._cut()
            again = self.logits(model, [_CHECK], keep=len(_CHECK))
        if not float((whole - again).abs().max()) <= _APART * float(whole.abs().max()):
            raise Unsupported("the model says something else when it is cut: train all layers (last_layers: 0)")
        self._kept.clear()

    def full_name(self, module: str) -> str:
        """The name of a module of the cut model in the whole one."""
        return re.sub(r"(\.layers\.)(\d+)", lambda m: f"{m[1]}{int(m[2]) + self._first}", module, count=1)

    def logits(self, model: Any, texts: Sequence[tuple[int, ...]], *, keep: int) -> torch.Tensor:
        """What `model` (the cut one, perhaps with an adapter) expects after each of the last `keep` tokens, shape
        (len(texts), keep, vocabulary). Texts end at the same place."""
        longest = max(len(text) for text in texts)
        mask = torch.zeros((len(texts), longest), dtype=torch.long)
        for row, text in enumerate(texts):
            mask[row, longest - len(text) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        common = {"attention_mask": mask, "position_ids": positions, "logits_to_keep": keep, "use_cache": False}
        if self._first == 0:
            ids = torch.zeros((len(texts), longest), dtype=torch.long)
            for row, text in enumerate(texts):
                ids[row, longest - len(text) :] = torch.tensor(text)
            return model(input_ids=ids, **common).logits
        hidden = [self._below(text) for text in texts]
        states = hidden[0].new_zeros((len(texts), longest, hidden[0].shape[1]))
        for row, one in enumerate(hidden):
            states[row, longest - len(one) :] = one
        return model(inputs_embeds=states, **common).logits

    def _below(self, text: tuple[int, ...]) -> torch.Tensor:
        """What the lower layers make of a text, shape (tokens, width)."""
        if text in self._kept:
            return self._kept[text]
        found: list[torch.Tensor] = []

        def reached(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.append(given[0] if given else named["hidden_states"])
            raise _Reached

        self._whole()
        hook = self._all[self._first].register_forward_pre_hook(reached, with_kwargs=True)
        try:
            with torch.no_grad():
                self._inner(input_ids=torch.tensor([text]), use_cache=False)
        except _Reached:
            pass
        finally:
            hook.remove()
            self._cut()
        self._kept[text] = found[0][0].clone()
        return self._kept[text]

    def _whole(self) -> None:
        self._inner.layers = self._all
        self._config.num_hidden_layers = len(self._all)
        if self._types is not None:
            self._config.layer_types = self._types

    def _cut(self) -> None:
        self._inner.layers = self._above
        self._config.num_hidden_layers = len(self._above)
        if self._types is not None:
            self._config.layer_types = self._types[self._first :]
