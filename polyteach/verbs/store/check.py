"""verify every part, and say what is broken"""

from polyteach.curation.stores import check

__all__ = ["check"]
