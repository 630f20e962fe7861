"""A view moves pixels, maps and boxes alike: against painting and looking, torchvision, and its own inverse."""

import random
import resource
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as kernels

from polyteach.ground import geometry
from polyteach.ground.geometry import View, area, letterbox, random_view, whole
from tests.worlds import apart

SIDE = st.integers(1, 40)
SIZES = st.tuples(SIDE, SIDE)


@st.composite
def integer_views(draw):
    """Crops at whole pixels, partly or wholly beyond the source, resized and mirrored at will."""
    source = draw(SIZES)
    top, left = draw(st.integers(-20, 45)), draw(st.integers(-20, 45))
    return View(source, top, left, draw(SIDE), draw(SIDE), draw(SIZES), draw(st.booleans()))


@st.composite
def blocky_views(draw):
    """Views that show every source pixel as a block of whole pixels, so that painted boxes stay sharp."""
    source, factor = draw(SIZES), draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    top, left = draw(st.integers(-height, source[0])), draw(st.integers(-width, source[1]))  # most see something
    size = (height * factor[0], width * factor[1])
    return View(source, top, left, height, width, size, draw(st.booleans()))


@settings(deadline=None)
@given(blocky_views(), st.data())
def test_a_box_is_where_its_paint_is_seen(view, data):
    h, w = view.source
    y0, x0 = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, h)), data.draw(st.integers(x0 + 1, w))
    paint = torch.zeros(h, w, dtype=torch.bool)
    paint[y0:y1, x0:x1] = True
    rows, columns = view.dense(paint).nonzero().unbind(1)
    box = view.boxes(torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32))
    if not len(rows):
        assert area(box) == 0
    else:
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        torch.testing.assert_close(box[0], seen.float(), atol=1e-4, rtol=0)


def test_boxes_by_hand():
    """A crop from (2, 4) of 6x8 pixels, enlarged twice in height and four times in width; then in a mirror."""
    xyxy = torch.tensor([[5.0, 3, 8, 6], [0, 0, 20, 10], [13, 9, 20, 10]])
    seen = View((10, 20), 2, 4, 6, 8, (12, 32))
    assert seen.boxes(xyxy).tolist() == [[4, 2, 16, 8], [0, 0, 32, 12], [32, 12, 32, 12]]
    mirrored = View((10, 20), 2, 4, 6, 8, (12, 32), True)
    assert mirrored.boxes(xyxy).tolist() == [[16, 2, 28, 8], [0, 0, 32, 12], [0, 12, 0, 12]]


@settings(deadline=None)
@given(integer_views())
def test_boxes_stay_inside_the_view_and_keep_their_rows(view):
    h, w = view.source
    boxes = torch.tensor([[0, 0, w, h], [0, 0, 1, 1], [w - 1, h - 1, w, h]], dtype=torch.float32)
    out = view.boxes(boxes)
    assert out.shape == boxes.shape
    assert (out[:, 2:] >= out[:, :2]).all()
    assert (out >= 0).all()
    assert (out <= torch.tensor([view.size[1], view.size[0]]).repeat(2)).all()
    assert view.boxes(boxes[:0]).shape == (0, 4)


@settings(deadline=None)
@given(integer_views(), st.sampled_from([torch.bool, torch.uint8, torch.int64, torch.float32]))
def test_a_map_is_seen_as_torchvision_crops_and_resizes_it(view, dtype):
    field = torch.arange(view.source[0] * view.source[1]).reshape(1, *view.source).remainder(251) + 1
    far = torch.nn.functional.pad(field, [100] * 4)  # torchvision's own crop fails wholly above or left of a picture
    crop = kernels.crop(far.double(), view.top + 100, view.left + 100, view.height, view.width)
    exact = kernels.InterpolationMode.NEAREST_EXACT
    expected = kernels.resize(crop, list(view.size), interpolation=exact).to(dtype)
    expected = expected.flip(-1) if view.mirrored else expected
    seen = view.dense(field.to(dtype))
    assert seen.dtype == dtype
    # a centre on the border of two source pixels belongs to either, and torchvision computes it in float32
    rows, columns = (
        (2 * torch.arange(out) + 1) * length % (2 * out) != 0
        for length, out in zip((view.height, view.width), view.size, strict=True)
    )
    clear = rows[:, None] & (columns.flip(0) if view.mirrored else columns)
    assert torch.equal(seen[0][clear], expected[0][clear])


@settings(deadline=None)
@given(
    integer_views(), st.sampled_from([torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32]), st.data()
)
def test_a_map_is_what_indexing_by_rows_and_columns_gives(view, dtype, data):
    """Bit for bit, whatever the resolution, the leading axes and the strides, and again from what was remembered."""
    cells = data.draw(SIZES)
    shape = (*data.draw(st.sampled_from([(), (1,), (3,), (0,), (2, 2)])), *cells)
    field = (torch.rand(shape) * 300).to(dtype)
    if data.draw(st.booleans()):
        field = field.transpose(-1, -2).contiguous().transpose(-1, -2)

    def along(start, length, out, source, count):
        at = start + (torch.arange(out, dtype=torch.float64) + 0.5) * (length / out)
        return (at * (count / source)).floor().long().clamp(0, count - 1), (at >= 0) & (at < source)

    rows, in_rows = along(view.top, view.height, view.size[0], view.source[0], cells[0])
    columns, in_columns = along(view.left, view.width, view.size[1], view.source[1], cells[1])
    if view.mirrored:
        columns, in_columns = columns.flip(0), in_columns.flip(0)
    expected = field[..., rows[:, None], columns]
    expected = expected.where(in_rows[:, None] & in_columns, torch.tensor(1, dtype=dtype))
    for _ in range(2):
        seen = view.dense(field, 1)
        assert seen.dtype == dtype
        assert torch.equal(seen, expected)


