"""Units: the units of a backbone in the order in which an image runs through them, whatever its architecture.

A unit is what layer-wise learning rates (`--layer-decay`) and gradual unfreezing (`--thaw`) treat alike: a block of a
ViT or a ResNet, a stage of a ConvNeXt or a Swin.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from polyteach.model.backbones import load_backbone

Units = Sequence[Sequence[str]]
"""From the stem on, the names of each unit's submodules and direct parameters."""
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Modules that do nothing of their own; those that inherit from them may."""
WRAPPED = ("model", "encoder")
"""Names of a child that a module merely stands around, or that holds its layers."""


def units(backbone: nn.Module, prefix: str = "", called: Collection[nn.Module] | None = None) -> list[tuple[str, ...]]:
    """The units of a backbone, the stem first.

    They are its children in the order in which they were registered, and those of plain containers in their place. What
    has only parameters of one dimension (normalisation) or none belongs to the unit before it. Direct parameters of the
    backbone (position embedding, class token, registers) belong to the first, as in BEiT. Every parameter is in one.

    prefix: put before every name, with a dot. called: the modules that a pass uses, where it is known; others begin no
    unit, and neither do those that do not learn.
    """
    out: list[list[str]] = [[]]
    begun = False
    for name, part in _parts(backbone, prefix):
        if isinstance(part, nn.Parameter):
            out[0].append(name)
            continue
        used = called is None or any(m in called for m in part.modules())
        deep = used and any(p.ndim > 1 and p.requires_grad for p in part.parameters())
        if deep and begun:
            out.append([])
        begun = begun or deep
        out[-1].append(name)
    return [tuple(unit) for unit in out]


def units_of(
    name: str, size: tuple[int, int], prefix: str, config: Mapping[str, Any] | None = None
) -> list[tuple[str, ...]]:
    """The units of the backbone of that name, by `units`; what no map needs belongs to the unit before it.

    That is, the pooling of a ViT, whose parameters never have a gradient. It is found out on a backbone without memory
    (torch's "meta" device).

    size: (height, width) of images that it takes. config: see `load_backbone`.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.inference_mode():
        backbone = load_backbone(name, None, size, config=config).eval()
        called: set[nn.Module] = set()
        for module in backbone.modules():
            module.register_forward_pre_hook(lambda module, _: called.add(module))
        backbone(torch.zeros(1, 3, *size))
    return units(backbone, prefix, called)


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Direct parameters, then children, by their whole names; of containers and wrapped modules theirs instead."""
    dotted = f"{prefix}." if prefix else ""
    for name, parameter in module.named_parameters(recurse=False):
        yield dotted + name, parameter
    for name, child in module.named_children():
        if type(child) in CONTAINERS or name in WRAPPED:
            yield from _parts(child, dotted + name)
        else:
            yield dotted + name, child


def depths(names: Sequence[str], found: Units) -> Mapping[str, int]:
    """The number of the unit, from 0 the stem, that each of these parameters is in; without those that are in none.

    names: of parameters, as the module says them that `found` has names of.
    """
    number = {name: i for i, unit in enumerate(found) for name in unit}
    out = {}
    for name in names:
        pieces = name.split(".")
        within = (".".join(pieces[:k]) for k in range(len(pieces), 0, -1))
        at = next((number[w] for w in within if w in number), None)
        if at is not None:
            out[name] = at
    return out
