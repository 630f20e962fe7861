"""A store and runs made by an earlier version, and what that version makes of them: see make.py."""
