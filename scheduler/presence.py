"""Which executors live, and which of them has which cube: two tables beside the queue's own, so that several executors, on one
machine or many, take over a dead one's jobs and never work on the same cube at once.

An executor says every few seconds that it lives, by a number that grows. It is dead when that number has stood still for TTL_S by
the clock of the one who looks (no two machines' clocks are compared), or at once when it ran on this machine and its process is
gone. The first who finds it dead takes its licence away (see Licences), so that it can change nothing any more, and strikes it out
with its leases; one that was only stalled finds itself struck out at its next beat, and must stop. Every call blocks; they are
for a thread.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy import Column, Index, Integer, MetaData, String, Table

BEAT_S = 3.0
TTL_S = 15.0
metadata = MetaData()
executors = Table(
    "memrelay_executors",
    metadata,
    Column("id", String, primary_key=True),
    Column("beat", Integer, nullable=False),  # grows while it lives
    Column("place", String, nullable=False),  # machine, since when it runs, process, since when that runs
)
leases = Table(  # who works on which cube
    "memrelay_leases",
    metadata,
    Column("cube", String, primary_key=True),
    Column("executor", String, nullable=False),
    Index("memrelay_leases_executor", "executor"),
)


class StruckOut(Exception):
    """This executor was taken for dead, and others have its jobs."""


class Licences(Protocol):
    """What executors need to write, kept where they write. An executor without its licence cannot change anything."""

    async def grant(self, executor: str) -> None:
        """Let this process write, under this name."""
        ...

    async def revoke(self, executor: str) -> None:
        """That one writes no more, from when this returns on; raises when that is not sure."""
        ...


class Presence:
    """One executor's view of all of them. `revoke` takes a licence away before what it was for is given to others."""

    def __init__(
        self,
        engine: sa.Engine,
        name: str,
        clock: Callable[[], float] = time.monotonic,
        revoke: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._engine = engine
        self._name = name
        self._clock = clock
        self._revoke = revoke
        self._seen: dict[str, tuple[int, float]] = {}  # executor → its beat, and when we first saw that

    def arrive(self) -> None:
        """Be there from now on."""
        metadata.create_all(self._engine)
        with self._engine.begin() as connection:
            connection.execute(sa.insert(executors).values(id=self._name, beat=0, place=_place(os.getpid())))

    def beat(self) -> list[str]:
        """Say that we live; strike out who does not, and return their names. Raises StruckOut."""
        with self._engine.begin() as connection:
            here = sa.update(executors).where(executors.c.id == self._name)
            if connection.execute(here.values(beat=executors.c.beat + 1)).rowcount == 0:
                raise StruckOut(self._name)
            others = connection.execute(sa.select(executors).where(executors.c.id != self._name)).all()
        now, dead = self._clock(), []
        for other in others:
            beat, since = self._seen.get(other.id, (-1, now))
            if beat != other.beat:
                self._seen[other.id] = (other.beat, now)
            if _is_gone(other.place) or (beat == other.beat and now - since > TTL_S):
                dead.append(other.id)
        return [name for name in dead if self._strike(name)]

    def living(self) -> set[str]:
        """Who is not struck out, ourselves among them."""
        with self._engine.connect() as connection:
            return {row.id for row in connection.execute(sa.select(executors.c.id)).all()}

    def take(self, cube: str) -> bool:
        """Have the cube to ourselves; False: another executor has it."""
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(leases).values(cube=cube, executor=self._name))
            return True
        except sa.exc.IntegrityError:
            with self._engine.connect() as connection:
                row = connection.execute(sa.select(leases.c.executor).where(leases.c.cube == cube)).first()
            return row is not None and row.executor == self._name

    def give_back(self, cube: str) -> None:
        """Let others have the cube."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(leases).where(leases.c.cube == cube, leases.c.executor == self._name))

    def leave(self) -> None:
        """Be gone, in good order."""
        self._strike(self._name)

    def _strike(self, name: str) -> bool:
        self._revoke(name)
        with self._engine.begin() as connection:
            struck = connection.execute(sa.delete(executors).where(executors.c.id == name)).rowcount
            connection.execute(sa.delete(leases).where(leases.c.executor == name))
        self._seen.pop(name, None)
        return struck > 0


def _place(pid: int) -> str:
    """Names a process for good: numbers of ended ones are given again, and machines start anew."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:  # no such process, or no Linux
        return f"{socket.gethostname()}  {pid} "
    return f"{socket.gethostname()} {booted}{namespace} {pid} {started}"


def _is_gone(place: str) -> bool:
    """Whether that process ran where we do, and runs no more."""
    machine, boot, pid, started = (*place.split(" "), "", "", "")[:4]
    ours = _place(os.getpid()).split(" ")
    return bool(started) and [machine, boot] == ours[:2] and _place(int(pid)) != place
