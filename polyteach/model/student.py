"""The student: backbone, feature pyramid, one head per objective. A teacher is a student with one head.

Shapes: B images of a batch, H W its pixels, both multiples of what the backbone needs (32, or a plain one's patch).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from polyteach.ground.fields import Fields
from polyteach.ground.files import replacing, write_json
from polyteach.ground.geometry import letterbox
from polyteach.ground.layers import IMAGE, Adapter, Pyramid
from polyteach.ground.names import fit_name
from polyteach.ground.weights import check_finite, state_dict
from polyteach.model.backbones import MOST_SIDE as MOST_SIDE
from polyteach.model.backbones import has_config, is_plain, load_backbone, multiple_of
from polyteach.model.plain_pyramid import PlainPyramid, for_boxes
from polyteach.model.provenance import DESCRIPTION as DESCRIPTION
from polyteach.model.provenance import FIX, description
from polyteach.model.provenance import PARTS as PARTS
from polyteach.model.provenance import WEIGHTS as WEIGHTS
from polyteach.model.provenance import costs as costs
from polyteach.model.provenance import costs_before as costs_before
from polyteach.model.starts import triple
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.version import __version__

_S = TypeVar("_S", bound="Student")

ADAPTER = "adapter"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, where a backbone does not say by which its weights were learned."""
MOST_CHANNELS = 8192
"""Of a pyramid level, and of an adapter."""


class _LastLevels(LastLevelP6P7):
    """P6 and P7 in float32 whatever the precision: for a 3x3 convolution of stride 2 over a map of one pixel in bf16,
    oneDNN in torch 2.14 returns a gradient of uninitialised memory. They are the smallest maps, and cost nothing.
    """

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        with torch.autocast(c[-1].device.type, enabled=False):
            out, named = super().forward([x.float() for x in p], [x.float() for x in c], names)
        return [*p, *out[len(p) :]], named


