"""Image bytes to pixels, once and the same for every teacher.

Shapes: H W pixels as a person sees them, EXIF orientation applied.
"""

import colorsys
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from torch import Tensor

from polyteach.ground.endings import extensions as extensions
from polyteach.ground.endings import readable_formats
from polyteach.ground.limits import MAX_PIXELS

MIN_SIDE = 8

_PNG = b"\x89PNG\r\n\x1a\n"
_FAINT = (
    "are of 16 bits a channel and use less than an eighth of their range, so that every model sees them nearly black: "
    "if their values are of 10 or 12 bits, scale them to 16 first"
)
_DEAR = {"WEBP": 2, "AVIF": 2, "JPEG2000": 2, "FITS": 10}
"""Formats whose pixels count more than once against `max_pixels`: their decoders take 15 to 20 bytes for each of them,
where 4 are usual; for a packed FITS, Pillow takes minutes."""
_HOLDERS = {"ICO", "ICNS"}
"""Formats that hold images of other formats, of whose sizes the header may say anything."""
SCANS = 100
"""Of a JPEG, at most: each takes a pass over all pixels, even one of a few bytes. Real ones have up to 20."""
BAND = 2**22
"""Pixels that are converted at once: what a conversion takes besides the image itself stays below 100 MB."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what sets the image upright. Those from 5 on swap height and width."""
_BACKWARDS = {_TURNS[3], _TURNS[4], _TURNS[6], _TURNS[7]}
"""Those after which the topmost rows are the last."""


class BadImage(ValueError):
    """Bytes that are no usable image; the message is the reason kept in the store's rejects."""


def decode(
    data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE, size: tuple[int, int] | None = None
) -> UInt8[Tensor, "3 H W"]:
    """The image in `data` as RGB.

    Palette, grey, 16-bit, CMYK and transparent (over white) images are converted; of an animation the first frame
    is taken; EXIF orientation is applied. Where the metadata are broken, the image is taken as it lies.

    Sizes are looked at in the header, before anything is unpacked. size: the (height, width) that it has to have. At
    100 million pixels it takes 1.3 GB at most, with what it returns; WebP, AVIF and JPEG 2000, whose decoders take more
    for each, count twice against `max_pixels`.

    `max_pixels` wins over Pillow's own limit: beyond that, it raises `PIL.Image.MAX_IMAGE_PIXELS`. In memory a pixel's
    three bytes lie side by side, as decoders write them and resizing is the quickest.

    Raises:
        BadImage: empty, no image, truncated, more than `max_pixels` pixels, a side below `min_side`, or another size
            than `size`; memory is not enough for it.
    """
    with _opened(data, max_pixels, min_side, size) as image:
        _load(image, max_pixels)
        array = _upright(image)
        if size is not None and array.shape[:2] != size:
            raise _another(array.shape[0], array.shape[1], size)
    return torch.from_numpy(array).permute(2, 0, 1)


