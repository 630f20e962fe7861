"""Layers: how fast each unit of a backbone learns, and from which step on.

Both are pure functions of the settings and of the step, so that a training that goes on does what it would have done.
"""

from collections.abc import Sequence

from torch import nn

from polyteach.model.student import Student
from polyteach.model.units import Units, depths, units_of
from polyteach.training.settings import Settings


def found(student: Student, size: tuple[int, int], settings: Settings) -> Units:
    """The units of the student's backbone, where the settings treat them apart. size: see `units_of`."""
    apart = settings.layer_decay < 1 or settings.thaw
    return units_of(student.name, size, "backbone", student.config) if apart else ()


def scales(units: int, decay: float) -> list[float]:
    """What each unit's learning rate is multiplied with, the stem first: decay ** (units - d) of unit d.

    The last unit has decay, and what stands on the backbone 1 (layer-wise decay: Clark et al., ELECTRA, ICLR 2020; in
    this form Bao et al., BEiT, ICLR 2022).
    """
    return [decay ** (units - d) for d in range(units)]


def first_steps(units: int, thaw: int) -> list[int]:
    """The step, counted from 0, from which on each unit learns, the stem first: thaw * (units - d) / units, rounded up.

    The stem joins at `thaw`, the last unit at thaw / units (gradual unfreezing from the top: Howard and Ruder, ACL
    2018); 0 of all where `thaw` is 0.
    """
    return [-(-thaw * (units - d) // units) for d in range(units)]


class Layers:
    """The units of a model that is trained.

    Units that do not learn yet are in evaluation mode: normalisation by the statistics learned before, and no
    stochastic depth. Their parameters have no gradient when the optimiser makes its step, so that neither its moments
    nor weight decay know them.

    stops: whether the backward pass may end where nothing below learns, which costs less; else gradients are made and
    thrown away, as layers that wait for other processes need (see `distributed.Joint`).

    Raises:
        ValueError: the settings ask for units to be treated apart, and there are none.
    """

    def __init__(self, model: nn.Module, units: Units, settings: Settings, stops: bool = True) -> None:
        decay, thaw = settings.layer_decay, settings.thaw
        if (decay < 1 or thaw) and not units:
            raise ValueError("layer_decay and thaw are for the units of a backbone, and this training knows none")
        trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
        number = depths(list(trained), units) if decay < 1 or thaw else {}
        scale = scales(len(units), decay)
        self._scales = {id(trained[k]): scale[d] for k, d in number.items() if decay < 1}
        self._first = first_steps(len(units), thaw) if thaw else []
        self._parameters: list[list[nn.Parameter]] = [[] for _ in self._first]
        for name, d in number.items() if thaw else ():
            self._parameters[d].append(trained[name])
        modules = dict(model.named_modules()) if thaw else {}
        self._modules = [[modules[n] for n in unit if n in modules] for unit in units] if thaw else []
        self._stops = stops
        self._learns: list[bool] = [True] * len(self._first)

    def scale(self, parameter: nn.Parameter) -> float:
        """What this parameter's learning rate is multiplied with."""
        return self._scales.get(id(parameter), 1.0)

    def at(self, step: int) -> None:
        """Let exactly those units learn that do in step number `step`, from 0; the model is in training mode."""
        for i, first in enumerate(self._first):
            if (step >= first) == self._learns[i]:
                continue
            self._learns[i] = step >= first
            for module in self._modules[i]:
                module.train(step >= first)
            for parameter in self._parameters[i] if self._stops else ():
                parameter.requires_grad_(step >= first)

    def learning(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """Those that learn now; the others lose their gradient."""
        still = {id(p) for i, mine in enumerate(self._parameters) if not self._learns[i] for p in mine}
        for p in parameters if still else ():
            if id(p) in still:
                p.grad = None
        return [p for p in parameters if id(p) not in still]


def told(units: Units, settings: Settings) -> list[str]:
    """What is said of the units before a training: which there are, how fast and from when on they learn."""
    if not units:
        return []
    first = first_steps(len(units), settings.thaw)
    lines = [f"backbone in {len(units)} units, each with its learning rate and its first step:"]
    for unit, scale, step in zip(units, scales(len(units), settings.layer_decay), first, strict=True):
        begins = unit[0] + (f" (+{len(unit) - 1})" if len(unit) > 1 else "")
        lines.append(f"  {begins}: {scale:.3g} x lr, from step {step + 1:,}")
    return lines
