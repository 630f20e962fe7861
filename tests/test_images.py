"""Bytes to pixels: every kind of picture that turns up in a folder, against the picture that it was made from."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from polyteach.ground import images
from polyteach.ground.endings import readable_formats
from polyteach.ground.images import BadImage, caption, decode, extensions, faint, measure, palette

GRADIENT = np.arange(24 * 32, dtype=np.uint32).reshape(24, 32)
RED, GREEN, BLUE = GRADIENT % 251, GRADIENT // 4 % 256, 255 - GRADIENT % 199
RGB = np.stack([RED, GREEN, BLUE], -1).astype(np.uint8)
ORIENTATION = 0x0112


def saved(picture, format="PNG", **options):
    out = io.BytesIO()
    picture.save(out, format=format, **options)
    return out.getvalue()


def pixels(data, **limits):
    image = decode(data, **limits)
    assert measure(data, **limits) == tuple(image.shape[1:])
    return image.permute(1, 2, 0).numpy()


def reason(data, **limits):
    """Why it is refused; both ways of looking must refuse it, with the same words."""
    with pytest.raises(BadImage) as e:
        decode(data, **limits)
    with pytest.raises(BadImage) as also:
        measure(data, **limits)
    assert str(e.value) == str(also.value)
    return str(e.value)


def oriented(picture, orientation, format="PNG", **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(picture, format, exif=exif, **options)


def test_rgb_is_unchanged():
    image = decode(saved(Image.fromarray(RGB)))
    assert image.dtype == torch.uint8
    assert image.permute(1, 2, 0).is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), RGB)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "MPO", "JPEG2000"])
def test_formats(format):
    smooth = Image.fromarray(RGB[:8, :8]).resize((64, 48), Image.Resampling.BICUBIC)
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}
    found = pixels(saved(smooth, format, **lossless.get(format, {})))
    tolerance = {"JPEG": 25, "MPO": 40, "GIF": 40}.get(format, 0)
    assert np.abs(found.astype(int) - np.asarray(smooth)).max() <= tolerance


def test_palette():
    assert np.array_equal(
        pixels(saved(Image.fromarray(RGB).quantize(16))), Image.fromarray(RGB).quantize(16).convert("RGB")
    )


def test_palette_with_transparency_is_over_white():
    picture = Image.new("P", (16, 12), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(0, (0, 0, 8, 12))
    found = pixels(saved(picture, transparency=0))
    assert (found[:, :8] == 255).all()
    assert (found[:, 8:] == (200, 100, 50)).all()
    found = pixels(saved(picture, transparency=bytes([255, 0])))  # one alpha per colour
    assert (found[:, :8] == (10, 20, 30)).all()
    assert (found[:, 8:] == 255).all()


def test_rgb_with_a_transparent_colour_is_over_white():
    picture = Image.new("RGB", (16, 12), (10, 20, 30))
    picture.paste((200, 100, 50), (8, 0, 16, 12))
    found = pixels(saved(picture, transparency=(10, 20, 30)))
    assert (found[:, :8] == 255).all()
    assert (found[:, 8:] == (200, 100, 50)).all()


def test_grey():
    grey = RED.astype(np.uint8)
    assert np.array_equal(pixels(saved(Image.fromarray(grey))), grey[..., None].repeat(3, -1))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_over_white(mode):
    picture = Image.fromarray(RGB).convert(mode)
    alpha = np.linspace(0, 255, 32).astype(np.uint8)[None].repeat(24, 0)
    picture.putalpha(Image.fromarray(alpha))
    solid = np.asarray(Image.fromarray(RGB).convert(mode).convert("RGB"), dtype=float)
    a = alpha[..., None] / 255
    assert np.abs(pixels(saved(picture)) - (solid * a + 255 * (1 - a))).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format):
    deep = (GRADIENT * 85).astype(np.uint16)  # 0..65195
    found = pixels(saved(Image.fromarray(deep), format))
    assert np.array_equal(found, np.round(deep / 65535 * 255).astype(np.uint8)[..., None].repeat(3, -1))


@pytest.mark.parametrize(("top", "said"), [(4095, True), (1023, True), (30000, False), (65535, False)])
@pytest.mark.parametrize("colour", [False, True])
def test_sixteen_bits_of_which_few_are_used_are_told(top, said, colour):
    """Twelve bits in sixteen. Pillow writes no RGB of 16 bits, so that is made by hand."""
    row = np.linspace(0, top, 32).astype(">u2")
    if not colour:
        data = saved(Image.fromarray(np.repeat(row[None], 16, 0).astype(np.uint16)), "PNG")
    else:
        lines = (b"\0" + np.repeat(row, 3).tobytes()) * 16
        head = struct.pack(">IIBBBBB", 32, 16, 16, 2, 0, 0, 0)
        chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
        )
    assert decode(data).max() == round(top / 257) or colour
    assert bool(faint(data)) == said


def test_eight_bits_are_never_faint():
    assert faint(saved(Image.new("RGB", (16, 16)), "PNG")) is None
    assert faint(saved(Image.new("L", (16, 16), 3), "JPEG")) is None


def test_one_bit():
    assert set(np.unique(pixels(saved(Image.fromarray(RED > 100))))) == {0, 255}


def test_cmyk_jpeg():
    found = pixels(saved(Image.new("CMYK", (32, 24), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 8


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(format):
    frames = [Image.new("RGB", (16, 12), c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if format == "WEBP" else {}
    found = pixels(saved(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert (found == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation(orientation, format):
    """Row 0 and column 0 of what is stored are, for each value, the sides that the EXIF standard names."""
    upright = RGB if format != "JPEG" else RGB[:3, :4].repeat(16, 0).repeat(16, 1)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),  # row 0 is the left side, column 0 the top
        6: upright[:, ::-1].transpose(1, 0, 2),  # row 0 is the right side, column 0 the top
        7: upright[::-1, ::-1].transpose(1, 0, 2),  # row 0 is the right side, column 0 the bottom
        8: upright[::-1].transpose(1, 0, 2),  # row 0 is the left side, column 0 the bottom
    }[orientation]
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    found = pixels(oriented(Image.fromarray(np.ascontiguousarray(stored)), orientation, format, **options))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= (8 if format == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["P", "L", "1", "I;16", "RGBA"])
def test_exif_orientation_of_other_modes(mode):
    picture = (
        Image.fromarray((GRADIENT * 85).astype(np.uint16)) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    )
    turned = pixels(oriented(picture, 6))
    assert turned.shape == (32, 24, 3)
    assert np.array_equal(turned, np.rot90(pixels(saved(picture)), -1))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x" * 3000]
)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_costs_only_the_orientation(exif, format):
    assert pixels(saved(Image.fromarray(RGB), format, exif=exif)).shape == (24, 32, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_none(orientation):
    assert pixels(oriented(Image.fromarray(RGB), orientation)).shape == (24, 32, 3)


def test_jpeg_with_trailing_junk():
    data = saved(Image.fromarray(RGB), "JPEG")
    assert np.array_equal(pixels(data + b"junk" * 1000), pixels(data))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(format, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))
    data = saved(noise, format)
    assert reason(data[: int(len(data) * share)])


def test_truncated_progressive_and_large_jpeg():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8))
    data = saved(noise, "JPEG", progressive=True)
    assert measure(data) == (300, 500)
    assert "truncated" in reason(data[: len(data) // 2])


def test_zero_bytes():
    assert reason(b"") == "empty file (0 bytes)"


@pytest.mark.parametrize("data", [b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"\0" * 4096])
def test_no_image(data):
    assert reason(data)


def test_postscript_is_not_run():
    """Pillow would hand it to ghostscript."""
    assert "not an image" in reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n")
    assert ".eps" not in extensions()


def test_corrupt_png_data():
    data = bytearray(saved(Image.fromarray(RGB)))
    at = data.index(b"IDAT") + 20
    data[at : at + 8] = b"\xff" * 8
    assert "broken" in reason(bytes(data))


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_tiny(size):
    data = saved(Image.new("RGB", size))
    assert reason(data) == f"{size[0]}x{size[1]} has a side below min_side=8"
    assert pixels(data, min_side=1).shape == (size[1], size[0], 3)


def test_huge(monkeypatch):
    data = saved(Image.new("1", (20000, 20000)), compress_level=1)
    assert "max_pixels=100000000" in reason(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**9)
    assert reason(data) == "20000x20000 is more than max_pixels=100000000"


def test_max_pixels_wins_over_pillows_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = saved(Image.fromarray(RGB))
    assert pixels(data, max_pixels=1000).shape == (24, 32, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000
    assert reason(data, max_pixels=767) == "32x24 is more than max_pixels=767"
    assert pixels(data, max_pixels=768).shape == (24, 32, 3)


def test_png_with_a_huge_text_chunk():
    """A zip bomb in the text is refused; long text that is stored plainly does no harm."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 2_000_000)
    assert pixels(saved(Image.fromarray(RGB), pnginfo=info)).shape == (24, 32, 3)
    bomb = PngImagePlugin.PngInfo()
    bomb.add(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 20_000_000))
    assert "broken" in reason(saved(Image.fromarray(RGB), pnginfo=bomb))


