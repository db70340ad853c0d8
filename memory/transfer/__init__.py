"""Moving memory: a cube as one archive and back, as a Markdown document, and other products' dumps taken over."""

from memory.transfer.adopting import FORMATS, Adopter
from memory.transfer.foreign import sniff
from memory.transfer.format import Limits, Refused
from memory.transfer.importing import Importer, Target
from memory.transfer.markdown import Document
from memory.transfer.outcome import Imported
from memory.transfer.writing import Archive

__all__ = [
    "FORMATS",
    "Adopter",
    "Archive",
    "Document",
    "Imported",
    "Importer",
    "Limits",
    "Refused",
    "Target",
    "sniff",
]
