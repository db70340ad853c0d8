"""Extraction: turns → candidates. Rules need no model; `LlmExtractor` asks a chat model once a batch.

Candidates quote the user and cite their turns; what becomes of them is decided by organising, which is not known here.
"""

from memory.extract.dates import DateSpan, find_dates
from memory.extract.llm import Extraction, ExtractionFailed, LlmExtractor
from memory.extract.rules import extract as extract_by_rules

__all__ = ["DateSpan", "Extraction", "ExtractionFailed", "LlmExtractor", "extract_by_rules", "find_dates"]
