"""Demonstrations: what is refused and in which words, what a window is, what can be undone."""
from minidiff import demos
from minidiff.demos import BOUND, NAMES, Demos, Normaliser, Task, load, training_set, windows
from minidiff.pusht.features import PUSHT

import io
import pickle
import zipfile

import numpy as np
import pytest
from conftest import Bomb, play
from hypothesis import given, settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)


def refused(path, *words):
    """Loading fails with a ValueError that names the file and says all the words."""
    with pytest.raises(ValueError) as error:
        load(path, PUSHT)
    message = str(error.value)
    assert not [word for word in (str(path), *words) if word not in message], message


def saved(path, arrays, **changes):
    """arrays as .npz, with some of them changed or (None) left out."""
    arrays = arrays | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def assert_same(loaded, arrays):
    for name in NAMES:
        np.testing.assert_array_equal(getattr(loaded, name), arrays[name])


# ---- loading -------------------------------------------------------------------------------------

def test_demonstrations_come_back_as_they_were_saved(demos_file, arrays):
    loaded = load(demos_file, PUSHT)
    assert_same(loaded, arrays)
    assert [a.dtype for a in loaded] == [np.float32, np.float32, np.int64]


def test_any_number_type_and_arrays_that_nobody_needs_are_accepted(arrays, scratch):
    numbers = {"state": arrays["state"].astype(np.float64),
               "action": arrays["action"].astype(np.int32),
               "episode_ends": arrays["episode_ends"].astype(np.uint16)}
    path = saved(scratch / "a.npz", numbers, img=np.zeros((3, 3)), notes=np.array([{}]))
    loaded = load(path, PUSHT)
    np.testing.assert_array_equal(loaded.action, np.float32(numbers["action"]))
    np.testing.assert_array_equal(loaded.episode_ends, arrays["episode_ends"])


def test_whole_numbers_are_kept_exactly(arrays):
    """float32 has no 2^24 + 1."""
    task = PUSHT._replace(state_range=PUSHT.state_range * 1e6)
    state = arrays["state"].astype(np.int64)
    state[3] = 2**24 + 1
    loaded = demos.check(arrays | {"state": state}, task)
    assert loaded.state.dtype == np.float64
    np.testing.assert_array_equal(loaded.state, state)


def test_reading_gives_the_arrays_that_are_asked_for_and_there(arrays, scratch):
    path = saved(scratch / "more.npz", arrays, seeds=np.arange(4), notes=np.array([{}]))
    read = demos.read(path, ("state", "seeds", "relabelled"))
    assert set(read) == {"state", "seeds"}
    np.testing.assert_array_equal(read["state"], arrays["state"])
    np.testing.assert_array_equal(read["seeds"], np.arange(4))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_array_is_named_with_what_the_file_holds(name, arrays, scratch):
    path = saved(scratch / "missing.npz", arrays, **{name: None}, img=np.zeros(1))
    others = [other for other in NAMES if other != name]
    held = ", ".join(sorted([*others, "img"]))
    refused(path, f"array '{name}' is missing; the file holds {held}")
    with pytest.raises(ValueError, match=f"demonstrations: array '{name}' is missing"):
        demos.check({other: arrays[other] for other in others}, PUSHT)


WRONG = [
    ("state", np.zeros(5)),
    ("state", np.zeros((139, 4))),
    ("state", np.zeros((139, 5, 1))),
    ("state", np.float32(3)),
    ("state", np.full((139, 5), "1")),
    ("state", np.zeros((139, 5), complex)),
    ("state", np.zeros((139, 5), bool)),
    ("state", np.zeros((139, 5), "datetime64[s]")),
    ("state", np.zeros((139, 5), [("x", float)])),
    ("action", np.zeros((139, 3))),
    ("episode_ends", np.zeros((0,), int)),
    ("episode_ends", np.array([[139]])),
    ("episode_ends", np.array([139.0])),
    ("episode_ends", np.array(139)),
    ("episode_ends", np.array(["139"])),
    ("episode_ends", np.array([True])),
]


@pytest.mark.parametrize("name, array", WRONG,
                         ids=[f"{name} {array.dtype}{array.shape}" for name, array in WRONG])
