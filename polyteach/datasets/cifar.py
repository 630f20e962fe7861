"""CIFAR-10 and CIFAR-100, the "python version" (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html).

    ROOT/cifar-10-batches-py/data_batch_1 ... data_batch_5, test_batch, batches.meta
    ROOT/cifar-100-python/train, test, meta

ROOT may be that folder itself, or hold or be its archive, cifar-10-python.tar.gz or cifar-100-python.tar.gz. Where both
datasets are in ROOT, give one's folder. `cifar:ROOT?labels=coarse` takes CIFAR-100's 20 superclasses, not its 100
classes.

Every file is a pickle of Python 2: a dictionary of data (uint8 (N, 3072): 1,024 red, 1,024 green, 1,024 blue, row by
row), labels (CIFAR-10), fine_labels and coarse_labels (CIFAR-100), filenames; in the meta files label_names,
fine_label_names and coarse_label_names. A pickle can run code, so these are opened by a reader that makes NumPy arrays
of numbers and nothing else, and refuses the rest. The images, 32x32, become PNG, which loses nothing.
"""

import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from polyteach.datasets import Dataset, Entry, Labels, Protocol, options, printable
from polyteach.datasets._archive import unpacked
from polyteach.datasets._classes import of_class
from polyteach.datasets._files import contents, shown
from polyteach.datasets._pickles import check
from polyteach.tasks.contract import Space

_SIDE = 32
_LARGEST = 2**28
"""Bytes of a file: CIFAR-100's for training has 155,261,379."""
_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar-10-batches-py": {
        "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test": ("test_batch",),
        "meta": ("batches.meta",),
    },
    "cifar-100-python": {"train": ("train",), "test": ("test",), "meta": ("meta",)},
}
_ARCHIVES = {"cifar-10-python.tar.gz": "cifar-10-batches-py", "cifar-100-python.tar.gz": "cifar-100-python"}
_LABELS = {
    ("cifar-10-batches-py", "fine"): ("labels", "label_names"),
    ("cifar-100-python", "fine"): ("fine_labels", "fine_label_names"),
    ("cifar-100-python", "coarse"): ("coarse_labels", "coarse_label_names"),
}
PROTOCOLS = {
    # METHOD: top-1 after fine-tuning, learning rate and steps swept. The rest is open in the paper and follows SimCLR
    # (Chen et al., ICML 2020, its appendix on transfer), which follows Kornblith et al. (CVPR 2019): images enlarged
    # to 224, batch 256, 20,000 steps, learning rates log-spaced over 1e-4..1e-1 (seven there, four here, beside the
    # steps), a tenth of the training images held out to choose. Few labels: 25 a class, as in FixMatch (NeurIPS 2020).
    "cifar100": Protocol(
        task="classification",
        train=("train",),
        validation=0.1,
        test=("test",),
        metric="top-1",
        size=224,
        lrs=(1e-4, 1e-3, 1e-2, 1e-1),
        steps=(5_000, 20_000),
        batch_size=256,
        few={"shots": 25},
    )
}

_MOST = 2**29
"""Bytes of a file: the largest of those published has 155 MB."""
_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error)


