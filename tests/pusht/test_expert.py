"""The scripted demonstrator: it solves what it is given, in many ways, and its file can be made and
lived again."""
from minidiff import checkpoint, demos, stopping
from minidiff.pusht import SHIPPED_POLICY, rollout
from minidiff.pusht.data import collect, expert
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.geometry import AGENT_RADIUS, OUTLINE, distance, keypoints, to_body

import concurrent.futures
import hashlib
import io
import json
import os
import signal
import subprocess
import sys

import laws
import numpy as np
import pytest
from conftest import ROOT

OPTIONS = {"stream": 0, "samples": 24, "refine": 2, "stop_coverage": 0.97, "max_steps": 300}
SEEDS = range(5000, 5006)
COMMAND = [sys.executable, "-m", "minidiff.pusht", "collect"]


class Here(concurrent.futures.Executor):
    """Runs each task when its result is asked for; asking for one more than allowed is a Ctrl-C."""

    def __init__(self, allowed=10**9):
        self.allowed = allowed
        self.begun = 0

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


def constant(seed, length=4, solved=True):
    """A Demonstration whose numbers are all its seed."""
    return expert.Demonstration(*np.full((3, length, 2), seed, np.float32), solved)


@pytest.fixture(scope="module")
def made():
    return collect.make(SEEDS, Here(), noise_every_other=2.0, **OPTIONS)


@pytest.fixture(scope="module")
def plain():
    return [expert.demonstrate(seed) for seed in SEEDS]


def starts(seeds):
    """Where episodes begin: the agent in the body frame (n,), the keypoints (n, 8, 2)."""
    env = PushTEnv()
    states = np.array([env.reset(seed=seed)[0] for seed in seeds])
    agents = [to_body(complex(*state[:2]), state[2:]) for state in states]
    return np.array(agents), keypoints(states[:, 2:])


# ---- it solves -----------------------------------------------------------------------------------

@pytest.mark.slow
def test_starts_are_solved_in_about_the_time_that_humans_take(plain):
    assert all(episode.solved for episode in plain)
    assert np.mean([len(episode.actions) for episode in plain]) < 140  # observed 115; humans 124


def test_starts_with_the_agent_inside_the_t_are_solved():
    seeds = [6132, 6676]  # of 35 such starts among 1,000, two that need to escape several times
    agents, _ = starts(seeds)
    assert (distance(agents) < 0).all()
    assert all(expert.demonstrate(seed).solved for seed in seeds)


@pytest.mark.slow
def test_the_starts_with_the_t_farthest_beyond_the_walls_are_solved():
    _, corners = starts(range(6000, 7000))
    beyond = np.abs(corners - 256).max((1, 2))
    farthest = np.argsort(-beyond)[:2]
    assert (beyond[farthest] > 256).all()  # a corner of the T is outside the world
    assert all(expert.demonstrate(6000 + int(k)).solved for k in farthest)


def test_a_start_where_the_best_two_pushes_do_not_help_is_solved():
    # it needs the third near the end; else the agent walks away for ever
    assert expert.demonstrate(602).solved


def test_an_episode_without_enough_steps_is_not_called_solved():
    episode = expert.demonstrate(5000, max_steps=20)
    assert not episode.solved and len(episode.actions) == len(episode.states) == 20


# ---- it is diverse -------------------------------------------------------------------------------

@pytest.mark.slow
def test_streams_choose_different_sides_from_one_start():
    sequences = {expert.demonstrate(5002, stream).faces for stream in range(10)}
    assert len(sequences) >= 7  # observed 9 of 10
    assert len({faces[0] for faces in sequences}) >= 2  # observed 3


@pytest.mark.slow
def test_streams_turn_the_t_both_ways_round():
    senses = set()
    for stream in range(4):
        angles = np.unwrap(expert.demonstrate(6597, stream).states[:, 4])  # starts upside down
        senses.add(np.sign(angles[-1] - angles[0]))
    assert senses == {-1, 1}  # observed one against three


