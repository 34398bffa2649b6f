"""Films show the episodes that the policy plays, and say what is wrong before the first of them."""
from minidiff import policy
from minidiff.beyond.samplers import ddim_sampling
from minidiff.demos import Task
from minidiff.demos import load as load_demos
from minidiff.pusht import __main__ as commands
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.geometry import GOAL_POSE, coverage
from minidiff.pusht.view import drawing, films
from minidiff.scoring import rollout, scores
from minidiff.training import Config, Trainer

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, is_png
from screen import load

SHORT = functools.partial(PushTEnv, max_steps=6)
SEEDS = range(5000, 5002)


@pytest.fixture
def strips(monkeypatch):
    """(path, rows) of each strip, in place of its file."""
    strips = []
    monkeypatch.setattr(drawing, "film_strip", lambda path, rows: strips.append((path, rows)))
    return strips


def test_a_strip_has_evenly_spaced_frames_from_start_to_end(tiny_policy, strips):
    films.film("film.png", tiny_policy(), SEEDS, noise_seed=1, frames=4, make_env=SHORT)
    episodes, paths = rollout.rollout(tiny_policy(), SEEDS, 1, make_env=SHORT, record=True)
    (path, rows), = strips
    assert path == "film.png" and len(rows) == 2
    for (label, frames, footer), episode, states in zip(rows, episodes, paths):
        assert label == f"seed {episode.seed}" and footer.startswith("best coverage\n")
        for (state, caption), k in zip(frames, (0, 2, 4, 6)):
            assert np.array_equal(state, states[k])
            assert caption == f"step {k}: {coverage(state[2:]):.0%}"


def test_a_strip_says_how_an_episode_ended(monkeypatch, strips):
    episodes = [scores.Episode(7, 1.0, True, 1, 1.0), scores.Episode(8, 0.5, False, 1, 0.2)]
    x, y, angle = GOAL_POSE
    almost = np.array([[0, 0, x + 1, y + 1, angle]] * 2)
    states = [almost, np.ones((2, 5))]
    covered = f"{coverage(almost[1, 2:]):.0%}"
    monkeypatch.setattr(rollout, "rollout", lambda *given, **more: (episodes, states))
    films.film("film.png", None, [7, 8])
    (_, rows), = strips
    assert [footer for _, _, footer in rows] == [f"success after\n1 steps:\n{covered} covered",
                                                 "best coverage\n47.5%"]


class Shades:
    """A world whose pictures are of the shade of its step, 900 x 450 px."""

    def reset(self, *, seed=None, options=None):
        self.steps = seed
        return [0.0, 0.0], {}

    def step(self, action):
        self.steps += 1
        over = self.steps == 50
        return [0.0, 0.0], 0.5, over, False, {"is_success": over}

    def render(self):
        return np.full((450, 900, 3), self.steps, np.uint8)


class Idle:
    obs_horizon, action_horizon = 1, 4
    task = Task("shades", make_env=Shades, max_steps=20)

    def plan(self, obs, rng):
        return np.zeros((len(obs), 4, 2))


def test_a_strip_of_any_task_shows_what_its_world_renders(strips):
    films.rendered("film.png", Idle(), Idle(), [0, 36], frames=3)
    (path, rows), = strips
    assert path == "film.png" and [label for label, _, _ in rows] == [
        "seed 0", "seed 0", "seed 36", "seed 36"]
    shades = [[int(picture.max()) for picture, _ in shown] for _, shown, _ in rows]
    assert shades == [[0, 10, 20]] * 2 + [[36, 43, 50]] * 2
    assert [caption for _, caption in rows[0][1]] == ["step 0", "step 10", "step 20"]
    assert [footer for _, _, footer in rows[1:3]] == [
        "after training\nscore 10", "before training\nscore 7\nsuccess"]
    assert rows[0][1][0][0].shape == (150, 300, 3)


class Flickering(Shades):
    """The same, drawn into one array, and what is carried out decides its shade."""
    picture = np.zeros((4, 4, 3), np.uint8)

    def step(self, action):
        self.picture[:] = action[0]
        return super().step(action)

    def render(self):
        return self.picture


