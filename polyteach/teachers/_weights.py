"""Weights of a file in a model: all of them, and where they came from."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from polyteach.ground.weights import AVERAGED, StateDict


def load_strict(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """All of `state` into all of `model`.

    Raises:
        ValueError: names are missing, left over or of another shape; the message says which, with `what`.
    """
    mine = model.state_dict()
    wrong = [f"{k} is {tuple(v.shape)}, not {tuple(mine[k].shape)}" for k, v in state.items()
             if k in mine and v.shape != mine[k].shape]  # fmt: skip
    # batch counters are absent from old files and from frozen normalisation; evaluation does not use them
    missing = [k for k in mine if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in mine and not k.endswith("num_batches_tracked")]
    for problem, names in (("has other shapes:", wrong), ("lacks", missing), ("has unknown", extra)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"{what} {problem} {', '.join(names[:3])}{more}")
    versioned = OrderedDict(state)
    # files of safetensors, and averaged weights, do not say of which version they are; MNASNet asks
    versioned._metadata = getattr(state, "_metadata", None) or model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(versioned, strict=False)


def where(file: Path, state: StateDict) -> str:
    """Origin of weights from a file, for provenance: which of its weights, where it holds averaged ones too."""
    return f"{file} ({state.part})" if state.part in AVERAGED else str(file)


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the bytes of weights, with their names and types, for those that came from no one file."""
    out = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        out.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        out.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return out.hexdigest()
