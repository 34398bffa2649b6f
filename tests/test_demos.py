"""Demonstrations: what is refused and in which words, what a window is, and that standardising can be undone."""
import io
import pickle
import sys
import zipfile

import numpy as np
import pytest
from conftest import Bomb, play
from hypothesis import given, settings
from hypothesis import strategies as st

from minidiff import demos
from minidiff.demos import Demos, Normaliser, load, training_set, windows
from minidiff.pusht.features import PUSHT, features

NAMES = ("state", "action", "episode_ends")
seeds = st.integers(0, 2**32 - 1)


def refused(path, *words):
    """Loading fails with a ValueError that names the file and says all the words."""
    with pytest.raises(ValueError) as error:
        load(path, PUSHT)
    assert not [word for word in (str(path), *words) if str(word) not in str(error.value)], str(error.value)
    return str(error.value)


def saved(path, arrays, **changes):
    """arrays as .npz, with some of them changed or (None) left out."""
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return path


# ---- loading ------------------------------------------------------------------------------------------------------

def test_demonstrations_come_back_as_they_were_saved(demos_file, arrays):
    loaded = load(demos_file, PUSHT)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(loaded, name), arrays[name])
    assert [a.dtype for a in loaded] == [np.float32, np.float32, np.int64]


def test_any_number_type_and_arrays_that_nobody_needs_are_accepted(arrays, scratch):
    numbers = {"state": arrays["state"].astype(np.float64), "action": arrays["action"].astype(np.int32),
               "episode_ends": arrays["episode_ends"].astype(np.uint16)}
    loaded = load(saved(scratch / "a.npz", numbers, img=np.zeros((3, 3)), notes=np.array([{}])), PUSHT)
    np.testing.assert_array_equal(loaded.action, np.float32(numbers["action"]))
    np.testing.assert_array_equal(loaded.episode_ends, arrays["episode_ends"])


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_array_is_named_beside_what_the_file_holds(name, arrays, scratch):
    path = saved(scratch / "missing.npz", arrays, **{name: None}, img=np.zeros(1))
    refused(path, f"array '{name}' is missing", "img", *(n for n in NAMES if n != name))


@pytest.mark.parametrize("name, array", [
    ("state", np.zeros(5)), ("state", np.zeros((139, 4))), ("state", np.zeros((139, 5, 1))), ("state", np.float32(3)),
    ("state", np.full((139, 5), "1")), ("state", np.zeros((139, 5), complex)), ("state", np.zeros((139, 5), bool)),
    ("state", np.zeros((139, 5), "datetime64[s]")), ("state", np.zeros((139, 5), [("x", float)])),
    ("action", np.zeros((139, 3))), ("action", np.zeros((138, 2))), ("action", np.zeros((0, 2))),
    ("episode_ends", np.zeros((0,), int)), ("episode_ends", np.array([[139]])), ("episode_ends", np.array([139.0])),
    ("episode_ends", np.array(139)), ("episode_ends", np.array(["139"])), ("episode_ends", np.array([True])),
], ids=lambda value: value if isinstance(value, str) else f"{value.dtype}{value.shape}")
def test_an_array_of_another_shape_or_type_is_named(name, array, arrays, scratch):
    refused(saved(scratch / "shape.npz", arrays, **{name: array}), f"array '{name}'")


def test_no_rows_at_all_are_refused(scratch):
    refused(saved(scratch / "empty.npz", {"state": np.zeros((0, 5)), "action": np.zeros((0, 2)),
                                          "episode_ends": np.array([0])}), "array 'episode_ends'", "row 0")


@given(st.data())
def test_a_number_that_cannot_be_is_refused_with_its_row_and_column(arrays, scratch, data):
    name = data.draw(st.sampled_from(("state", "action")))
    array = arrays[name].astype(np.float64)
    row, column = data.draw(st.integers(0, len(array) - 1)), data.draw(st.integers(0, array.shape[1] - 1))
    low, high = getattr(PUSHT, f"{name}_range")[column]
    finite = st.floats(high + 1, 1e300) | st.floats(-1e300, low - 1)
    value = data.draw(st.sampled_from((np.nan, np.inf, -np.inf)) | finite)
    array[row, column] = value
    problem = "is out of range" if np.isfinite(value) else "is not finite"
    refused(saved(scratch / "value.npz", arrays, **{name: array}),
            f"array '{name}' {problem} in row {row}, column {column}: {value}")


@given(st.data())
def test_ends_that_do_not_rise_to_the_last_row_are_refused_with_their_row(arrays, scratch, data):
    """Among them ends whose differences overflow, so that they would seem to rise."""
    extreme = st.sampled_from((-2**63, -1, 0, 1, 138, 139, 140, 2**63 - 1))
    ends = np.array(data.draw(st.lists(st.integers(-2, 141) | extreme, min_size=1, max_size=5)) +
                    data.draw(st.sampled_from(([], [139]))), np.int64)
    path = saved(scratch / "ends.npz", arrays, episode_ends=ends)
    falls = [row for row, (a, b) in enumerate(zip([0, *ends.tolist()], ends.tolist())) if a >= b]
    if falls:
        refused(path, f"array 'episode_ends' is not strictly increasing in row {falls[0]}: {ends[falls[0]]}")
    elif ends[-1] != 139:
        refused(path, f"array 'episode_ends' ends at {ends[-1]} in row {len(ends) - 1}, but 'state' has 139 rows")
    else:
        np.testing.assert_array_equal(load(path, PUSHT).episode_ends, ends)


