"""Weights from files that may be a stranger's: tensors, and nothing that could run."""

import argparse
import functools
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from polyteach.ground.texts import say

AVERAGED = ("state_dict_ema", "model_ema")
"""Where timm's and torchvision's training scripts keep the average of the weights over the last steps."""
_PLAIN = ("state_dict", "model_state_dict", "model")
_WRAPPED = ("module.", "_orig_mod.")
"""What DDP and `torch.compile` put before every name, in either order."""

_ENDINGS = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
_LEVELS = 3
"""So deep in a checkpoint are weights looked for."""
_NO_WEIGHTS = ("optim", "opt", "lr_", "sched", "scaler", "callbacks", "loops", "hyper_parameters")
"""How names of a checkpoint begin that hold the state of a training, some of it tensors by name."""

_TAR = 257, b"ustar"
"""Where a tar says that it is one."""
_SMALL = 2**20
"""Bytes of a tensor that may be written in fewer."""


class StateDict(dict[str, Tensor]):
    """Names and tensors; `part` says which of a checkpoint's they are, "" where a file has one."""

    part = ""


def state_dict(file: Path) -> StateDict:
    """A state dict from .safetensors, .pth, .pth.tar, .pt, .bin or .ckpt, alone or in a checkpoint.

    Of a checkpoint that has averaged weights too ("state_dict_ema", "model_ema") it is those, as timm's own
    `load_checkpoint` and torchvision's evaluation take them, and stderr is told. Nothing but tensors and plain values
    is unpickled. What DDP and `torch.compile` put before every name is taken off.

    Raises:
        ValueError: another ending, a broken file, or no tensors in it.
    """
    content = _content(file)
    part = ""
    for key in (*AVERAGED, *_PLAIN):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            plain = [k for k in _PLAIN if isinstance(content.get(k), dict)]
            if key in AVERAGED and plain:
                _say(f"{file} has averaged weights beside the last ones: {key!r} is taken, not {plain[0]!r}")
            part, content = key, {k: v for k, v in content[key].items() if k != "n_averaged"}
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise ValueError(f"{file} is not a state dict (names and tensors, as torch.save(model.state_dict(), FILE))")
    _sized(content, file)
    while prefix := next((p for p in _WRAPPED if all(k.startswith(p) for k in content)), None):
        content = {k.removeprefix(prefix): v for k, v in content.items()}
    out = StateDict(content)
    out.part = part
    return out


def parts(file: Path) -> dict[str, dict[str, Tensor]]:
    """All that a file has of names with tensors, by where in the checkpoint it lies: "" alone, else "KEY" or "KEY.KEY".

    Endings as of `state_dict`; nothing but tensors and plain values is unpickled, and no name is changed. What training
    keeps besides (optimisers, schedules, numbers) is left out.

    Raises:
        ValueError: another ending, a broken file, or no tensors in it.
    """
    found: dict[str, dict[str, Tensor]] = {}
    left: list[tuple[str, Any, int]] = [("", _content(file), 0)]
    seen: set[int] = set()  # one mapping may be there under several names, its own too
    for where, value, level in left:  # which grows
        if id(value) in seen:
            continue
        seen.add(id(value))
        tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if tensors:
            _sized(tensors, file)
            found[where] = tensors
        deeper = [(k, v) for k, v in value.items() if isinstance(k, str) and isinstance(v, Mapping)]
        left += [
            (f"{where}.{k}" if where else k, v, level + 1)
            for k, v in deeper
            if level < _LEVELS and not k.startswith(_NO_WEIGHTS)
        ]
    if not found:
        raise ValueError(f"{file} is not a state dict (names and tensors, as torch.save(model.state_dict(), FILE))")
    return found


