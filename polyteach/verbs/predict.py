"""student + images -> targets and pictures"""

from polyteach.labelling.predict import predict, status

__all__ = ["predict", "status"]
