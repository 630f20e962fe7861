"""Weights from files that may be a stranger's: tensors, and nothing that could run."""

import argparse
import functools
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from polyteach.texts import say

AVERAGED = ("state_dict_ema", "model_ema")
"""Where timm's and torchvision's training scripts keep the average of the weights over the last steps."""
_PLAIN = ("state_dict", "model_state_dict", "model")
_WRAPPED = ("module.", "_orig_mod.")
"""What DDP and `torch.compile` put before every name, in either order."""


class StateDict(dict[str, Tensor]):
    """Names and tensors; `part` says which of a checkpoint's they are, "" where a file has one."""

    part = ""


def state_dict(file: Path) -> StateDict:
    """A state dict from .safetensors, .pth, .pth.tar, .pt or .bin, alone or in a checkpoint.

    Of a checkpoint that has averaged weights too ("state_dict_ema", "model_ema") it is those, as timm's own
    `load_checkpoint` and torchvision's evaluation take them, and stderr is told. Nothing but tensors and plain values
    is unpickled. What DDP and `torch.compile` put before every name is taken off.

    Raises:
        ValueError: another ending, a broken file, or no tensors in it.
    """
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        elif file.name.endswith((".pth", ".pt", ".bin", ".pth.tar")):
            # training scripts keep their options, plain values, beside the weights
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            raise ValueError(f"{file} ends in {file.suffix!r}; weights are .safetensors, .pth, .pth.tar, .pt or .bin")
    except (SafetensorError, RuntimeError, EOFError, OSError) as e:
        raise ValueError(f"{file} cannot be read as weights: {e}") from e
    except Exception as e:
        if type(e).__name__ != "UnpicklingError":
            raise
        raise ValueError(
            f"{file} holds more than tensors, and loading it could run code; save it again as a plain state dict:"
            " torch.save(model.state_dict(), FILE)"
        ) from e
    part = ""
    for key in (*AVERAGED, *_PLAIN):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            plain = [k for k in _PLAIN if isinstance(content.get(k), dict)]
            if key in AVERAGED and plain:
                _say(f"{file} has averaged weights beside the last ones: {key!r} is taken, not {plain[0]!r}")
            part, content = key, {k: v for k, v in content[key].items() if k != "n_averaged"}
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{file} is not a state dict (names and tensors, as torch.save(model.state_dict(), FILE))")
    while prefix := next((p for p in _WRAPPED if all(k.startswith(p) for k in content)), None):
        content = {k.removeprefix(prefix): v for k, v in content.items()}
    out = StateDict(content)
    out.part = part
    return out


@functools.cache  # once a process, which may read a file for each of several trainings
def _say(line: str) -> None:
    say(line)
