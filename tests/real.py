"""Published photographs with people's labels, for tests that are skipped without them: their licences keep them apart.

POLYTEACH_TEST_DATA names a folder with camvid/ (train, trainannot, ...), nyu/{train,test}/{image,depth8,labels40} and
voc/VOCdevkit.
"""

import os
from pathlib import Path

import pytest


def real(name: str) -> Path:
    """The folder of a published data set; the test is skipped where it is not."""
    folder = Path(os.environ.get("POLYTEACH_TEST_DATA", os.devnull)) / name
    if not folder.is_dir():
        pytest.skip(f"POLYTEACH_TEST_DATA has no {name}")
    return folder
