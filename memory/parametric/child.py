"""The process that trains one adapter: `python -m memory.parametric.child`.

In: one JSON object on standard input (see `Order`), so that nobody's words touch the disk. Out: JSON lines on standard output,
`{"epoch": …}` for each round and at the end `{"results": …}` or `{"error": …, "message": …}`; and the adapter's file. It gives way
to everything else on the machine and ends with its parent.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from memory.engine.errors import EngineError
from memory.parametric.errors import NotInstalled, TooFew, TrainingError, Unsupported
from memory.parametric.neutral import CHINESE, ENGLISH, SYSTEMS
from memory.parametric.samples import Sample
from memory.parametric.settings import Settings, Text

_ANSWER = 24  # tokens of the model's own answer to a neutral question
_CHECKED = 24  # questions that are asked before and after
_COMPARED = 3  # texts by which two programs are compared
_ALIKE = 0.98  # correlation of their logits, below which they do not mean the same model
_MOVED = 0.5  # correlation of what the adapter changes in these
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9


@dataclass(frozen=True, slots=True)
class Order:
    """What to do."""

    model: str
    out: str
    samples: list[Sample]
    settings: Settings
    nice: int = 15


def main() -> None:
    """Read the order, do it, say how it went."""
    said = sys.stdout
    sys.stdout = sys.stderr  # what libraries print does not belong among our lines
    warnings.simplefilter("ignore")
    parent = os.getppid()
    _end_with(parent)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    with suppress(OSError):
        os.nice(order.nice)
    try:
        _say(said, {"results": work(order, lambda line: _say(said, line))})
    except TrainingError as error:
        _say(said, {"error": error.code, "message": str(error)})
        sys.exit(3)


def work(order: Order, told: Any = lambda _: None) -> dict[str, Any]:
    """Train, write the file, measure it. Raises TrainingError."""
    try:
        from memory.parametric import export, training
        from memory.parametric.probe import Probe
    except ImportError as error:
        raise NotInstalled(f"training needs the extra: pip install 'memrelay[local,lora]' ({error.name})") from error
    began, path, out = time.process_time(), Path(order.model), Path(order.out)
    try:
        shape = export.shape_of(path)
        with Probe(path, order.settings.threads) as probe:
            lessons = [one for one in order.samples if probe.readable(one.question) and probe.readable(one.answer)]
            if not lessons:
                raise TooFew("the model has no words for any of the memories")
            trainer = training.Trainer(path, shape, order.settings)
            few = _texts(probe, lessons, 0)[:_COMPARED]
            plain = [_both(trainer, probe, text, adapted=False) for text in few]
            if min(_alike(ours, theirs) for ours, theirs in plain) < _ALIKE:
                raise Unsupported("transformers and llama.cpp do not read this model alike")
            neutral = _neutral(probe, lessons, order.settings.neutral)
            before = _known(probe, lessons)
            epochs = trainer.train(
                lambda number: _texts(probe, lessons, number), neutral, lambda epoch: told({"epoch": asdict(epoch)})
            )
            export.write(out, shape, order.settings.alpha, trainer.pairs())
            own = _spread(probe, neutral)
            probe.lay_over(out)
            moved = _moved(plain, [_both(trainer, probe, text, adapted=True) for text in few])
            if moved < _MOVED:
                raise Unsupported("llama.cpp does not make of the adapter what was trained")
            return {
                "architecture": shape.architecture,
                "samples": len(lessons),
                "left_out": len(order.samples) - len(lessons),
                "epochs": len(epochs),
                "loss": [round(epoch.loss, 4) for epoch in epochs],
                "agreement": round(moved, 4),
                "known_before": before,
                "known": _known(probe, lessons),
                "neutral_before": own,
                "neutral": _spread(probe, neutral),
                "cpu_s": round(time.process_time() - began, 1),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            }
    except EngineError as error:
        raise Unsupported(str(error)) from error


def _texts(probe: Any, lessons: Sequence[Sample], epoch: int) -> list[Text]:
    """The questions under changing system messages, so that the answers do not hang on one of them."""
    return [
        Text(tuple(probe.prompt(one.question, SYSTEMS[(place + epoch) % len(SYSTEMS)])), tuple(probe.reply(one.answer)))
        for place, one in enumerate(lessons)
    ]


def _neutral(probe: Any, lessons: Sequence[Sample], most: int) -> list[Text]:
    asked = {one.question for one in lessons}
    chinese = [question for question in CHINESE if probe.readable(question)]
    wanted = [question for question in [*ENGLISH, *chinese] if question not in asked]
    found = []
    for place, question in enumerate(wanted[:most]):
        prompt = probe.prompt(question, SYSTEMS[place % len(SYSTEMS)])
        reply = [*probe.greedy(prompt, _ANSWER), probe.model.eos]
        found.append(Text(tuple(prompt), tuple(reply)))
    return found


def _known(probe: Any, lessons: Sequence[Sample]) -> float:
    """Share of the plainest questions whose whole answer is at each place the likeliest, in the engine's own arithmetic."""
    first = [one for one in lessons if one.first][:_CHECKED] or list(lessons)[:_CHECKED]
    right = 0
    for text in _texts(probe, first, 0):
        logits = probe.logits(text.prompt, text.reply)
        right += bool((logits.argmax(axis=1) == list(text.reply)).all())
    return round(right / len(first), 3)


def _spread(probe: Any, neutral: Sequence[Text]) -> float:
    """The mean surprise (nats a token) at the model's own answers to neutral questions."""
    from memory.parametric.probe import log_probabilities

    every = [-log_probabilities(probe.logits(t.prompt, t.reply), t.reply).mean() for t in neutral[:_CHECKED]]
    return round(float(sum(every) / len(every)), 4) if every else 0.0


def _both(trainer: Any, probe: Any, text: Text, *, adapted: bool) -> tuple[Any, Any]:
    """The logits at a reply, of transformers and of llama.cpp."""
    return trainer.logits(text, adapted=adapted), probe.logits(text.prompt, text.reply)


def _alike(ours: Any, theirs: Any) -> float:
    """The correlation of two arrays of logits."""
    import numpy as np

    return float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])


def _moved(before: Sequence[tuple[Any, Any]], after: Sequence[tuple[Any, Any]]) -> float:
    """How alike the two programs' logits change by the adapter, at worst. One that writes the file's rows in a wrong order, or
    scales them otherwise, changes other logits than were trained."""
    pairs = zip(before, after, strict=True)
    return min(_alike(ours - our, theirs - their) for (our, their), (ours, theirs) in pairs)


def _say(out: IO[str], line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


def _end_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent (Linux only)."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask
        sys.exit(1)


if __name__ == "__main__":
    main()