def test_an_array_of_another_shape_or_type_is_named(name, array, arrays, scratch):
    refused(saved(scratch / "shape.npz", arrays, **{name: array}), f"array '{name}'",
            "should be ", f"but is {array.dtype}")


@pytest.mark.parametrize("rows", [0, 138])
def test_fewer_actions_than_states_are_refused_with_both_numbers(rows, arrays, scratch):
    refused(saved(scratch / "fewer.npz", arrays, action=arrays["action"][:rows]),
            f"array 'action' has {rows} rows, but 'state' has 139")


def test_no_rows_at_all_are_refused(scratch):
    nothing = {"state": np.zeros((0, 5)), "action": np.zeros((0, 2)), "episode_ends": np.array([0])}
    refused(saved(scratch / "empty.npz", nothing), "array 'episode_ends'", "row 0")


@given(st.data())
def test_a_number_that_cannot_be_is_refused_with_its_row_and_column(arrays, scratch, data):
    name = data.draw(st.sampled_from(("state", "action")))
    array = arrays[name].astype(np.float64)
    row = data.draw(st.integers(0, len(array) - 1))
    column = data.draw(st.integers(0, array.shape[1] - 1))
    low, high = getattr(PUSHT, f"{name}_range")[column]
    finite = st.floats(high + 1, 1e300) | st.floats(-1e300, low - 1)
    value = data.draw(st.sampled_from((np.nan, np.inf, -np.inf)) | finite)
    array[row, column] = value
    problem, limits = "is not finite", ""
    if np.isfinite(value):
        problem, limits = "is out of range", f" (accepted: {low:g} to {high:g})"
    refused(saved(scratch / "value.npz", arrays, **{name: array}),
            f"array '{name}' {problem} in row {row}, column {column}: {value}{limits}")


def test_numbers_at_the_limits_of_their_range_are_accepted(arrays):
    state = arrays["state"].astype(np.float64)
    action = arrays["action"].astype(np.float64)
    state[:2] = PUSHT.state_range.T
    action[:2] = PUSHT.action_range.T
    data = demos.check(arrays | {"state": state, "action": action}, PUSHT)
    np.testing.assert_array_equal(data.state[:2], PUSHT.state_range.T)
    np.testing.assert_array_equal(data.action[:2], PUSHT.action_range.T)


def test_an_episode_may_have_a_single_row(arrays):
    ends = [1, 2, 139]
    assert demos.check(arrays | {"episode_ends": ends}, PUSHT).episode_ends.tolist() == ends


@given(st.data())
def test_ends_that_do_not_rise_to_the_last_row_are_refused_with_their_row(arrays, scratch, data):
    """Among them ends whose differences overflow, so that they would seem to rise."""
    extreme = st.sampled_from((-2**63, -1, 0, 1, 138, 139, 140, 2**63 - 1))
    ends = data.draw(st.lists(st.integers(-2, 141) | extreme, min_size=1, max_size=5))
    ends = ends + data.draw(st.sampled_from(([], [139])))
    path = saved(scratch / "ends.npz", arrays, episode_ends=np.array(ends, np.int64))
    falls = [row for row, (a, b) in enumerate(zip([0, *ends], ends)) if a >= b]
    if falls:
        refused(path, "array 'episode_ends' is not strictly increasing in row "
                      f"{falls[0]}: {ends[falls[0]]}")
    elif ends[-1] != 139:
        refused(path, f"array 'episode_ends' ends at {ends[-1]} in row {len(ends) - 1}, "
                      "but 'state' has 139 rows")
    else:
        np.testing.assert_array_equal(load(path, PUSHT).episode_ends, ends)


def test_a_number_beyond_int64_does_not_pass_for_an_end(arrays, scratch):
    ends = np.array([2**64 - 1, 139], np.uint64)
    refused(saved(scratch / "huge.npz", arrays, episode_ends=ends), "row 0")


# ---- files that are damaged, foreign or hostile --------------------------------------------------

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


# a file's first and last few hundred bytes are the headers of the zip and of NumPy
places = st.integers(-400, 400) | st.integers(0, 3000)


