"""The scripted demonstrator: it solves what it is given, in many ways, and its file can be made and lived again."""
import concurrent.futures
import hashlib
import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from minidiff import checkpoint, demos
from minidiff.pusht import SHIPPED_POLICY, collect, expert, rollout
from minidiff.pusht.env import AGENT_RADIUS, GOAL_POSE, PushTEnv, coverage, keypoints
from minidiff.pusht.features import PUSHT

OPTIONS = {"stream": 0, "samples": 24, "refine": 2, "stop_coverage": 0.97, "max_steps": 300}
SEEDS = range(5000, 5006)
COMMAND = [sys.executable, "-m", "minidiff.pusht.data.collect"]


class Here(concurrent.futures.Executor):
    """Runs each task when its result is asked for; asking for the task after the last allowed one is a Ctrl-C."""

    def __init__(self, allowed=10**9):
        self.allowed, self.begun = allowed, 0

    def submit(self, function, *args, **kwargs):
        future = concurrent.futures.Future()

        def result():
            if self.begun == self.allowed:
                raise KeyboardInterrupt
            self.begun += 1
            return function(*args, **kwargs)
        future.result = result
        return future


def digest(arrays):
    """sha256 of the file that these arrays make."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return hashlib.sha256(file.getvalue()).hexdigest()


@pytest.fixture(scope="module")
def made():
    return collect.make(SEEDS, Here(), noise_every_other=2.0, **OPTIONS)


@pytest.fixture(scope="module")
def plain():
    return [expert.demonstrate(seed) for seed in SEEDS]


def starts(seeds):
    """Where the episodes of some seeds begin: agent in the T's frame (n,), keypoints (n, 8, 2)."""
    env = PushTEnv()
    states = np.array([env.reset(seed=seed)[0] for seed in seeds])
    return np.array([expert.to_body(complex(*s[:2]), s[2:]) for s in states]), keypoints(states[:, 2:])


# -- it solves -------------------------------------------------------------------------------------------------------


def test_starts_are_solved_in_about_the_time_that_humans_take(plain):
    assert all(episode.solved for episode in plain)
    assert np.mean([len(episode.actions) for episode in plain]) < 140  # observed 115; humans 124


def test_starts_with_the_agent_inside_the_t_are_solved():
    seeds = [6132, 6676]  # of 35 such starts among 1,000, two that need to escape several times
    agent, _ = starts(seeds)
    assert (expert.distance(agent) < 0).all()
    assert all(expert.demonstrate(seed).solved for seed in seeds)


def test_the_starts_with_the_t_farthest_beyond_the_walls_are_solved():
    _, corners = starts(range(6000, 7000))
    beyond = np.abs(corners - 256).max((1, 2))
    farthest = 6000 + np.argsort(-beyond)[:2]
    assert (beyond[farthest - 6000] > 256).all()  # a corner of the T is outside the world
    assert all(expert.demonstrate(int(seed)).solved for seed in farthest)


def test_a_start_where_the_best_two_pushes_do_not_help_is_solved():
    assert expert.demonstrate(602).solved  # it needs the third near the end; else the agent walks away for ever


def test_an_episode_without_enough_steps_is_not_called_solved():
    episode = expert.demonstrate(5000, max_steps=20)
    assert not episode.solved and len(episode.actions) == len(episode.states) == 20


# -- it is diverse ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_streams_choose_different_sides_from_one_start():
    sequences = {expert.demonstrate(5002, stream).faces for stream in range(10)}
    assert len(sequences) >= 7  # observed 9 of 10
    assert len({faces[0] for faces in sequences}) >= 2  # observed 3


@pytest.mark.slow
def test_streams_turn_the_t_both_ways_round():
    angles = [np.unwrap(expert.demonstrate(6597, stream).states[:, 4]) for stream in range(4)]  # it starts upside down
    assert {np.sign(angle[-1] - angle[0]) for angle in angles} == {-1, 1}  # observed one against three


