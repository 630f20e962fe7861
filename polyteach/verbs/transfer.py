"""student + a downstream store -> scores, by one protocol for every rival"""

from polyteach.transferring.transfer import transfer

__all__ = ["transfer"]