@pytest.mark.slow
@settings(max_examples=250)
@given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4))
def test_a_file_with_changed_bytes_is_refused_or_means_the_same(whole, arrays, scratch, changes):
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    path = scratch / "changed.npz"
    path.write_bytes(data)
    try:
        loaded = load(path, PUSHT)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert_same(loaded, arrays)


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused(scratch, data, signed):
    """With and without the signature of a zip."""
    (scratch / "random.npz").write_bytes(b"PK\x03\x04" + data if signed else data)
    refused(scratch / "random.npz")


def test_a_single_array_and_a_zip_of_something_else_are_refused(scratch):
    np.save(scratch / "single.npy", np.zeros(3))
    refused(scratch / "single.npy", "not a .npz file")
    with zipfile.ZipFile(scratch / "texts.npz", "w") as file:
        for name in NAMES:
            file.writestr(name, "just words")
    refused(scratch / "texts.npz", "array 'state'")


def test_a_folder_is_refused_and_a_missing_file_is_not_found(tmp_path):
    refused(tmp_path, "not a .npz file")
    with pytest.raises(FileNotFoundError, match="nowhere.npz: no such file"):
        load(tmp_path / "nowhere.npz", PUSHT)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [object, [("x", object)]], ids=["object", "structured"])
def test_a_pickled_array_is_refused_by_name_and_never_executed(name, dtype, arrays, tmp_path):
    bomb = Bomb(tmp_path / "executed")
    hostile = np.empty(3, dtype)
    hostile[...] = bomb if dtype is object else (bomb,)
    refused(saved(tmp_path / "hostile.npz", arrays, **{name: hostile}), f"array '{name}'")
    assert not (tmp_path / "executed").exists()


def test_a_pickle_is_refused_and_never_executed(tmp_path):
    data = pickle.dumps(Bomb(tmp_path / "executed"))
    (tmp_path / "hostile.npz").write_bytes(data)
    refused(tmp_path / "hostile.npz")
    assert not (tmp_path / "executed").exists()
    pickle.loads(data)
    assert (tmp_path / "executed").exists()  # the bomb was live


# ---- windows -------------------------------------------------------------------------------------

def numbered(lengths):
    """Demonstrations that say of each row where it stands.

    state (episode, step), action (episode, -step).
    """
    places = []
    for episode, length in enumerate(lengths):
        places += [(episode, step) for step in range(length)]
    places = np.array(places)
    return Demos(places, places * (1, -1), np.cumsum(lengths))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 8))
def test_windows_repeat_at_the_edges_and_never_cross_into_another_episode(
        lengths, obs_horizon, pred_horizon):
    obs, actions = windows(numbered(lengths), obs_horizon, pred_horizon)
    expected_obs = []
    expected_actions = []
    for e, n in enumerate(lengths):
        for t in range(n):
            seen = [(e, max(0, t + k)) for k in range(1 - obs_horizon, 1)]
            done = [(e, -min(n - 1, t + k)) for k in range(pred_horizon)]
            expected_obs.append(seen)
            expected_actions.append(done)
    np.testing.assert_array_equal(obs, expected_obs)
    np.testing.assert_array_equal(actions, expected_actions)


def test_files_are_joined_episode_by_episode(arrays):
    parts = [demos.check(arrays, PUSHT), demos.check(play((12, 9), seed=5), PUSHT)]
    joined = demos.join(parts)
    assert joined.episode_ends.tolist() == [37, 87, 95, 139, 151, 160]
    first, second = (windows(part, 2, 8) for part in parts)
    for k, together in enumerate(windows(joined, 2, 8)):
        assert np.array_equal(together, np.concatenate([first[k], second[k]]))
    for alone, part in zip(demos.join(parts[:1]), parts[0]):
        assert np.array_equal(alone, part)


# ---- normalisation -------------------------------------------------------------------------------