@pytest.mark.slow
def test_more_samples_make_episodes_shorter(plain):
    fewer = [expert.demonstrate(seed, samples=4) for seed in SEEDS]
    share = sum(len(e.actions) for e in plain) / sum(len(e.actions) for e in fewer)
    assert share < 0.9  # observed 0.52


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_loader_reads_the_file_unchanged(made, tmp_path):
    np.savez_compressed(tmp_path / "demos.npz", **made)
    loaded = demos.load(tmp_path / "demos.npz", PUSHT)
    for name in loaded._fields:
        np.testing.assert_array_equal(getattr(loaded, name), made[name])
    assert made["state"].dtype == made["action"].dtype == np.float32
    assert list(made["seed"]) == list(SEEDS)


def test_replay_from_the_seed_reaches_the_recorded_states(made):
    env = PushTEnv()
    for seed, end, begin in zip(made["seed"], made["episode_ends"], np.r_[0, made["episode_ends"]]):
        state, info = env.reset(seed=int(seed))
        for i in range(begin, end):
            assert np.all(np.abs(state - made["state"][i]) <= np.array([1 / 128] * 4 + [1 / 8192]) + 1e-6)
            assert info["coverage"] <= 0.97
            state, _, _, _, info = env.step(made["action"][i] + made["noise"][i])
        assert info["coverage"] > 0.97  # to the last bit: this is what the episode ended by


def test_all_numbers_lie_on_a_grid_that_float32_and_compression_like(made):
    for name, parts in (("state", [64, 64, 64, 64, 4096]), ("action", 64), ("noise", 64)):
        grid = made[name].astype(np.float64) * parts
        np.testing.assert_array_equal(grid, np.round(grid))


def test_the_plan_is_recorded_and_not_the_noise(plain):
    quiet, noisy = plain[1], expert.demonstrate(SEEDS[1], noise=2.0)
    first = next(i for i in range(len(quiet.actions)) if (quiet.actions[i] != noisy.actions[i]).any())
    assert first >= 10  # the first plan is the same ...
    assert np.abs(quiet.states[1:first] - noisy.states[1:first]).max() > 0.5  # ... but not what came of it
    assert noisy.noise.any() and not quiet.noise.any()


def test_noise_has_the_size_asked_for_and_lasts(made):
    noise = made["noise"][made["noise"].any(1)].astype(np.float64)
    assert 1.6 < noise.std() < 2.4  # observed 2.0
    assert 0.7 < (noise[1:] * noise[:-1]).mean() / (noise**2).mean() < 0.9  # observed 0.80


def test_every_other_episode_has_noise(made):
    noisy = [part.any() for part in np.split(made["noise"], made["episode_ends"][:-1])]
    assert noisy == [seed % 2 == 1 for seed in SEEDS]


def test_any_executor_makes_the_same_episodes(made):
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        again = collect.make(SEEDS[:2], executor, noise_every_other=2.0, **OPTIONS)
    for name in ("state", "action", "noise", "episode_ends", "seed"):
        np.testing.assert_array_equal(again[name], made[name][:len(again[name])])


@pytest.mark.slow
def test_the_command_with_two_workers_goes_on_after_an_interruption_to_the_same_file_bit_for_bit(made, tmp_path):
    out, part = tmp_path / "demos.npz", tmp_path / "demos.npz.part"
    with pytest.raises(KeyboardInterrupt):
        collect.make(SEEDS, Here(allowed=1), part, noise_every_other=2.0, **OPTIONS)
    subprocess.run([*COMMAND, "--episodes", str(len(SEEDS)), "--seed", str(SEEDS[0]), "--noise-every-other", "2",
                    "--workers", "2", "--out", str(out)], check=True)
    assert hashlib.sha256(out.read_bytes()).hexdigest() == digest(made)
    assert [path.name for path in tmp_path.iterdir()] == ["demos.npz"]


