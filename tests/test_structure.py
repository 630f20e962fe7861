"""The published structure of the student: every head counted layer by layer, and computed again from its weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.v2.functional import resize

from polyteach.ground.layers import fuse
from polyteach.model.student import Student
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Space
from polyteach.tasks.detection import BOXES, MASKS

CLASSES, C = 5, 16
SPACE = {
    "classification": Space(tuple("abcde")),
    "segmentation": Space(tuple("abcde")),
    "depth": Space(kind="relative inverse"),
    "normals": Space(),
}
OUTPUTS = {"segmentation": CLASSES, "depth": 1, "normals": 3}
"""Numbers per pixel of every pixel task."""
WIDTHS = {"c5": 24} | {f"p{k}": C for k in range(2, 8)}


def head_of(task, space=None):
    head = load_task(task).head(WIDTHS, space or SPACE[task]).eval()
    for p in head.parameters():  # biases begin at zero, and a norm at one: those would hide what they do
        nn.init.normal_(p, 0.1, 0.3)
    return head


def layers_of(module, kind):
    """(input, output, side) of the convolutions, or (input, output) of the linear layers, in the order of the code."""
    found = [m for m in module.modules() if isinstance(m, kind)]
    if kind is nn.Linear:
        return [(m.in_features, m.out_features) for m in found]
    return [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in found]


def levels(batch=2, size=(64, 96)):
    """A pyramid of noise."""
    g = torch.Generator().manual_seed(1)
    out = {f"p{k}": torch.randn(batch, C, -(-size[0] // 2**k), -(-size[1] // 2**k), generator=g) for k in range(2, 8)}
    return {"c5": torch.randn(batch, 24, size[0] // 32, size[1] // 32, generator=g), **out}


def normalised(x, weights, name):
    """Groups of eight channels."""
    return F.group_norm(x, C // 8, weights[f"{name}.weight"], weights[f"{name}.bias"])


def test_classes_are_read_from_the_mean_of_c5_by_one_linear_layer():
    head = head_of("classification")
    assert layers_of(head, nn.Conv2d) == []
    assert layers_of(head, nn.Linear) == [(24, CLASSES)]
    assert sum(p.numel() for p in head.parameters()) == 24 * CLASSES + CLASSES
    pyramid = levels()
    weight, bias = head.state_dict().values()
    means = pyramid["c5"].numpy().mean((2, 3))
    expected = torch.from_numpy(means @ weight.numpy().T + bias.numpy())
    torch.testing.assert_close(head({"c5": pyramid["c5"]}), expected)  # it needs nothing else


def test_fused_p2_is_the_sum_of_all_levels():
    """Six levels, each of one value, add up; and so do maps, enlarged by torchvision."""
    flat = {f"p{k}": torch.full((1, C, 64 >> k or 1, 128 >> k), 10.0**k) for k in range(2, 8)}
    assert (fuse(flat) == sum(10.0**k for k in range(2, 8))).all()
    pyramid = levels()
    fine = tuple(pyramid["p2"].shape[-2:])
    expected = pyramid["p2"] + sum(resize(pyramid[f"p{k}"], fine, antialias=False) for k in range(3, 8))
    torch.testing.assert_close(fuse(pyramid), expected)


@pytest.mark.parametrize("task", OUTPUTS)
def test_a_pixel_task_has_three_hidden_convolutions_and_a_linear_one(task):
    head, outputs = head_of(task), OUTPUTS[task]
    assert layers_of(head, nn.Conv2d) == [(C, C, 3)] * 3 + [(C, outputs, 1)]
    assert layers_of(head, nn.Linear) == []
    norms = 3 * 2 * C
    assert sum(p.numel() for p in head.parameters()) == 3 * 9 * C * C + norms + outputs * (C + 1)  # fusing has none
    pyramid = levels()
    x = fuse(dict(pyramid))
    weights = {k.removeprefix("pixels."): v for k, v in head.state_dict().items()}
    for i in (0, 3, 6):
        x = normalised(F.conv2d(x, weights[f"hidden.{i}.weight"], padding=1), weights, f"hidden.{i + 1}").relu()
    x = F.conv2d(x, weights["out.weight"], weights["out.bias"])
    expected = resize(x, (64, 96), antialias=False)
    found = head(pyramid)
    found = found.output[:, None] if task == "depth" else found
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_proposals_come_from_two_hidden_convolutions_on_p3_to_p7():
    head = head_of("detection", Space(tuple("abcde"), BOXES))
    net = head.proposals
    anchors = 3
    assert layers_of(net, nn.Conv2d) == [(C, C, 3)] * 2 + [(C, anchors, 1), (C, 4 * anchors, 1)]
    pyramid, weights = levels(), net.head.state_dict()
    found = head({k: v for k, v in pyramid.items() if k not in ("c5", "p2")})  # it needs no others
    assert (len(found.objectness), len(found.deltas)) == (5, 5)
    for level, objectness, deltas in zip(range(3, 8), found.objectness, found.deltas, strict=True):
        x = pyramid[f"p{level}"]
        for i in (0, 1):
            x = F.conv2d(x, weights[f"conv.{i}.0.weight"], weights[f"conv.{i}.0.bias"], padding=1).relu()
        for name, given in (("cls_logits", objectness), ("bbox_pred", deltas)):
            expected = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def test_anchors_are_four_strides_long_in_three_aspects():
    net = head_of("detection", Space(tuple("abcde"), BOXES)).proposals.anchor_generator
    for level, cells in zip(range(3, 8), net.cell_anchors, strict=True):
        sides = (cells[:, 2:] - cells[:, :2]).double()
        assert sides.prod(1).sqrt().tolist() == pytest.approx([4 * 2**level] * 3, rel=0.05)  # they are whole pixels
        assert sorted((sides[:, 1] / sides[:, 0]).tolist()) == pytest.approx([0.5, 1, 2], rel=0.1)


def test_boxes_have_four_hidden_convolutions_and_one_connected_layer():
    head = head_of("detection", Space(tuple("abcde"), BOXES))
    width = 4 * C
    regions = head.regions
    assert not regions.has_mask()
    assert layers_of(regions, nn.Conv2d) == [(C, C, 3)] * 4
    assert layers_of(regions, nn.Linear) == [(C * 49, width), (width, CLASSES + 1), (width, 4 * (CLASSES + 1))]
    x = torch.randn(3, C, 7, 7, generator=torch.Generator().manual_seed(2))
    found = regions.box_predictor(regions.box_head(x))
    weights = regions.state_dict()
    for i in range(4):
        name = f"box_head.{i}"
        x = normalised(F.conv2d(x, weights[f"{name}.0.weight"], padding=1), weights, f"{name}.1").relu()
    x = F.linear(x.flatten(1), weights["box_head.5.weight"], weights["box_head.5.bias"]).relu()
    for name, given in zip(("cls_score", "bbox_pred"), found, strict=True):
        expected = F.linear(x, weights[f"box_predictor.{name}.weight"], weights[f"box_predictor.{name}.bias"])
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-3)
    assert head_width(256) == 1024


def head_width(channels):
    widths = dict.fromkeys(WIDTHS, channels)
    return load_task("detection").head(widths, Space(("a",), BOXES)).regions.box_predictor.cls_score.in_features


def test_masks_have_four_hidden_convolutions_and_what_is_learned_beside_boxes():
    boxes, masks = (head_of("detection", Space(tuple("abcde"), kind)) for kind in (BOXES, MASKS))
    assert layers_of(masks.regions.mask_head, nn.Conv2d) == [(C, C, 3)] * 4
    assert layers_of(masks.regions.mask_predictor, nn.Conv2d) == [(C, CLASSES + 1, 1)]
    assert layers_of(masks.regions.mask_predictor, nn.ConvTranspose2d) == [(C, C, 2)]
    same = {k for k in masks.state_dict() if not k.startswith("regions.mask_")}
    assert same == set(boxes.state_dict())


def test_the_pyramid_is_that_of_lin_et_al():
    """1x1 from each level, added to the enlarged coarser one, 3x3; P6 and P7 by strides as in RetinaNet."""
    student = Student("test_resnet", {}, channels=C).eval()
    for p in student.pyramid.parameters():
        nn.init.normal_(p, 0.01, 0.1)
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    weights = student.pyramid.state_dict()

    def conv(x, name, **more):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **more)

    with torch.no_grad():
        found, maps = student.features(images), student.levels(images)
        assert torch.equal(found["c5"], maps[-1])
        above = None
        for k in (3, 2, 1, 0):
            inner = conv(maps[k], f"inner_blocks.{k}.0")
            above = inner if above is None else inner + above.repeat_interleave(2, 2).repeat_interleave(2, 3)
            torch.testing.assert_close(found[f"p{k + 2}"], conv(above, f"layer_blocks.{k}.0", padding=1))
        p6 = conv(found["p5"], "extra_blocks.p6", stride=2, padding=1)
        torch.testing.assert_close(found["p6"], p6)
        torch.testing.assert_close(found["p7"], conv(p6.relu(), "extra_blocks.p7", stride=2, padding=1))


def test_pooled_features_are_means_of_the_last_map():
    student = Student("test_resnet", {}, channels=C).eval()
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = student.levels(images)[-1].double().numpy().mean((2, 3))
        torch.testing.assert_close(student.pooled(images).double(), torch.from_numpy(expected))


def test_pixels_are_standardised_as_the_backbone_expects():
    student = Student("test_resnet", {}, channels=C).eval()
    config = student.backbone.pretrained_cfg
    images = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    mean, std = (torch.tensor(config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        for found, expected in zip(student.levels(images), student.backbone((images / 255 - mean) / std), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_one_head_for_each_objective_and_no_other_module():
    objectives = {f"{k}_x": Objective(k, space) for k, space in SPACE.items()}
    student = Student("test_resnet", objectives, channels=C)
    assert [n for n, _ in student.named_children()] == ["backbone", "pyramid", "heads"]
    assert set(student.heads) == set(objectives)