def test_a_view_first_used_without_gradients_serves_training():
    view = View((4, 4), 0, 0, 4, 4, (3, 3))
    with torch.inference_mode():
        view.dense(torch.zeros(4, 4))
    field = torch.rand(4, 4, requires_grad=True)
    view.dense(field).sum().backward()
    assert int((field.grad != 0).sum()) == 9


@settings(deadline=None)
@given(integer_views())
def test_beyond_the_source_there_is_fill_and_nothing_else(view):
    seen = view.dense(torch.zeros(view.source), 7)
    rows, columns = (
        start + (torch.arange(out, dtype=torch.float64) + 0.5) * length / out
        for start, length, out in zip((view.top, view.left), (view.height, view.width), view.size, strict=True)
    )
    columns = columns.flip(0) if view.mirrored else columns
    inside = ((rows >= 0) & (rows < view.source[0]))[:, None] & (columns >= 0) & (columns < view.source[1])
    assert torch.equal(seen == 0, inside)
    assert torch.equal(seen == 7, ~inside)


@settings(deadline=None)
@given(integer_views(), st.integers(1, 3), st.integers(1, 3))
def test_a_map_of_finer_cells_is_seen_as_the_coarse_one(view, up, across):
    """Resolution of the map does not matter: a cell repeated is the same map."""
    coarse = torch.rand(view.source)
    fine = coarse.repeat_interleave(up, 0).repeat_interleave(across, 1)
    # a centre exactly on a coarse border is on a fine one too, so both floor to the same side
    assert torch.equal(view.dense(fine, -1), view.dense(coarse, -1))


@settings(deadline=None)
@given(integer_views())
def test_the_inverse_puts_what_was_seen_back(view):
    field = torch.rand(view.source)
    back = view.inverse().dense(view.dense(field, -1), -1)
    assert back.shape == field.shape
    once = view.dense(field, -1)
    assert torch.equal(view.dense(back, -1), once)
    if view.size[0] >= view.height and view.size[1] >= view.width:  # nothing was skipped
        seen = back >= 0
        assert torch.equal(back[seen], field[seen])
    again = view.inverse().inverse()
    for name in ("top", "left", "height", "width"):
        assert abs(getattr(again, name) - getattr(view, name)) < 1e-6
    assert (again.source, again.size, again.mirrored) == (view.source, view.size, view.mirrored)


@settings(deadline=None)
@given(integer_views(), st.data())
def test_the_inverse_puts_boxes_back(view, data):
    h, w = view.source
    y0, x0 = data.draw(st.floats(0, h - 0.5)), data.draw(st.floats(0, w - 0.5))
    box = torch.tensor([[x0, y0, data.draw(st.floats(x0, w)), data.draw(st.floats(y0, h))]])
    crop = torch.tensor([view.left, view.top, view.left + view.width, view.top + view.height]).float()
    visible = torch.cat([box[0, :2].maximum(crop[:2]), box[0, 2:].minimum(crop[2:])])
    if (visible[2:] > visible[:2]).all():
        back = view.inverse().boxes(view.boxes(box))
        torch.testing.assert_close(back[0], visible, atol=1e-2, rtol=1e-4)


@settings(deadline=None)
@given(integer_views())
def test_the_picture_and_a_map_of_it_are_seen_alike(view):
    """Where nothing is resized, the picture's pixels are the map's."""
    image = torch.randint(1, 256, (3, *view.source), dtype=torch.uint8)
    same = View(view.source, view.top, view.left, view.height, view.width, (view.height, view.width), view.mirrored)
    if same.size != (1, 1):  # torch 2.14 cannot resize bytes to a single pixel
        assert torch.equal(same.image(image), same.dense(image, 0))
    if view.size != (1, 1):
        seen = view.image(image)
        assert seen.shape == (3, *view.size)
        assert seen.dtype == torch.uint8


