"""What several tests share: a rendered store, and quiet, deterministic torch."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from polyteach.scene import random_scene, render


@pytest.fixture(autouse=True)
def _same_start():
    """Every test starts from the same state, in any order, and leaves torch's settings as they were."""
    torch.manual_seed(0)
    random.seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def png(pixels: torch.Tensor) -> bytes:
    """An image as PNG bytes; pixels (3, H, W) uint8."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(out, format="PNG")
    return out.getvalue()


@pytest.fixture
def photographs(tmp_path):
    """A folder of six small rendered pictures of different shapes."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(6):
        size = [(48, 64), (64, 48), (40, 40)][i % 3]
        (folder / f"{i}.png").write_bytes(png(render(random_scene(i, size)).image))
    return folder