def test_an_interrupted_job_goes_on_where_it_was_and_makes_the_same_file(made, tmp_path, monkeypatch):
    episodes = collect.unpack(made | {"solved": [True] * len(SEEDS)})
    monkeypatch.setattr(collect, "demonstrate", lambda seed, **_: episodes[seed - SEEDS[0]])
    part = tmp_path / "demos.npz.part"
    with pytest.raises(KeyboardInterrupt):
        collect.make(SEEDS, Here(allowed=3), part, noise_every_other=2.0, **OPTIONS)
    with pytest.raises(ValueError, match="another recipe"):
        collect.make(SEEDS, Here(), part, noise_every_other=1.0, **OPTIONS)
    executor = Here()
    assert digest(collect.make(SEEDS, executor, part, noise_every_other=2.0, **OPTIONS)) == digest(made)
    assert executor.begun == len(SEEDS) - 3


def test_a_kill_loses_no_more_than_what_came_since_the_last_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "KEEP_EVERY", 2)
    monkeypatch.setattr(collect, "demonstrate", lambda seed, **_: expert.Demonstration(
        *np.full((3, 4, 2), seed, np.float32), True))
    part, kept = tmp_path / "part", []
    monkeypatch.setattr(collect.Progress, "show", lambda self, done, text: kept.append(
        len(checkpoint.load(part)[0]["solved"]) if part.exists() else 0))
    collect.make(range(5), Here(), part)
    assert kept == [0, 2, 2, 4, 4]


@pytest.mark.slow
def test_ctrl_c_stops_the_command_with_a_sentence(tmp_path):
    job = subprocess.Popen([*COMMAND, "--episodes", "500", "--workers", "2", "--out", str(tmp_path / "demos.npz")],
                           stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert "left" in job.stderr.readline()  # the first line of progress
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, message = job.communicate(timeout=60)
    assert job.returncode == 1 and "the same command goes on from there" in message and "Traceback" not in message
    arrays, _ = checkpoint.load(tmp_path / "demos.npz.part")
    np.testing.assert_array_equal(collect.unpack(arrays)[0].actions, expert.demonstrate(0).actions)
    assert not (tmp_path / "demos.npz").exists()


@pytest.mark.slow
def test_what_a_policy_visits_is_added_and_the_whole_file_can_be_made_again(made, tiny_policy, tmp_path):
    """The states come from where the policy went; the file holds them, so making it again needs no policy."""
    starts = collect.visited(tiny_policy(), [7000, 7001, 7002])
    _, states = rollout.rollout(tiny_policy(), [7000, 7001, 7002], 1, record=True)
    for start, path in zip(starts, states):
        k = np.flatnonzero((path == start).all(1))
        assert len(k) and k[0] >= len(path) // 2
    more = collect.make([7000, 7001, 7002], Here(), starts=starts, noise_every_other=2.0, **OPTIONS)
    first = np.r_[0, more["episode_ends"]][:-1]
    np.testing.assert_allclose(more["state"][first], more["start"], atol=0.5)  # one physics step, which may part an overlap
    joined = collect.join(made, more)
    again = collect.make(joined["seed"], Here(), starts=joined["start"], noise_every_other=2.0, **OPTIONS)
    assert digest(again) == digest(joined) and np.isnan(joined["start"][:len(SEEDS)]).all()
    with pytest.raises(ValueError, match="another recipe"):
        collect.join(made, collect.make([7000], Here(), **OPTIONS))


@pytest.mark.slow
def test_the_command_adds_and_makes_again(made, tmp_path):
    with open(tmp_path / "base.npz", "wb") as file:
        np.savez_compressed(file, **made)
    base, more, same = (tmp_path / f"{name}.npz" for name in ("base", "more", "same"))
    run = lambda *arguments: subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)
    result = run("--add-to", base, "--visited", SHIPPED_POLICY, "--seed", 7000, "--episodes", 2, "--out", more)
    assert result.returncode == 0 and f"{len(SEEDS) + 2} demonstrations" in result.stdout, result.stderr
    assert run("--again", more, "--out", same).returncode == 0 and more.read_bytes() == same.read_bytes()
    assert "not a file that collect wrote" in run("--again", SHIPPED_POLICY, "--out", tmp_path / "x.npz").stderr


