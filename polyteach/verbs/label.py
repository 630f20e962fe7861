"""store + teachers -> pseudo labels in the store"""

from polyteach.labelling.label import label

__all__ = ["label"]
