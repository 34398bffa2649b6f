"""Demonstrations in other formats are read as those in .npz are, and refused in as many words."""
from minidiff import demos
from minidiff.beyond import formats
from minidiff.demos import Task
from minidiff.pusht.features import PUSHT
from minidiff.pusht.geometry import keypoints

import json
import pickle
import shutil
import sys
import zipfile

import numpy as np
import pytest
from conftest import Bomb
from hypothesis import given
from hypothesis import strategies as st

NAMES = ("state", "action", "episode_ends")


def refused(path, *words):
    """Loading fails with a ValueError that names the file and says all the words."""
    with pytest.raises(ValueError) as error:
        formats.load(path, PUSHT)
    message = str(error.value)
    assert not [word for word in (str(path), *words) if word not in message], message


def assert_same(loaded, arrays):
    for name in NAMES:
        np.testing.assert_array_equal(getattr(loaded, name), arrays[name])


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(folder.rglob("*")):
            file.write(member, member.relative_to(folder))
    return path


@pytest.fixture(params=[2, 3], ids=["format 2", "format 3"])
def zarr_folder(request, arrays, tmp_path):
    """Demonstrations as the published ones are laid out: a zarr group in a folder in a folder."""
    zarr = pytest.importorskip("zarr")
    group = tmp_path / "wrapped" / "pusht" / "replay.zarr"
    root = zarr.open_group(str(group), mode="w", zarr_format=request.param)
    for name, place in formats.PLACES.items():
        a = arrays[name]
        chunks = (35, *a.shape[1:])
        root.create_array(place, shape=a.shape, chunks=chunks, dtype=a.dtype)[:] = a
    return group


def chunks_of_actions(zarr_folder):
    """The files that hold them; the others describe the array."""
    files = [path for path in (zarr_folder / "data" / "action").rglob("*") if path.is_file()]
    return sorted(path for path in files if "z" not in path.name)


def redescribed(zarr_folder, old, new):
    """Replace a part of what describes the array of actions."""
    path, = (zarr_folder / "data" / "action").glob("*zarr*")
    text = json.dumps(json.loads(path.read_text()))
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_places_are_those_of_the_published_files():
    assert formats.PLACES == {"state": "data/state", "action": "data/action",
                              "episode_ends": "meta/episode_ends"}


def test_an_npz_file_is_read_too_whatever_its_name(demos_file, arrays, tmp_path):
    assert_same(formats.load(demos_file, PUSHT), arrays)
    for name in ("demos.dat", "demos.zip", "demos.h5", "demos"):
        (tmp_path / name).write_bytes(demos_file.read_bytes())
        assert_same(formats.load(tmp_path / name, PUSHT), arrays)


def test_a_zarr_group_is_read_from_its_folder_and_from_zips_that_wrap_it(
        zarr_folder, arrays, tmp_path):
    pusht = zarr_folder.parent
    folders = [zarr_folder, pusht, pusht.parent]
    zips = [zipped(folder, tmp_path / f"{folder.name}{suffix}")
            for folder, suffix in zip(folders, (".zip", ".npz", ".dat"))]
    for path in folders + zips:
        loaded = formats.load(path, PUSHT)
        assert_same(loaded, arrays)
        assert [a.dtype for a in loaded] == [np.float32, np.float32, np.int64]


def test_a_chunk_that_is_not_stored_is_the_fill_value_with_a_warning(
        zarr_folder, arrays, tmp_path, capsys):
    """Zarr leaves out a chunk of nothing else; one that was lost looks the same."""
    zarr = pytest.importorskip("zarr")
    zarr.open_array(str(zarr_folder), path="data/action", mode="r+")[35:70] = 0
    assert len(chunks_of_actions(zarr_folder)) == 3
    action = arrays["action"].copy()
    for fill in (0.0, 7.0):
        redescribed(zarr_folder, '"fill_value": 0.0', f'"fill_value": {fill}')
        action[35:70] = fill
        for path in (zarr_folder, zipped(zarr_folder, tmp_path / f"{fill}.zip")):
            assert_same(formats.load(path, PUSHT), arrays | {"action": action})
            assert capsys.readouterr().out == (
                f"warning: {path}: array 'action' lacks 1 of its 4 chunks, which are read as its "
                f"fill value {fill}: make sure that none is lost\n")