class Student(nn.Module):
    """One backbone and one feature pyramid (Lin et al., CVPR 2017; P6, P7 as in RetinaNet) under all heads.

    backbone: a timm name whose features come at strides 4, 8, 16 and 32, or at one stride (plain vision transformers,
    over which the pyramid is `PlainPyramid`), or another of `backbones`. objectives: name -> what a head answers.
    channels: of every pyramid level. init: None (random), "pretrained" (timm's hub weights), hf-hub:ORG/NAME,
    local-dir:FOLDER, a local state dict of that timm model (.safetensors, .pth), or a run's folder. parts: which
    modules take weights from a run: of heads what agrees in name and shape, of the backbone and the pyramid all, where
    the run has learned them. adapters: hidden channels of a bottleneck per objective before its head, one for all
    pyramid levels and one for "c5", where the head reads them: what tasks disagree on need not be in the features that
    they share (task adapters as in SAK, Lu et al., ICLR 2025, here on the feature maps alone). 0 for none. They belong
    to the heads. size: (height, width) of the images that it will be shown, which some backbones are made for; None
    where it is not known yet. drop_path: stochastic depth of the backbone in training (Huang et al., ECCV 2016), see
    `load_backbone`; it has no weights. config: of the backbone, where its family has one (`backbones.CONFIGURED`);
    without it that of a run that is `init`, or what the name stands for is looked for.

    What pixels are normalised by goes with the weights: as a config.json beside them or a run says, else as timm does.

    Raises:
        ValueError: unknown backbone, one with other strides or that takes no images of that size, an objective whose
            name cannot become a file's, or weights that do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        objectives: dict[str, Objective],
        channels: int = 256,
        init: str | None = None,
        parts: Sequence[str] = PARTS,
        adapters: int = 0,
        size: tuple[int, int] | None = None,
        drop_path: float = 0.0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name in objectives:
            fit_name("objective", name)
            if hasattr(nn.ModuleDict(), _key(name)):
                raise ValueError(f"objective {name!r}: torch keeps that name for itself; choose another")
        self.name = backbone
        self._frozen: tuple[str, ...] = ()
        self.objectives = dict(objectives)
        self.channels = channels
        if config is None and init and has_config(backbone) and (Path(init) / DESCRIPTION).exists():
            about = describe_student(init)
            config = about["backbone_config"] if about["backbone"] == backbone else None
        self.backbone: Any = load_backbone(backbone, init, size, drop_path, config)
        self.config: dict[str, Any] | None = self.backbone.config if has_config(backbone) else None
        width = list(self.backbone.channels)
        self.plain = is_plain(self.backbone.strides)
        self.pyramid = _plain_pyramid(self.backbone, channels) if self.plain else _pyramid(width, channels)
        widths = {"c5": width[-1]} | {f"p{k}": channels for k in range(2, 8)}
        # module names may not hold dots, objectives' names may
        self.heads = nn.ModuleDict(
            {_key(k): load_task(o.task).head(widths, o.space) for k, o in self.objectives.items()}
        )
        if len(self.heads) != len(self.objectives):
            raise ValueError(f"objectives {sorted(self.objectives)} differ only in dots; rename a label set")
        self.adapters = adapters
        for k, o in self.objectives.items() if adapters else ():
            reads = load_task(o.task).reads
            own = {_map(level): Adapter(widths[level], adapters) for level in reads}
            self.heads[_key(k)].add_module(ADAPTER, nn.ModuleDict(own))
        normal = self.backbone.pretrained_cfg if hasattr(self.backbone, "pretrained_cfg") else {}
        self.normalise(normal.get("mean", MEAN), normal.get("std", STD))
        if init and Path(init).is_dir():
            self._take(Path(init), parts)
        if init:
            check_finite(
                self.backbone.state_dict(), f"init {init}", "A model with it answers nothing: give other weights"
            )

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Show the backbone pixels less this mean, by this standard deviation: of red, green and blue, from 0 to 1."""
        self.normalisation = {"mean": [float(x) for x in mean], "std": [float(x) for x in std]}
        for name, values in self.normalisation.items():
            self.register_buffer(name, (torch.tensor(values) * 255).view(1, 3, 1, 1).float(), persistent=False)

    def freeze(self: _S, parts: Sequence[str]) -> _S:
        """Keep these of `PARTS` as they are: no gradients, and normalisation by the statistics learned before."""
        self._frozen = tuple(parts)
        for part in parts:
            getattr(self, part).requires_grad_(False)
        return self.train(self.training)

    def keep_statistics(self) -> None:
        """Normalise the backbone's maps by the means and variances that it has, which training leaves as they are.

        Raises:
            ValueError: it has no batch normalisation.
        """
        norms = [m for m in self.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            raise ValueError(f"keep_statistics: {self.name} has no batch normalisation; leave it out")
        for norm in norms:
            norm.register_forward_pre_hook(_by_statistics)  # whoever put it into training mode meanwhile

    def train(self: _S, mode: bool = True) -> _S:
        """As in torch; what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            getattr(self, part).eval()
        return self

    def blocks(self, size: tuple[int, int]) -> list[str]:
        """Names of the outermost modules of the backbone that have weights and that a pass calls once.

        size: (height, width) of an image that it takes.
        """
        called: Counter[nn.Module] = Counter()
        hooks = [m.register_forward_hook(lambda m, *_: called.update([m])) for m in self.backbone.modules()]
        was = self.training
        self.eval()
        with torch.inference_mode():
            self.backbone(torch.zeros(1, 3, *size, device=self.mean.device))
        self.train(was)
        for hook in hooks:
            hook.remove()
        out: list[str] = []
        left = [(f"backbone.{k}", m) for k, m in self.backbone.named_children()]
        for name, module in left:  # which grows
            if called[module] == 1 and any(True for _ in module.parameters()):
                out.append(name)
            else:
                left += [(f"{name}.{k}", m) for k, m in module.named_children()]
        return out

    def levels(self, images: UInt8[Tensor, "B 3 H W"]) -> list[Tensor]:
        """The backbone's maps of a batch, at its strides: 4, 8, 16 and 32; of a plain one, see `backbones._plain`."""
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(
                f"images must be a batch (B, 3, H, W) of uint8, RGB from 0 to 255; got {tuple(images.shape)} of "
                f"{str(images.dtype).removeprefix('torch.')}"
            )
        multiple = self.backbone.multiple
        if images.shape[-2] % multiple or images.shape[-1] % multiple:
            raise ValueError(f"images must have sides that {multiple} divides; got {tuple(images.shape[-2:])}")
        pixels = (images.to(self.mean.dtype) - self.mean) / self.std
        if next(self.backbone.parameters()).is_contiguous(memory_format=torch.channels_last):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        levels: list[Tensor] = self.backbone(pixels)
        return levels

    def pooled(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """One vector per image: the last map, averaged."""
        return self.levels(images)[-1].float().mean((2, 3))

    def features(self, images: UInt8[Tensor, "B 3 H W"]) -> Pyramid:
        """The pyramid of a batch: "c5" and "p2" .. "p7"; of a plain backbone what the heads read (`PlainPyramid`)."""
        levels = self.levels(images)
        shape = images.new_zeros(len(images), 0, *images.shape[-2:])
        if self.plain:
            tasks = [load_task(o.task) for o in self.objectives.values()]
            boxes = any(t.of_boxes for t in tasks)
            pixels = any(not t.of_boxes and t.reads != ("c5",) for t in tasks)
            return {"c5": levels[-1], IMAGE: shape, **self.pyramid(levels[:-1], pixels, boxes)}
        named = {f"p{k}": x for k, x in enumerate(levels, start=2)}
        tops: Pyramid = dict(zip((f"p{k}" for k in range(2, 8)), self.pyramid(named).values(), strict=True))
        return {"c5": levels[-1], IMAGE: shape, **tops}

    def forward(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        targets: dict[str, list[Target | None]] | None = None,
        parts: Mapping[str, Sequence[float]] | None = None,
    ) -> dict[str, Any]:
        """Every head's prediction by objective; with `targets`, `losses` instead (so that wrappers see one call)."""
        if targets is not None:
            return self.losses(images, targets, parts)
        pyramid = self.features(images)
        return {k: self._head(k, pyramid) for k in self.objectives}

    def losses(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        targets: dict[str, list[Target | None]],
        parts: Mapping[str, Sequence[float]] | None = None,
    ) -> dict[str, Tensor]:
        """The loss of every objective that the batch has at least one target for.

        targets: objective -> one target or None per image, in pixels of the batch. Heads see only the images that
        carry their labels: absent is not empty. parts: weights of the parts of an objective's loss after the first,
        see `Task.weighted_loss`; 1 without.
        """
        pyramid = self.features(images)
        out = {}
        for name, answers in targets.items():
            here = [i for i, t in enumerate(answers) if t is not None]
            if not here:
                continue
            index = torch.tensor(here, device=images.device)
            part = pyramid if len(here) == len(images) else {k: v[index] for k, v in pyramid.items()}
            task, there = load_task(self.objectives[name].task), [t for t in answers if t is not None]
            if parts and name in parts:
                out[name] = task.weighted_loss(self._head(name, part), there, parts[name])
            else:
                out[name] = task.loss(self._head(name, part), there)
        return out

    def amounts(self, targets: Mapping[str, Sequence[Target | None]]) -> dict[str, tuple[float, ...]]:
        """What the loss of every objective that has a target is a mean over; see `Task.amounts`."""
        there = {k: [t for t in answers if t is not None] for k, answers in targets.items()}
        about = {k: (load_task(o.task), o.space) for k, o in self.objectives.items()}
        return {k: about[k][0].amounts(found, about[k][1]) for k, found in there.items() if found}

    def head(self, objective: str) -> nn.Module:
        """The head of an objective."""
        return self.heads[_key(objective)]

    def _head(self, objective: str, pyramid: Pyramid) -> Any:
        head, task = self.head(objective), load_task(self.objectives[objective].task)
        seen = for_boxes(pyramid) if task.of_boxes else pyramid
        if not self.adapters:
            return head(seen)
        own: Any = getattr(head, ADAPTER)
        return head({IMAGE: seen[IMAGE], **{level: own[_map(level)](seen[level]) for level in task.reads}})

    @torch.inference_mode()
    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]], size: tuple[int, int]) -> list[dict[str, Target]]:
        """Targets per image and objective, on the CPU in pixels of that image; images may differ in shape.

        size: (height, width) that each image is fitted into, aspect kept.
        """
        was, device = self.training, self.mean.device
        self.eval()
        views = [letterbox((int(i.shape[1]), int(i.shape[2])), size) for i in images]
        batch = torch.stack([v.image(i) for v, i in zip(views, images, strict=True)])
        predictions = self(batch.to(device))
        self.train(was)
        out: list[dict[str, Target]] = [{} for _ in images]
        for name, prediction in predictions.items():
            task = load_task(self.objectives[name].task)
            for i, target in enumerate(task.decode(prediction)):
                back = views[i].inverse()
                out[i][name] = task.zoomed(task.view(target, back), back.zoom, self.objectives[name].space)
        return out

    def _take(self, run: Path, parts: Sequence[str]) -> None:
        """Weights of another run for these parts: heads where name and shape agree, all of what else it has learned."""
        about = describe_student(run) if (run / DESCRIPTION).exists() else None
        if about is None or about["backbone"] != self.name:
            what = "is no finished run" if about is None else f"has backbone {about['backbone']}, not {self.name}"
            raise ValueError(f"init {run} {what}")
        mine = self.state_dict()
        given = {k: v for k, v in state_dict(run / WEIGHTS).items() if k.partition(".")[0] in parts}
        given |= self._resized({k: v for k, v in given.items() if k.startswith("backbone.")}, mine)
        fits = {k: v for k, v in given.items() if k in mine and mine[k].shape == v.shape}
        learned = set(parts) & set(about.get("trained", PARTS)) - {"heads"}
        for name in (k for k in mine if k.partition(".")[0] in learned and k not in fits):
            has = f"with shape {tuple(given[name].shape)}" if name in given else "without it"
            fix = (
                f"give --channels {about['channels']}, or leave the pyramid out"
                if "pyramid" in name
                else "train it again"
            )
            raise ValueError(
                f"init {run}: its {WEIGHTS} comes {has}, this network's {name} has shape {tuple(mine[name].shape)} "
                f"({self.channels} channels; the run has {about['channels']}); {fix}"
            )
        self.load_state_dict(fits, strict=False)
        if "backbone" in parts:
            self._normalise_as(about)

    def _normalise_as(self, about: Mapping[str, Any]) -> None:
        """As a student.json says; older ones do not, of which it is what timm says of the backbone."""
        self.normalise(*(about.get(key) or self.normalisation[key] for key in ("mean", "std")))

    def _resized(self, given: dict[str, Tensor], mine: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a backbone that was made for images of another size, for this one's."""
        change = getattr(self.backbone, "resized", None)
        if change is None or all(k not in mine or mine[k].shape == v.shape for k, v in given.items()):
            return given
        changed: dict[str, Tensor] = change({k.removeprefix("backbone."): v for k, v in given.items()})
        return {f"backbone.{k}": v for k, v in changed.items()}


def _by_statistics(norm: nn.Module, given: Any) -> None:
    norm.eval()


def _pyramid(width: list[int], channels: int) -> nn.Module:
    """Of a backbone with maps at strides 4, 8, 16 and 32."""
    return FeaturePyramidNetwork(width, channels, extra_blocks=_LastLevels(channels, channels))


def _plain_pyramid(backbone: Any, channels: int) -> nn.Module:
    """Of a backbone whose maps have one stride."""
    extra = [_LastLevels(channels, channels) for _ in range(2)]
    return PlainPyramid(backbone.channels[0], channels, backbone.multiple, extra)


def _map(level: str) -> str:
    """All levels of the pyramid share an adapter, as they share a head."""
    return "pyramid" if level.startswith("p") else level


def _key(objective: str) -> str:
    return objective.replace(".", "-")


def save_student(student: Student, folder: str | Path, extra: dict[str, Any]) -> None:
    """Weights as safetensors, then student.json with all that rebuilds them and `extra` (provenance, input size).

    Heads that serve training alone (`Task.auxiliary`) are left out. student.json is written last: where it exists, the
    student is whole.
    """
    folder = Path(folder)
    kept = {k: o for k, o in student.objectives.items() if not load_task(o.task).auxiliary}
    left_out = tuple(f"heads.{_key(k)}." for k in student.objectives if k not in kept)
    # copies, as layers of some backbones (CoaT) share their weights, which safetensors does not save
    all_of_it = {k: v.detach().cpu().contiguous().clone() for k, v in student.state_dict().items()}
    weights = {k: v for k, v in all_of_it.items() if not k.startswith(left_out)}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    objectives = {
        k: {"task": o.task, "space": {"names": list(o.space.names), "kind": o.space.kind}} for k, o in kept.items()
    }
    about = {
        "polyteach": __version__,
        "backbone": student.name,
        "channels": student.channels,
        "objectives": objectives,
        **student.normalisation,
    }
    if student.adapters:
        about["adapters"] = student.adapters
    if student.config is not None:
        about["backbone_config"] = student.config
    write_json(folder / DESCRIPTION, about | extra)


def describe_student(run: str | Path) -> dict[str, Any]:
    """What student.json of a run says: backbone, channels, objectives, size, provenance. All that is read is checked.

    Raises:
        ValueError: the run holds no finished student; or the file names a field that is missing, of another type or
            out of range, and what is allowed.
    """
    return _described(run)[0].value


def _described(run: str | Path) -> tuple[Fields, dict[str, Objective]]:
    """The checked description, and its objectives."""
    about = description(run)
    configured = has_config(about.text("backbone"))
    if configured or "backbone_config" in about:
        about.object("backbone_config")
    if not configured and "backbone_config" in about:
        raise about.error("backbone_config", f"is of no use to backbone {about.value['backbone']!r}; take it out")
    about.count("channels", low=1, high=MOST_CHANNELS)
    about.count("adapters", null=True, low=0, high=MOST_CHANNELS)
    if "size" in about:
        sides = about.get("size", (list,), "a list")
        step = multiple_of(about.text("backbone"))
        if len(sides) != 2 or any(type(x) is not int or x % step or not step <= x <= MOST_SIDE for x in sides):
            raise about.error("size", f"must be height and width, multiples of {step} up to {MOST_SIDE:,}", sides)
    if unknown := set(about.texts("trained") if "trained" in about.value else ()) - set(PARTS):
        raise about.error("trained", f"must be a list of {', '.join(PARTS)}", min(unknown))
    for key in ("optimizer", "licence"):
        about.text(key, null=True)
    for key in ("mean", "std"):
        triple(about, key)
    about.number("learning_rate", null=True)
    about.count("batch_size", null=True)
    objectives = about.object("objectives")
    return about, {name: _objective(objectives, name) for name in objectives.value}


def _objective(objectives: Fields, name: str) -> Objective:
    try:
        fit_name("objective", name)
    except ValueError as e:
        raise ValueError(f"{objectives.file}: {e}") from None
    about = objectives.object(name)
    try:
        task = load_task(about.text("task"))
    except ValueError as e:
        raise about.error("task", f"is of no task: {e}") from None
    said = about.object("space")
    space = Space(said.texts("names"), said.text("kind"))
    if task.most_classes is not None and len(space.names) > task.most_classes:
        raise said.error("names", f"must be at most {task.most_classes:,} classes for {task.name}", list(space.names))
    return Objective(task.name, space)


def load_student(run: str | Path, device: str = "cpu") -> Student:
    """The student that `train` wrote into the folder `run`, in evaluation mode, on `device` (as torch names it).

    See `Student.forward` for what it takes and returns; `polyteach.predict` for finished answers.

    Raises:
        ValueError: the run holds no finished student, its description is wrong, or its weights do not fit that.
    """
    if not isinstance(run, str | Path):
        raise ValueError(f"run must be the folder of a student that train wrote; got {run!r}")
    about, objectives = _described(run)
    given = about.value

    def built() -> Student:
        size = (given["size"][0], given["size"][1]) if given.get("size") else None
        return Student(
            given["backbone"],
            objectives,
            given["channels"],
            adapters=given.get("adapters") or 0,
            size=size,
            config=given.get("backbone_config"),
        )

    try:
        _fits(Path(run) / WEIGHTS, built)
        student = built()
    except ValueError as e:
        raise ValueError(str(e) if str(run) in str(e) else f"{about.file}: {e}") from e
    except (RuntimeError, OverflowError) as e:  # torch's, of sizes that no memory has
        raise ValueError(f"{about.file}: describes no network that can be built: {e}. {FIX}") from e
    weights = state_dict(Path(run) / WEIGHTS)
    check_finite(weights, str(Path(run) / WEIGHTS), FIX)
    student.load_state_dict(weights)
    student._normalise_as(given)
    return student.to(device).eval()


def _fits(file: Path, built: Callable[[], Student]) -> None:
    """Compare the header of a weights file with the network that it is for, before either takes any memory.

    Raises:
        ValueError: it is cut short or no such file; or weights are missing, left over or of another shape.
    """
    try:
        if not file.is_file():
            raise OSError("there is no such file")
        with safe_open(file, "pt") as weights:
            have = {k: tuple(weights.get_slice(k).get_shape()) for k in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, MemoryError) as e:  # the last of a sparse file, which would be mapped whole
        raise ValueError(f"{file} cannot be read as weights: {e}. {FIX}") from e
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        wanted = {k: tuple(v.shape) for k, v in built().state_dict().items()}
    if have == wanted:
        return
    lacks, unknown = sorted(wanted.keys() - have.keys()), sorted(have.keys() - wanted.keys())
    wrong = [f"{k} is {have[k]}, not {wanted[k]}" for k in sorted(wanted.keys() & have.keys()) if have[k] != wanted[k]]
    said = (("has other shapes:", wrong), ("lacks", lacks), ("has unknown", unknown))
    what = "; ".join(f"{how} {', '.join(names[:3])}{', ...' if names[3:] else ''}" for how, names in said if names)
    raise ValueError(f"{file} does not fit {DESCRIPTION}: it {what}. {FIX}")
