"""Reflection: what many memories say together. Merges what says the same, sums up a profile, notices habits, turns repeated
wishes into skills, lets go of what nobody needs, and brings it back when it is asked for.

Everything made here cites the memories it comes from (`derived_from` edges) and their turns, is trusted as the least trusted of
them, and goes with them when they are erased. Knows no jobs; the model is optional.
"""

from memory.reflect.fading import Policy, reactivate, search_archived, strength
from memory.reflect.reflector import Reflected, Reflector

__all__ = ["Policy", "Reflected", "Reflector", "reactivate", "search_archived", "strength"]
