"""images -> backbone, without labels (SimCLR, VICReg): the rivals"""

from polyteach.training.pretrain import pretrain

__all__ = ["pretrain"]
