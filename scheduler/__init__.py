"""Scheduling: what fires, what waits, who runs. Knows no HTTP, no LanceDB, no prompt."""