@pytest.mark.slow
def test_more_samples_make_episodes_shorter(plain):
    fewer = [expert.demonstrate(seed, samples=4) for seed in SEEDS]
    share = sum(len(e.actions) for e in plain) / sum(len(e.actions) for e in fewer)
    assert share < 0.9  # observed 0.52


# ---- the file ------------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_loader_reads_the_file_unchanged(made, tmp_path):
    np.savez_compressed(tmp_path / "demos.npz", **made)
    loaded = demos.load(tmp_path / "demos.npz", PUSHT)
    for name in loaded._fields:
        np.testing.assert_array_equal(getattr(loaded, name), made[name])
    assert made["state"].dtype == made["action"].dtype == np.float32
    assert list(made["seed"]) == list(SEEDS)


def test_replay_from_the_seed_reaches_the_recorded_states(made):
    env = PushTEnv()
    rounding = np.array([1 / 128] * 4 + [1 / 8192]) + 1e-6
    begins = np.r_[0, made["episode_ends"]]
    for seed, begin, end in zip(made["seed"], begins, made["episode_ends"]):
        state, info = env.reset(seed=int(seed))
        for i in range(begin, end):
            assert np.all(np.abs(state - made["state"][i]) <= rounding)
            assert info["coverage"] <= 0.97
            state, _, _, _, info = env.step(made["action"][i] + made["noise"][i])
        assert info["coverage"] > 0.97  # to the last bit: this is what the episode ended by


def test_all_numbers_lie_on_a_grid_that_float32_and_compression_like(made):
    for name, parts in (("state", [64, 64, 64, 64, 4096]), ("action", 64), ("noise", 64)):
        grid = made[name].astype(np.float64) * parts
        np.testing.assert_array_equal(grid, np.round(grid))


def test_the_plan_is_recorded_and_not_the_noise(plain):
    quiet, noisy = plain[1], expert.demonstrate(SEEDS[1], noise=2.0)
    length = min(len(quiet.actions), len(noisy.actions))
    differs = (quiet.actions[:length] != noisy.actions[:length]).any(1)
    first = differs.argmax()
    assert first >= 10  # the first plan is the same ...
    away = np.abs(quiet.states[1:first] - noisy.states[1:first])
    assert away.max() > 0.5  # ... but not what came of it
    assert noisy.noise.any() and not quiet.noise.any()


def test_noise_has_the_size_asked_for_and_lasts(made):
    noise = made["noise"][made["noise"].any(1)].astype(np.float64)
    assert 1.6 < noise.std() < 2.4  # observed 2.0
    correlation = (noise[1:] * noise[:-1]).mean() / (noise**2).mean()
    assert 0.7 < correlation < 0.9  # observed 0.80


def test_every_other_episode_has_noise(made):
    noisy = [part.any() for part in np.split(made["noise"], made["episode_ends"][:-1])]
    assert noisy == [seed % 2 == 1 for seed in SEEDS]


def test_any_executor_makes_the_same_episodes(made):
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        again = collect.make(SEEDS[:2], executor, noise_every_other=2.0, **OPTIONS)
    for name in ("state", "action", "noise", "episode_ends", "seed"):
        np.testing.assert_array_equal(again[name], made[name][:len(again[name])])


# ---- interruptions -------------------------------------------------------------------------------

@pytest.mark.slow
def test_an_interrupted_command_goes_on_to_the_same_file_bit_for_bit(made, tmp_path):
    out, part = tmp_path / "demos.npz", tmp_path / "demos.npz.part"
    with pytest.raises(KeyboardInterrupt):
        collect.make(SEEDS, Here(allowed=1), part, noise_every_other=2.0, **OPTIONS)
    options = ("--episodes", len(SEEDS), "--seed", SEEDS[0], "--noise-every-other", 2,
               "--workers", 2, "--out", out)
    subprocess.run([*COMMAND, *map(str, options)], check=True, cwd=ROOT)
    assert hashlib.sha256(out.read_bytes()).hexdigest() == digest(made)
    assert [path.name for path in tmp_path.iterdir()] == ["demos.npz"]


