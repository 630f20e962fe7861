"""Operations are those that torch's own counter finds."""

import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from polyteach.ground.flops import counted


class Resizing(nn.Module):
    """Every way to lose a product: convolutions up and down, attention, resizing between them."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 2)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Linear(4, 5)

    def forward(self, x):
        x = self.up(self.down(x))
        for mode in ("bilinear", "bicubic", "nearest"):
            x = F.interpolate(x, scale_factor=1.5, mode=mode)
        tokens = F.adaptive_avg_pool2d(x, 3).flatten(2).mT
        tokens, _ = self.attention(tokens, tokens, tokens)
        return torch.einsum("bnc,bmc->bnm", self.last(tokens), self.last(tokens)).sum()


def by_torch(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_operations_are_those_of_torchs_counter():
    images = torch.rand(2, 3, 32, 32)
    for model in (Resizing(), timm.create_model("test_resnet"), timm.create_model("test_vit", img_size=32)):

        def forward(model=model):
            with torch.inference_mode():
                model(images)

        def step(model=model):
            model(images).sum().backward()

        for call in (forward, step):
            assert counted(call)[1] == by_torch(call) > 0


def test_counting_returns_the_same_value_and_nothing_where_there_is_no_product():
    x = torch.rand(1, 3, 5, 7)
    value, found = counted(lambda: F.interpolate(x, (9, 8), mode="bilinear"))
    assert torch.equal(value, F.interpolate(x, (9, 8), mode="bilinear"))
    assert found is None
