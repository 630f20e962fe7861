"""Where and how precisely to compute: names that people give, as torch knows them."""

import functools
import sys

import torch

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def find_device(name: str) -> str:
    """The device called `name`, which torch can use here; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ValueError: no such device, or a CUDA device where torch sees none.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as e:
        raise ValueError(f"device {name!r} is none: {str(e).splitlines()[0]}") from e
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: this torch sees no CUDA device; use auto or cpu")
    return name


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
        print(f"{device} has no instructions for bf16, so fp32 may be several times as fast here", file=sys.stderr)