def test_an_interrupted_job_goes_on_where_it_was_and_makes_the_same_file(made, tmp_path,
                                                                         monkeypatch):
    episodes = collect.unpack(made | {"solved": [True] * len(SEEDS)})
    monkeypatch.setattr(collect, "demonstrate", lambda seed, **_: episodes[seed - SEEDS[0]])
    part = tmp_path / "demos.npz.part"
    with pytest.raises(KeyboardInterrupt):
        collect.make(SEEDS, Here(allowed=3), part, noise_every_other=2.0, **OPTIONS)
    with pytest.raises(ValueError, match="another recipe"):
        collect.make(SEEDS, Here(), part, noise_every_other=1.0, **OPTIONS)
    executor = Here()
    again = collect.make(SEEDS, executor, part, noise_every_other=2.0, **OPTIONS)
    assert digest(again) == digest(made)
    assert executor.begun == len(SEEDS) - 3


def test_a_kill_loses_no_more_than_what_came_since_the_last_writing(tmp_path, monkeypatch):
    part = tmp_path / "part"
    kept = []

    def show(self, done, text):
        kept.append(len(checkpoint.load(part)[0]["solved"]) if part.exists() else 0)

    monkeypatch.setattr(collect, "KEEP_EVERY", 2)
    monkeypatch.setattr(collect, "demonstrate", lambda seed, **_: constant(seed))
    monkeypatch.setattr(collect.Progress, "show", show)
    collect.make(range(5), Here(), part)
    assert kept == [0, 2, 2, 4, 4]


@pytest.mark.slow
def test_ctrl_c_stops_the_command_with_a_sentence(tmp_path):
    options = ["--episodes", "500", "--workers", "2", "--out", str(tmp_path / "demos.npz")]
    job = subprocess.Popen([*COMMAND, *options], stderr=subprocess.PIPE, text=True, cwd=ROOT,
                           start_new_session=True)
    assert "left" in job.stderr.readline()  # the first line of progress
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, message = job.communicate(timeout=60)
    assert job.returncode == 1 and "Traceback" not in message
    assert "the same command goes on from there" in message
    arrays, _ = checkpoint.load(tmp_path / "demos.npz.part")
    first = collect.unpack(arrays)[0]
    np.testing.assert_array_equal(first.actions, expert.demonstrate(0).actions)
    assert not (tmp_path / "demos.npz").exists()


# ---- more of it, and again -----------------------------------------------------------------------

@pytest.mark.slow
def test_what_a_policy_visits_is_relabelled(made, tiny_policy):
    """The states come from where the policy went; the file holds them, so making it again needs no
    policy."""
    seeds = [7000, 7001, 7002]
    relabelled = collect.visited(tiny_policy(), seeds)
    _, paths = rollout.rollout(tiny_policy(), seeds, 1, record=True)
    for start, path in zip(relabelled, paths):
        k = np.flatnonzero((path == start).all(1))
        assert len(k) and k[0] >= len(path) // 2
    more = collect.make(seeds, Here(), starts=relabelled, noise_every_other=2.0, **OPTIONS)
    first = np.r_[0, more["episode_ends"]][:-1]
    # one physics step later, which may part an overlap
    np.testing.assert_allclose(more["state"][first], more["start"], atol=0.5)
    joined = collect.join(made, more)
    again = collect.make(joined["seed"], Here(), starts=joined["start"], noise_every_other=2.0,
                         **OPTIONS)
    assert digest(again) == digest(joined) and np.isnan(joined["start"][:len(SEEDS)]).all()
    with pytest.raises(ValueError, match="another recipe"):
        collect.join(made, collect.make([7000], Here(), **OPTIONS))