def test_a_zarr_group_without_an_array_or_most_of_its_chunks_is_refused(zarr_folder, tmp_path):
    first, second, third, _ = chunks_of_actions(zarr_folder)
    first.unlink()
    if zarr_folder.joinpath(".zgroup").exists():  # format 2: there need not be a fill value
        redescribed(zarr_folder, '"fill_value": 0.0', '"fill_value": null')
        refused(zarr_folder, "array 'action': lacks 1 of its 4 chunks")
        redescribed(zarr_folder, '"fill_value": null', '"fill_value": 0.0')
    second.unlink()
    formats.load(zarr_folder, PUSHT)
    third.unlink()
    refused(zarr_folder, "array 'action': lacks 3 of its 4 chunks")
    for meta in (zarr_folder / "meta" / "episode_ends").glob("*z*"):
        meta.unlink()
    (zarr_folder / "data" / "action").rename(tmp_path / "elsewhere")
    refused(zarr_folder, "array 'action' is missing")


def test_zarr_chunks_in_shards_or_by_an_unknown_codec_are_refused(zarr_folder):
    zarr = pytest.importorskip("zarr")
    if zarr_folder.joinpath(".zgroup").exists():  # format 2
        redescribed(zarr_folder, '"filters": null', '"filters": [{"id": "unheard-of"}]')
    else:
        zarr.create_array(str(zarr_folder), name="data/action", shape=(139, 2), chunks=(50, 2),
                          shards=(100, 2), dtype=np.float32, overwrite=True)[:] = 1
        refused(zarr_folder, "array 'action': is stored in shards: save it without")
        redescribed(zarr_folder, '"bytes"', '"unheard-of"')
    refused(zarr_folder, "array 'action': ", "unheard-of")


def test_two_zarr_groups_in_one_place_are_refused(zarr_folder):
    shutil.copytree(zarr_folder, zarr_folder.with_name("second.zarr"))
    refused(zarr_folder.parent, "2 zarr arrays 'data/state' are in it")


def test_zarr_arrays_of_no_numbers_are_refused_before_they_are_decoded(zarr_folder):
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(str(zarr_folder), mode="r+")
    del root["data/action"]
    root.create_array("data/action", shape=(139, 2), chunks=(50, 2), dtype=np.complex64)[:] = 1
    refused(zarr_folder, "array 'action': should be numbers, but is complex64")


def test_numbers_of_a_zarr_group_are_checked_like_any_others(zarr_folder):
    zarr = pytest.importorskip("zarr")
    actions = zarr.open_array(str(zarr_folder), path="data/action", mode="r+")
    actions[7, 1] = np.nan
    refused(zarr_folder, "array 'action' is not finite in row 7, column 1: nan")


def test_a_damaged_zarr_zip_is_refused(zarr_folder, tmp_path):
    path = zipped(zarr_folder, tmp_path / "good.zip")
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:place])
        refused(path)


PICKLED = """
{"zarr_format": 2, "shape": [139, 2], "chunks": [50, 2], "dtype": "|O", "fill_value": null,
 "order": "C", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "compressor": null}
"""


def test_pickled_zarr_chunks_are_refused_and_never_executed(zarr_folder, tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "executed"))
    chunks_of_actions(zarr_folder)[0].write_bytes(bomb)
    refused(zarr_folder, "array 'action'")
    metadata = zarr_folder / "data" / "action" / ".zarray"
    if metadata.exists():  # format 2
        metadata.write_text(PICKLED)
        refused(zarr_folder, "array 'action'")
    assert not (tmp_path / "executed").exists()


