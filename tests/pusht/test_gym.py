"""PushT is a Gymnasium environment: it passes the checks of others, works in their wrappers, and is
what gym-pusht's users expect."""
from minidiff import beyond
from minidiff.policy import run_episode
from minidiff.pusht import SHIPPED_POLICY
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.geometry import GOAL_POSE, keypoints
from minidiff.pusht.view import drawing

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from screen import lists_for_windows
from test_structure import loads

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("pygame")

NAME = "minidiff.pusht.gym:minidiff/PushT-v0"  # Gymnasium imports what stands before the colon
OBS_TYPES = ["state", "environment_state_agent_pos", "pixels", "pixels_agent_pos"]


def begun(seed=None, state=None, **options):
    """A world, without Gymnasium's wrappers, and its first observation."""
    env = gymnasium.make(NAME, **options).unwrapped
    observation, _ = env.reset(seed=seed, options=state and {"state": state})
    return env, observation


# ---- the checks of others ------------------------------------------------------------------------

def complaints(check, env):
    """The warnings of a check; but that an action is a place in px is meant so."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(env)
    texts = [str(warning.message) for warning in caught]
    return [text for text in texts if "symmetric and normalized" not in text]


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_gymnasium_finds_no_fault(obs_type, monkeypatch):
    from gymnasium.utils.env_checker import check_env
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gymnasium.make(NAME, obs_type=obs_type, render_mode="rgb_array")
    assert complaints(check_env, env.unwrapped) == []


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_stable_baselines_finds_no_fault(obs_type):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gymnasium.make(NAME, obs_type=obs_type)
    assert complaints(checker.check_env, env.unwrapped) == []


@pytest.mark.slow
@pytest.mark.parametrize("algorithm, options", [
    ("PPO", {"n_steps": 200, "batch_size": 50}), ("SAC", {"learning_starts": 380})])
def test_stable_baselines_learns_in_it(algorithm, options):
    baselines = pytest.importorskip("stable_baselines3")
    env = gymnasium.make(NAME, max_episode_steps=50)
    model = getattr(baselines, algorithm)("MlpPolicy", env, **options)
    model.learn(400)
    assert model.num_timesteps == 400
    assert [episode["l"] for episode in model.ep_info_buffer] == [50] * 8
    assert list(model.ep_success_buffer) == [False] * 8  # found in info["is_success"]


# ---- Gymnasium's wrappers ------------------------------------------------------------------------

@pytest.mark.parametrize("limit, options", [(300, {}), (7, {"max_episode_steps": 7}),
                                            (310, {"max_episode_steps": 310})])
def test_an_episode_is_truncated_at_the_time_limit_alone(limit, options):
    env = gymnasium.make(NAME, **options)
    state, _ = env.reset(seed=1)
    stay = state[:2].astype(np.float32)
    ends = [env.step(stay)[2:4] for _ in range(limit)]
    assert ends == [(False, False)] * (limit - 1) + [(False, True)]


def test_worlds_in_processes_are_those_in_a_row_and_alone():
    actions = np.float32(np.random.default_rng(0).uniform(100, 400, (6, 2, 2)))
    lived = []
    for mode in ("sync", "async"):
        worlds = gymnasium.make_vec(NAME, num_envs=2, vectorization_mode=mode, max_episode_steps=4)
        first, _ = worlds.reset(seed=[3, 4])
        steps = [worlds.step(action) for action in actions]  # the fifth begins new episodes
        worlds.close()
        assert [step[3].tolist() for step in steps] == [[step == 3] * 2 for step in range(6)]
        lived.append([first, *(step[0] for step in steps)])
    np.testing.assert_array_equal(*lived)
    env, alone = begun(seed=4)
    np.testing.assert_array_equal([alone, env.step(actions[0, 1])[0]], [lived[0][0][1],
                                                                        lived[0][1][1]])


def test_a_video_is_recorded(tmp_path):
    pytest.importorskip("moviepy")
    env = gymnasium.make(NAME, render_mode="rgb_array", visualization_width=64,
                         visualization_height=48, max_episode_steps=5)
    videos = tmp_path / "videos"
    with gymnasium.wrappers.RecordVideo(env, str(videos)) as recorded:
        recorded.reset(seed=0)
        for _ in range(5):
            recorded.step(np.float32([100, 200]))
    video, = videos.glob("*.mp4")
    assert video.stat().st_size > 1000


# ---- starts --------------------------------------------------------------------------------------

def test_seeds_give_the_starts_of_gym_pusht():
    """The numbers are gym-pusht 0.1.8's: two seeds, and what follows without one."""
    env, first = begun(seed=0)
    starts = [first, *(env.reset(seed=seed)[0] for seed in (7, None, None))]
    expected = [[390, 304, 241.54255641, 268.51697354, 3.3990369],
                [427, 300, 349.4152343, 421.23097244, 1.73218428],
                [383, 140, 148.10769615, 266.52928556, 2.34710552],
                [415, 52, 292.04632503, 404.11540701, 1.86654227]]
    np.testing.assert_allclose(starts, expected, rtol=0, atol=1e-8)
    env.np_random = np.random.default_rng(0)  # starts come from Gymnasium's own generator
    np.testing.assert_array_equal(env.reset()[0], first)