class Shade(Idle):
    """Always does the same."""
    task = Task("shades", make_env=Flickering, max_steps=3)

    def __init__(self, shade):
        self.shade = shade

    def plan(self, obs, rng):
        return np.arange(4.0)[:, None] + np.full((len(obs), 4, 2), self.shade)


def test_a_strip_shows_each_policy_at_its_own_moments(strips):
    films.rendered("film.png", Shade(10), Shade(20), [0], frames=9)
    (_, rows), = strips
    shades = [[int(picture.max()) for picture, _ in shown] for _, shown, _ in rows]
    assert [row[1:] for row in shades] == [[10, 11, 12], [20, 21, 22]]
    assert [footer.split("\n")[0] for *_, footer in rows] == ["before training", "after training"]


@pytest.mark.parametrize("picture, said", [
    (None, "NoneType"), (np.zeros((9, 9)), r"ndarray \(9, 9\)"),
    (np.zeros((9, 9, 4)), r"ndarray \(9, 9, 4\)")])
def test_what_a_world_renders_must_be_a_picture(picture, said, monkeypatch):
    monkeypatch.setattr(Shades, "render", lambda self: picture)
    with pytest.raises(ValueError, match=rf"\(height, width, 3\) uint8, not {said}"):
        films.rendered("film.png", Idle(), Idle(), [0])


def test_a_strip_can_show_a_policy_before_and_after_its_training(demos_file, strips):
    data = load_demos(demos_file, PUSHT)
    trainer = Trainer(Config(steps=20, width=16, blocks=1, T=6, batch=32, ema=0.5), PUSHT, data)
    sampler = functools.partial(ddim_sampling, steps=4)
    untrained = policy.from_trainer(trainer, sampler)
    for _ in trainer:
        pass
    trained = policy.from_trainer(trainer, sampler)
    films.film("film.png", trained, SEEDS, before=untrained, make_env=SHORT)
    (_, rows), = strips
    assert [label for label, _, _ in rows] == ["seed 5000", "seed 5000", "seed 5001", "seed 5001"]
    for when, player, shown in (("before", untrained, rows[::2]), ("after", trained, rows[1::2])):
        _, paths = rollout.rollout(player, SEEDS, make_env=SHORT, record=True)
        for (_, frames, footer), states in zip(shown, paths):
            assert footer.startswith(f"{when} training\n")
            assert np.array_equal([frames[0][0], frames[-1][0]], states[[0, -1]])
    assert not np.array_equal(rows[0][1][-1][0], rows[1][1][-1][0])


def test_an_animation_carries_out_the_first_plan_it_shows(tiny_policy, monkeypatch, tmp_path):
    saved, seen = [], []
    monkeypatch.setattr(drawing, "save_animation", lambda *given: saved.append(given))
    monkeypatch.setattr(drawing, "load_pillow", lambda: None)

    def frame(state, plans=None, size=None):
        seen.append((state, plans))
        return np.full((size, size, 3), len(seen), np.uint8)

    monkeypatch.setattr(drawing, "frame", frame)
    films.animation(tmp_path / "film.webp", tiny_policy(), [3], 1, plans=5, size=8, make_env=SHORT)
    assert len(seen) == 7 and seen[-1][1] is None
    obs = np.tile(seen[0][0], (5, 2, 1))
    assert np.array_equal(seen[0][1], tiny_policy().plan(obs, np.random.default_rng([1, 3])))
    env = SHORT()
    state, _ = env.reset(seed=3)
    for k, (shown, plans) in enumerate(seen[:-1]):
        assert np.array_equal(shown, state) and plans.shape == (5, 8, 2)
        assert (plans is seen[k - k % 2][1]), "two actions of each plan"
        state, *_ = env.step(plans[0][k % 2])
    (path, frames), = saved
    assert path == tmp_path / "film.webp"
    assert [int(picture[0, 0, 0]) for picture in frames] == [*range(1, 8), *[7] * 10]


def test_episodes_of_an_animation_stand_next_to_each_other(tiny_policy, monkeypatch, tmp_path):
    pytest.importorskip("PIL")
    saved = []
    monkeypatch.setattr(drawing, "save_animation", lambda path, frames: saved.append(frames))
    films.animation(tmp_path / "a.gif", tiny_policy(), SEEDS, plans=2, size=32, make_env=SHORT)
    for k, seed in enumerate(SEEDS):
        start = SHORT().reset(seed=seed)[0]
        first, last = saved[0][0][:, 32 * k:32 * (k + 1)], saved[0][-1][:, 32 * k:32 * (k + 1)]
        assert first.shape == (32, 32, 3) and not np.array_equal(first, last)
        assert np.array_equal(first[:6, :6], drawing.frame(start, size=32)[:6, :6])


