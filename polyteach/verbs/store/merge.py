"""several stores into a new one"""

from polyteach.curation.stores import merge

__all__ = ["merge"]
