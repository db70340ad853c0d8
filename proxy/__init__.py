"""The program: speaks HTTP, owns configuration, and is the only place where memory and scheduler meet."""

__version__ = "0.1.0"