def _content(file: Path) -> Any:
    """What is in a file of weights: a mapping.

    Raises:
        ValueError: another ending, a broken file, or no mapping.
    """
    if not file.is_file():
        raise ValueError(f"{file} is no file")
    if file.suffix == ".safetensors":
        return _safetensors(file)
    if file.suffix == ".npz":
        raise ValueError(
            f"{file} ends in '.npz': arrays of numpy under names of JAX (big_vision, Flax), which are not read; timm "
            "has most of these models with torch's names: give its .safetensors, or --init pretrained"
        )
    if not file.name.endswith(_ENDINGS):
        raise ValueError(
            f"{file} ends in {file.suffix!r}; weights are .safetensors, .pth, .pth.tar, .pt, .bin or .ckpt"
        )
    content = _pickled(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} is not a state dict (names and tensors, as torch.save(model.state_dict(), FILE))")
    return content


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except MemoryError as e:
        raise ValueError(f"{file}, of {file.stat().st_size:,} bytes, does not fit into memory") from e
    # besides its own errors: sizes that are none, dtypes that this torch does not have
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError, AttributeError, KeyError) as e:
        raise ValueError(f"{file} cannot be read as weights: {reason(e)}") from e


def _pickled(file: Path) -> Any:
    unpacked(file)
    try:
        # training scripts keep their options, plain values, beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the file is; it is refused below, or read
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise ValueError(
            f"{file} holds more than tensors, and loading it could run code (or it is broken); save it again as a "
            "plain state dict: torch.save(model.state_dict(), FILE)"
        ) from e
    except Exception as e:  # of bytes that are no pickle, nearly any
        raise ValueError(f"{file} cannot be read as weights: {reason(e)}") from e


def check_finite(weights: Mapping[str, Tensor], what: str, fix: str) -> None:
    """Refuse weights with which a network says nothing, in silence.

    what, fix: begin and end what is said.

    Raises:
        ValueError: one is NaN or infinite; names the first tensor and counts.
    """
    for name, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            bad = int((~value.isfinite()).sum())
            raise ValueError(f"{what}: {name} is NaN or infinite in {bad:,} of {value.numel():,} values. {fix}")


def reason(error: Exception) -> str:
    """What to say of a library's error about a file: its first line, but no advice to load it where code could run."""
    first = str(error).partition("\n")[0].strip()
    if "weights_only" in str(error):
        return "it holds more than tensors, and loading it could run code"
    if first and isinstance(error, SafetensorError | OSError | RuntimeError):
        return first
    return f"broken, or not what its ending says ({type(error).__name__})"  # the rest is for whoever wrote the library


def unpacked(file: Path) -> None:
    """What a file of torch.save holds is as large as the file: torch packs nothing, but reads what somebody packed.

    Raises:
        ValueError: it would be larger in memory; or it is of a kind that cannot be opened without running it.
    """
    with open(file, "rb") as f:
        old = f.read(_TAR[0] + len(_TAR[1])).endswith(_TAR[1])
    if old:
        raise ValueError(
            f"{file} is of the format that torch had before 2017 (a tar), which is not read: what it holds could run. "
            "Save it again with a newer torch where you trust it: torch.save(model.state_dict(), FILE)"
        )
    try:
        with zipfile.ZipFile(file) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # an older format, or torch says what it is
        return
    if any("/code/" in f.filename for f in found):
        raise ValueError(
            f"{file} is a TorchScript archive, which holds code; take the weights out where you trust it: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if any(f.compress_type for f in found) or sum(f.file_size for f in found) > file.stat().st_size:
        raise ValueError(f"{file} is packed, and may be of any size when it is unpacked; save it again by torch.save")


def _sized(state: Mapping[str, Tensor], file: Path) -> None:
    """Raises:
    ValueError: tensors of another kind than a layer's; or a shape that says more than the file holds.
    """
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.device.type != "cpu":
            raise ValueError(
                f"{file}: {name} is sparse, nested, quantised or of no device: save it as an ordinary tensor"
            )
        there = tensor.untyped_storage().nbytes()
        # one number may stand for all of a small one, as in an index that is the same for every row
        if tensor.numel() * tensor.itemsize > max(there, _SMALL) or max(tensor.shape, default=0) > max(there, _SMALL):
            shape = tuple(tensor.shape)
            raise ValueError(f"{file}: {name} of shape {shape} has {there:,} bytes: save it as it is in memory")


@functools.cache  # once a process, which may read a file for each of several trainings
def _say(line: str) -> None:
    say(line)