def test_without_zarr_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    folder = tmp_path / "some" / "group.zarr"
    (folder / "data" / "state").mkdir(parents=True)
    (folder / "data" / "state" / ".zarray").write_text("{}")
    for path in (folder, zipped(folder.parent, tmp_path / "group.zip")):
        refused(path, "pip install 'minidiff[zarr]'")


# ---- units ---------------------------------------------------------------------------------------

def saved(path, arrays, **changes):
    np.savez(path, **arrays | changes)
    return path


def test_degrees_are_warned_about_with_both_ranges(arrays, tmp_path, capsys):
    """Counted from 0 or from -180, where the task's own angles are from 0 to 2 pi."""
    own = demos.check(arrays | {"state": arrays["state"].copy()}, PUSHT)
    own.state[:2, 4] = 0, 6.28
    for low, high in ((0, 360), (-180, 180)):
        state = arrays["state"].copy()
        state[:, 4] = np.linspace(low, high, 139)
        path = saved(tmp_path / "degrees.npz", arrays, state=state)
        formats.load(path, PUSHT)
        assert capsys.readouterr().out == ""
        formats.load(path, PUSHT, own)
        assert capsys.readouterr().out == (
            f"warning: {path}: is it in the task's units? column 4 of 'state' is from {low} to "
            f"{high}, but in the task's own demonstrations from 0 to 6.28 (degrees for radians?)\n")


def test_each_column_in_another_unit_is_named_once_for_each_file(lerobot, arrays, tmp_path, capsys):
    own = demos.check(arrays, PUSHT)
    normal = arrays["state"] / [512, 512, 512, 512, 1]
    path = saved(tmp_path / "normal.npz", arrays, state=normal, action=arrays["action"] / 512)
    formats.load(path, PUSHT, own)
    said, = capsys.readouterr().out.splitlines()
    for name, k in [("state", 0), ("state", 1), ("state", 2), ("state", 3), ("action", 0)]:
        low, high = arrays[name][:, k].min(), arrays[name][:, k].max()
        assert (f"column {k} of '{name}' is from {low / 512:.3g} to {high / 512:.3g}, but in the "
                f"task's own demonstrations from {low:.3g} to {high:.3g};") in said
    assert "column 1 of 'action'" in said and "column 4" not in said and "degrees" not in said
    formats.load(lerobot(), PUSHT, own)
    assert capsys.readouterr().out == ""


def made_of(*columns):
    """Demos of two episodes of two rows; the columns are both the state's and the action's."""
    rows = np.transpose(columns).astype(float)
    return demos.Demos(rows, rows[:, :1], np.array([2, 4]))


@pytest.mark.parametrize("factor, odd", [(19.9, 0), (20.1, 1), (1 / 19.9, 0), (1 / 20.1, 1),
                                         (-20.1, 1), (0, 0)])
def test_twenty_times_larger_or_smaller_is_another_unit(factor, odd):
    own = made_of([1, -5, 3, -5], [0, 0, 0, 0], [0.001, 0.001, 5, 1])
    changed = made_of(np.multiply([1, 5, 3, 2], factor), [1, 2, 3, 4], [0.06] * 4)
    said = [text.partition(" is ")[0] for text in formats.other_units(changed, own)]
    assert said == ["column 0 of 'state'", "column 0 of 'action'"][:2 * odd]


def test_a_short_demonstration_near_0_is_in_the_usual_units(arrays):
    """Small where some episode of the task's own is small, too."""
    own = demos.check(arrays | {"state": arrays["state"].copy()}, PUSHT)
    own.state[37:87, 4] = 0.3
    state = arrays["state"][:8].copy()
    state[:, 4] = 0.02
    short = demos.Demos(state, arrays["action"][:8], np.array([8]))
    assert formats.other_units(short, own) == []


