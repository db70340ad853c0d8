"""What SQLite's query planner is told of the tables.

Told nothing, it takes an equality with an index's first column to leave ten rows of a million, the cube like any other; so it
reads through a whole cube for what another index would name row by row, inside a write as well, while chats wait for theirs.
ANALYZE would tell it, by reading everything, and of each installation something else. These numbers are fixed instead: those of
cubes with ten thousand memories (sqlite.org/optoverview.html, "Fixed Results Of ANALYZE"). PostgreSQL analyses by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

# table → index ("": of its primary key) → rows; rows with the same first column; with the same first two; …
Usual = Mapping[str, Mapping[str, tuple[int, ...]]]
USUAL: Usual = {
    "cubes": {"": (1_000, 1), "cubes_owner": (1_000, 2)},
    "turns": {
        "": (1_000_000, 10_000, 1),
        "turns_key": (1_000_000, 10_000, 1),
        "turns_tail": (1_000_000, 10_000, 1),
        "turns_session": (1_000_000, 10_000, 10, 1),
        "turns_waiting": (1_000_000, 1_000, 10),  # asked only for the few that wait
    },
    "memories": {
        "": (1_000_000, 10_000, 1),
        "memories_rev": (1_000_000, 10_000, 2),
        "memories_kind": (1_000_000, 10_000, 1_500, 1_000),
        "memories_digest": (1_000_000, 10_000, 1),
        "memories_slot": (1_000_000, 10_000, 4),
        "memories_pinned": (1_000, 10),
        "memories_supersedes": (100_000, 1_000, 1),
    },
    "lineage": {"": (1_000_000, 10_000, 2, 1), "lineage_memory": (1_000_000, 10_000, 2)},
    "vectors": {"": (2_000_000, 20_000, 2, 1), "vectors_memory": (2_000_000, 20_000, 3)},
    "history": {"": (100_000, 1_000, 2, 1)},
    "nodes": {"": (200_000, 2_000, 1), "nodes_kind": (200_000, 2_000, 100)},
    "edges": {"": (3_000_000, 30_000, 3, 2, 1), "edges_target": (3_000_000, 30_000, 10)},
    "adapter_memories": {"": (100_000, 1_000, 200, 1), "adapter_memories_memory": (100_000, 1_000, 3)},
}


def tell(connection: sa.Connection, usual: Usual) -> bool:
    """Write it down in an SQLite database, for all connections that are made from now on. False: it stands there already.
    Tables that are not there are left out; what ANALYZE has found otherwise is gone."""
    there = {str(row[0]) for row in connection.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    wanted = {
        (table, index or f"sqlite_autoindex_{table}_1", " ".join(map(str, rows)))
        for table, indices in usual.items()
        if table in there
        for index, rows in indices.items()
    }
    if "sqlite_stat1" in there:
        known = connection.exec_driver_sql("SELECT tbl, idx, stat FROM sqlite_stat1")
        if {tuple(row) for row in known} == wanted:
            return False
    else:
        connection.exec_driver_sql("ANALYZE sqlite_schema")  # makes the table
    connection.exec_driver_sql("DELETE FROM sqlite_stat1")
    connection.exec_driver_sql("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", sorted(wanted))
    return True
