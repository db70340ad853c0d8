"""Statements that are made once, run by sqlite3 itself: SQLAlchemy compiles each of them once, and its types turn values to and
fro, but of what it does at every execution nothing remains (docs/LOG.md has what that takes).

A list for an expanding parameter is filled up to a power of two with its last value, so that a statement has few spellings.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql import visitors

S = TypeVar("S", bound=sa.Executable)
_LONGEST = 1024  # values for one parameter; longer lists are SQLAlchemy's
_EXPANDED = re.compile(r"__\[POSTCOMPILE_(\w+)\]")
_Convert = Callable[[Any], Any] | None
_Shape = tuple[frozenset[str], tuple[tuple[str, int], ...]]


def made_once(statement: S) -> S:
    """Mark a statement that is made when its module is loaded and given its values at each execution."""
    return statement.execution_options(made_once=True)


@dataclass(frozen=True, slots=True)
class Changed:
    """What a statement that gives no rows has done."""

    rowcount: int


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as sqlite3 takes it. `binds`: for each place the parameter's name (with a place in its list, or -1), what turns
    its value, and the value it has when none is given."""

    sql: str
    binds: tuple[tuple[str, int, _Convert, Any], ...]
    metadata: SimpleResultMetaData | None
    converts: tuple[tuple[int, Callable[[Any], Any]], ...]

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        out = []
        for name, place, convert, usual in self.binds:
            value = parameters.get(name, usual)
            if place >= 0:
                value = value[min(place, len(value) - 1)]
            out.append(value if convert is None else convert(value))
        return out

    def rows(self, found: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        if not self.converts:
            return found
        out = []
        for row in found:
            values = list(row)
            for place, convert in self.converts:
                values[place] = convert(values[place])
            out.append(tuple(values))
        return out


class Prepared:
    """The statements of one database file."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[sa.Executable, dict[_Shape, _Text | None]] = WeakKeyDictionary()
        self._lists: WeakKeyDictionary[sa.Executable, tuple[str, ...]] = WeakKeyDictionary()

    def run(self, connection: sa.Connection, statement: sa.Executable, parameters: Mapping[str, Any]) -> Any:
        """Its rows (a Result) or what it has changed; in the transaction that the connection is in. Raises as SQLAlchemy does."""
        text = self._text(connection.dialect, statement, parameters)
        if text is None:
            return connection.execute(statement, dict(parameters))
        changed, found = driver(connection, text.sql, text.values(parameters))
        if text.metadata is None:
            return Changed(changed)
        return IteratorResult(text.metadata, iter(text.rows(found)))

    def rows(
        self, connection: sa.Connection, statement: sa.Executable, parameters: Mapping[str, Any]
    ) -> Sequence[sa.Row[Any]]:
        """What one that reads gives, without a Result around it."""
        text = self._text(connection.dialect, statement, parameters)
        if text is None or text.metadata is None:
            rows: Sequence[sa.Row[Any]] = connection.execute(statement, dict(parameters)).all()
            return rows
        found = text.rows(driver(connection, text.sql, text.values(parameters))[1])
        named = text.metadata._key_to_index
        return [sa.Row(text.metadata, None, named, values) for values in found]

    def _text(self, dialect: sa.Dialect, statement: sa.Executable, parameters: Mapping[str, Any]) -> _Text | None:
        """None: SQLAlchemy has to run it."""
        lists = self._lists.get(statement)
        if lists is None:
            every = visitors.iterate(statement)  # type: ignore[arg-type]  # every statement is a ClauseElement
            lists = tuple({b.key for b in every if isinstance(b, sa.BindParameter) and b.expanding})
            self._lists[statement] = lists
        sizes = []
        for name in lists:
            size = len(parameters.get(name, ()))
            if not 0 < size <= _LONGEST:
                return None
            sizes.append((name, 1 << (size - 1).bit_length()))
        shape = (frozenset(parameters), tuple(sizes))
        known = self._known.setdefault(statement, {})
        if shape not in known:
            known[shape] = _compiled(dialect, statement, shape)
        return known[shape]


def _compiled(dialect: sa.Dialect, statement: Any, shape: _Shape) -> _Text | None:
    names, sizes = shape
    columns = sorted(names) if statement.is_dml else None
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    lengths = dict(sizes)
    if compiled.insert_prefetch or compiled.update_prefetch or compiled.literal_execute_params:
        return None
    text = _EXPANDED.sub(lambda found: ", ".join("?" * lengths.get(found[1], 0)), compiled.string)
    if "POSTCOMPILE" in text:
        return None
    binds = []
    for name in compiled.positiontup or ():
        bind = compiled.binds[name]
        convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
        usual = None if bind.required or bind.expanding else bind.effective_value
        places = range(lengths[bind.key]) if bind.expanding else (-1,)
        binds += [(bind.key, place, convert, usual) for place in places]
        if bind.required and bind.key not in names:
            return None  # SQLAlchemy says what is missing
    if not (statement.is_select or compiled.effective_returning):
        return _Text(text, tuple(binds), None, ())
    given = statement.exported_columns
    processors = [c.type.dialect_impl(dialect).result_processor(dialect, None) for c in given]
    converts = tuple((i, convert) for i, convert in enumerate(processors) if convert is not None)
    return _Text(text, tuple(binds), SimpleResultMetaData(given.keys()), converts)


def driver(connection: sa.Connection, text: str, values: Sequence[Any] = ()) -> tuple[int, list[tuple[Any, ...]]]:
    """(rows changed, rows found) of what sqlite3 is told as it stands. Raises as SQLAlchemy does."""
    raw = connection.connection.dbapi_connection
    if raw is None:
        raise sa.exc.InvalidRequestError("the connection is closed")
    try:
        cursor = raw.execute(text, values)
        return cursor.rowcount, cursor.fetchall()
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError.instance(
            None, None, error, sqlite3.Error, hide_parameters=True, dialect=connection.dialect
        ) from error