def test_legacy_seeds_give_the_starts_of_the_published_lists():
    env, first = begun(seed=100000, seeding="legacy")
    other = PushTEnv()
    np.testing.assert_array_equal(first, other.reset(seed=100000)[0])
    np.testing.assert_array_equal(env.reset()[0], other.reset()[0])


@pytest.mark.parametrize("seeding", ["modern", "legacy"])
def test_without_any_seed_two_worlds_differ(seeding):
    assert (begun(seeding=seeding)[1] != begun(seeding=seeding)[1]).any()


def test_reset_to_state_does_what_it_does_in_gym_pusht():
    """The numbers are gym-pusht 0.1.8's, which turns the T about its centre of gravity."""
    env, _ = begun(seed=0)
    asked = [0.0, 10.0, 20.0, 30.0, 1.0]
    options = {"reset_to_state": asked}
    reached, _ = env.reset(options=options)
    expected = [0, 10, 57.86619432, 50.68639624, 1]
    np.testing.assert_allclose(reached, expected, rtol=0, atol=1e-8)
    assert options == {"reset_to_state": asked}  # is left as it was
    exact, _ = env.reset(options={"state": asked, "order": "exact"})
    np.testing.assert_allclose(exact, asked, rtol=0, atol=1e-8)
    sampled = env.reset(seed=0, options={"reset_to_state": None})[0]
    np.testing.assert_array_equal(sampled, env.reset(seed=0, options={})[0])


# ---- what is observed ----------------------------------------------------------------------------

@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_the_world_is_that_of_pusht_env_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    env, first = begun(seed=seed)
    world = PushTEnv(seeding="modern", max_steps=1000)
    np.testing.assert_array_equal(first, world.reset(seed=seed)[0])
    for action in np.float32(rng.normal(256, 200, (20, 2))):  # some lie outside
        seen, expected = env.step(action), world.step(action)
        np.testing.assert_array_equal(seen[0], expected[0])
        assert seen[1:4] == expected[1:4] and seen[4].items() >= expected[4].items()


def test_info_is_that_of_gym_pusht():
    """The numbers are gym-pusht 0.1.8's."""
    env, _ = begun()
    _, info = env.reset(seed=0)
    expected = {"pos_agent": [390, 304], "vel_agent": [0, 0], "goal_pose": GOAL_POSE,
                "block_pose": [241.54255641, 268.51697354, -2.88414841], "is_success": False,
                "coverage": info["coverage"]}
    after = {"pos_agent": [275.57501885, 215.29846423], "goal_pose": GOAL_POSE,
             "vel_agent": [-1447.95142807, -1122.4429675],
             "block_pose": [234.75887709, 269.46550821, -2.81333082],
             "is_success": False, "coverage": 0.30371048931108036}
    for found, numbers in ((info, expected), (env.step((3, 4))[4], after)):
        assert found.keys() == numbers.keys()
        for key, value in numbers.items():
            np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-6, err_msg=key)


def test_all_observations_are_of_the_same_world():
    _, state = begun(seed=2)
    size = {"observation_width": 40, "observation_height": 80}
    picture = drawing.frame(state, size=80)[:, ::2]  # without a cross: no action shows
    seen = []
    for obs_type in OBS_TYPES:
        env, _ = begun(seed=2, obs_type=obs_type, **size)
        env.step((10, 20))
        seen.append(env.reset(seed=2)[0])
        assert env.observation_space.contains(seen[-1])
    np.testing.assert_array_equal(seen[0], state)
    for name, value in (("environment_state", keypoints(state[2:]).ravel()),
                        ("agent_pos", state[:2])):
        np.testing.assert_array_equal(seen[1][name], value)
    np.testing.assert_array_equal(seen[2], picture)
    np.testing.assert_array_equal(seen[3]["pixels"], picture)
    np.testing.assert_array_equal(seen[3]["agent_pos"], state[:2])
    assert begun(obs_type="pixels")[1].shape == (96, 96, 3)


