"""The scripted demonstrator: it solves what it is given, in many ways, and its file can be made and
lived again."""
from minidiff import checkpoint, demos, stopping
from minidiff.pusht import SHIPPED_POLICY
from minidiff.pusht.data import collect, expert
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.geometry import AGENT_RADIUS, OUTLINE, distance, keypoints, to_body, to_world
from minidiff.scoring import rollout

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
    """Runs each task at once; to ask for the result of one more than allowed is a Ctrl-C."""

    def __init__(self, allowed=10**9):
        self.allowed = allowed
        self.begun = 0

    def submit(self, function, *args, **kwargs):
        future = concurrent.futures.Future()
        if self.begun == self.allowed:
            future.set_exception(KeyboardInterrupt())
            return future
        self.begun += 1
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def digest(arrays):
    """sha256 of the file that these arrays make."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return hashlib.sha256(file.getvalue()).hexdigest()


def constant(seed, length=4, solved=True):
    """A Demonstration whose numbers are all its seed."""
    states = np.full((length, 5), seed, np.float32)
    return expert.Demonstration(states, states[:, :2], np.float16(states[:, :2]), solved)


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


@pytest.mark.slow
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
    for name, dtype, parts in (("state", np.float32, [64, 64, 64, 64, 4096]),
                               ("action", np.float32, 64), ("noise", np.float16, 64)):
        assert made[name].dtype == dtype
        grid = made[name].astype(np.float64) * parts
        np.testing.assert_array_equal(grid, np.round(grid))


@pytest.mark.slow
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
    assert (noise[:, 0] != noise[:, 1]).mean() > 0.9  # one for x, another for y


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
    for seeds, given, noise in [(SEEDS, None, 1.0), (range(5001, 5007), None, 2.0),
                                (SEEDS, np.zeros((6, 5)), 2.0)]:
        with pytest.raises(ValueError, match="another recipe"):
            collect.make(seeds, Here(), part, noise, given, **OPTIONS)
    executor = Here()
    again = collect.make(SEEDS, executor, part, noise_every_other=2.0, **OPTIONS)
    assert digest(again) == digest(made)
    assert executor.begun == len(SEEDS) - 3


@pytest.mark.parametrize("episodes, lost", [(5, 1), (4, 0)])
def test_a_kill_loses_no_more_than_what_came_since_the_last_writing(episodes, lost, tmp_path,
                                                                    monkeypatch):
    part = tmp_path / "part"
    seen = []  # what was there when this call began, and what is kept

    def show(self, done, text):
        kept = len(checkpoint.load(part)[0]["solved"]) if part.exists() else 0
        seen.append((self.first, kept))

    monkeypatch.setattr(collect, "KEEP_EVERY", 2)
    monkeypatch.setattr(collect, "demonstrate", lambda seed, **_: constant(seed))
    monkeypatch.setattr(collect.Progress, "show", show)
    collect.make(range(episodes), Here(), part)
    assert seen == [(0, 0), (0, 2), (0, 2), (0, 4), (0, 4)][:episodes]
    collect.make(range(episodes), Here(allowed=lost), part)
    assert seen[episodes:] == [(4, 4)] * lost


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
    arrays = collect.make(np.arange(4, dtype=np.int32), Here())
    assert list(arrays["seed"]) == [0, 2, 3] and arrays["seed"].dtype == np.int64
    assert json.loads(str(arrays["recipe"]))["noise_every_other"] == 0
    assert list(arrays["episode_ends"]) == [1, 4, 8] and 1 not in arrays["state"]
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
        return constant(seed, seed + 1, seed != 1)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collect, "demonstrate", demonstrate)
    monkeypatch.setattr(collect, "executor", lambda address, count: Here())
    return made


def test_the_command_says_what_it_made_adds_to_it_and_makes_it_again(called, capsys):
    collect.main("--out a.npz --episodes 4 --samples 2 --noise-every-other 2".split())
    collect.main("--out b.npz --add-to a.npz --seed 4 --episodes 2".split())
    assert called[5] == {"stream": 0, "samples": 2, "refine": 2, "stop_coverage": 0.97,
                         "noise": 2.0, "max_steps": 300, "start": None}
    assert [called[seed]["noise"] for seed in range(6)] == [0, 2] * 3
    recipe = json.loads(str(np.load("b.npz")["recipe"]))
    assert set(recipe) == {*collect.OPTIONS, "versions"} and recipe["noise_every_other"] == 2
    assert recipe["versions"]["numpy"] == np.__version__
    assert set(recipe["versions"]) == {"minidiff", "numpy", "pymunk"}
    collect.main("--out c.npz --again b.npz".split())
    out, error = capsys.readouterr()
    assert error.splitlines()[0].startswith("demonstrations 4/4 (100%)  3 solved  ")
    a, b, c = out.splitlines()
    assert a == ("3 demonstrations, 8 steps (mean 3), 0.00 MB in a.npz; unsolved and left out: 1")
    assert b == ("5 demonstrations, 19 steps (mean 4), 0.00 MB in b.npz; unsolved and left out: 0")
    assert c == b.replace("b.npz", "c.npz")
    assert open("b.npz", "rb").read() == open("c.npz", "rb").read()
    assert sorted(os.listdir()) == ["a.npz", "b.npz", "c.npz"]


def test_the_command_keeps_the_states_that_a_run_visits(called, monkeypatch):
    def visited_by(run, seeds, executor):
        assert run == "run" and list(seeds) == [4, 5] and isinstance(executor, Here)
        return PUSHT.state_range.T  # the least and the greatest numbers that a file may hold

    monkeypatch.setattr(collect, "visited_by", visited_by)
    collect.main("--out a.npz --episodes 4".split())
    collect.main("--out b.npz --add-to a.npz --visited run --seed 4 --episodes 2".split())
    called.clear()
    collect.main("--out c.npz --again b.npz".split())
    assert open("b.npz", "rb").read() == open("c.npz", "rb").read()
    assert called[3]["start"] is None
    np.testing.assert_array_equal([called[4]["start"], called[5]["start"]], PUSHT.state_range.T)
    with pytest.raises(ValueError, match="b.npz has an episode from seed 3 already: try --seed 4"):
        collect.main("--out d.npz --add-to b.npz --seed 3 --episodes 2".split())
    collect.main("--out d.npz --add-to b.npz --seed 4 --episodes 2".split())  # other starts


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


def test_the_command_wants_a_name_for_its_file(capsys):
    with pytest.raises(SystemExit):
        collect.main([])
    assert "required: --out" in capsys.readouterr().err


@pytest.mark.parametrize("end", [2, 3], ids=["lowest", "highest"])
def test_both_ends_of_each_range_are_allowed(end):
    collect.check_knobs({knob[0].replace("-", "_"): knob[end] for knob in collect.KNOBS}, "--")


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
    ("action", lambda a: a[:-1], "array 'action' has"),
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


@pytest.mark.parametrize("name", ["state", "action", "noise", "episode_ends", "solved"])
def test_a_part_file_that_lacks_an_array_is_refused(name, tmp_path):
    arrays = collect.pack([constant(1)]) | {"solved": np.array([True])}
    del arrays[name]
    checkpoint.save(tmp_path / "part", arrays, {"recipe": {}})
    with pytest.raises(ValueError, match=f"part: the checkpoint lacks {name}$"):
        collect.kept(tmp_path / "part", {}, 1)


# ---- its plans, carried out ----------------------------------------------------------------------

FAR = np.array([100, 100, 400, 100, 0.5])  # a state: the T away from its goal, the agent from the T


@pytest.fixture
def asked(monkeypatch):
    """What plans are made from; they all wait at FAR: 3 steps, 2 without a side, 3 ..."""
    calls = []

    def plan(state, scratch, *rest):
        calls.append(rest)
        length, side = [(2, None), (3, len(calls))][len(calls) % 2]
        return np.full((length, 2), 100.0), side

    monkeypatch.setattr(expert, "plan", plan)
    return calls


def test_the_defaults_are_those_of_the_command(asked):
    default = {name: value for name, value, *_ in collect.KNOBS}
    episode = expert.demonstrate(3, start=FAR)
    rng, samples, refine = asked[0]
    stream = np.random.default_rng([3, default["stream"]])
    assert rng.bit_generator.state == stream.bit_generator.state
    assert (samples, refine) == (default["samples"], default["refine"])
    assert len(episode.states) == default["max-steps"] and not episode.noise.any()


def test_an_episode_begins_at_the_state_given(asked):
    episode = expert.demonstrate(0, start=FAR, max_steps=1)
    np.testing.assert_array_equal(episode.states, [FAR])


def test_an_episode_counts_its_steps_and_names_the_sides_it_pushed(asked):
    episode = expert.demonstrate(0, start=FAR, max_steps=7)
    assert len(episode.states) == len(episode.actions) == len(episode.noise) == 7
    assert episode.faces == (1, 3)


def test_a_coverage_equal_to_the_bound_does_not_end_an_episode(asked):
    episode = expert.demonstrate(0, start=FAR, stop_coverage=0.0, max_steps=5)
    assert not episode.solved and len(asked) == 2


# ---- its choice of a push ------------------------------------------------------------------------

def upright(monkeypatch, contacts, screened, helps=True, refine=1, agent=(296, 240), y=256,
            reach=1.0):
    """plan() for an upright T at (256, y), and contacts on its upper side at these x from there,
    in a world where all that counts is how far the T goes to the right.

    screened(x, n): px that it has gone after n steps of a push from a stand at x. A push from where
    the agent is moves it, if it helps, by 1 px in the last step. The agent itself goes so far
    (reach) of the way to each target. Returns the plan, and the pushes tried from the agent.
    """
    state = np.array([*agent, 256, y, 0.0])
    tried = []

    class Scratch:
        def reset(self, options):
            self.begin = options["state"]

        def simulate(self, actions):
            n = np.arange(1, len(actions) + 1)
            moved = screened(self.begin[0] - 256, n) + 0.0 * n
            if self.begin is state:
                tried.append(actions)
                moved = helps * (n == len(n))
            agents = self.begin[:2] + reach * (actions - self.begin[:2])
            return np.column_stack([agents, 256 + moved, y + 0.0 * n, 0.0 * n])

    stands = np.array(contacts) - 1j * expert.STAND
    monkeypatch.setattr(expert, "sample", lambda rng, count: (np.zeros(count, int), stands))
    monkeypatch.setattr(expert, "pose_error", lambda pose: -pose[..., 0])
    return *expert.plan(state, Scratch(), None, len(contacts), refine), tried


@pytest.mark.parametrize("gain, chosen", [(4.9, 40), (5.1, -55)])
def test_the_push_that_gains_most_per_step_is_chosen(gain, chosen, monkeypatch):
    # one gains 1 px: 9 px back and 1 px to its stand, 18 px a step; 1 step of push and 2 of rest;
    # the other is 95 px away and takes 10 steps of push: 5.00 times as long in all
    actions, _, _ = upright(monkeypatch, [40, -55],
                            lambda x, n: np.where(x > 0, 1, gain * (n >= 10)))
    assert actions[-1, 0] == 256 + chosen


@pytest.mark.parametrize("refine, helps, pushes", [(1, True, 1), (2, True, 2), (1, False, 3)])
def test_as_many_pushes_are_refined_as_asked_or_all_where_none_helps(refine, helps, pushes,
                                                                     monkeypatch):
    actions, side, tried = upright(monkeypatch, [40, 0, -40], lambda x, n: 1, helps, refine)
    assert len(tried) == 5 * pushes
    assert side == (0 if helps else None) and (len(actions) > 3) == helps


@pytest.mark.parametrize("n, reach, lengths", [
    (4, 1.0, [35, 37.5, 40, 42.5, 45]), (1, 0.3, [1, 1, 3, 5.5, 8])])
def test_five_lengths_of_a_push_are_tried_and_the_quickest_is_taken(n, reach, lengths,
                                                                    monkeypatch):
    actions, _, tried = upright(monkeypatch, [0], lambda x, steps: steps == n, reach=reach)
    assert [push[-1, 1] - (256 - expert.STAND) for push in tried] == lengths
    np.testing.assert_array_equal(actions, tried[0])  # all move the T as far


def test_the_agent_goes_to_its_stand_pushes_slowly_and_rests(monkeypatch):
    _, _, tried = upright(monkeypatch, [0], lambda x, n: n == 4)
    for actions in tried:
        at_stand, = np.flatnonzero((actions == [256, 256 - expert.STAND]).all(1))
        steps = np.diff(actions[at_stand:], axis=0)
        assert not steps[:, 0].any() and (steps[:-2, 1] > 0).all()
        assert steps[:, 1].max() <= expert.STROKE and not steps[-expert.HOLD:].any()


@pytest.mark.parametrize("room, side", [(12, 0), (11.9, None)])
def test_a_stand_less_than_12_px_from_a_wall_is_not_used(room, side, monkeypatch):
    y = room + expert.STAND
    assert upright(monkeypatch, [0], lambda x, n: 1, agent=(400, room), y=y)[1] == side


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
        assert 0 <= share.min() < 0.02 and 0.98 < share.max() <= 1
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


def test_where_a_wall_closes_the_ring_the_way_leads_round_the_other_side():
    right, below = 90 + 75j, np.array([141j])  # a point beside the stem, a stand at its foot
    for usable, passed in [([1, 1, 1, 1, 1, 1], {3}), ([1, 1, 1, 0, 1, 1], {1, 0, 5, 4})]:
        points, _ = expert.routes(right, below, np.array(usable, bool))
        assert set(points[0]) == passed


def test_a_leg_within_17_5_px_of_the_t_is_closed():
    a, b = OUTLINE[:2, None] + np.array([17.49, 17.51]) * expert.NORMAL[0]
    np.testing.assert_array_equal(expert.leg(a, b), [np.inf, 120])


def test_stepping_back_ends_20_px_from_the_t_without_touching_it():
    shares = np.linspace(0.02, 0.98, 25)[:, None]
    near = (OUTLINE + shares * expert.SIDE + 15 * expert.NORMAL).ravel()
    for point in near[distance(near) > 14]:
        way = expert.step_back(point)
        assert distance(way).min() > 14 - 1e-6 and distance(way[-1]) >= 20
        assert (distance(way[:-1]) < 20).all()
        assert np.abs(np.abs(np.diff(way)) - 3).max() < 1e-6


def test_a_walk_is_no_faster_than_allowed_slows_down_and_arrives():
    way = np.array([0, 90, 90 + 60j])  # the fifth step ends in the corner
    targets = expert.walk(way, 18)
    steps = np.abs(np.diff(np.concatenate([way[:1], targets])))
    left = 150 - np.cumsum(steps) + steps  # before each step
    assert (steps <= np.minimum(18, 3 + 0.4 * left) + 1e-9).all() and targets[-1] == way[-1]
    assert len(steps) < 20
    assert len(expert.walk(way[:1].repeat(2), 18)) == 0


@pytest.mark.parametrize("away", [0, 0.5, 3 - 4j, -90j])
def test_an_escape_leads_18_px_away_from_the_centre_of_gravity(away):
    pose = np.array([250.0, 260.0, 1.0])
    agent = to_world(45j, pose) + away
    actions = expert.escape(agent, pose)
    expected = agent + (18 * away / abs(away) if away else 0)
    assert actions.shape == (3, 2)
    np.testing.assert_allclose(actions, [[expected.real, expected.imag]] * 3, atol=1 / 128)


@pytest.mark.parametrize("margin", [0, 12])
def test_inside_is_the_world_with_its_edge_but_for_a_margin(margin):
    low, high = margin, 512 - margin
    points = np.array([low + low * 1j, high + high * 1j, low - 0.1 + 99j, 99 + (high + 0.1) * 1j])
    assert expert.inside(points, margin).tolist() == [True, True, False, False]
    assert margin or expert.inside(points).tolist() == [True, True, False, False]


def test_actions_stay_in_the_world():
    actions = expert.as_actions(np.array([-5 + 0.5j, 600 + 512.1j, 0.01 + 99.99j]))
    np.testing.assert_array_equal(actions, [[0, 0.5], [512, 512], [1 / 64, 100 - 1 / 64]])


# ---- the file that keeps what is done ------------------------------------------------------------

def test_the_part_file_stays_until_the_whole_is_written(called, monkeypatch):
    def refuse(file, **arrays):
        raise OSError("disk full")

    monkeypatch.setattr(collect, "KEEP_EVERY", 1)
    monkeypatch.setattr(np, "savez_compressed", refuse)
    with pytest.raises(OSError, match="disk full"):
        collect.main("--out a.npz --episodes 3".split())
    assert os.listdir() == ["a.npz.part"]