@settings(deadline=None)
@given(SIZES, SIZES)
def test_fit_shows_all_of_the_source_with_its_aspect_kept(source, size):
    view = letterbox(source, size)
    corners = view.boxes(torch.tensor([[0.0, 0.0, source[1], source[0]]]))[0]
    assert corners[:2].tolist() == [0, 0]
    assert corners[2] <= size[1] + 1e-4
    assert corners[3] <= size[0] + 1e-4
    assert abs(corners[2] - size[1]) < 1e-3 or abs(corners[3] - size[0]) < 1e-3, "as large as fits"
    scale = size[0] / view.height
    assert abs(scale - size[1] / view.width) < 1e-9
    torch.testing.assert_close(corners[2:], torch.tensor([source[1], source[0]]).float() * scale, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(SIZES, SIZES)
def test_whole_is_all_of_it(source, size):
    field = torch.rand(source)
    assert torch.equal(whole(source).dense(field), field)
    assert (whole(source, size).dense(field, -1) >= 0).all()


@settings(deadline=None)
@given(st.integers(0, 10**6), SIZES, SIZES, st.booleans())
def test_random_views_are_of_the_size_asked_and_show_some_of_the_source(seed, source, size, mirror):
    view = random_view(source, size, Random(seed), scale=(0.5, 2.0), mirror=float(mirror))
    assert view.size == size
    assert view.source == source
    assert view.mirrored is mirror
    assert view.dense(torch.zeros(source)).shape == size
    assert view.top < source[0]
    assert view.left < source[1]
    assert view.top + view.height > 0
    assert view.left + view.width > 0
    assert view.top == int(view.top)
    assert view.height >= 1
    assert random_view(source, size, Random(seed), mirror=float(mirror)) == view


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6), st.sampled_from([(5, 300), (300, 5), (40, 60), (1, 90), (90, 80)]),
    st.sampled_from([(32, 32), (40, 24), (17, 9)]), st.floats(0.1, 2.0),
)  # fmt: skip
def test_a_picture_put_together_is_what_padding_makes_of_it(seed, source, size, scale):
    """To within one level, for every view: that of most pictures is made by torchvision as it is."""
    image = torch.randint(0, 256, (3, *source), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    view = random_view(source, size, Random(seed), (scale, scale))
    padded = kernels.resized_crop(
        image, round(view.top), round(view.left), view.height, view.width, list(size), antialias=True
    )
    assert torch.equal(view.image(image), padded.flip(-1) if view.mirrored else padded)
    made = geometry._resized(image, (view.top, view.left), (view.height, view.width), size)
    assert int((made.int() - padded.int()).abs().max()) <= 1


def sees():
    """Views of thin images, and the memory that they take."""

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    size = (512, 512)
    small = torch.full((3, 64, 64), 200, dtype=torch.uint8)
    for view in (random_view((64, 64), size, Random(0), (0.5, 0.5)), letterbox((64, 64), size)):
        view.image(small)  # what torch itself takes
    before = peak()
    for source in ((100, 10_000), (10_000, 100), (4, 200_000), (250, 100_000)):
        image = torch.full((3, *source), 200, dtype=torch.uint8)
        views = [random_view(source, size, Random(i), (s, s)) for i, s in enumerate((0.5, 0.1, 1.9))]
        for view in (*views[:2], letterbox(source, size)):
            seen = view.image(image)
            assert seen.shape == (3, *size)
            assert abs(float(seen.float().mean()) - 200 * source[0] * source[1] / view.height / view.width) < 0.2, view
        assert views[2].image(image).shape == (3, *size)
        took = peak() - before
        print(source, took)
        assert took < 3 * source[0] * source[1] + 200e6, (source, took)


def test_a_view_of_a_thin_picture_costs_what_is_seen_of_it(tmp_path):
    """Padded to the whole crop, half of 100 x 10,000 pixels took 3 GiB, and of 250 x 100,000 would take 120 GB."""
    assert apart(sees, tmp_path / "said")[0] == 0, (tmp_path / "said").read_text()


def test_a_view_knows_how_much_larger_things_look_than_in_the_fitted_picture():
    draw = Random(0)
    for source, size in (((480, 640), (256, 256)), ((300, 100), (64, 96))):
        whole_picture = letterbox(source, size)
        assert whole_picture.zoom == 1
        assert whole(source, size).zoom == 1
        for _ in range(20):
            view = random_view(source, size, draw, (0.3, 1.7))
            assert view.zoom == pytest.approx(whole_picture.height / view.height, rel=0.02)
            assert view.inverse().zoom == pytest.approx(1 / view.zoom)


def test_scale_jitter_is_log_uniform_and_keeps_the_aspect():
    draw = random.Random(0)
    source, size = (480, 640), (240, 320)
    views = [random_view(source, size, draw, scale=(0.5, 2.0), mirror=0.5) for _ in range(2000)]
    factors = torch.tensor([source[0] / v.height for v in views])
    assert factors.min() >= 0.499
    assert factors.max() <= 2.01
    assert abs(float(factors.log2().mean())) < 0.05
    assert abs(float((factors < 1).float().mean()) - 0.5) < 0.05
    assert abs(sum(v.mirrored for v in views) / 2000 - 0.5) < 0.05
    aspect = torch.tensor([v.width / v.height for v in views])
    assert (aspect - 4 / 3).abs().max() < 0.02


@settings(deadline=None)
@given(integer_views(), SIZES, st.integers(0, 3), st.integers(0, 10**6))
def test_outlines_are_what_dense_makes_of_masks(view, cells, count, seed):
    draw = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, *cells, generator=draw) < torch.rand(count, 1, 1, generator=draw) ** 3
    assert torch.equal(view.outlines(masks), view.dense(masks, False))
