"""State: what a checkpoint holds of a training's optimiser, checked when it is taken up again."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from polyteach.ground.fields import Fields


def check_fits(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], group: str) -> None:
    """Compare the tensors of a checkpoint with those of the network that they are for.

    Raises:
        ValueError: they have other names or shapes; tells the first of them.
    """
    if odd := sorted(found.keys() ^ wanted.keys()):
        raise ValueError(f"{group} {'lacks' if odd[0] in wanted else 'has'} {odd[0]!r}: it is of another network")
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            have, want = (tuple(t.shape) for t in (found[name], value))
            raise ValueError(f"{group}: {name!r} has shape {have}, not {want}: it is of another network")


def moments(rest: dict[str, Tensor], scalars: Fields, trained: Sequence[nn.Parameter]) -> dict[int, dict[str, Any]]:
    """What the optimiser knows of each parameter, by its number.

    Raises:
        ValueError: a number is none of them, a tensor has another shape, or a value is no number.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, value in under(rest, "optimizer.").items():
        number, _, name = key.partition(".")
        of = parameter_number(number, trained)
        if value.ndim:  # else a number of steps
            check_fits({name: value}, {name: trained[of]}, f"optimizer.{of}")
        state.setdefault(of, {})[name] = value
    for at, row in enumerate(scalars.get("optimizer", (list,), "a list")):
        match row:
            case [int(which), str(name), int() | float() | None as single]:
                state.setdefault(parameter_number(str(which), trained), {})[name] = single
            case _:
                raise scalars.error(f"optimizer[{at}]", "must be a number of a parameter, a name and a number", row)
    return state


def parameter_number(text: str, trained: Sequence[nn.Parameter]) -> int:
    """The number of a parameter that a checkpoint gives as text.

    Raises:
        ValueError: it is no number of one of them.
    """
    if not text.isdecimal() or int(text) >= len(trained):
        raise ValueError(f"the optimiser's state is of parameter {text!r}, and there are {len(trained)}")
    return int(text)


def laid_out(value: Any, parameter: Tensor) -> Any:
    """What an optimiser knows of each number of a parameter, in that parameter's memory layout and on its device.

    A file has it row by row; an optimiser that goes over the memory of both at once would pair other numbers.
    """
    whole = isinstance(value, Tensor) and not isinstance(parameter, DTensor)
    if not whole or value.shape != parameter.shape or not value.ndim:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
