"""the whole method on real photographs with real packaged teachers"""

from polyteach.demo import demo

__all__ = ["demo"]
