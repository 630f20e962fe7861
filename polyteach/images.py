"""Image bytes to pixels, once and the same for every teacher.

Shapes: H W pixels as a person sees them, EXIF orientation applied.
"""

import colorsys
import io
import warnings

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 100_000_000
MIN_SIDE = 8


class BadImage(ValueError):
    """Bytes that are no usable picture; the message is the reason kept in the store's rejects."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> UInt8[Tensor, "3 H W"]:
    """The picture in `data` as RGB.

    Palette, grey, 16-bit, CMYK and transparent (over white) images are converted; of an animation the first frame
    is taken; EXIF orientation is applied.

    Raises:
        BadImage: empty, no image, truncated, more than `max_pixels` pixels, or a side below `min_side`.
    """
    if not data:
        raise BadImage("empty file (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd metadata and, at its own limit, about size; ours is checked below.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise BadImage(f"{width}x{height} is more than max_pixels={max_pixels}")
                if min(width, height) < min_side:
                    raise BadImage(f"{width}x{height} has a side below min_side={min_side}")
                picture.draft("RGB", None) if picture.mode == "YCbCr" else None
                picture.load()
                rgb = _rgb(ImageOps.exif_transpose(picture))
    except BadImage:
        raise
    except UnidentifiedImageError as e:
        raise BadImage("not an image, or of an unknown format") from e
    except Image.DecompressionBombError as e:
        raise BadImage(f"too large: {e}") from e
    except MemoryError:
        raise
    except Exception as e:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ... on broken files
        raise BadImage(f"broken or truncated: {type(e).__name__}: {e}") from e
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):  # 16-bit grey: Pillow's convert would clip, not scale
        grey = np.asarray(picture).astype(np.float32) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise BadImage("floating-point image: its range is unknown")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return picture.convert("RGB")


def caption(image: UInt8[Tensor, "3 H W"], lines: list[str]) -> UInt8[Tensor, "3 H W"]:
    """The picture with lines of text in a box at its top left, in a size that stays legible."""
    height, width = image.shape[-2:]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    pen = ImageDraw.Draw(picture)
    points = max(10, min(height, width) // 16)
    font = ImageFont.load_default(points)
    text = "\n".join(lines)
    box = pen.multiline_textbbox((3, 2), text, font=font)
    pen.rectangle((0, 0, box[2] + 3, box[3] + 3), fill=(0, 0, 0))
    pen.multiline_text((3, 2), text, font=font, fill=(255, 255, 255))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def palette(n: int) -> UInt8[Tensor, "n 3"]:
    """`n` distinct colours, the same for the same index everywhere: hues a golden angle apart."""
    rgb = [colorsys.hsv_to_rgb((0.618034 * i) % 1, 0.65 + 0.35 * (i % 2), 0.95 - 0.25 * (i // 2 % 2)) for i in range(n)]
    return (torch.tensor(rgb).reshape(n, 3) * 255).to(torch.uint8)
