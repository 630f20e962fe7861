"""divide the images into training, validation and test"""

from polyteach.curation.stores import split

__all__ = ["split"]
