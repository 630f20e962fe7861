"""The teachers that labelling is measured with: packaged ones, and networks of real size with random weights."""

from pathlib import Path
from typing import Any

import torch

PACKAGED = ("efficientnet_lite0", "ssd_mobilenet_v2", "u2netp", "composed_coco")
PIPELINES = {
    "classification": "image-classification",
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "depth": "depth-estimation",
}
"""Task -> its name in transformers' pipelines."""


def transformers_models(folder: Path, tiny: bool = False) -> dict[str, str]:
    """A model of each task as transformers saves it: a ResNet-18, a YOLOS of 12 layers, a SegFormer-B0, a GLPN.

    They see 256 x 256 pixels (the GLPN: the whole picture); tiny: 64, and networks that are good for nothing.
    """
    import transformers as t

    torch.manual_seed(0)
    side = 64 if tiny else 256
    labels = {i: f"class {i}" for i in range(10 if tiny else 80)}
    names: dict[str, Any] = {"id2label": labels, "label2id": {v: k for k, v in labels.items()}}
    widths = [8, 8, 16, 16] if tiny else [64, 128, 256, 512]
    pyramid = [8, 8, 20, 16] if tiny else [32, 64, 160, 256]
    layers = 1 if tiny else 2
    classifier = t.ResNetConfig(
        embedding_size=widths[0], hidden_sizes=widths, depths=[layers] * 4, layer_type="basic", **names
    )
    width = 24 if tiny else 192
    detector = t.YolosConfig(
        hidden_size=width, num_hidden_layers=layers if tiny else 12, num_attention_heads=3, intermediate_size=4 * width,
        image_size=[side, side], num_detection_tokens=10 if tiny else 100, **names,
    )  # fmt: skip
    segmenter = t.SegformerConfig(
        hidden_sizes=pyramid, depths=[layers] * 4, decoder_hidden_size=16 if tiny else 256, **names
    )
    depth = t.GLPNConfig(hidden_sizes=pyramid, depths=[layers] * 4, decoder_hidden_size=16 if tiny else 64)
    size = {"height": side, "width": side}
    made = {
        "classification": (t.ResNetForImageClassification(classifier), t.ViTImageProcessor(size=size)),
        "detection": (t.YolosForObjectDetection(detector), t.YolosImageProcessor(size=size, do_pad=False)),
        "segmentation": (t.SegformerForSemanticSegmentation(segmenter), t.SegformerImageProcessor(size=size)),
        "depth": (t.GLPNForDepthEstimation(depth), t.GLPNImageProcessor(size_divisor=32)),
    }
    for task, (model, processor) in made.items():
        model.save_pretrained(folder / task)
        processor.save_pretrained(folder / task)
    return {task: f"transformers:{folder / task}" for task in made}


def packaged_models() -> dict[str, str]:
    """Real teachers that come inside packages; those of them that are installed."""
    from polyteach.teachers import load_teacher

    found = {}
    for name in PACKAGED:
        try:
            load_teacher(f"packaged:{name}")
        except ValueError:
            continue
        found[name] = f"packaged:{name}"
    return found


def small_models(folder: Path) -> dict[str, str]:
    """Four of timm's smallest classifiers, as large as they are used."""
    import timm

    found = {}
    for i, arch in enumerate(("mobilenetv3_small_050", "mobilenetv3_small_075", "lcnet_050", "tinynet_e")):
        torch.manual_seed(i)
        file = folder / f"{arch}.pth"
        torch.save(timm.create_model(arch).state_dict(), file)
        found[arch] = f"timm:{arch}@{file}"
    return found


def heavy_model(folder: Path, tiny: bool = False) -> dict[str, str]:
    """torchvision's Faster R-CNN on ResNet-50, which sees 800 pixels; tiny: its smallest detector."""
    import torchvision

    arch = "ssdlite320_mobilenet_v3_large" if tiny else "fasterrcnn_resnet50_fpn"
    torch.manual_seed(0)
    model = torchvision.models.get_model(arch, weights=None, weights_backbone=None, num_classes=91)
    file = folder / f"{arch}.pth"
    torch.save(model.state_dict(), file)
    return {arch: f"torchvision:{arch}@{file}"}