def test_a_number_beyond_int64_does_not_pass_for_an_end(arrays, scratch):
    refused(saved(scratch / "huge.npz", arrays, episode_ends=np.array([2**64 - 1, 139], np.uint64)), "row 0")


# ---- files that are damaged, foreign or hostile -------------------------------------------------------------------

@pytest.fixture(scope="session", params=[np.savez, np.savez_compressed])
def whole(request, arrays):
    """The bytes of a good file."""
    file = io.BytesIO()
    request.param(file, **arrays)
    return file.getvalue()


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_at_any_byte_is_refused(whole, scratch, cut):
    (scratch / "cut.npz").write_bytes(whole[:int(cut * len(whole))])
    refused(scratch / "cut.npz")


@pytest.mark.slow
@settings(max_examples=250)
@given(st.lists(st.tuples(st.integers(-400, 400) | st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_file_with_changed_bytes_is_refused_or_means_the_same(whole, arrays, scratch, changes):
    data = bytearray(whole)
    for place, value in changes:  # the first and last few hundred bytes are the zip's and NumPy's headers
        data[place % len(data)] = value
    path = scratch / "changed.npz"
    path.write_bytes(data)
    try:
        loaded = load(path, PUSHT)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        for name in NAMES:
            np.testing.assert_array_equal(getattr(loaded, name), arrays[name])


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda b: b"PK\x03\x04" + b))
def test_random_bytes_are_refused(scratch, data):
    for name in ("random.npz", "random.zip"):
        (scratch / name).write_bytes(data)
        refused(scratch / name)


def test_a_single_array_and_a_zip_of_something_else_are_refused(scratch):
    np.save(scratch / "single.npy", np.zeros(3))
    refused(scratch / "single.npy", "not a .npz file")
    with zipfile.ZipFile(scratch / "texts.npz", "w") as file:
        for name in NAMES:
            file.writestr(name, "just words")
    refused(scratch / "texts.npz", "array 'state'")


def test_a_folder_without_demonstrations_and_a_missing_file_are_refused(tmp_path):
    refused(tmp_path, "no zarr arrays")
    with pytest.raises(FileNotFoundError, match="nowhere.npz: no such file"):
        load(tmp_path / "nowhere.npz", PUSHT)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [object, [("x", object)]], ids=["object", "structured"])
def test_a_pickled_array_is_refused_by_name_and_never_executed(name, dtype, arrays, tmp_path):
    hostile = np.empty(3, dtype)
    hostile[...] = Bomb(tmp_path / "executed") if dtype is object else (Bomb(tmp_path / "executed"),)
    refused(saved(tmp_path / "hostile.npz", arrays, **{name: hostile}), f"array '{name}'")
    assert not (tmp_path / "executed").exists()


def test_a_pickle_is_refused_and_never_executed(tmp_path):
    data = pickle.dumps(Bomb(tmp_path / "executed"))
    for name in ("hostile.npz", "hostile.zip"):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    pickle.loads(data)
    assert (tmp_path / "executed").exists()  # the bomb was live


# ---- zarr ---------------------------------------------------------------------------------------------------------

PLACES = {"state": "data/state", "action": "data/action", "episode_ends": "meta/episode_ends"}


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
    for name, place in PLACES.items():
        a = arrays[name]
        root.create_array(place, shape=a.shape, chunks=(50, *a.shape[1:]), dtype=a.dtype)[:] = a
    return group


def test_a_zarr_group_is_read_from_its_folder_and_from_zips_that_wrap_it(zarr_folder, arrays, tmp_path):
    pusht, wrapped = zarr_folder.parent, zarr_folder.parent.parent
    zips = [zipped(folder, tmp_path / f"{folder.name}.zip") for folder in (zarr_folder, pusht, wrapped)]
    for path in (zarr_folder, pusht, wrapped, *zips):
        loaded = load(path, PUSHT)
        for name in NAMES:
            np.testing.assert_array_equal(getattr(loaded, name), arrays[name])


def test_a_zarr_group_that_lacks_an_array_or_a_chunk_is_refused(zarr_folder, tmp_path):
    chunk = next(p for p in (zarr_folder / "data" / "action").rglob("*") if p.is_file() and "z" not in p.name)
    chunk.unlink()
    refused(zarr_folder, "array 'action'", "2 of its 3 chunks")
    for meta in (zarr_folder / "meta" / "episode_ends").glob("*z*"):
        meta.unlink()
    (zarr_folder / "data" / "action").rename(tmp_path / "elsewhere")
    refused(zarr_folder, "array 'action' is missing")


def test_a_damaged_zarr_zip_is_refused(zarr_folder, tmp_path):
    path = zipped(zarr_folder, tmp_path / "good.zip")
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:place])
        refused(path)


