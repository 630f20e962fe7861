"""Which files are images, by what their names end in: those of the formats that are read. It imports no torch."""

from PIL import Image

_UNREAD = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"}
"""Formats that Pillow knows but reads only through an outside program or not at all; and IPTC, which holds an image of
any of all these."""


def extensions() -> frozenset[str]:
    """Endings of files that `decode` can read, such as ".jpg", in small letters."""
    known = readable_formats()
    return frozenset(end for end, name in Image.registered_extensions().items() if name in known)


def readable_formats() -> list[str]:
    """Pillow's names of the formats that are read."""
    Image.init()
    return [name for name in Image.ID if name not in _UNREAD]
