"""Which triggers and tasks an installation has: the built-in ones, those of the configuration, those that hooks bring.

In: the configuration and the loaded hooks. Out: one table, or a ConfigError that says which entry is wrong and why.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.config import Config, ConfigError
from proxy.hooks import Hook
from proxy.upstreams.port import KEEPS_STATES
from scheduler import triggers
from scheduler.jobs import Task
from scheduler.triggers import Trigger

_TRAINS = frozenset({"train"})  # by its own look-out: its jobs stand beside a cube's, so no trigger can start it
_ASKED_FOR = frozenset({"fuse"})  # needs arguments that only a request can give


def tasks(hooks: Sequence[Hook]) -> list[Task]:
    """The tasks that hooks bring. Raises ConfigError."""
    found: dict[str, Task] = {}
    for hook in hooks:
        for task in hook.tasks():
            where = f"hooks: {type(hook).__name__} brings a task {task.name!r}"
            if not task.name.isidentifier():
                raise ConfigError(f"{where}; names are letters, digits and _")
            if task.name in triggers.built_in_tasks() | _TRAINS or task.name in found:
                raise ConfigError(f"{where}, but there is one already")
            found[task.name] = task
    return list(found.values())


def table(config: Config, hooks: Sequence[Hook]) -> list[Trigger]:
    """Every trigger. Raises ConfigError."""
    known = triggers.built_in_tasks() | {task.name for task in tasks(hooks)}
    for name in config.executor.limits:
        if name not in known | _TRAINS:
            raise ConfigError(f"executor.limits: there is no task {name!r}; there are {', '.join(sorted(known))}")
    debounce_s = config.extraction.debounce_s if config.extraction.model else 0.0
    quiet_s = config.evolution.quiet_s
    activates = any(upstream.kind in KEEPS_STATES for upstream in config.upstreams)
    rules = triggers.table(debounce_s=debounce_s, quiet_s=quiet_s, activates=activates)
    for number, entry in enumerate(config.triggers):
        where = f"triggers[{number}]"
        try:
            rule = Trigger(entry.event, entry.task, entry.priority, entry.delay_s, entry.debounce_s, entry.every_s)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        rules.append(_fitting(rule, known, quiet_s, where))
    for hook in hooks:
        where = f"hooks: a trigger of {type(hook).__name__}"
        try:
            brought = list(hook.triggers())
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        rules += [_fitting(rule, known, quiet_s, where) for rule in brought]
    return rules


def _fitting(rule: Trigger, known: frozenset[str], quiet_s: float, where: str) -> Trigger:
    """A trigger on silence waits for it: `debounce_s` is 0 for `quiet_s`, or longer. Raises ConfigError."""
    if rule.task not in known - _ASKED_FOR:
        raise ConfigError(f"{where}: there is no task {rule.task!r}; there are {', '.join(sorted(known - _ASKED_FOR))}")
    if rule.event != triggers.SESSION_QUIET:
        return rule
    wait = max(quiet_s, rule.debounce_s)
    return Trigger(rule.event, rule.task, rule.priority, rule.delay_s, wait)
