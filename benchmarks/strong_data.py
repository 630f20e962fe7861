"""What benchmarks/strong.py reads: photographs as stores, and two published networks as teachers.

ROOT/pool.tar                              unlabelled photographs, in folders by where they are from
     caltech101/{train,test}/CLASS/*.jpg   Caltech-101
     camvid/{train,val,test}/NAME.png      CamVid, and in {train,val,test}annot/NAME.png the class of each pixel:
                                           0 to 10, 11 is void (as the authors of SegNet published it)
     nyu/{train,test}/image/NAME.*         NYU Depth V2, and in depth8/NAME.png floor(25.5 * metres); 0 is unknown
     networks/FastestDet.onnx              boxes of COCO's 80 classes
              deeplabv3_257_mv_gpu.tflite  DeepLabv3 with MobileNetV2, classes of pixels of Pascal VOC
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from polyteach.store import ImageRow, Store
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.depth import METRIC, DepthTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from polyteach.tasks.target import PEOPLE

LONGEST = 144
"""Side to which downstream photographs are made smaller: the networks see them smaller still."""
ROADS = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
"""CamVid's classes, in the order of its numbers."""
PER_METRE = 25.5
LICENCES = {"FastestDet.onnx": "BSD-3-Clause", "deeplabv3_257_mv_gpu.tflite": "Apache-2.0"}


def take_pool(archive: Path, folder: Path, count: int, without: Sequence[str]) -> None:
    """Unpack photographs of a tar: `count` of them, chosen by a hash of their names; none of the folders `without`."""
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.isfile() and m.name.partition("/")[0] not in without]
        chosen = sorted(members, key=lambda m: hashlib.sha256(m.name.encode()).digest())[:count]
        if len(chosen) < count:
            raise ValueError(f"{archive} has {len(chosen)} photographs, and {count} are wanted")
        tar.extractall(folder, chosen, filter="data")


def small(file: Path) -> tuple[bytes, tuple[int, int]]:
    """A photograph with no side above `LONGEST`, as PNG, and its height and width."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue(), (image.height, image.width)


def numbers(file: Path, size: tuple[int, int]) -> Tensor:
    """A map of one number for each pixel, brought to (height, width) by the nearest pixel: int64."""
    with Image.open(file) as opened:
        return torch.from_numpy(np.asarray(opened.resize(size[::-1], Image.Resampling.NEAREST)).astype(np.int64))


def roads(file: Path, size: tuple[int, int]) -> SegmentationTarget:
    """CamVid's classes of pixels; void is ignored."""
    category = numbers(file, size)
    if int(category.max()) > len(ROADS):
        raise ValueError(f"{file}: {int(category.max())} is no class of CamVid's; they are 0 to {len(ROADS)}")
    category = torch.where(category == len(ROADS), IGNORE, category)
    return SegmentationTarget(category=category, probability=(category != IGNORE).float())


def metres(file: Path, size: tuple[int, int]) -> DepthTarget:
    """Depth of NYU's rooms: the middle of each step of 3.9 cm."""
    step = numbers(file, size)
    valid = step > 0
    return DepthTarget(value=torch.where(valid, (step + 0.5) / PER_METRE, 0.0), valid=valid)


def fill(
    path: Path,
    task: str,
    space: Space,
    files: dict[str, list[tuple[Path, Path]]],
    read: Callable[[Path, tuple[int, int]], Target],
) -> None:
    """A store of photographs with people's labels. files: by split, pairs of a photograph and its map."""
    rows, answers = [], []
    for split, pairs in files.items():
        if not pairs:
            raise ValueError(
                f"no photographs for the split {split} of {path.name}; the folders are named in {__file__}"
            )
        for photograph, about in pairs:
            data, size = small(photograph)
            rows.append(ImageRow(f"{split}/{photograph.stem}", *size, data, split=split))
            answers.append(read(about, size))
    shutil.rmtree(path, ignore_errors=True)  # of a run that was stopped here
    store = Store.create(path, part_size=len(rows))
    store.create_set(task, PEOPLE, space, {"teacher": PEOPLE}).write(0, [r.id for r in rows], answers)
    store.write_images(0, rows)


def pairs(images: Path, maps: Path) -> list[tuple[Path, Path]]:
    """Photographs and the maps of the same name."""
    return [(file, maps / f"{file.stem}.png") for file in sorted(images.iterdir())]


def fill_camvid(root: Path, path: Path) -> None:
    """CamVid as a store."""
    files = {s: pairs(root / s, root / f"{s}annot") for s in ("train", "val", "test")}
    fill(path, "segmentation", Space(ROADS), files, roads)


def fill_nyu(root: Path, path: Path) -> None:
    """NYU Depth V2 as a store."""
    files = {s: pairs(root / s / "image", root / s / "depth8") for s in ("train", "test")}
    fill(path, "depth", Space((), METRIC), files, metres)


def copy_networks(root: Path, folder: Path) -> None:
    """The networks' files, and what `onnx:` has to know of FastestDet."""
    for name in LICENCES:
        shutil.copyfile(root / name, folder / name)
    coco = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    names = [n for n in coco if n not in ("__background__", "N/A")]
    about = {"layout": "fastestdet", "names": names, "licence": LICENCES["FastestDet.onnx"]}
    (folder / "FastestDet.onnx.json").write_text(json.dumps(about))


class DeepLab:
    """Pascal VOC's classes per pixel, by the TensorFlow Lite file in the current folder; each image alone."""

    licence = LICENCES["deeplabv3_257_mv_gpu.tflite"]
    learning_rate = batch_size = optimizer = None

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        file = Path("deeplabv3_257_mv_gpu.tflite")
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        self.origin = file.name
        self._network = Interpreter(str(file), num_threads=1)
        self._network.allocate_tensors()
        self._in, self._out = (
            d[0]["index"] for d in (self._network.get_input_details(), self._network.get_output_details())
        )
        voc = DeepLabV3_ResNet50_Weights.DEFAULT.meta["categories"]
        names = tuple("background" if n == "__background__" else n for n in voc)
        self.objectives = {"segmentation": Objective("segmentation", Space(names))}

    def __call__(self, images: Sequence[Tensor]) -> list[dict[str, Target]]:
        return [{"segmentation": self._asked(image)} for image in images]

    def _asked(self, image: Tensor) -> SegmentationTarget:
        """Seen as a square, and told in the image's pixels again."""
        pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((257, 257), Image.Resampling.BILINEAR)
        self._network.set_tensor(self._in, np.asarray(pixels, dtype=np.float32)[None] / 127.5 - 1)
        self._network.invoke()
        logits = torch.from_numpy(self._network.get_tensor(self._out)).permute(0, 3, 1, 2)
        size = (image.shape[1], image.shape[2])
        probability, category = interpolate(logits, size, mode="bilinear")[0].softmax(0).max(0)
        return SegmentationTarget(category=category, probability=probability)


def deeplab(device: str, precision: str) -> Any:
    """The teacher `python:strong_data.py:deeplab`."""
    if (device, precision) != ("cpu", "fp32"):
        raise ValueError(f"deeplab runs on the CPU in fp32 only; got {device!r}, {precision!r}")
    return DeepLab()