# ---- idle rows -----------------------------------------------------------------------------------

@pytest.mark.parametrize("unit, origin", [(1, 0), (1e-3, 1e3), (1e3, -1e5)])
def test_a_row_is_idle_that_is_near_the_last_one_that_is_not(unit, origin):
    """Within 1 % of a standard deviation in each column. Never the first and last of an episode."""
    x = [0, .9, -.9, 1.1, 2, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2]  # in percent
    y = [5, 5, 5, 5, 5, 5, 6.2, 6.2, 6.2, 6.2, 6.2, 6.2]
    moves = np.tile([[1, 0], [-1, 2]], (1000, 1))  # standard deviation 1
    state = origin + unit * np.concatenate([np.stack([x, y], 1) / 100, moves])
    data = demos.Demos(state, np.arange(len(state))[:, None], np.array([8, 11, 12, len(state)]))
    idle = [False, True, True, False, True, False, False, False, False, True, False, False]
    np.testing.assert_array_equal(formats.idle(data), idle + [False] * 2000)
    kept = formats.without_idle(data)
    rows = [0, 3, 5, 6, 7, 8, 10, *range(11, len(state))]
    np.testing.assert_array_equal(kept.action[:, 0], rows)
    np.testing.assert_array_equal(kept.state, state[rows])
    assert kept.episode_ends.tolist() == [5, 7, 8, 2008]


def test_slow_motion_is_not_idle():
    """Each row is nearer than 1 % to the one before; no gap in what is kept is wider than two."""
    slow = demos.Demos(np.linspace(0, 1, 1001)[:, None], np.zeros((1001, 1)), np.array([1001]))
    kept = formats.without_idle(slow).state
    assert 0.5 < formats.idle(slow).mean() < 0.8 and np.diff(kept[:, 0]).max() < 0.02 * 0.29


# ---- LeRobot -------------------------------------------------------------------------------------

def tables(arrays, state):
    """For each episode the columns of its parquet file, by name; among them an image."""
    tables = []
    start = 0
    for episode, end in enumerate(arrays["episode_ends"].tolist()):
        n = end - start
        tables.append({"observation.image": [{"bytes": b"png", "path": "a.png"}] * n,
                       **{name: list(rows[start:end]) for name, rows in state.items()},
                       "action": list(arrays["action"][start:end]),
                       "episode_index": [episode] * n, "frame_index": list(range(n)),
                       "next.reward": [0.5] * n, "task": ["push"] * n})
        start = end
    return tables


def write(path, *tables):
    """One parquet file with the rows of these tables."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.table({name: sum((table[name] for table in tables), [])
                               for name in tables[0]}), path)


def laid_out(folder, version, tables):
    """Episodes as a folder in LeRobot's layout: one a file, or two a file and out of order."""
    (folder / "meta").mkdir(parents=True)
    about = {"codebase_version": version, "total_episodes": len(tables)}
    (folder / "meta" / "info.json").write_text(json.dumps(about))
    if version == "v2.1":
        for episode, table in enumerate(tables):
            write(folder / "data" / "chunk-000" / f"episode_{episode:06}.parquet", table)
    else:
        reversed_rows = {name: column[::-1] for name, column in tables[1].items()}
        write(folder / "data" / "chunk-000" / "file-000.parquet", tables[2], reversed_rows)
        write(folder / "data" / "chunk-001" / "file-000.parquet", tables[3], tables[0])
    return folder


def seen_as_corners(arrays):
    """A state as LeRobot's pusht_keypoints has it."""
    corners = keypoints(arrays["state"][:, 2:]).reshape(-1, 16)
    return {"observation.state": arrays["state"][:, :2],
            "observation.environment_state": np.float32(corners)}


