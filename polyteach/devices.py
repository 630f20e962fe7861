"""Where and how precisely to compute: names that people give, as torch knows them."""

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