def test_numbers_of_unknown_range_are_refused():
    assert "floating-point" in reason(saved(Image.fromarray(RGB[..., 0].astype(np.float32)), "TIFF"))
    assert "16 bits" in reason(saved(Image.fromarray(GRADIENT.astype(np.int32) * 1000), "TIFF"))
    assert "16 bits" in reason(saved(Image.fromarray(GRADIENT.astype(np.int32) - 5), "TIFF"))


def test_bytes_at_random_never_raise_anything_else():
    rng = np.random.default_rng(0)
    whole = [saved(Image.fromarray(RGB), f) for f in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")]
    for i in range(300):
        data = bytearray(whole[i % 6])
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        try:
            image = decode(bytes(data))
        except BadImage:
            with pytest.raises(BadImage):
                measure(bytes(data))
        else:
            assert measure(bytes(data)) == tuple(image.shape[1:])


def test_warnings_stay_as_they_were_with_threads():
    data = saved(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\0\0\0\0\0\0")
    before = list(warnings.filters)
    errors = []

    def work():
        try:
            for _ in range(50):
                decode(data)
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert warnings.filters == before


def test_palette_has_distinct_colours_that_stay():
    assert len({tuple(c) for c in palette(256).tolist()}) == 256
    assert torch.equal(palette(300)[:20], palette(20))
    assert palette(0).shape == (0, 3)


def test_caption_keeps_the_rest():
    image = torch.full((3, 64, 96), 7, dtype=torch.uint8)
    written = caption(image, ["cat 0.9"])
    assert written.shape == image.shape
    assert not torch.equal(written, image)
    assert torch.equal(written[:, 32:], image[:, 32:])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "CMYK", "1"])
