"""The version, which whatever is written records."""

__version__ = "0.2.0"
