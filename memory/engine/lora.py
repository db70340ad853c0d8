"""An adapter file laid over a model. It counts for a whole context: every row of a batch is computed with it.

Who may use which file is not known here. Raises EngineError when llama.cpp refuses the file.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from llama_cpp import llama_cpp as lib

from memory.engine.errors import EngineError
from memory.engine.llama import Context, Model


class Adapter:
    """One file, loaded. Must be closed before its model."""

    def __init__(self, model: Model, path: Path) -> None:
        self._handle = lib.llama_adapter_lora_init(model.handle, str(path).encode())
        if not self._handle:
            raise EngineError("llama.cpp cannot use the adapter")

    def close(self) -> None:
        """Free it. No context may go on with it."""
        lib.llama_adapter_lora_free(self._handle)

    def lay_over(self, context: Context, scale: float) -> None:
        """Decode with this adapter from now on."""
        handles = (lib.llama_adapter_lora_p_ctypes * 1)(self._handle)
        if lib.llama_set_adapters_lora(context.handle, handles, 1, (ctypes.c_float * 1)(scale)):
            raise EngineError("llama.cpp refuses the adapter")


def take_off(context: Context) -> None:
    """Decode with the model alone from now on."""
    if lib.llama_set_adapters_lora(context.handle, None, 0, None):
        raise EngineError("llama.cpp keeps its adapter")