def test_large_pictures_are_converted_in_bands_and_come_out_the_same(mode, orientation, monkeypatch):
    whole = Image.fromarray((GRADIENT * 80).astype(np.uint16)) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    more = {"transparency": 3} if mode == "P" else {}
    data = oriented(whole, orientation, "TIFF" if mode == "CMYK" else "PNG", **more)
    expected = pixels(data)
    monkeypatch.setattr(images, "BAND", 5 * 32)
    assert np.array_equal(pixels(data), expected)


def header(width, height):
    """A PNG of which there is the header alone."""
    size = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + size + struct.pack(">I", zlib.crc32(size))
    data = b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + chunks + struct.pack(">I", 0) + data + struct.pack(">I", zlib.crc32(data))


def test_another_size_is_seen_before_anything_is_unpacked():
    with pytest.raises(BadImage, match="is 9000x8000 now, was 40x30 when ingested"):
        decode(header(9000, 8000), size=(30, 40))
    with pytest.raises(BadImage, match="broken"):
        decode(header(40, 30), size=(30, 40))
    with pytest.raises(BadImage, match="max_pixels=100000000"):
        decode(header(20_000, 20_000), size=(20_000, 20_000))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_the_size_that_a_picture_has_to_have_is_the_upright_one(format, orientation):
    data = oriented(Image.fromarray(RGB), orientation, format)
    size, other = ((24, 32), (32, 24)) if orientation < 5 else ((32, 24), (24, 32))
    assert tuple(decode(data, size=size).shape[1:]) == size
    with pytest.raises(BadImage, match="when ingested"):
        decode(data, size=other)


def test_an_icon_may_say_another_size_than_its_picture_has():
    data = bytearray(saved(Image.fromarray(RGB).resize((64, 64)), "ICO", sizes=[(64, 64)]))
    data[6:8] = 32, 32
    assert tuple(decode(bytes(data), size=measure(bytes(data))).shape) == (3, 64, 64)


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "JPEG2000"])
def test_formats_whose_decoders_take_much_memory_count_twice(format):
    data = saved(Image.fromarray(RGB), format)
    assert "counts 2 times" in reason(data, max_pixels=2 * 24 * 32 - 1)
    assert tuple(decode(data, max_pixels=2 * 24 * 32).shape) == (3, 24, 32)


def test_a_jpeg_of_very_many_scans_is_refused_and_what_is_appended_is_not_counted():
    data = saved(Image.fromarray(RGB), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert "of 150 scans" in reason(data[:-2] + last * (150 - data.count(b"\xff\xda")) + b"\xff\xd9")
    film = b"\xff\xda\0\x08" * 500
    assert np.array_equal(pixels(data + film), pixels(data))


def test_a_tile_that_is_larger_than_any_picture_is_refused():
    entries = [(256, 4, 32), (257, 4, 32), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1), (322, 4, 80_000),
               (323, 4, 80_000), (324, 4, 8), (325, 4, 20)]  # fmt: skip
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    data = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + packed + bytes(40)
    assert "a tile of 80000x80000" in reason(data)


def test_a_format_that_holds_any_other_is_not_read():
    assert "IPTC" not in readable_formats()  # Pillow would open an EPS in it, and run Ghostscript


def test_a_picture_that_memory_is_not_enough_for_is_a_bad_picture(monkeypatch):
    def full(*given):
        raise MemoryError

    monkeypatch.setattr(images, "_rgb", full)
    assert reason(saved(Image.fromarray(RGB))) == "memory is not enough to decode it"
