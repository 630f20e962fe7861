"""delete label sets"""

from polyteach.curation.stores import drop_labels

__all__ = ["drop_labels"]
