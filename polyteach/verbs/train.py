"""stores -> student (or, from people's labels, a teacher)"""

from polyteach.training.train import train

__all__ = ["train"]
