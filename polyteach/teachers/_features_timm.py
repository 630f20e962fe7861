"""Models of timm's as encoders.

Shapes: B images, h w pixels of the model's input.
"""

from typing import Any

import timm
from jaxtyping import Float
from timm.data import resolve_data_config
from torch import Tensor, nn

from polyteach.ground.files import sha256
from polyteach.ground.names import unknown_name
from polyteach.ground.weights import state_dict
from polyteach.teachers._features_encoder import Encoder
from polyteach.teachers._files import at_file
from polyteach.teachers._timm_check import ELSEWHERE
from polyteach.teachers._weights import digest, load_strict, where


class _Timm(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Float[Tensor, "B 3 h w"]) -> tuple[Tensor, Tensor]:
        last, maps = self.model.forward_intermediates(x, indices=1, norm=True, output_fmt="NCHW")
        return maps[-1], self.model.forward_head(last, pre_logits=True)


def encoder(name: str) -> Encoder:
    """A model of timm's with its pretrained weights, or those of FILE in NAME@FILE.

    Raises:
        ValueError: no such weights, weights that do not fit, or a model that gives no features.
    """
    arch, file = at_file(name)
    if not arch.startswith(ELSEWHERE) and not timm.is_model(arch):
        raise unknown_name("timm model", arch, timm.list_models())
    state = None if file is None else state_dict(file)
    more: dict[str, Any] = {"num_classes": 0, "pretrained": file is None}
    try:
        model: Any = _created(arch, more)
    except Exception as e:  # timm, huggingface_hub and httpx each raise their own
        raise ValueError(
            f"timm has no weights at hand for {arch!r} ({type(e).__name__}: {e}); give timm:{arch}@FILE"
        ) from e
    if not hasattr(model, "forward_intermediates"):
        raise ValueError(f"timm's {arch} gives no features of its last layer; choose another model")
    origin = f"timm {timm.__version__}: {arch}"
    if file is not None and state is not None:
        heads = model.pretrained_cfg.get("classifier") or ()
        ends = tuple(f"{h}." for h in ((heads,) if isinstance(heads, str) else heads))
        load_strict(model, {k: v for k, v in state.items() if not k.startswith(ends)}, f"{file}, for timm's {arch},")
        origin = where(file, state)
    config = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    return Encoder(
        _Timm(model),
        (config["input_size"][1], config["input_size"][2]),
        config["mean"],
        config["std"],
        arch,
        origin,
        sha256(file) if file is not None else digest(model.state_dict()),
        model.pretrained_cfg.get("license"),
        config["interpolation"] != "bilinear",
    )


def _created(arch: str, more: dict[str, Any]) -> Any:
    """The model, for images of any shape where it can be made so."""
    try:
        return timm.create_model(arch, dynamic_img_size=True, **more)
    except TypeError:  # most have no such option
        return timm.create_model(arch, **more)
