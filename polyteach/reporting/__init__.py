"""Scores beside one another: tables, curves, one page."""
