"""mem0 without a model, in a process and an interpreter of its own: one JSON object a line in, one out.

    PYTHON mem0_worker.py FOLDER WEIGHTS     (WEIGHTS: a folder with the embedding model; FOLDER: where mem0 keeps its data)

Knows nothing of memrelay, so that it runs wherever mem0 is installed. {"do": "add" | "fill", "user", "texts": [[key, text]]}
answers {"n"}; {"do": "search", "user", "text", "limit"} answers {"keys", "ms", "cpu_ms"}. `add` goes through mem0's own path,
one by one; `fill` puts the same rows into its store in batches.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def open_memory(folder: Path, weights: str) -> Any:
    """mem0 on a local Qdrant with the given embedding model."""
    os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder / "mem0"), "HF_HUB_OFFLINE": "1"}
    from mem0 import Memory

    store = {
        "path": str(folder / "qdrant"),
        "collection_name": "measured",
        "embedding_model_dims": 384,
        "on_disk": True,
    }
    return Memory.from_config(
        {
            "embedder": {"provider": "huggingface", "config": {"model": weights, "embedding_dims": 384}},
            "vector_store": {"provider": "qdrant", "config": store},
            "llm": {"provider": "openai", "config": {"api_key": "none"}},
            "history_db_path": str(folder / "history.db"),
        }
    )


def add(memory: Any, user: str, texts: list[list[str]]) -> dict[str, Any]:
    """Through mem0's own `add`, as it is without a model."""
    for key, text in texts:
        memory.add([{"role": "user", "content": text}], user_id=user, infer=False, metadata={"key": key})
    return {"n": len(texts)}


def fill(memory: Any, user: str, texts: list[list[str]]) -> dict[str, Any]:
    """The rows that `add` would write, in batches."""
    now = datetime.now(UTC).isoformat()
    for start in range(0, len(texts), 256):
        batch = texts[start : start + 256]
        vectors = memory.embedding_model.model.encode([text for _, text in batch], show_progress_bar=False)
        payloads = [
            {
                "data": text,
                "hash": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
                "created_at": now,
                "updated_at": now,
                "user_id": user,
                "role": "user",
                "key": key,
            }
            for key, text in batch
        ]
        ids = [str(uuid.uuid4()) for _ in batch]
        memory.vector_store.insert(vectors=[row.tolist() for row in vectors], payloads=payloads, ids=ids)
    return {"n": len(texts)}


def search(memory: Any, user: str, text: str, limit: int) -> dict[str, Any]:
    """One search with its embedding, timed."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = memory.search(text, filters={"user_id": user}, top_k=limit, threshold=0.0)["results"]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    keys = [(entry.get("metadata") or {}).get("key", "") for entry in found]
    return {"keys": keys, "ms": wall * 1000, "cpu_ms": cpu * 1000}


def main() -> None:
    """Answer until the input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # whatever mem0 prints must not stand between the answers
    memory = open_memory(Path(sys.argv[1]), sys.argv[2])
    work: dict[str, Callable[..., dict[str, Any]]] = {"add": add, "fill": fill, "search": search}
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(work[asked.pop("do")](memory, **asked)), file=out, flush=True)


if __name__ == "__main__":
    main()
