"""Questions and answers into a model's weights: low-rank adapters (LoRA) on a frozen model, trained on the CPU.

Two things are asked of each step: that the answers become likely, and that on neutral questions the model goes on saying what
it says without the adapter (its own answers, by Kullback-Leibler divergence over its likeliest tokens). It ends when the answers
are known, or after `epochs`. The same seed, samples and machine give the same weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from memory.parametric.errors import Unsupported
from memory.parametric.export import Pair, Shape, gguf_name
from memory.parametric.settings import Settings, Text
from memory.parametric.upper import Upper

_TOP = 64  # likeliest tokens that the divergence looks at; the others count as one
_PAD = -100


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one round over all samples came to: the mean loss of an answer's token, and the mean divergence."""

    number: int
    loss: float
    divergence: float


class Trainer:
    """A model file read by transformers, with an adapter that does nothing yet. Raises Unsupported."""

    def __init__(self, path: Path, shape: Shape, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self._settings = settings
        plain = _load(path, shape)
        first = max(0, shape.layers - settings.last_layers) if settings.last_layers else 0
        self._upper = Upper(plain, first)
        linear = (name for name, module in plain.named_modules() if isinstance(module, torch.nn.Linear))
        names = [name for name in linear if gguf_name(shape, name)]
        if not names:
            raise Unsupported(f"no weight of a {shape.architecture} model can be trained")
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=names,
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
        )
        self._model = get_peft_model(plain, config)

    def train(
        self,
        samples: Callable[[int], Sequence[Text]],
        neutral: Sequence[Text],
        seen: Callable[[Epoch], None] = lambda _: None,
    ) -> list[Epoch]:
        """Train. `samples(epoch)` are the texts of a round: the same questions, perhaps under other system messages."""
        settings = self._settings
        shuffled = random.Random(settings.seed)
        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=settings.rate, weight_decay=0.0)
        own = self._own(neutral) if settings.keep else []
        done: list[Epoch] = []
        for number in range(settings.epochs):
            batches = _batches(samples(number), settings.batch, shuffled)
            rate = settings.rate * max(0.2, 1 - number / settings.epochs)
            loss_sum = spread_sum = 0.0
            for place, batch in enumerate(batches):
                for group in optimiser.param_groups:
                    group["lr"] = rate * (min(1.0, (place + 1) / 5) if number == 0 else 1.0)
                total = loss = functional.cross_entropy(*self._replies(batch))
                if own:
                    spread = self._divergence(*own[(number * len(batches) + place) % len(own)])
                    total = loss + settings.keep * spread
                    spread_sum += float(spread.detach())
                optimiser.zero_grad(set_to_none=True)
                total.backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimiser.step()
                loss_sum += float(loss.detach())
            done.append(Epoch(number, loss_sum / len(batches), spread_sum / len(batches)))
            seen(done[-1])
            if done[-1].loss < settings.enough:
                break
        return done

    def pairs(self) -> dict[str, Pair]:
        """The trained matrices, by the name of the module in transformers."""
        found = {}
        for name, module in self._model.named_modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                plain = self._upper.full_name(name.removeprefix("base_model.model."))
                found[plain] = Pair(a.detach().float().numpy(), b.detach().float().numpy())
        return found

    def logits(self, text: Text, *, adapted: bool = True) -> Any:
        """What is expected at each token of the reply: a float32 array of shape (len(reply), vocabulary)."""
        with torch.no_grad(), nullcontext() if adapted else self._model.disable_adapter():
            return self._replies([text])[0].float().numpy()

    def _replies(self, batch: Sequence[Text]) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits at all tokens of all replies, those tokens)"""
        reply = max(len(text.reply) for text in batch)
        targets = torch.full((len(batch), reply), _PAD)
        for row, text in enumerate(batch):  # to the right, so that all replies end at the same place
            targets[row, reply - len(text.reply) :] = torch.tensor(text.reply)
        wanted = targets != _PAD
        out = self._upper.logits(self._model, [text.prompt + text.reply for text in batch], keep=reply + 1)
        return out[:, :-1][wanted].float(), targets[wanted]

    def _own(self, neutral: Sequence[Text]) -> list[tuple[Sequence[Text], torch.Tensor, torch.Tensor]]:
        """Batches of neutral texts, with the model's own likeliest tokens there and their probabilities."""
        found: list[tuple[Sequence[Text], torch.Tensor, torch.Tensor]] = []
        with torch.no_grad(), self._model.disable_adapter():
            for batch in _batches(neutral, max(2, self._settings.batch // 2), None):
                logits, _ = self._replies(batch)
                top = logits.log_softmax(-1).topk(min(_TOP, logits.shape[-1]))
                found.append((batch, top.indices, _with_rest(top.values)))
        return found

    def _divergence(self, batch: Sequence[Text], top: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        logits, _ = self._replies(batch)
        now = _with_rest(logits.log_softmax(-1).gather(1, top))
        return functional.kl_div(now, own, log_target=True, reduction="batchmean")


def _load(path: Path, shape: Shape) -> Any:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        plain = transformers.AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype=_fastest(), local_files_only=True
        )
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise Unsupported(f"transformers cannot read a {shape.architecture} model from GGUF: {error}") from error
    plain.config.use_cache = False
    return plain.eval()


def _with_rest(top: torch.Tensor) -> torch.Tensor:
    """Log-probabilities with one more column: all other tokens together."""
    rest = (1 - top.exp().sum(-1, keepdim=True)).clamp(min=1e-6).log()
    return torch.cat([top, rest], -1)


def _batches(texts: Sequence[Text], size: int, shuffled: random.Random | None) -> list[list[Text]]:
    """Texts of like length together, the batches in a new order each time."""
    order = list(texts)
    if shuffled:
        shuffled.shuffle(order)
    order.sort(key=lambda text: (len(text.prompt) + len(text.reply)) // 8)
    found = [order[start : start + size] for start in range(0, len(order), size)]
    if shuffled:
        shuffled.shuffle(found)
    return found


def _fastest() -> torch.dtype:
    """bfloat16 where the processor multiplies it itself (twice as fast here), else float32."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    known = any(getattr(torch.cpu, name, lambda: False)() for name in asked)
    return torch.bfloat16 if known else torch.float32