class Cifar(Dataset):
    """All images, train before test, in the files' order; named SPLIT/FILENAME."""

    embed: ClassVar[bool] = True

    def __init__(self, where: str, folder: str, files: dict[str, bytes], labels: str) -> None:
        """`where`: of the files, for messages. `files`: their content by name. `labels`: "fine" or "coarse"."""
        keys = _LABELS.get((folder, labels))
        if keys is None:
            raise ValueError(f"labels={labels} in cifar:{where}: {folder} has fine labels only")
        meta, *_ = _FILES[folder]["meta"]
        if meta not in files:
            raise ValueError(f"{where}/{meta} is missing; it names the classes")
        classes = _field(_unpickled(f"{where}/{meta}", files[meta]), keys[1], f"{where}/{meta}")
        names: list[str] = []
        self._images: list[np.ndarray] = []
        self._labels: list[tuple[str, str, int]] = []  # file, split, label
        for split in ("train", "test"):
            wanted = _FILES[folder][split]
            absent = [f for f in wanted if f not in files]
            if len(absent) == len(wanted):
                continue
            if absent:
                raise ValueError(f"{where}/{absent[0]} is missing; {split} is {', '.join(wanted)}")
            for name in wanted:
                images, found, called = _batch(f"{where}/{name}", files[name], keys[0])
                self._images += list(images)
                self._labels += [(name, split, label) for label in found]
                names += [f"{split}/{printable(n)}" for n in called]
        if not names:
            raise ValueError(f"{where} has neither {' nor '.join(_FILES[folder][s][0] for s in ('train', 'test'))}")
        super().__init__(names)
        self._where, self._key = where, keys[0]
        self.spaces = {"classification": Space(tuple(_text(c, keys[1], f"{where}/{meta}") for c in classes))}

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        count = len(self.spaces["classification"].names)
        for i in range(start, min(stop, len(self.names))):
            file, split, label = self._labels[i]
            where = f"{self._where}/{file}: {self._key}"
            yield Entry(data=_png(self._images[i]), split=split, targets=partial(_targets, label, count, where))


def _targets(label: int, classes: int, where: str, size: tuple[int, int]) -> Labels:
    return of_class(label, classes, where)


def _png(row: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(row.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))).save(out, format="PNG")
    return out.getvalue()


def _batch(file: str, data: bytes, key: str) -> tuple[np.ndarray, list[int], list[str]]:
    """Images uint8 (N, 3072), labels and names of a file."""
    content = _unpickled(file, data)
    images, labels = _field(content, "data", file), _field(content, key, file)
    names = _field(content, "filenames", file)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (3 * _SIDE**2,):
        is_ = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{file}: data is {is_}, not uint8 (N, {3 * _SIDE**2})")
    if not len(images) == len(labels) == len(names):
        raise ValueError(f"{file}: {len(images)} data, {len(labels)} {key} and {len(names)} filenames")
    wrong = [x for x in labels if not isinstance(x, int | np.integer)]
    if wrong:
        raise ValueError(f"{file}: {key} has {shown(wrong[0])}, which is no whole number")
    return images, [int(x) for x in labels], [_text(n, "filenames", file) for n in names]


def _field(content: Any, key: str, file: str) -> Any:
    # text is bytes in the published files, and str where Python 3 wrote them
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no dictionary but {type(content).__name__}")
    value = content.get(key.encode(), content.get(key))
    value = value.array if isinstance(value, _Array) else value
    if not isinstance(value, list | tuple | np.ndarray):
        keys = ", ".join(_text(k, "keys", file) for k in content if isinstance(k, str | bytes))
        raise ValueError(f"{file}: field {key!r} is missing or no list; there are: {keys}")
    return value


def _text(value: Any, key: str, file: str) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return printable(value)
    raise ValueError(f"{file}: {key} has {shown(value)}, which is no text")


# ---------------------------------------------------------------- pickles that may hold arrays of numbers, no more


