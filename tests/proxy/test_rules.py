"""Which triggers and tasks an installation has, and what is refused at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from proxy import cli, hooks, rules
from proxy.config import Config, ConfigError, load
from scheduler import triggers
from scheduler.triggers import Trigger


def configured(tmp_path: Path, **given: Any) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(given))
    return load(str(path))


def table(config: Config) -> list[Trigger]:
    return rules.table(config, hooks.load(config.hooks))


def test_the_configuration_adds_to_what_is_built_in(tmp_path: Path) -> None:
    entry = {"event": "turn_finished", "task": "index", "priority": 2, "delay_s": 1, "debounce_s": "3"}
    found = table(configured(tmp_path, triggers=[entry]))
    assert found[-1] == Trigger("turn_finished", "index", 2, 1.0, 3.0)
    assert set(triggers.table(debounce_s=0.0)) < set(found)


def test_how_many_trainings_run_at_a_time_can_be_said_and_no_trigger_starts_one(tmp_path: Path) -> None:
    assert table(configured(tmp_path, executor={"limits": {"train": 1}}))
    with pytest.raises(ConfigError, match="no task 'train'"):
        table(configured(tmp_path, triggers=[{"event": "turn_finished", "task": "train"}]))


def test_learning_gathers_turns_only_when_a_model_is_called(tmp_path: Path) -> None:
    def wait(**extraction: Any) -> float:
        config = configured(tmp_path, extraction={"debounce_s": 9, **extraction})
        return next(rule.delay_s for rule in table(config) if rule.task == "learn")

    assert (wait(), wait(model="m")) == (0.0, 9.0)


def test_hooks_bring_tasks_and_triggers(tmp_path: Path) -> None:
    config = configured(tmp_path, hooks=["tests.hooks:Working"], triggers=[{"event": "feedback_given", "task": "work"}])
    assert [task.name for task in rules.tasks(hooks.load(config.hooks))] == ["work"]
    assert {rule.event for rule in table(config) if rule.task == "work"} == {
        "memory_written",
        "session_quiet",
        "feedback_given",
    }


@pytest.mark.parametrize(("given", "waits"), [(0, 30.0), (5, 30.0), (90, 90.0)])
def test_a_trigger_on_silence_waits_at_least_for_it(tmp_path: Path, given: float, waits: float) -> None:
    entry = {"event": "session_quiet", "task": "index", "debounce_s": given}
    found = table(configured(tmp_path, triggers=[entry], evolution={"quiet_s": 30}))
    assert found[-1].debounce_s == waits


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"triggers": [{"event": "sunrise", "task": "index"}]}, r"triggers\[0\]: there is no event 'sunrise'"),
        (
            {"triggers": [{"event": "turn_finished", "task": "dance"}]},
            "there is no task 'dance'; there are activate, close",
        ),
        ({"triggers": [{"event": "turn_finished", "task": "fuse"}]}, "there is no task 'fuse'"),
        ({"triggers": [{"event": "turn_finished", "task": "index", "delay_s": -1}]}, "delay_s must not be negative"),
        ({"triggers": [{"event": "clock", "task": "trim"}]}, "the event clock needs it"),
        ({"triggers": [{"event": "clock", "task": "trim", "evry_s": 1}]}, "evry_s"),
        ({"triggers": [{"task": "trim"}]}, "event"),
        ({"hooks": ["tests.hooks:Usurper"]}, "Usurper brings a task 'learn', but there is one already"),
        ({"hooks": ["tests.hooks:Working", "tests.hooks:Working"]}, "there is one already"),
        ({"hooks": ["tests.hooks:Lost"]}, "a trigger of Lost: there is no task 'nowhere'"),
        ({"hooks": ["tests.hooks:Confused"]}, "a trigger of Confused: there is no event 'sunrise'"),
        ({"extraction": {"calls_per_minute": -1}}, "extraction.calls_per_minute must not be negative"),
        ({"executor": {"keep_failed_days": -1}}, "executor.keep_failed_days must not be negative"),
        ({"executor": {"limits": {"learn": 0}}}, "executor.limits.learn: at least one job at a time, not 0"),
        ({"executor": {"limits": {"lern": 1}}}, "executor.limits: there is no task 'lern'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        table(configured(tmp_path, **given))


def test_the_program_says_so_before_it_starts_anything(data: Path) -> None:
    path = data / "config.yaml"
    path.write_text(yaml.safe_dump({"triggers": [{"event": "clock", "task": "dance", "every_s": 1}]}))
    for verb in ("serve", "check"):
        shown = CliRunner().invoke(cli.main, [verb, "--config", str(path), "--data", str(data)])
        assert shown.exit_code == 1
        assert "triggers[0]: there is no task 'dance'" in shown.output