def test_unsolved_episodes_are_left_out(monkeypatch):
    monkeypatch.setattr(collect, "demonstrate", lambda seed, **_: expert.Demonstration(
        *np.full((3, seed + 1, 2), seed, np.float32), seed != 1))
    arrays = collect.make(range(4), Here())
    assert list(arrays["seed"]) == [0, 2, 3] and list(arrays["episode_ends"]) == [1, 4, 8]
    assert 1 not in arrays["state"]
    with pytest.raises(ValueError, match="none of the 1 episodes"):
        collect.make([1], Here())


@pytest.mark.parametrize("seeds", [range(9_999, 10_001), [100_000], [-1], []])
def test_seeds_that_score_policies_are_refused(seeds):
    with pytest.raises(ValueError, match="seeds 0 to 9999"):
        collect.make(seeds, Here())


@pytest.mark.parametrize("arguments, sentence", [
    (["--seed", "9000", "--episodes", "1001"], "seeds 0 to 9999"),
    (["--stop-coverage", "1"], "--stop-coverage must lie between 0.0 and 0.999"),
    (["--out", "demos.zip"], "the name must end in .npz"),
    (["--out", __file__], "it exists already"),
])
def test_the_command_refuses_with_a_sentence(arguments, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["collect", "--out", str(tmp_path / "demos.npz"), *arguments])
    with pytest.raises(SystemExit) as stop:
        collect.main()
    assert sentence in f"{stop.value} {capsys.readouterr().err}"
    assert not list(tmp_path.iterdir())


# -- its geometry ----------------------------------------------------------------------------------------------------


def test_misfit_is_the_error_of_the_six_convex_corners():
    poses = np.random.default_rng(0).uniform((0, 0, -9), (512, 512, 9), (50, 3))
    convex = [0, 1, 2, 3, 6, 7]  # of the env's keypoints
    away = (keypoints(poses) - keypoints(GOAL_POSE))[:, convex]
    np.testing.assert_allclose(expert.misfit(poses), np.log1p(np.sqrt((away**2).sum(-1).mean(-1))), rtol=1e-12)


def test_misfit_tells_coverage():
    rng = np.random.default_rng(0)
    for target, covered in ((2.3, 0.95), (1.4, 0.97), (0.9, 0.98)):
        found = []
        for _ in range(200):
            offset = rng.normal(0, 1, 3) * (1, 1, 0.015)
            for _ in range(20):  # scale it until the error is what we want
                offset *= target / np.expm1(expert.misfit(GOAL_POSE + offset))
            found.append(coverage(GOAL_POSE + offset))
        assert abs(np.mean(found) - covered) < 0.002  # observed 0.0005


def test_distance_is_the_distance_to_the_outline():
    rng = np.random.default_rng(0)
    points = rng.uniform(-150, 150, 300) + 1j * rng.uniform(-100, 200, 300)
    outline = (expert.OUTLINE + np.linspace(0, 1, 2001)[:, None] * expert.SIDE).ravel()
    brute = np.abs(points[:, None] - outline).min(1)
    outside = expert.distance(points) >= 0
    np.testing.assert_allclose(expert.distance(points)[outside], brute[outside], atol=0.05)
    in_bar = (np.abs(points.real) < 60) & (np.abs(points.imag - 15) < 15)
    in_stem = (np.abs(points.real) < 15) & (np.abs(points.imag - 75) < 45)
    np.testing.assert_array_equal(~outside, in_bar | in_stem)


