"""Skills: what the user's own corrections and standing instructions say about how to answer.

Goes in: what a user wrote. Comes out: wishes, and candidates of kind `skill` for those that are meant to last. Only the
user's words are read, and of these only plain sentences (no quotes, no pasted text, no roles). Pure.
"""

from memory.skills.read import attributes, candidates, joined, read
from memory.skills.wish import Wish

__all__ = ["Wish", "attributes", "candidates", "joined", "read"]