@pytest.mark.parametrize("draw, name, error, said", [
    (films.film, "film.webp", ValueError, "must end in .png"),
    (films.animation, "film.png", ValueError, "must end in .webp or .gif"),
    (films.film, "folder.png", OSError, "folder.png is a folder"),
    (films.film, "file/film.png", OSError, "cannot be written there"),
    (films.animation, "file/film.gif", OSError, "cannot be written there")])
def test_a_path_that_cannot_be_written_is_refused_at_once(draw, name, error, said, tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(error, match=said):
        draw(tmp_path / name, None, SEEDS)  # no policy: nothing was played
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


def test_an_animation_too_wide_for_its_format_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="at most 16 episodes, not 17; a film strip"):
        films.animation(tmp_path / "a.webp", None, range(17))


@pytest.mark.parametrize("draw, name, missing", [
    (films.film, "a.png", "pygame"), (films.animation, "a.gif", "pygame"),
    (films.animation, "a.gif", "PIL")])
def test_a_missing_package_is_named_before_the_first_episode(draw, name, missing, monkeypatch,
                                                             tmp_path):
    monkeypatch.setitem(sys.modules, missing, None)
    extra = {"pygame": "pusht", "PIL": "film"}[missing]
    with pytest.raises(RuntimeError, match=rf"pip install 'minidiff\[{extra}\]'"):
        draw(tmp_path / name, None, SEEDS)


# ---- the command ---------------------------------------------------------------------------------

def film(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "minidiff.pusht", "film", *arguments], cwd=folder, text=True,
        capture_output=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)})


QUICK = ("--sampler", "ddim", "--sampler-steps", "1", "--action-horizon", "8")


@pytest.mark.slow
def test_the_command_draws_a_strip_into_new_folders_too(tmp_path):
    result = film(tmp_path, *QUICK, "--episodes", "1", "new/film.png")
    said = "the policy that comes with minidiff: ddim, sampler steps 1\npicture: new/film.png\n"
    assert (result.returncode, result.stdout, result.stderr) == (0, said, "")
    assert is_png(tmp_path / "new" / "film.png")
    assert load(tmp_path / "new" / "film.png").shape[1] > 8 * 320


@pytest.mark.slow
def test_the_command_draws_animations(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    result = film(tmp_path, "--seed", "7", "film.gif", "--sampler", "ddim", "--episodes", "2")
    assert result.returncode == 0, result.stderr
    picture = Image.open(tmp_path / "film.gif")
    assert picture.size == (480, 240) and picture.n_frames > 10


@pytest.mark.parametrize("name, draw", [
    ("a.png", "film"), ("a.webp", "animation"), ("a.gif", "animation")])
def test_the_command_draws_what_the_name_of_the_picture_says(name, draw, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(films, draw, lambda *given: calls.append(given))
    assert commands.main(["film", *QUICK, "--noise-seed", "3", "--episodes", "2", name]) == 0
    (path, player, seeds, noise_seed), = calls
    assert (path, seeds, noise_seed, player.action_horizon) == (name, SEEDS, 3, 8)
    assert player.task is PUSHT
    assert capsys.readouterr().out == (
        f"the policy that comes with minidiff: ddim, sampler steps 1\npicture: {name}\n")


@pytest.mark.parametrize("arguments, code, said", [
    (["film.txt"], 2, "film.txt: the name of the picture must end in .png, .webp or .gif"),
    (["film.png", "--episodes", "0"], 2, "--episodes: must be from 1 to 100, not 0"),
    (["film.png", "--seed", "4294967295"], 1, "--episodes 4: the last seed is 4294967295"),
    (["nowhere", "film.png"], 1, "nowhere"), ([], 2, "FILE")])
def test_the_command_refuses_in_a_sentence(arguments, code, said, capsys):
    try:
        status = commands.main(["film", *arguments])
    except SystemExit as end:
        status = end.code
    assert status == code and said in capsys.readouterr().err.splitlines()[-1]