def test_contacts_are_uniform_on_the_outline():
    face, stands = expert.sample(np.random.default_rng(0), 20_000)
    contacts = stands - expert.STAND * expert.NORMAL[face]
    assert np.abs(expert.distance(contacts)).max() < 1e-9  # on the outline
    assert expert.distance(contacts + 0.1 * expert.NORMAL[face]).min() > 0  # and the normal points out of the T
    for k, side in enumerate(expert.SIDE):
        share = ((contacts[face == k] - expert.OUTLINE[k]) / side).real
        assert (face == k).mean() == pytest.approx(abs(side) / 480, abs=0.012)  # 5 standard errors
        assert 0 <= share.min() and share.max() <= 1
        assert share.mean() == pytest.approx(0.5, abs=0.045) and share.std() == pytest.approx(12**-0.5, abs=0.02)


def test_routes_keep_clear_of_the_t_and_their_lengths_are_true():
    rng = np.random.default_rng(1)
    for _ in range(20):
        start = rng.uniform(90, 130) * np.exp(1j * rng.uniform(0, 2 * np.pi)) + 45j
        face, stands = expert.sample(rng, 24)
        usable = rng.uniform(size=6) < 0.9
        points, lengths = expert.routes(start, stands, usable)
        for k in np.flatnonzero(np.isfinite(lengths)):
            assert usable[points[k]].all()
            way = np.array([start, *expert.RING[points[k]], stands[k]])
            assert np.abs(np.diff(way)).sum() == pytest.approx(lengths[k])
            fine = np.concatenate([a + (b - a) * np.linspace(0, 1, 400) for a, b in zip(way, way[1:])])
            assert expert.distance(fine).min() > 16.5 > AGENT_RADIUS
            if not usable.all():
                continue
            assert lengths[k] < np.abs(start - stands[k]) + 400  # nobody walks round the T twice


def test_from_outside_every_stand_can_be_reached():
    _, stands = expert.sample(np.random.default_rng(0), 500)
    room = expert.distance(stands) > 20  # not so in the notches
    for angle in np.linspace(0, 2 * np.pi, 8):
        _, lengths = expert.routes(130 * np.exp(1j * angle) + 45j, stands, np.ones(6, bool))
        assert np.isfinite(lengths[room]).all()


def test_stepping_back_ends_20_px_from_the_t_without_touching_it():
    near = (expert.OUTLINE + np.linspace(0.02, 0.98, 25)[:, None] * expert.SIDE + 15 * expert.NORMAL).ravel()
    for point in near[expert.distance(near) > 14]:
        way = expert.step_back(point)
        assert expert.distance(way).min() > 14 - 1e-6 and expert.distance(way[-1]) >= 20
        assert np.abs(np.abs(np.diff(way)) - 3).max() < 1e-6


def test_a_walk_is_no_faster_than_allowed_slows_down_and_arrives():
    way = np.array([0, 100, 100 + 50j])
    targets = expert.walk(way, 18)
    steps = np.abs(np.diff(np.concatenate([way[:1], targets])))
    left = 150 - np.cumsum(steps) + steps  # before each step
    assert (steps <= np.minimum(18, 3 + 0.4 * left) + 1e-9).all() and targets[-1] == way[-1]
    assert len(steps) < 20
    assert len(expert.walk(way[:1].repeat(2), 18)) == 0


def test_simulate_is_step_to_the_last_bit():
    rng = np.random.default_rng(0)
    a, b = PushTEnv(), PushTEnv()
    a.reset(seed=5000), b.reset(seed=5000)
    actions = a.state[2:4] + rng.normal(0, 120, (60, 2))
    actions[0] = (-50, 700)  # gets clipped
    np.testing.assert_array_equal(a.simulate(actions), [b.step(action)[0] for action in actions])
    assert a.snapshot() == b.snapshot()
    assert a.simulate(np.zeros((0, 2))).shape == (0, 5)