class _Make:
    """A function that a pickle may call, and nothing else: it cannot set its attributes."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the state of a function is refused")


class _Dtype:
    """Stands for a NumPy dtype: the pickle would set the state, flags and all, of a real one."""

    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.dtype: np.dtype = np.dtype(name.decode("ascii") if isinstance(name, bytes) else str(name))
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of dtype {self.dtype} is refused")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order: Any = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for a NumPy array, until its state says what is in it."""

    def __init__(self, kind: Any, shape: Any, code: Any) -> None:
        if kind is not _NDARRAY:
            raise pickle.UnpicklingError(f"an array of kind {kind!r} is refused")
        self.array = np.zeros(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _from_buffer(data, dtype, shape, "F" if fortran else "C").array


def _from_buffer(data: bytes | bytearray, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> _Array:
    made = _Array(_NDARRAY, (0,), b"b")
    made.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    return made


def _scalar(dtype: _Dtype, data: bytes | bytearray) -> float:
    number: float = np.frombuffer(data, dtype.dtype)[0].item()
    return number


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is refused")
    return text.encode("latin1")


def _refuse(*args: Any) -> None:
    raise pickle.UnpicklingError("a call of numpy.ndarray is refused")


_NDARRAY = _Make(_refuse)
_ALLOWED = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Make(_Dtype),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Make(_Array) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Make(_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Make(_from_buffer) for core in ("core", "_core")},
    ("_codecs", "encode"): _Make(_encode),  # how Python 3 writes bytes into an old pickle
    **{(module, "bytes"): _Make(lambda: b"") for module in ("builtins", "__builtin__")},
}
"""The globals that a pickle of arrays, of any age, names; for each a function of ours that makes numbers or text."""


class _Unpickler(pickle.Unpickler):
    """Makes lists, dictionaries, text, numbers and NumPy arrays of numbers."""

    def find_class(self, module: str, name: str) -> _Make:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"global '{module}.{name}' is refused")
        return _ALLOWED[module, name]


def _unpickled(file: str, data: bytes) -> Any:
    try:
        check(data)
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as e:  # a broken pickle raises nearly anything
        raise ValueError(
            f"{file} is broken or no CIFAR file, which pickles lists, text and NumPy arrays of numbers only: "
            f"{type(e).__name__}: {e}"
        ) from e


# ---------------------------------------------------------------- where the files are


def _files(path: str) -> tuple[str, str, dict[str, bytes]]:
    """(where the files are, which of `_FILES` they are, their content by name)."""
    if os.path.isfile(path):
        return _unpacked(path)
    if not os.path.isdir(path):
        raise ValueError(f"{path} is no folder")
    named = os.path.basename(path)
    own = [named] if named in _FILES else [f for f in _FILES if os.path.isfile(os.path.join(path, *_FILES[f]["meta"]))]
    inside = [f for f in _FILES if os.path.isdir(os.path.join(path, f))]
    packed = [a for a, f in _ARCHIVES.items() if f not in inside and os.path.isfile(os.path.join(path, a))]
    there = own or inside + packed
    if len(there) != 1:
        found = f"holds {' and '.join(there)}" if there else f"holds none of {', '.join((*_FILES, *_ARCHIVES))}"
        raise ValueError(f"{path} {found}; give one, such as cifar:{os.path.join(path, (there or [*_FILES])[0])}")
    if packed and not own:
        return _unpacked(os.path.join(path, packed[0]))
    folder = (own or inside)[0]
    where = path if own else os.path.join(path, folder)
    files = {}
    for name in (n for names in _FILES[folder].values() for n in names):
        path = os.path.join(where, name)
        if os.path.lexists(path):
            files[name] = contents(path, _MOST)
    return where, folder, files


def _unpacked(path: str) -> tuple[str, str, dict[str, bytes]]:
    known = {f"{folder}/{n}" for folder, kinds in _FILES.items() for names in kinds.values() for n in names}
    files: dict[str, bytes] = {}
    folders = set()
    try:
        for found, content in unpacked(path, known.__contains__, _LARGEST):
            folder, _, name = found.rpartition("/")
            folders.add(folder)
            files[name] = content
    except _BROKEN as e:
        raise ValueError(f"{path} is broken or no archive of CIFAR: {e}") from e
    if len(folders) != 1:
        raise ValueError(f"{path} holds {' and '.join(sorted(folders)) or 'no'} CIFAR folder; one is expected")
    return path, folders.pop(), files


def load(path: str) -> Dataset:
    """The files at `path`, which may end in ?labels=coarse.

    Raises:
        ValueError: none or both datasets are there; a file is missing or broken, or a pickle of anything else.
    """
    where, option = options(path, {"labels": "fine"})
    if option["labels"] not in ("fine", "coarse"):
        raise ValueError(f"labels={option['labels']} in cifar:{path}: there are fine and coarse")
    return Cifar(*_files(where), option["labels"])