@given(seeds)
def test_a_normaliser_can_be_undone(seed):
    rng = np.random.default_rng(seed)
    normaliser = Normaliser(rng.normal(0, 100, 4), rng.uniform(0.01, 50, 4),
                            rng.normal(0, 100, 2), rng.uniform(1, 50, (6, 1)))
    actions = rng.uniform(0, 512, (3, 6, 2))
    frame = rng.uniform(0, 512, (3, 2)), np.linalg.qr(rng.normal(size=(3, 2, 2)))[0]
    x_0 = normaliser.normalise(actions, frame)
    assert x_0.dtype == np.float32
    np.testing.assert_allclose(normaliser.denormalise(x_0, frame), actions, rtol=0, atol=1e-3)
    features = normaliser.mean + normaliser.std * rng.normal(0, 3, (3, 4))
    cond = normaliser.standardise(features)
    assert cond.dtype == np.float32
    np.testing.assert_allclose(cond * normaliser.std + normaliser.mean, features, rtol=0, atol=1e-2)
    np.testing.assert_allclose(normaliser.normalise(actions, None) * normaliser.scale
                               + normaliser.centre, actions, rtol=0, atol=1e-3)


def test_offsets_are_measured_from_the_origin_along_the_axes():
    """At (10, 20), with x pointing along the world's y and y along its -x."""
    frame = np.array([[10.0, 20]]), np.array([[[0.0, -1], [1, 0]]])
    actions = np.array([[[10.0, 23], [8, 20]]])
    offsets = np.array([[[3.0, 0], [0, 2]]])
    np.testing.assert_array_equal(demos.to_frame(actions, frame), offsets)
    np.testing.assert_array_equal(demos.from_frame(offsets, frame), actions)


