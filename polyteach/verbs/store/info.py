"""what is in it: images, label sets, their statistics and classes"""

from polyteach.curation.stores import info

__all__ = ["info"]