@pytest.mark.parametrize("obs_type", OBS_TYPES[:2])
def test_a_t_pushed_through_a_wall_stays_within_the_space(obs_type):
    farthest = 0
    for seed in (417, 2411, 2892):  # of thousands, those where it goes farthest
        env, _ = begun(seed=seed, obs_type=obs_type)
        corners = np.random.default_rng(seed).choice([0.0, 256.0, 512.0], (100, 2))
        for target in corners.repeat(6, axis=0):
            observation, *_, info = env.step(target)
            assert env.observation_space.contains(observation)
            farthest = max(farthest, abs(info["block_pose"][:2] - 256).max())
    assert farthest > 256 + 120


def test_spaces_hold_no_more_than_there_is():
    env, _ = begun(obs_type="state")
    low, high = env.observation_space.low, env.observation_space.high
    assert low[4] == 0 and high[4] == 2 * np.pi and (low[:4] == -200).all()
    assert env.action_space == gymnasium.spaces.Box(0, 512, (2,), np.float32)


# ---- pictures ------------------------------------------------------------------------------------

def test_render_returns_a_picture_with_the_action():
    env, _ = begun(seed=2, render_mode="rgb_array")
    state = env.step((30, 40))[0]
    np.testing.assert_array_equal(env.render(), drawing.frame(state, (30, 40), size=680))
    env, _ = begun(seed=2, render_mode="rgb_array", visualization_width=90,
                   visualization_height=30)
    np.testing.assert_array_equal(env.render(), drawing.frame(env.world.state, size=90)[::3])
    with pytest.raises(RuntimeError, match="render_mode"):
        begun()[0].render()


def test_a_human_sees_the_start_and_every_step(monkeypatch):
    windows = lists_for_windows(monkeypatch)
    env, state = begun(seed=2, render_mode="human", visualization_width=200,
                       visualization_height=200)
    states = [state, *(env.step((30, 40))[0] for _ in range(2))]
    env.close()
    assert env.metadata["render_fps"] == 10  # an action lasts 0.1 s
    *pictures, closed = windows[0]
    assert len(windows) == 1 and closed == "closed" and len(pictures) == 3
    for picture, state, target in zip(pictures, states, (None, (30, 40), (30, 40))):
        np.testing.assert_array_equal(picture, drawing.frame(state, target, size=200))


# ---- use -----------------------------------------------------------------------------------------

def test_the_shipped_policy_solves_it():
    policy, _ = beyond.load(SHIPPED_POLICY, PUSHT, sampler="ddim", steps=4)
    env = gymnasium.make(NAME)
    *_, (_, reward, info) = run_episode(policy, env, np.random.default_rng(0), seed=0)
    assert info["is_success"] is True and reward == 1.0


def test_the_example_of_the_page_runs():
    page = (ROOT / "minidiff/pusht/README.md").read_text(encoding="utf-8")
    section = page.partition("## As a Gymnasium environment")[2].partition("\n## ")[0]
    example = re.search(r"```python\n(.*?)```", section, re.S)[1]
    names = {}
    exec(example, names)
    assert names["env"].spec.id == "minidiff/PushT-v0" and "coverage" in names["info"]


@pytest.mark.parametrize("option", [{"obs_type": "keypoints"}, {"seeding": "new"},
                                    {"render_mode": "ansi"}], ids=str)
def test_unknown_settings_are_refused_by_name(option):
    (name, value), = option.items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, of the render_mode
        with pytest.raises(ValueError, match=f"^{name} must be one of .*got '{value}'"):
            gymnasium.make(NAME, **option)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="^a key of options must be"):
        begun()[0].reset(options={"start": [1, 2, 3, 4, 5]})


def test_gymnasium_is_loaded_by_its_own_file_alone():
    rest = "env, features, __main__, study, view"
    assert "gymnasium" not in loads(f"from minidiff.pusht import {rest}")
    assert "gymnasium" in loads("import minidiff.pusht.gym")


def test_without_gymnasium_the_file_says_what_to_install():
    program = ("import sys; sys.modules['gymnasium'] = None\n"
               "try: import minidiff.pusht.gym\nexcept ImportError as error: print(error)")
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "needs Gymnasium: pip install 'minidiff[gymnasium,pusht]'" in result.stdout