@pytest.mark.slow
def test_the_command_adds_what_a_run_visits_and_makes_it_again(made, tmp_path):
    base, more, same = (tmp_path / f"{name}.npz" for name in ("base", "more", "same"))
    np.savez_compressed(base, **made)
    run = tmp_path / "run"
    run.mkdir()
    (run / "policy.npz").write_bytes(SHIPPED_POLICY.read_bytes())

    def call(*arguments):
        return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True,
                              cwd=ROOT)

    result = call("--add-to", base, "--visited", run, "--seed", 7000, "--episodes", 2,
                  "--out", more)
    assert result.returncode == 0, result.stderr
    assert f"{len(SEEDS) + 2} demonstrations" in result.stdout
    assert call("--again", more, "--out", same).returncode == 0
    assert more.read_bytes() == same.read_bytes()


def test_unsolved_episodes_are_left_out(monkeypatch):
    monkeypatch.setattr(collect, "demonstrate",
                        lambda seed, **_: constant(seed, seed + 1, seed != 1))
    arrays = collect.make(range(4), Here())
    assert list(arrays["seed"]) == [0, 2, 3] and list(arrays["episode_ends"]) == [1, 4, 8]
    assert 1 not in arrays["state"]
    with pytest.raises(ValueError, match="none of the 1 episodes"):
        collect.make([1], Here())


@pytest.mark.parametrize("length, half", [(4, {2, 3}), (5, {2, 3, 4}), (1, {0})])
def test_a_visited_state_is_any_of_the_second_half(length, half, monkeypatch):
    def play(policy, seeds, noise_seed, record):
        assert (policy, noise_seed, record) == ("a policy", 1, True)
        return [], [np.arange(length)[:, None]] * len(seeds)

    monkeypatch.setattr(rollout, "rollout", play)
    states = collect.visited("a policy", range(40))
    assert states.shape == (40, 1) and set(states[:, 0]) == half
    assert states[7] == collect.visited("a policy", [7])  # whoever else is played


@pytest.mark.parametrize("count, sizes", [(5, [2, 2, 1]), (4, [2, 2]), (1, [1])])
def test_what_a_run_visits_is_played_in_chunks(count, sizes, monkeypatch):
    played = []

    def visited(policy, seeds):
        played.append((policy, len(seeds)))
        return seeds[:, None]

    monkeypatch.setattr(rollout, "CHUNK", 2)
    monkeypatch.setattr(collect, "visited", visited)
    monkeypatch.setattr(collect.beyond, "load", lambda path, task: ((path, task), {}))
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        states = collect.visited_by("run", np.arange(count), executor)
    assert states.ravel().tolist() == list(range(count))
    assert played == [(("run", PUSHT), size) for size in sizes]


@pytest.fixture
def called(monkeypatch, tmp_path):
    """The command in process: made[seed] are the options of the episode, and seed 1 is unsolved."""
    made = {}

    def demonstrate(seed, **options):
        made[seed] = options
        states = np.full((seed + 1, 5), seed, np.float32)
        return expert.Demonstration(states, states[:, :2], np.float16(states[:, :2]), seed != 1)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collect, "demonstrate", demonstrate)
    monkeypatch.setattr(collect, "Workers", lambda count: Here())
    return made


def test_the_command_says_what_it_made_adds_to_it_and_makes_it_again(called, capsys):
    collect.main("--out a.npz --episodes 4 --samples 3 --noise-every-other 2".split())
    collect.main("--out b.npz --add-to a.npz --seed 4 --episodes 2".split())
    assert called[5] == {"stream": 0, "samples": 3, "refine": 2, "stop_coverage": 0.97,
                         "noise": 2.0, "max_steps": 300, "start": None}
    assert [called[seed]["noise"] for seed in range(6)] == [0, 2] * 3
    recipe = json.loads(str(np.load("b.npz")["recipe"]))
    assert set(recipe) == {*collect.OPTIONS, "versions"} and recipe["noise_every_other"] == 2
    assert recipe["versions"]["numpy"] == np.__version__
    assert set(recipe["versions"]) == {"minidiff", "numpy", "pymunk"}
    collect.main("--out c.npz --again b.npz".split())
    out, error = capsys.readouterr()
    assert error.splitlines()[0].startswith("demonstrations 4/4  3 solved  ")
    a, b, c = out.splitlines()
    assert a == ("3 demonstrations, 8 steps (mean 3), 0.00 MB in a.npz; unsolved and left out: 1")
    assert b == ("5 demonstrations, 19 steps (mean 4), 0.00 MB in b.npz; unsolved and left out: 0")
    assert c == b.replace("b.npz", "c.npz")
    assert open("b.npz", "rb").read() == open("c.npz", "rb").read()
    assert sorted(os.listdir()) == ["a.npz", "b.npz", "c.npz"]


