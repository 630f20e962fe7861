"""How timm makes a model, and what it does to a checkpoint on the way in, found out without memory for its weights."""

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import _builder
from torch import Tensor

_LOCK = threading.Lock()
NOT_WEIGHTS = ("num_batches_tracked", "relative_position_index", "relative_coords_table", "attn_mask")
"""How names of tensors end that follow from the model, or that evaluation does not use."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """A model of timm's as it was asked for, on torch's "meta" device.

    names: of the tensors that the model keeps -> what timm's whole model, and so its files, call them: features_only
    renames layers. same: timm's names -> the name by which `names` has that tensor, which may have several. shapes: of
    the whole model's tensors, by name. whole: that model; it has shapes alone. convert: timm's own filter of the
    model's checkpoints, which renames and resamples, or None. config: timm's `pretrained_cfg`. built: the model itself.
    """

    name: str
    names: dict[str, str]
    same: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    whole: Any
    convert: Callable[..., Any] | None
    config: dict[str, Any]
    built: Any

    @property
    def classifier(self) -> tuple[str, ...]:
        """How names of what tells classes begin, whose number is the file's own."""
        said = self.config.get("classifier") or ()
        return tuple(f"{x}." for x in ((said,) if isinstance(said, str) else said))

    @property
    def needed(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what a file has to have, by timm's names."""
        return {k: self.shapes[k] for k in sorted(set(self.names.values())) if not k.endswith(NOT_WEIGHTS)}

    def converted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under timm's names and in this model's shapes, as timm would load them.

        Raises:
            Exception: any, where they are not what the filter of this model expects.
        """
        given = dict(weights)  # some filters take names out of it
        if self.convert is None:
            return given
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # one prints what it tries
            warnings.simplefilter("ignore")  # of how timm calls torch
            try:
                out = self.convert(given, self.whole)
            except TypeError:  # an older kind, as timm's own loading has it
                out = self.convert(given)
        return {k: v for k, v in out.items() if isinstance(v, Tensor)}


def recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    """How timm makes the model of that name with these options of `timm.create_model`.

    Raises:
        ValueError: it is not built as timm builds its own, so that no file of weights can be brought into it.
    """
    made = recorded(name, lambda: timm.create_model(name, pretrained=True, **options))
    strange = made.built.state_dict().keys() - made.names.keys()
    if strange:
        raise ValueError(f"backbone {name!r}: {min(strange)} is in none of timm's files; it takes no file of weights")
    return made


def recorded(name: str, make: Callable[[], Any]) -> Recipe:
    """How timm makes the pretrained model that `make` asks for, whatever is put around it; nothing is loaded.

    Raises:
        ValueError: it is not built as timm builds its own.
    """
    seen: list[tuple[Any, Any, dict[str, Tensor]]] = []

    def looked_at(model: Any, *_: Any, **said: Any) -> None:
        seen.append((model, said.get("filter_fn"), model.state_dict(keep_vars=True)))

    with _instead_of_loading(looked_at), torch.random.fork_rng(devices=[]), torch.device("meta"):
        built = make()
    if not seen:
        raise ValueError(f"backbone {name!r} is not built by timm's builder, and takes no file of weights")
    whole, convert, tensors = seen[-1]  # as they were before a wrapper took out what gives no maps
    known = {id(t): k for k, t in tensors.items()}
    same = {k: known[id(t)] for k, t in tensors.items()}
    # the same objects are in both models: what timm's wrappers rename is told by them
    names = {k: known[id(t)] for k, t in built.state_dict(keep_vars=True).items() if id(t) in known}
    shapes = {k: tuple(t.shape) for k, t in tensors.items()}
    return Recipe(name, names, same, shapes, whole, convert, dict(whole.pretrained_cfg), built)


@contextlib.contextmanager
def _instead_of_loading(action: Callable[..., None]) -> Iterator[None]:
    """Within, timm hands a model and its filter to `action` where it would load weights; there is no other way to them.

    Filters are private to timm's modules, by several names and with arguments of their own.
    """
    with _LOCK:
        own = _builder.load_pretrained
        _builder.load_pretrained = action
        try:
            yield
        finally:
            _builder.load_pretrained = own
