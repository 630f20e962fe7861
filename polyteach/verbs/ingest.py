"""images (a folder, a list, a tar, a Parquet file) -> store"""

from polyteach.curation.ingest import ingest

__all__ = ["ingest"]