@pytest.mark.parametrize("kind", [stopping.Stopped, concurrent.futures.BrokenExecutor])
def test_a_command_that_ends_early_says_what_it_keeps_and_goes_on(kind, called, monkeypatch):
    demonstrate = collect.demonstrate

    def stop(seed, **options):
        if seed == 2:
            raise kind("so far")
        return demonstrate(seed, **options)

    arguments = "--out a.npz --episodes 4".split()
    with monkeypatch.context() as patch:
        patch.setattr(collect, "demonstrate", stop)
        with pytest.raises(kind, match="^so far; the episodes so far are kept in a.npz.part, and "
                                       "the same command goes on from there$"):
            collect.main(arguments)
    called.clear()
    collect.main(arguments)
    assert list(called) == [2, 3] and os.listdir() == ["a.npz"]


def test_a_continuation_keeps_each_start_with_its_seed(called, tmp_path):
    starts = np.full((4, 5), 100.0) + np.arange(4)[:, None]
    part = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        collect.make(range(4), Here(allowed=2), part, starts=starts)
    called.clear()
    collect.make(range(4), Here(), part, starts=starts)
    assert {seed: made["start"][0] for seed, made in called.items()} == {2: 102, 3: 103}


def test_a_seed_that_the_file_has_is_not_added_to_it_again(called):
    collect.main("--out a.npz --episodes 3".split())
    with pytest.raises(ValueError, match="a.npz has an episode from seed 2 already: try --seed 3"):
        collect.main("--out b.npz --add-to a.npz --episodes 2".split())
    assert os.listdir() == ["a.npz"]


# ---- what is refused -----------------------------------------------------------------------------

@pytest.mark.parametrize("seeds", [range(9_999, 10_001), [100_000], [-1], []])
def test_seeds_that_score_policies_are_refused(seeds):
    with pytest.raises(ValueError, match="seeds 0 to 9999"):
        collect.make(seeds, Here())


