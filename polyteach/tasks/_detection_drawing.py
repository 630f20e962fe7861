"""Boxes and outlines, drawn; a file of its own, as torchvision, which draws outlines, takes seconds to be imported."""

from jaxtyping import Bool, UInt8
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_segmentation_masks

from polyteach.ground.images import caption, palette
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import DetectionTarget, masks_at, rows

DRAWN = 0.3
"""Least score of a box that is drawn."""


def draw_boxes(image: UInt8[Tensor, "3 H W"], target: DetectionTarget, space: Space) -> UInt8[Tensor, "3 H W"]:
    """Boxes and outlines with a score of at least 0.3, the best on top, each with its class and score."""
    shown = rows(target, target.score >= DRAWN)
    shown = rows(shown, shown.score.argsort())
    if not len(shown.box):
        return caption(image, [f"no object of {DRAWN:.0%} or more"])
    colours = palette(len(space.names))[shown.category]
    height, width = image.shape[1], image.shape[2]
    if shown.mask is not None and len(shown.mask):
        masks = on_top(masks_at(shown, (height, width)))
        image = draw_segmentation_masks(image, masks, alpha=0.45, colors=[tuple(c) for c in colours.tolist()])
    drawing = to_pil_image(image)
    pen = ImageDraw.Draw(drawing)
    font = ImageFont.load_default(max(10, min(height, width) // 18))
    thick = max(1, min(height, width) // 150)
    for box, category, score, colour in zip(
        shown.box.tolist(), shown.category.tolist(), shown.score.tolist(), colours.tolist(), strict=True
    ):
        pen.rectangle(tuple(box), outline=tuple(colour), width=thick)
        text = f"{space.names[category]} {score:.0%}"
        _, _, right, bottom = pen.textbbox((0, 0), text, font=font)
        # moved in from the right and bottom edges, so that all of it shows where it fits at all
        corner = max(min(box[0] + 2, width - right - 3), 2), max(min(box[1], height - bottom - 2), 0)
        left, top, right, bottom = pen.textbbox(corner, text, font=font)
        pen.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=tuple(colour))
        bright = sum(colour) > 380
        pen.text(corner, text, font=font, fill=(0, 0, 0) if bright else (255, 255, 255))
    return pil_to_tensor(drawing)


def on_top(masks: Bool[Tensor, "K H W"]) -> Bool[Tensor, "K H W"]:
    """The masks, each less what later ones cover: torchvision paints black whatever two of them share."""
    shown, covered = masks.clone(), masks.new_zeros(masks.shape[1:])
    for own in reversed(shown.unbind()):
        own &= ~covered
        covered |= own
    return shown
