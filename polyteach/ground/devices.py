"""Where and how precisely to compute: names that people give, as torch knows them."""

import functools

import torch

from polyteach.ground.names import no_device
from polyteach.ground.texts import say

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class NoDevice(ValueError):
    """A model that cannot run on the device that it was to be loaded on; another device may do."""


def find_device(name: str) -> str:
    """The device called `name`, which torch can compute on here; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ValueError: no such device, one that this machine does not have, or one that computes nothing.
    """
    name = str(name)  # a torch.device too
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise no_device(name) from e
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {name!r}: this torch sees no CUDA device; use auto or cpu")
        # counted and not tried: trying would give this process a share of the card's memory
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise ValueError(f"device {name!r}: this machine has {there}")
    elif name != "cpu":
        try:
            torch.ones(1, device=device).item()
        except Exception as e:  # each back end raises its own
            raise ValueError(f"device {name!r} cannot be used here: {str(e).splitlines()[0][:200]}") from e
    return name


def arithmetic(device: str, precision: str) -> dict[str, str]:
    """What computed, for provenance: device, its model, torch's version, and how exact "fp32" is there.

    torch computes convolutions of float32 on CUDA in TF32 (10 bits of the fraction instead of 23) unless it is told
    otherwise; products of matrices it does not.
    """
    about = {"device": device, "precision": precision, "torch": torch.__version__}
    if torch.device(device).type != "cuda":
        return about
    exact = {True: "TF32", False: "IEEE float32"}
    about["float32 convolutions"] = exact[torch.backends.cudnn.allow_tf32]
    about["float32 products"] = exact[torch.backends.cuda.matmul.allow_tf32]
    about["card"] = torch.cuda.get_device_name(torch.device(device))
    return about


def quick_precision(device: str) -> str:
    """bf16 where `device` has instructions for it, else fp32: without them bf16 takes several times as long.

    fp32 too on what is neither a CPU nor CUDA, where nobody has measured it.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if kind != "cpu":
        return "fp32"
    capable = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if capable.get("avx512_bf16") or capable.get("amx_bf16") else "fp32"


@functools.cache  # once a process: a transfer trains many times
def warn_if_slow(device: str, precision: str) -> None:
    """Say on stderr where bf16 is slower than fp32 on `device`: a type, as cpu or cuda."""
    if device in ("cpu", "cuda") and precision == "bf16" and quick_precision(device) != precision:
        say(f"{device} has no instructions for bf16, so fp32 may be several times as fast here")
