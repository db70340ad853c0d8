"""What a saved state depends on besides its tokens: weights, template, settings, llama.cpp and the machine's kernels.

A field that differs is named when a file is refused, so they stand one by one. Context size, batch size and threads are not among
them: measured, they change nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memory.engine.settings import EngineSettings


def fingerprint(settings: EngineSettings, template: str, context: Mapping[str, Any], cache: Path) -> dict[str, Any]:
    """All of it. `cache`: a folder where the hash of large weights is remembered. Raises OSError."""
    return {
        "model": model_sha(settings.model_path, cache / "models.json"),
        "template": hashlib.sha256(template.encode("utf-8", "replace")).hexdigest(),
        "exact": settings.exact,
        **context,
    }


def model_sha(path: Path, cache: Path) -> str:
    """sha256 of the weights; read once for each path, size and time of change."""
    status = path.stat()
    name = f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
    try:
        known = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):
        known = {}
    if not isinstance(known, dict) or not isinstance(known.get(name), str):
        with path.open("rb") as file:
            known = {name: hashlib.file_digest(file, "sha256").hexdigest()}
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = cache.with_suffix(".tmp")
        temporary.write_text(json.dumps(known), "utf-8")
        temporary.replace(cache)
    return str(known[name])
