"""Every format keeps the contract of `polyteach.datasets`. One that is found and has no tiny case here fails."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from polyteach.datasets import formats, load_dataset
from polyteach.ground.images import decode
from polyteach.ground.uris import read_uri
from polyteach.store import ABSENT, LABELLED, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Target
from polyteach.verbs.ingest import ingest
from tests.fuzz import SOURCES
from tests.test_dataset_rooms import obj
from tests.test_dataset_rooms import write as write_furniture


def furniture(folder: Path) -> None:
    """A catalogue of what a room can be furnished with."""
    names = ("Chair", "Dinner table", "Floor lamp", "Bottle")
    pieces = [(f"{n} {i}", (40 + i + k, 50 + i, 60 + i), obj()) for k, n in enumerate(names) for i in range(25)]
    write_furniture(folder / "few.sh3f", pieces)


CASES = SOURCES | {
    "shapes": ("shapes:pool?count=3&size=24&tasks=all", lambda folder: None),
    "rooms": ("rooms:pool?count=3&size=24&tasks=all&furniture={}", furniture),
}
"""Name -> source, in which {} is a folder, and what makes that folder."""
every_case = pytest.mark.parametrize("case", CASES)


@dataclass(frozen=True)
class Made:
    """A tiny dataset, and the store that was made of it."""

    source: str
    folder: Path
    store: Store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Case -> its dataset, ingested once."""
    found: dict[str, Made] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))

        def get(case: str) -> Made:
            if case not in found:
                home = tmp_path_factory.mktemp("case")
                source, folder = fresh(case, home)
                found[case] = Made(source, folder, ingested(source, home / "store"))
            return found[case]

        yield get


def fresh(case: str, home: Path) -> tuple[str, Path]:
    """The source, and the folder, of a dataset that is made anew."""
    source, make = CASES[case]
    folder = home / "data"
    folder.mkdir()
    make(folder)
    return source.format(folder), folder


def ingested(source: str, path: Path, **options) -> Store:
    return ingest(source, str(path), part_size=2, workers=1, progress=False, **options)


def rows_of(store):
    return [row for part in store.parts() for row in store.images(part)]


def test_every_format_has_a_case():
    assert {source.partition(":")[0] for source, _ in CASES.values()} == set(formats())


@every_case
def test_ids_are_unique_and_the_same_every_time(made, case):
    one = made(case)
    ids = [row.id for row in rows_of(one.store)]
    assert len(ids) >= 2
    assert len(set(ids)) == len(ids)
    dataset = load_dataset(one.source)
    assert list(dataset.names) == list(load_dataset(one.source).names)
    assert len(dataset.names) == len(ids) + len(one.store.rejects())


@every_case
def test_entries_are_one_a_name_wherever_they_begin(made, case):
    dataset = load_dataset(made(case).source)
    whole = list(dataset.entries(0, len(dataset.names)))
    assert len(whole) == len(dataset.names)
    [last] = dataset.entries(len(dataset.names) - 1, len(dataset.names))
    assert (last.data, last.uri, last.split) == (whole[-1].data, whole[-1].uri, whole[-1].split)
    for entry in whole:
        assert (entry.data is None) != (entry.uri is None) or entry.problem
        assert entry.uri is None or os.path.isabs(entry.uri)


@every_case
def test_images_decode_in_the_sizes_that_the_store_tells(made, case):
    store = made(case).store
    for row in rows_of(store):
        assert tuple(store.picture(row).shape) == (3, row.height, row.width)


@every_case
def test_targets_are_those_of_their_images_and_spaces_are_named(made, case):
    store = made(case).store
    sets = {s.task: s for s in store.sets()}
    assert set(sets) == set(load_dataset(made(case).source).spaces)
    for name, labels in sets.items():
        task, space = load_task(name), labels.space
        assert space.kind in task.kinds
        assert all(n.strip() for n in space.names)
        assert len(set(space.names)) == len(space.names)
        labelled = 0
        for part in store.parts():
            for row, answer in zip(store.images(part), labels.read(part), strict=True):
                if isinstance(answer, Target):
                    labelled += 1
                    task.validate(answer, (row.height, row.width), space)
                    assert all(0 <= c < len(space.names) for c in task.classes(answer))
        assert labelled


@every_case
def test_absent_is_what_the_reader_says_nothing_of(made, case):
    one = made(case)
    dataset = load_dataset(one.source)
    said = {}
    for name, entry in zip(dataset.names, dataset.entries(0, len(dataset.names)), strict=True):
        image = decode(read_uri(entry.uri, dataset.limits) if entry.data is None else entry.data)
        labels = {} if entry.targets is None else entry.targets(tuple(image.shape[1:]))
        assert set(labels) <= set(dataset.spaces)
        said[name] = {task: labels.get(task) is not None for task in dataset.spaces}
    for labels in one.store.sets():
        for part in one.store.parts():
            for row, state in zip(one.store.images(part), labels.states(part), strict=True):
                assert state == (LABELLED if said[row.id][labels.task] else ABSENT)


@every_case
def test_ingested_again_it_is_the_same_to_the_byte(made, case, tmp_path):
    one = made(case)
    again = ingested(one.source, tmp_path / "again")

    def files(store):
        return {f.relative_to(store.path): f.read_bytes() for f in Path(store.path).rglob("*.parquet")}

    assert files(again) == files(one.store)


@every_case
def test_a_wrong_path_is_an_error_that_says_which(case, tmp_path):
    kind, _, rest = CASES[case][0].partition(":")
    wrong = str(tmp_path / "nowhere") if "{}" in rest.partition("?")[0] else "nowhere"
    with pytest.raises(ValueError, match=r"nowhere") as said:
        load_dataset(f"{kind}:{wrong}")
    assert wrong in str(said.value)


@every_case
def test_a_file_that_was_cut_is_named(made, case, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # rooms: what was read before is not read again
    if case == "rooms":
        from polyteach.datasets.rooms import props

        props.pieces_of.cache_clear()
        props.stock.cache_clear()
    source, folder = fresh(case, tmp_path)
    files = sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda f: (-f.stat().st_size, str(f)))
    if not files:
        pytest.skip(f"{case}: has no files")
    cut = files[0]
    size = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[: max(size // 2 - 300, size // 3)])  # not where a member of an archive ends
    try:
        told = " ".join(f"{id} {uri} {why}" for id, uri, why in ingested(source, tmp_path / "store").rejects())
    except ValueError as e:
        told = str(e)
    assert cut.name in told or cut.stem in told


@every_case
def test_a_photograph_that_says_which_side_is_up_is_upright(made, case, tmp_path):
    one = made(case)
    source, folder = fresh(case, tmp_path)
    photographs = [f for f in folder.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg")]
    if not photographs:
        pytest.skip(f"{case}: its images are no JPEG files that lie in a folder")
    for file in photographs:
        with Image.open(file) as image:
            about = Image.Exif()
            about[0x0112] = 6  # to be turned clockwise by a quarter
            image.transpose(Image.Transpose.ROTATE_90).save(file, format="JPEG", exif=about)
    turned = ingested(source, tmp_path / "store")

    def sizes(store):
        return {row.id: (row.height, row.width) for row in rows_of(store)}

    assert sizes(turned) == sizes(one.store)
    for before, after in zip(one.store.sets(), turned.sets(), strict=True):
        assert [before.states(p) for p in one.store.parts()] == [after.states(p) for p in turned.parts()]