@pytest.fixture(params=["v2.1", "v3.0"])
def lerobot(request, arrays, tmp_path):
    """make(**columns): a folder in LeRobot's layout; columns replace those of each episode."""
    def make(tables_=None, name="lerobot"):
        return laid_out(tmp_path / name, request.param,
                        tables_ or tables(arrays, seen_as_corners(arrays)))
    return make


def test_keypoints_in_the_layout_of_lerobot_are_the_same_states(lerobot, arrays):
    loaded = formats.load(lerobot(), PUSHT)
    np.testing.assert_array_equal(loaded.episode_ends, arrays["episode_ends"])
    np.testing.assert_array_equal(loaded.action, arrays["action"])
    off = loaded.state - arrays["state"]
    off[:, 4] = np.angle(np.exp(1j * off[:, 4]))
    np.testing.assert_allclose(off, 0, atol=1e-3)
    assert (loaded.state[:, 4] >= 0).all() and (loaded.state[:, 4] <= 2 * np.pi).all()


def test_columns_are_joined_in_the_order_that_the_task_names(lerobot, arrays):
    """Lists and single numbers, of integers and floats."""
    state = np.concatenate([arrays["state"], np.arange(139)[:, None]], 1)
    columns = {"where": state[:, 1:5], "number": np.arange(139), "x": state[:, 0]}
    anything = np.array([[-np.inf, np.inf]] * 6)
    task = PUSHT._replace(columns={"state": ("x", "where", "number"), "action": ("action",)},
                          from_columns=None, state_range=anything)
    loaded = formats.load(lerobot(tables(arrays, columns)), task)
    np.testing.assert_array_equal(loaded.state, state)
    plain = Task("plain", None, None, PUSHT.state_range, PUSHT.action_range)
    folder = lerobot(tables(arrays, {"observation.state": arrays["state"]}), "plain")
    assert_same(formats.load(folder, plain), arrays)


def test_no_column_is_read_that_the_task_does_not_name(lerobot, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    names, read = set(), parquet.ParquetFile.read
    monkeypatch.setattr(parquet.ParquetFile, "read", lambda file, columns: (
        names.update(columns), read(file, columns))[1])
    formats.load(lerobot(), PUSHT)
    assert names == {"observation.state", "observation.environment_state", "action",
                     "episode_index", "frame_index"}


WRONG = [  # what becomes of a column of the last episode, and the words
    ("action", None, "is missing; there are episode_index, frame_index, next.reward, observation."),
    ("action", [[1.0, 2]] * 43 + [[1.0]], "has 1 numbers in row 43, but in row 0 2"),
    ("action", [[1.0, 2, 3]] * 44, "has 3 numbers a row, but in "),
    ("action", [[1.0, 2]] * 43 + [None], "has no value in some of its rows"),
    ("action", ["north"] * 44, "should be numbers or lists of them, but is string"),
    ("action", [["north"]] * 44, "should be numbers or lists of them, but is list<"),
    ("action", [[[1.0]]] * 44, "should be numbers or lists of them, but is list<"),
    ("action", [True] * 44, "should be numbers or lists of them, but is bool"),
    ("frame_index", [None] * 44, "should be numbers or lists of them, but is null"),
    ("observation.state", None, "is missing; there are action, ")]


@pytest.mark.parametrize("name, column, said", WRONG, ids=[said for *_, said in WRONG])
def test_a_wrong_column_is_named_with_its_file(name, column, said, arrays, tmp_path):
    made = tables(arrays, seen_as_corners(arrays))
    made[3][name] = column
    if column is None:
        del made[3][name]
    folder = laid_out(tmp_path / "wrong", "v2.1", made)
    refused(folder, f"data/chunk-000/episode_000003.parquet: column '{name}': {said}")


def test_numbers_of_lerobot_are_checked_like_any_others(lerobot, arrays):
    made = tables(arrays, seen_as_corners(arrays))
    made[0]["action"][7] = np.float32([5, None])
    refused(lerobot(made), "array 'action' is not finite in row 7, column 1: nan")
    made = tables(arrays, {"observation.state": arrays["state"][:, :2],
                           "observation.environment_state": arrays["state"]})
    refused(lerobot(made, "wide"), "array 'state' should be numbers of shape (N, 5), but is",
            "(139, 7)")
    moved = seen_as_corners(arrays)
    moved["observation.environment_state"][45, 3] += 3
    refused(lerobot(tables(arrays, moved), "moved"), "corners in row 45 are not those of the T")


def test_an_episode_or_a_row_that_lerobot_counts_and_lacks_is_refused(lerobot, arrays):
    made = tables(arrays, seen_as_corners(arrays))
    folder = lerobot(made)
    info = folder / "meta" / "info.json"
    info.write_text(info.read_text().replace('"total_episodes": 4', '"total_episodes": 5'))
    refused(folder, "episode 4 of the 5 that meta/info.json counts is not there")
    info.write_text("{}")
    refused(folder, "total_episodes")
    made[1]["episode_index"] = [7] * 50
    refused(lerobot(made, "other"), "episode 1 of the 4 that meta/info.json counts is not there")
    made[1]["episode_index"] = [1] * 50
    made[2]["frame_index"][3] = 4
    refused(lerobot(made, "twice"), "episode 2: column 'frame_index' is not 0, 1, 2, ...")


def test_damaged_parquet_and_none_at_all_are_refused(lerobot):
    folder = lerobot()
    file = sorted(folder.glob("data/*/*.parquet"))[1]
    whole = file.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 20).astype(int):
        file.write_bytes(whole[:place])
        refused(folder, f"{file.relative_to(folder)}: ")
    shutil.rmtree(folder / "data")
    refused(folder, "no parquet file is in the folders of 'data'")


