"""The student: backbone, feature pyramid, one head per objective; and what a run's folder holds of it."""