def measure(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> tuple[int, int]:
    """(height, width) of what `decode` makes of `data`, in pixels, and the same errors, in less time.

    All the data are decoded, JPEG at an eighth of its size.

    Raises:
        BadImage: as `decode`.
    """
    with _opened(data, max_pixels, min_side) as image:
        width, height = image.size
        if image.draft(image.mode, (max(width // 8, 1), max(height // 8, 1))) is None:
            _load(image, max_pixels)
            width, height = image.size  # TIFF turns itself upright while loading
        else:
            _load(image, max_pixels)
        for _, _, band in _bands(image):
            _rgb(band)
        return (width, height) if _orientation(image) >= 5 else (height, width)


def faint(data: bytes, max_pixels: int = MAX_PIXELS) -> str | None:
    """What to say of a usable image of 16 bits a channel that uses so few of them that `decode` makes it near black.

    Thermal, medical and depth cameras write 10 or 12 bits into 16. None for every other image; only those of 16 bits
    are decoded for it.
    """
    with _opened(data, max_pixels, 1) as image:
        deep = image.mode.startswith("I") or (data[:8] == _PNG and data[24] == 16)
        if not deep:
            return None
        top = max(int(np.asarray(_rgb(band)).max()) for _, _, band in _bands(image))
    return _FAINT if top < 32 else None


def lies_turned(data: bytes, max_pixels: int = MAX_PIXELS, size: tuple[int, int] | None = None) -> bool:
    """Whether an image's EXIF orientation says that it lies turned or mirrored, as `decode` undoes it.

    Its header alone is read.

    Raises:
        BadImage: it is none, or of another (height, width) than `size`.
    """
    with _opened(data, max_pixels, 1, size) as image:
        return _orientation(image) != 1


@contextmanager
def _opened(data: bytes, max_pixels: int, min_side: int, size: tuple[int, int] | None = None) -> Iterator[Image.Image]:
    """The image with its header read and its size allowed; what goes wrong inside becomes a BadImage."""
    if not data:
        raise BadImage("empty file (0 bytes)")
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            _look(image, data, max_pixels, min_side, size)
            yield image
    except BadImage:
        raise
    except MemoryError as e:
        raise BadImage("memory is not enough to decode it") from e
    except UnidentifiedImageError as e:
        raise BadImage("not an image, or of an unknown format") from e
    except Image.DecompressionBombError as e:
        raise BadImage(f"too large, max_pixels={max_pixels}: {e}") from e
    except Exception as e:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ... on broken files
        raise BadImage(f"broken or truncated: {type(e).__name__}: {e}") from e


def _look(image: Image.Image, data: bytes, max_pixels: int, min_side: int, size: tuple[int, int] | None) -> None:
    """Refuse an image by its header, before anything of it is unpacked.

    Raises:
        BadImage: its size, or what it would take to decode it.
    """
    width, height = image.size
    name = str(image.format)
    if width * height > max_pixels:
        raise BadImage(f"{width}x{height} is more than max_pixels={max_pixels}")
    if width * height * _DEAR.get(name, 1) > max_pixels:
        times = f"{name} counts {_DEAR[name]} times, for what its decoder takes"
        raise BadImage(f"{width}x{height} is more than max_pixels={max_pixels} allows: {times}")
    if min(width, height) < min_side:
        raise BadImage(f"{width}x{height} has a side below min_side={min_side}")
    if size is not None and name not in _HOLDERS and sorted(size) != sorted(image.size):
        raise _another(height, width, size)
    if name in ("JPEG", "MPO") and (scans := _scans(data)) > SCANS:
        raise BadImage(f"a JPEG of {scans} scans; at most {SCANS} are decoded, since each takes a pass over all pixels")
    if name == "TIFF":
        tile = [image.tag_v2.get(tag, 1) for tag in (322, 323)]  # type: ignore[attr-defined]
        if all(isinstance(side, int) for side in tile) and tile[0] * tile[1] > max_pixels:
            raise BadImage(f"a tile of {tile[0]}x{tile[1]} is more than max_pixels={max_pixels}")


def _another(height: int, width: int, size: tuple[int, int]) -> BadImage:
    return BadImage(f"is {width}x{height} now, was {size[1]}x{size[0]} when ingested")


def _scans(data: bytes) -> int:
    """Scans of a JPEG file; those of its first image alone where there may be too many."""
    count = data.count(b"\xff\xda")
    if count <= SCANS:
        return count
    # what is appended, such as a film, may look like scans: so the segments are followed one by one
    at, count = 2, 0
    while marker := _MARKER.search(data, at):
        at, kind = marker.end(), data[marker.end() - 1]
        if kind == 0xD9:
            break
        count += kind == 0xDA
        if kind not in (0x01, 0xD8):
            at += int.from_bytes(data[at : at + 2])
    return count


_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""Of a segment of a JPEG: neither a byte 255 of packed pixels, nor a mark of restart among them."""


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters = warnings.catch_warnings()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings about odd metadata and, at its own limit, about size; ours is checked.

    `warnings.catch_warnings` alone is not safe in threads: one that leaves would put back another's filters.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.__exit__(None, None, None)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 of a loaded image; 1 where there is none or the metadata are broken."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # struct.error, SyntaxError, ...: the pixels are whole, so the image is usable
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _load(image: Image.Image, max_pixels: int) -> None:
    """Unpack it.

    Raises:
        BadImage: it was larger than its header said.
    """
    image.load()
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(f"{width}x{height} is more than max_pixels={max_pixels}")


def _bands(image: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    """First row, last row + 1, and what lies between of the loaded image, in bands of about `BAND` pixels."""
    width, height = image.size
    rows = max(BAND // width, 1)
    if rows >= height:
        yield 0, height, image
        return
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield top, bottom, image.crop((0, top, width, bottom))


def _upright(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """The loaded image as a person sees it."""
    width, height = image.size
    orientation = _orientation(image)
    turn = _TURNS.get(orientation)
    sideways = orientation >= 5
    out: np.ndarray | None = None
    for top, bottom, band in _bands(image):
        rgb = _rgb(band)
        upright = rgb if turn is None else rgb.transpose(turn)
        if bottom - top == height:
            return np.array(upright)
        if out is None:
            out = np.empty((width, height, 3) if sideways else (height, width, 3), np.uint8)
        at = slice(height - bottom, height - top) if turn in _BACKWARDS else slice(top, bottom)
        out[(slice(None), at) if sideways else at] = np.asarray(upright)
    assert out is not None
    return out


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):  # 16-bit grey: Pillow's convert would clip, not scale
        grey = np.asarray(image).astype(np.float32) / 257
        if grey.min() < 0 or grey.max() > 255:
            raise BadImage("integers beyond 16 bits: their range is unknown")
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("floating-point image: its range is unknown")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def caption(
    image: UInt8[Tensor, "3 H W"], lines: list[str], colours: UInt8[Tensor, "n 3"] | None = None
) -> UInt8[Tensor, "3 H W"]:
    """The image with lines of text in a box at its top left, in a size that stays legible.

    colours: one per line, shown as a square before it, as in a legend.
    """
    height, width = image.shape[-2:]
    drawing = Image.fromarray(image.permute(1, 2, 0).numpy())
    pen = ImageDraw.Draw(drawing)
    points = max(10, min(height, width) // 16)
    font = ImageFont.load_default(points)
    text = "\n".join(lines)
    left = 3 if colours is None else points + 6
    box = pen.multiline_textbbox((left, 2), text, font=font)
    pen.rectangle((0, 0, box[2] + 3, box[3] + 3), fill=(0, 0, 0))
    pen.multiline_text((left, 2), text, font=font, fill=(255, 255, 255))
    for i, colour in enumerate([] if colours is None else colours.tolist()):
        top = 2 + i * (box[3] - 2) / len(lines)
        pen.rectangle((3, top + 2, 1 + points, top + points), fill=tuple(colour))
    return torch.from_numpy(np.array(drawing)).permute(2, 0, 1).contiguous()


def palette(n: int) -> UInt8[Tensor, "n 3"]:
    """`n` distinct colours, the same for the same index everywhere: hues a golden angle apart."""
    rgb = [colorsys.hsv_to_rgb((0.618034 * i) % 1, 0.65 + 0.35 * (i % 2), 0.95 - 0.25 * (i // 2 % 2)) for i in range(n)]
    return (torch.tensor(rgb).reshape(n, 3) * 255).to(torch.uint8)
