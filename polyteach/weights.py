"""Weights from files that may be a stranger's: tensors, and nothing that could run."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def state_dict(file: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, .pth, .pt or .bin, alone or in a checkpoint's "state_dict" or "model".

    Nothing but tensors is unpickled. A prefix "module." on every name (DDP) is taken off.

    Raises:
        ValueError: another ending, a broken file, or no tensors in it.
    """
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        elif file.suffix in (".pth", ".pt", ".bin"):
            content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            raise ValueError(f"{file} ends in {file.suffix!r}; weights are .safetensors, .pth, .pt or .bin")
    except (SafetensorError, RuntimeError, EOFError, OSError) as e:
        raise ValueError(f"{file} cannot be read as weights: {e}") from e
    except Exception as e:
        if type(e).__name__ != "UnpicklingError":
            raise
        raise ValueError(
            f"{file} holds more than tensors, and loading it could run code; save it again as a plain state dict:"
            " torch.save(model.state_dict(), FILE)"
        ) from e
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{file} is not a state dict (names and tensors, as torch.save(model.state_dict(), FILE))")
    if all(k.startswith("module.") for k in content):
        content = {k.removeprefix("module."): v for k, v in content.items()}
    return content
