"""take out what is broken, and nothing else"""

from polyteach.curation.stores import repair

__all__ = ["repair"]