@pytest.mark.parametrize("arguments, sentence", [
    (["--seed", "9000", "--episodes", "1001"], "seeds 0 to 9999"),
    (["--stop-coverage", "1"], "--stop-coverage must lie between 0.0 and 0.999"),
    (["--refine", "10", "--samples", "2"], "--refine 10: of --samples 2 no more can be"),
    (["--out", "demos.zip"], "the name must end in .npz"),
    (["--out", "human.npz"], "it exists already"),
    (["--again", "a.npz", "--visited", "run"], "takes no --add-to and no --visited"),
    (["--again", "a.npz", "--episodes", "7"], "FILE decides about --episodes: leave it out"),
    (["--again", "a.npz", "--seed", "0"], "FILE decides about --seed"),
    (["--again", "a.npz", "--samples", "24"], "FILE decides about --samples"),
    (["--add-to", "a.npz", "--stop-coverage", "0.9"], "FILE decides about --stop-coverage"),
    (["--again", "b.npz"], "b.npz: no such file"),
    (["--again", str(SHIPPED_POLICY)], "array 'state' is missing"),
    (["--again", "human.npz"], "human.npz: not a file that collect wrote"),
])
def test_the_command_refuses_with_a_sentence(arguments, sentence, arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    np.savez("human.npz", **arrays)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        collect.main(["--out", str(tmp_path / "demos.npz"), *arguments])
    assert [path.name for path in tmp_path.iterdir()] == ["human.npz"]


@pytest.mark.parametrize("name, change, said", [
    ("noise", lambda a: a * np.inf, "array 'noise' is not finite"),
    ("noise", lambda a: a[:, :1], "array 'noise' should have the shape"),
    ("seed", lambda a: a - 10**6, "array 'seed' does not lie between 0 and 9999"),
    ("seed", lambda a: a + 10_000 - SEEDS[-1], "array 'seed' does not lie between 0 and 9999"),
    ("start", lambda a: np.full_like(a, np.inf), "array 'start' is no state in row 0"),
    ("start", lambda a: np.concatenate([a[:-1], [[-1000] * 5]]), "is no state in row 5: [-1000."),
    ("start", lambda a: np.full_like(a, [np.nan, 9, 9, 9, 9]), "array 'start' is no state in row"),
    ("recipe", lambda a: np.array("[" * 10**5), "its recipe is damaged"),
    ("recipe", lambda a: np.array(str(a).replace('"samples": 24', '"samples": 24.5')),
     "its recipe is damaged: samples must lie between 1 and 1000, not 24.5"),
])
def test_a_file_that_collect_cannot_have_written_is_refused(name, change, said, made, tmp_path):
    with np.errstate(all="ignore"):
        np.savez(tmp_path / "f.npz", **made | {name: change(made[name])})
    with pytest.raises(ValueError) as error:
        collect.read(tmp_path / "f.npz")
    assert str(error.value).startswith(f"{tmp_path / 'f.npz'}: ") and said in str(error.value)


@pytest.mark.parametrize("name, change, said", [
    ("state", lambda a: a * np.nan, "array 'state' is not finite"),
    ("action", lambda a: a[:-1], "array 'action' has"),
    ("noise", lambda a: np.full_like(a, np.inf), "array 'noise' is not finite"),
    ("noise", lambda a: a[:, 0], "array 'noise' should have the shape"),
    ("episode_ends", lambda a: np.float32(a), "array 'episode_ends' should be integers"),
    ("episode_ends", lambda a: a[0], "array 'episode_ends' should be integers"),
    ("solved", lambda a: np.int64(a), "array 'solved' should have the shape"),
    ("solved", lambda a: a[0], "array 'solved' should have the shape"),
    (None, None, "holds more than 2 episodes"),
])
def test_a_damaged_part_file_is_refused(name, change, said, made, tmp_path):
    part = tmp_path / "part"
    arrays = {each: made[each] for each in ("state", "action", "noise", "episode_ends")}
    arrays["solved"] = np.full(len(SEEDS), True)
    if name:
        arrays[name] = change(arrays[name])
    checkpoint.save(part, arrays, {"recipe": {}})
    with pytest.raises(ValueError) as error:
        collect.kept(part, {}, len(SEEDS) if name else 2)
    assert str(error.value).startswith(str(part)) and said in str(error.value)
    checkpoint.save(part, arrays, {})
    with pytest.raises(ValueError, match="was begun with another recipe"):
        collect.kept(part, {}, len(SEEDS))


# ---- its pushes ----------------------------------------------------------------------------------

def test_contacts_are_uniform_on_the_outline():
    face, stands = expert.sample(np.random.default_rng(0), 20_000)
    contacts = stands - expert.STAND * expert.NORMAL[face]
    assert np.abs(distance(contacts)).max() < 1e-9  # on the outline
    assert distance(contacts + 0.1 * expert.NORMAL[face]).min() > 0  # the normal points outwards
    for k, side in enumerate(expert.SIDE):
        share = ((contacts[face == k] - OUTLINE[k]) / side).real
        expected = abs(side) / 480
        laws.assert_close((face == k).mean(), expected, np.sqrt(expected * (1 - expected) / 20_000))
        assert 0 <= share.min() and share.max() <= 1
        laws.assert_close(share.mean(), 1 / 2, 1 / np.sqrt(12 * share.size))
        laws.assert_close(share.var(), 1 / 12, 1 / np.sqrt(180 * share.size))


def test_ways_along_the_ring_go_either_way_round():
    ways = {tuple(dict.fromkeys(way)) for way in expert.WAYS.tolist()}  # without the repetitions
    assert len(ways) == 6 + 2 * 6 * 5
    for way in ways:
        assert set((np.diff(way) % 6).tolist()) in (set(), {1}, {5})
    np.testing.assert_allclose(expert.WAY_LENGTH[expert.WAYS[:, 0] == expert.WAYS[:, -1]], 0)


def test_routes_keep_clear_of_the_t_and_their_lengths_are_true():
    rng = np.random.default_rng(1)
    for _ in range(20):
        start = rng.uniform(90, 130) * np.exp(1j * rng.uniform(0, 2 * np.pi)) + 45j
        _, stands = expert.sample(rng, 24)
        usable = rng.uniform(size=6) < 0.9
        points, lengths = expert.routes(start, stands, usable)
        for k in np.flatnonzero(np.isfinite(lengths)):
            assert usable[points[k]].all()
            way = np.array([start, *expert.RING[points[k]], stands[k]])
            assert np.abs(np.diff(way)).sum() == pytest.approx(lengths[k])
            shares = np.linspace(0, 1, 400)
            fine = np.concatenate([a + (b - a) * shares for a, b in zip(way, way[1:])])
            assert distance(fine).min() > 16.5 > AGENT_RADIUS
            if usable.all():  # nobody walks round the T twice
                assert lengths[k] < np.abs(start - stands[k]) + 400


def test_from_outside_every_stand_can_be_reached():
    _, stands = expert.sample(np.random.default_rng(0), 500)
    room = distance(stands) > 20  # not so in the notches
    for angle in np.linspace(0, 2 * np.pi, 8):
        start = 130 * np.exp(1j * angle) + 45j
        _, lengths = expert.routes(start, stands, np.ones(6, bool))
        assert np.isfinite(lengths[room]).all()


def test_stepping_back_ends_20_px_from_the_t_without_touching_it():
    shares = np.linspace(0.02, 0.98, 25)[:, None]
    near = (OUTLINE + shares * expert.SIDE + 15 * expert.NORMAL).ravel()
    for point in near[distance(near) > 14]:
        way = expert.step_back(point)
        assert distance(way).min() > 14 - 1e-6 and distance(way[-1]) >= 20
        assert np.abs(np.abs(np.diff(way)) - 3).max() < 1e-6


def test_a_walk_is_no_faster_than_allowed_slows_down_and_arrives():
    way = np.array([0, 100, 100 + 50j])
    targets = expert.walk(way, 18)
    steps = np.abs(np.diff(np.concatenate([way[:1], targets])))
    left = 150 - np.cumsum(steps) + steps  # before each step
    assert (steps <= np.minimum(18, 3 + 0.4 * left) + 1e-9).all() and targets[-1] == way[-1]
    assert len(steps) < 20
    assert len(expert.walk(way[:1].repeat(2), 18)) == 0


# ---- the file that keeps what is done ------------------------------------------------------------

def test_a_part_file_of_other_episodes_is_refused(called, tmp_path):
    """Of other seeds, starts or options."""
    asked = {"seeds": range(4), "starts": np.diag([100.0] * 5)[:4], "max_steps": 9,
             "part": tmp_path / "part"}
    with pytest.raises(KeyboardInterrupt):
        collect.make(executor=Here(allowed=2), **asked)
    for other in ({"seeds": range(1, 5)}, {"starts": asked["starts"][::-1]}, {"max_steps": 10}):
        with pytest.raises(ValueError, match="part was begun with another recipe"):
            collect.make(executor=Here(), **asked | other)


def test_the_part_file_stays_until_the_whole_is_written(called, monkeypatch):
    def refuse(file, **arrays):
        raise OSError("disk full")

    monkeypatch.setattr(collect, "KEEP_EVERY", 1)
    monkeypatch.setattr(np, "savez_compressed", refuse)
    with pytest.raises(OSError, match="disk full"):
        collect.main("--out a.npz --episodes 3".split())
    assert os.listdir() == ["a.npz.part"]