@pytest.mark.parametrize("obs_horizon", [1, 3])
def test_what_training_samples_from_has_mean_0_and_variance_1(demos_file, obs_horizon):
    cond, x0, _ = training_set(load(demos_file, PUSHT), PUSHT, obs_horizon, 16, clip=100)
    assert cond.shape == (139, 33 + 5 * obs_horizon) and x0.shape == (139, 16, 2)
    assert cond.dtype == x0.dtype == np.float32
    np.testing.assert_allclose(cond.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(cond.std(0), 1, atol=1e-4)
    # around the origin, at each step of the chunk
    np.testing.assert_allclose((x0**2).mean((0, 2)), 1, atol=1e-4)


def test_a_training_set_is_what_its_normaliser_makes_of_the_windows(demos_file):
    data = load(demos_file, PUSHT)
    cond, x0, normaliser = training_set(data, PUSHT, 2, 16, clip=100)
    obs, actions = windows(data, 2, 16)
    frame = PUSHT.frame(obs)
    np.testing.assert_array_equal(cond, normaliser.standardise(PUSHT.features(obs, frame)))
    np.testing.assert_allclose(normaliser.denormalise(x0, frame), actions, rtol=0, atol=1e-3)


def test_actions_are_clipped_and_only_where_they_exceed_the_bound(demos_file):
    data = load(demos_file, PUSHT)
    _, free, _ = training_set(data, PUSHT, 2, 16, clip=100)
    _, clipped, _ = training_set(data, PUSHT, 2, 16, clip=1.5)
    assert np.abs(free).max() > 1.5
    np.testing.assert_array_equal(clipped, np.clip(free, -1.5, 1.5))


def test_a_feature_that_never_changes_is_left_alone():
    """It becomes 0 and, if it changes a little when the policy acts, no number of millions."""
    still = Demos(np.full((20, 5), 100, np.float32), np.full((20, 2), 100, np.float32),
                  np.array([20]))
    cond, x0, normaliser = training_set(still, PUSHT, 2, 4, clip=4)
    assert np.isfinite(x0).all() and np.abs(cond).max() < 1e-3
    obs = still.state[None, :2] + 1e-3
    features = PUSHT.features(obs, PUSHT.frame(obs))
    assert np.abs(normaliser.standardise(features)).max() < 1


def last(obs, frame):
    return obs[:, -1]


def unframed(dims, features=last):
    """A task without a frame, of any units."""
    anything = np.array([[-np.inf, np.inf]] * dims)
    return Task("unframed", features, None, anything, anything)


def made(state, action, episodes=4):
    n = len(state) // episodes
    arrays = {"state": state, "action": action, "episode_ends": n * np.arange(1, episodes + 1)}
    return demos.check(arrays, unframed(state.shape[1]))


def test_without_a_frame_each_dimension_has_its_centre_and_scale():
    """A gripper of 0 and 1 next to coordinates of 0 to 500 and a small angle far from 0; what
    varies by rounding alone is measured by its own magnitude."""
    rng = np.random.default_rng(0)
    action = np.stack([rng.uniform(0, 500, 80), rng.integers(0, 2, 80), rng.normal(9, 1e-4, 80),
                       rng.normal(9, 1e-7, 80)], 1)
    task = unframed(4)
    cond, x0, normaliser = training_set(made(action, action), task, 1, 4, clip=10)
    assert normaliser.scale.shape == (4, 4)
    np.testing.assert_allclose(x0.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(x0.std((0, 1)), [1, 1, 1, 0], atol=1e-4)
    np.testing.assert_allclose(normaliser.scale[:, 3], 9)
    back = normaliser.denormalise(x0, None)
    obs, actions = windows(made(action, action), 1, 4)
    np.testing.assert_allclose(back, actions, atol=1e-4)
    assert ((back[..., 1] > 0.5) == (actions[..., 1] == 1)).all()


@pytest.mark.parametrize("unit, origin", [
    (1e-12, 0), (1e-6, 0), (1.0, 0), (1e9, 0), (1.0, 1e4)])
def test_features_of_any_unit_and_origin_get_variance_1(unit, origin):
    state = np.float32(origin + unit * np.random.default_rng(0).standard_normal((40, 2)))
    cond, _, _ = training_set(made(state, state), unframed(2), 1, 2, clip=10)
    np.testing.assert_allclose(cond.std(0), 1, atol=1e-4)


def test_the_mean_of_many_features_keeps_its_digits():
    """A float32 sum of 20,000 numbers near 30,000 has none left behind the point."""
    state = np.float32(30_000 + np.random.default_rng(0).uniform(-1, 1, (20_000, 2)))
    cond, _, _ = training_set(made(state, state), unframed(2), 1, 1, clip=10)
    np.testing.assert_allclose(cond.mean(0, np.float64), 0, atol=1e-4)
    np.testing.assert_allclose(cond.std(0, np.float64), 1, atol=1e-4)


def test_what_never_varies_is_measured_by_its_magnitude_or_1():
    assert demos.varying(np.zeros(3), np.array([0, 0.5, 9])).tolist() == [1, 0.5, 9]


def test_what_hardly_varied_in_training_is_bounded_later():
    """Constant but for rounding: measured by its magnitude. Nearly constant: within +-BOUND."""
    state = np.full((40, 2), 3.0)
    state[:, 0] += 1e-8 * np.random.default_rng(0).standard_normal(40)
    state[:, 1] += 3e-5 * np.random.default_rng(1).standard_normal(40)
    _, _, normaliser = training_set(made(state, state), unframed(2), 1, 2, clip=10)
    cond = normaliser.standardise(np.array([[3.3, 3.3], [2.7, 2.7]]))
    np.testing.assert_allclose(cond, [[0.1, BOUND], [-0.1, -BOUND]], atol=1e-3)


def test_large_coordinates_keep_their_digits():
    """Subtracted first, cast then: 5e6 in float32 is a grid of 0.5."""
    rng = np.random.default_rng(0)
    state = 5e6 + rng.standard_normal((40, 2))

    def here(obs):
        return obs[:, -1], np.tile(np.eye(2), (len(obs), 1, 1))

    def nothing(obs, frame):
        return np.zeros((len(obs), 1))

    task = unframed(2, nothing)._replace(frame=here)
    _, x0, normaliser = training_set(made(state, state), task, 1, 3, clip=10)
    obs, actions = windows(Demos(state, state, 10 * np.arange(1, 5)), 1, 3)
    offsets = actions - obs[:, -1:]
    scale = np.sqrt((offsets ** 2).mean((0, 2)))[:, None]
    scale[0] = scale.max()  # of the first action, which is the observation: its offset is 0
    np.testing.assert_allclose(normaliser.scale, scale)
    np.testing.assert_allclose(x0, offsets / scale, atol=1e-6)


# ---- the rows that batches are drawn from --------------------------------------------------------

@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 5))
def test_the_last_rows_of_each_episode_are_drawn_so_many_times_as_often(lengths, last, times):
    rows = demos.drawn(np.cumsum(lengths), last, times)
    expected = []
    start = 0
    for length in lengths:
        for k in range(length):
            expected += [start + k] * (times if length - k <= last else 1)
        start += length
    assert rows.tolist() == expected