def test_pickled_zarr_chunks_are_refused_and_never_executed(zarr_folder, tmp_path):
    chunk = next(p for p in (zarr_folder / "data" / "action").rglob("*") if p.is_file() and "z" not in p.name)
    chunk.write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    refused(zarr_folder, "array 'action'")
    (zarr_folder / "data" / "action" / ".zarray").write_text(
        '{"zarr_format": 2, "shape": [139, 2], "chunks": [50, 2], "dtype": "|O", "fill_value": null, "order": "C",'
        ' "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "compressor": null}')
    refused(zarr_folder, "array 'action'")
    assert not (tmp_path / "executed").exists()


def test_without_zarr_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    folder = tmp_path / "some" / "group.zarr"
    (folder / "data" / "state").mkdir(parents=True)
    (folder / "data" / "state" / ".zarray").write_text("{}")
    for path in (folder, zipped(folder.parent, tmp_path / "group.zip")):
        refused(path, "pip install 'minidiff[zarr]'")


# ---- windows ------------------------------------------------------------------------------------------------------

def numbered(lengths):
    """Demonstrations that say of each row where it stands: state (episode, step), action (episode, -step)."""
    places = np.array([(episode, step) for episode, length in enumerate(lengths) for step in range(length)])
    return Demos(places, places * (1, -1), np.cumsum(lengths))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 8))
def test_windows_repeat_at_the_edges_and_never_cross_into_another_episode(lengths, obs_horizon, pred_horizon):
    obs, actions = windows(numbered(lengths), obs_horizon, pred_horizon)
    expected = [([(e, max(0, t + k)) for k in range(1 - obs_horizon, 1)],
                 [(e, -min(n - 1, t + k)) for k in range(pred_horizon)])
                for e, n in enumerate(lengths) for t in range(n)]
    np.testing.assert_array_equal(obs, [o for o, _ in expected])
    np.testing.assert_array_equal(actions, [a for _, a in expected])


# ---- standardising ------------------------------------------------------------------------------------------------

@given(st.integers(0, 2**32 - 1))
def test_a_normaliser_can_be_undone(seed):
    rng = np.random.default_rng(seed)
    normaliser = Normaliser(rng.normal(0, 100, 4), rng.uniform(0.01, 50, 4), rng.uniform(1, 50, (6, 1)))
    actions, place = rng.uniform(0, 512, (3, 6, 2)), (rng.uniform(0, 512, (3, 2)), np.linalg.qr(rng.normal(size=(3, 2, 2)))[0])
    chunk = normaliser.chunk(actions, place)
    assert chunk.dtype == np.float32
    np.testing.assert_allclose(normaliser.actions(chunk, place), actions, rtol=0, atol=1e-3)
    x = rng.normal(0, 100, (3, 4))
    np.testing.assert_allclose(normaliser.cond(x) * normaliser.std + normaliser.mean, x, rtol=0, atol=1e-2)


@pytest.mark.parametrize("obs_horizon", [1, 3])
def test_what_training_draws_from_has_mean_0_and_variance_1(demos_file, obs_horizon):
    cond, x0, _ = training_set(load(demos_file, PUSHT), PUSHT, obs_horizon, 16, clip=100)
    assert cond.shape == (139, 33 + 5 * obs_horizon) and x0.shape == (139, 16, 2)
    assert cond.dtype == x0.dtype == np.float32
    np.testing.assert_allclose(cond.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(cond.std(0), 1, atol=1e-4)
    np.testing.assert_allclose((x0**2).mean((0, 2)), 1, atol=1e-4)  # around the origin, at each step of the chunk


def test_actions_are_clipped_and_only_where_they_exceed_the_bound(demos_file):
    data = load(demos_file, PUSHT)
    free, clipped = (training_set(data, PUSHT, 2, 16, clip)[1] for clip in (100, 1.5))
    assert np.abs(free).max() > 1.5
    np.testing.assert_array_equal(clipped, np.clip(free, -1.5, 1.5))


def test_a_feature_that_never_changes_is_left_alone():
    """It becomes 0 and, if it changes a little after all when the policy acts, no number of millions."""
    still = Demos(np.full((20, 5), 100, np.float32), np.full((20, 2), 100, np.float32), np.array([20]))
    cond, x0, normaliser = training_set(still, PUSHT, 2, 4, clip=4)
    assert np.isfinite(x0).all() and np.abs(cond).max() < 1e-3
    assert np.abs(normaliser.cond(features(still.state[None, :2] + 1e-3))).max() < 1


def test_files_are_joined_episode_by_episode(arrays):
    parts = [demos.check(arrays, PUSHT), demos.check(play((12, 9), seed=5), PUSHT)]
    joined = demos.join(parts)
    assert joined.episode_ends.tolist() == [37, 87, 95, 139, 151, 160]
    both = [demos.windows(part, 2, 8) for part in parts]
    for together, one, other in zip(demos.windows(joined, 2, 8), *both):
        assert np.array_equal(together, np.concatenate([one, other]))
    assert all(a is b or np.array_equal(a, b) for a, b in zip(demos.join(parts[:1]), parts[0]))
