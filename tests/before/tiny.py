"""A backbone of a few kilobytes, registered with timm: a run and its checkpoints stay small enough to be kept."""

from timm.models import generate_default_cfgs, register_model
from timm.models._builder import build_model_with_cfg
from timm.models.resnet import BasicBlock, ResNet

BACKBONE = "before_tiny"
default_cfgs = generate_default_cfgs({"before_tiny.none": {"classifier": "fc", "first_conv": "conv1.0"}})


@register_model
def before_tiny(pretrained=False, **more):
    """A residual network of four blocks with maps at strides 2, 4, 8, 16 and 32."""
    shape = {"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_width": 4}
    return build_model_with_cfg(ResNet, BACKBONE, pretrained, stem_type="deep", **shape, **more)