def test_without_pyarrow_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"total_episodes": 1}')
    refused(tmp_path, "pip install 'minidiff[lerobot]'")


# ---- what is no demonstrations -------------------------------------------------------------------

def test_a_folder_without_demonstrations_and_a_missing_file_are_refused(tmp_path):
    refused(tmp_path, "no zarr arrays 'data/state' are in it; what can be read: .npz, ")
    for name in ("nowhere.npz", "nowhere.zip", "nowhere"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
            formats.load(tmp_path / name, PUSHT)


FOREIGN = [
    (b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
    (pickle.dumps([1.0] * 9), "a pickle"),
    (b"PAR1\x15\x04", "one parquet file"),
    (b"\x93NUMPY\x01\0", "a single array"),
    (b"\x1f\x8b\x08\0", "packed by gzip"),
    (b"PK\x03\x04\x14\0", "a .npz or zip that is not whole"),
    (b"x,y\n1,2\n", "text"),
    (b"", "empty"),
    (b"a\0b", "in another format"),
    (b"\xff\xfe", "in another format")]


@pytest.mark.parametrize("start, kind", FOREIGN, ids=[kind for _, kind in FOREIGN])
def test_another_format_is_named_with_what_can_be_read(start, kind, tmp_path):
    (tmp_path / "a.npz").write_bytes(start)
    refused(tmp_path / "a.npz", f"cannot be read as demonstrations: it seems to be {kind}; "
            "what can be read: .npz, one zarr group in a folder or a zip, a folder in LeRobot's "
            "layout")


def test_a_zip_of_something_else_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1,2")
    refused(zipped(tmp_path / "data", tmp_path / "a.zip"), "is missing; the file holds a.csv")


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused(scratch, data, signed):
    """With and without the signature of a zip."""
    for name in ("random.npz", "random.zip"):
        (scratch / name).write_bytes(b"PK\x03\x04" + data if signed else data)
        refused(scratch / name)


def test_a_pickle_is_refused_and_never_executed(tmp_path):
    data = pickle.dumps(Bomb(tmp_path / "executed"))
    for name in ("hostile.npz", "hostile.zip"):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name)
    assert not (tmp_path / "executed").exists()
