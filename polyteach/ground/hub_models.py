"""Models of transformers: what a folder or a repository of the hub says, looked at before the library builds anything.

It may be a stranger's: no code of it is run, and no number of it is taken that no model has.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers.utils import cached_file, logging

from polyteach.ground.files import read_json
from polyteach.ground.hub import impatient
from polyteach.ground.hub_names import folder_of, inside
from polyteach.ground.weights import reason, unpacked

MOST_LAYERS, MOST_CLASSES, LARGEST = 1000, 100_000, 8192
"""More layers, classes and pixels along a side than any model has: a configuration may ask for any number."""
READ = ("config.json", "preprocessor_config.json", "processor_config.json")
QUIET = {
    "_raise_exceptions_for_gated_repo": False,
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}
"""For `cached_file`: what is not at hand is None."""


def check_folder(folder: Path) -> None:
    """Look at a folder, which may be a stranger's, before the library opens it.

    Raises:
        ValueError: something in it would be waited for, for ever; JSON that is none, weights that may be of any size
            when they are unpacked, or that lie elsewhere.
    """
    for path in sorted(folder.iterdir()):
        if path.name in READ or path.name.endswith(".index.json"):
            content = read_json(path)
            if not isinstance(content, dict):
                raise ValueError(f"{path} must hold an object, names and values")
            if path.name in READ:
                continue
            places = content.get("weight_map")
            if not isinstance(places, dict) or not all(isinstance(x, str) for x in places.values()):
                raise ValueError(f"{path}: weight_map must say the file of each tensor")
            for name in sorted(set(places.values())):
                inside(path, name, f"{path}: weight_map")
        elif not path.is_file() and not path.is_dir():
            raise ValueError(f"{path} is a pipe, a device or a link to nothing, not a regular file")
        elif path.suffix in (".bin", ".pt", ".pth") and path.is_file():
            unpacked(path)


def located(name: str) -> tuple[str, str]:
    """What the library opens, a folder that was looked at or a name on the hub; and how that is called as an origin.

    Raises:
        ValueError: as `folder_of` and `check_folder`.
    """
    folder = folder_of(name)
    if folder is None:
        return name, f"huggingface.co/{name}"
    check_folder(folder)
    return str(folder), str(folder)


def read_config(place: str) -> Any:
    """What config.json says.

    Raises:
        ValueError: it is not there, asks for code, or for so much of something that building it would be the harm.
    """
    try:
        with impatient():
            said, _ = transformers.PreTrainedConfig.get_config_dict(place)
    except Exception:  # what is wrong, the next call says too
        said = {}
    check_counts(said, place)
    names = said.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{place}/config.json: architectures must be a list of names; got {names!r}")
    for key in ("attn_implementation", "_attn_implementation"):
        if "/" in str(said.get(key, "")):
            raise ValueError(
                f"{place}/config.json: {key} {said[key]!r} is code of the hub, which is not run; take the line out"
            )
    return fetched(transformers.AutoConfig, place)


def check_counts(said: Any, place: str) -> None:
    """Refuse numbers that no model has.

    Raises:
        ValueError: more layers or classes than any model has.
    """
    for key, value in said.items() if isinstance(said, dict) else ():
        many = MOST_CLASSES if key == "num_labels" else MOST_LAYERS
        named = any(word in key for word in ("layer", "depth", "block", "stage")) and "channels" not in key
        counts = key == "num_labels" or named
        numbers = value if isinstance(value, list) else [value]
        if counts and any(isinstance(n, int | float) and not n <= many for n in numbers):
            raise ValueError(f"{place}/config.json: {key} is {value!r}, of at most {many:,}")
        check_counts(value, place)


def check_processor(processor: Any, place: str) -> None:
    """Refuse a processor that enlarges images without bounds.

    Raises:
        ValueError: images would be made larger than any model looks at.
    """
    for key in ("size", "crop_size", "pad_size"):
        for side, value in dict(getattr(processor, key, None) or {}).items():
            if isinstance(value, int | float) and not value <= (LARGEST**2 if "pixels" in side else LARGEST):
                raise ValueError(f"{place}/preprocessor_config.json: {key}: {side} is {value}, of at most {LARGEST:,}")


def read_processor(place: str) -> Any:
    """The image processor. A file of classes that it names is not opened: no answer needs it (`class_info`).

    Raises:
        ValueError: there is none, or one that enlarges images without bounds.
    """
    configured = processor_config(place)
    unread = {"class_info_file": None} if "class_info_file" in configured else {}
    try:
        processor = fetched(transformers.AutoImageProcessor, place, **unread)
    except ValueError as e:
        if configured or not Path(place).is_dir():
            raise
        raise ValueError(
            f"transformers:{place} (the folder {place}) gives no AutoImageProcessor: neither {READ[1]} nor {READ[2]} "
            "is in it, which say how images are prepared; copy them from the model that this one was trained from"
        ) from e
    check_processor(processor, place)
    return processor


def fetched(auto: Any, place: str, **more: Any) -> Any:
    """What one of the library's Auto classes makes of a folder or a name on the hub; none of its code is run.

    more: instead of what its configuration says.

    Raises:
        ValueError: it makes nothing of it; says why.
    """
    try:
        with impatient():
            return auto.from_pretrained(place, trust_remote_code=False, **more)
    except Exception as e:  # a configuration that is none raises nearly anything
        if closed := closed_repository(e, place):
            raise closed from e
        line = " ".join(said(e).split())
        where = "the folder" if Path(place).is_dir() else "neither a folder nor, as far as can be seen, on the hub:"
        raise ValueError(f"transformers:{place} ({where} {place}) gives no {auto.__name__}: {line}") from e


@contextmanager
def _without_bars(place: str) -> Iterator[None]:
    """The library shows a bar of how weights are read from a folder, also where nobody looks. Downloads keep theirs."""
    if not Path(place).is_dir() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def weights(auto: Any, place: str) -> tuple[Any, list[str]]:
    """The model in fp32 that one of the library's Auto classes makes, and the parameters that the weights do not have.

    Raises:
        ValueError: the weights are broken, or the configuration is none of a model.
    """
    try:
        with _without_bars(place), impatient():
            model, info = auto.from_pretrained(
                place, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
            )
    except Exception as e:  # as above, and what torch and safetensors raise of broken weights
        raise closed_repository(e, place) or ValueError(f"transformers:{place} has no usable weights: {said(e)}") from e
    return model, sorted({*info["missing_keys"], *(k[0] for k in info["mismatched_keys"])})


def untrained(missing: list[str], place: str, what: str) -> ValueError:
    """The error for weights that leave parts random. what: the answers are, such as "masks"."""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return ValueError(f"{place} has no weights for {', '.join(missing[:3])}{more}: the {what} would be random")


def closed_repository(error: BaseException, place: str) -> ValueError | None:
    """The error for a repository of the hub that lets in nobody, or only whom it knows; None for any other error."""
    found: BaseException | None = error
    while found is not None:
        page = f"https://huggingface.co/{place}"
        if isinstance(found, GatedRepoError):
            return ValueError(
                f"transformers:{place} is gated: accept its licence on {page}, then log in here with `hf auth login` "
                "(or set HF_TOKEN)"
            )
        if isinstance(found, RepositoryNotFoundError):
            return ValueError(
                f"transformers:{place}: there is no {page}, or it is private: look at the name, or log in here with "
                "`hf auth login` (or set HF_TOKEN)"
            )
        found = found.__cause__ or found.__context__
    return None


def said(error: Exception) -> str:
    """What the library says, with its kind where it was not meant for people."""
    if "weights_only" in str(error) or not str(error):
        return reason(error)
    if "trust_remote_code" in str(error):  # the library says how to let it run
        return "it wants to run Python code that comes with it, which is not done"
    meant = isinstance(error, OSError | ValueError | ImportError | SafetensorError)
    return str(error) if meant else f"{type(error).__name__}: {error}"


def beside(place: str, name: str) -> Path | None:
    """The file `name` of a folder or a repository; None where it is not there, or not at hand.

    Raises:
        ValueError: it lies outside the folder.
    """
    if Path(place).is_dir():
        file = Path(place) / name
        plain = Path(name).name == name
        return None if plain and not os.path.lexists(file) else inside(Path(place) / "config.json", name, place)
    if Path(name).name != name:
        raise ValueError(f"{place}: the file {name!r} lies outside it")
    with impatient():
        found = cached_file(place, name, **QUIET)
    return Path(found) if found and Path(found).is_file() else None


def processor_config(place: str) -> Mapping[str, Any]:
    """What the files beside the weights say of the image processor; empty where they say nothing."""
    for name in READ[1:]:
        file = beside(place, name)
        content = read_json(file) if file else None
        if isinstance(content, dict):
            inner = content.get("image_processor")
            if name == "preprocessor_config.json" or isinstance(inner, dict):
                return inner if isinstance(inner, dict) else content
    return {}
