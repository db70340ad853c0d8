"""What every command is made of: its options, the configuration, and how it answers (for people, or one JSON object)."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click
from rich.console import Console

from proxy.config import Config, ConfigError, load


class Session:
    """What every command needs: the configuration and how to answer."""

    def __init__(self, config: Config, as_json: bool) -> None:
        self.config = config
        self.as_json = as_json
        self.console = Console(highlight=False)

    def answer(self, body: dict[str, Any], show: Callable[[Console], None] | None = None) -> None:
        """Print the JSON object, or what `show` prints for people."""
        if self.as_json:
            click.echo(json.dumps(body, ensure_ascii=False))
        elif show:
            show(self.console)


def fail(message: str) -> NoReturn:
    raise click.ClickException(message)


def command(group: click.Group, name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of `group` with the options that all commands share; its function gets a Session first."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.option("--config", "config_path", envvar="MEMRELAY_CONFIG", metavar="FILE", help="Configuration file.")
        @click.option("--data", envvar="MEMRELAY_DATA", metavar="DIR", help="Where everything lives.")
        @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")
        @functools.wraps(function)
        def run(config_path: str | None, data: str | None, as_json: bool, **given: Any) -> Any:
            try:
                config = load(config_path, data=data)
                logging.basicConfig(
                    level=config.logging.level.upper(),
                    format="%(asctime)s %(levelname)s %(name)s: %(message)s",
                    stream=sys.stderr,
                )
                for noisy in ("alembic", "dbos", "aiosqlite", "asyncio"):
                    logging.getLogger(noisy).setLevel(logging.WARNING)
                return function(Session(config, as_json), **given)
            except ConfigError as error:
                fail(str(error))

        return group.command(name)(run)

    return decorate
