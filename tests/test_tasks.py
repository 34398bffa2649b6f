"""Another task: its defaults, how one is found by its name, a run of it from end to end."""
from minidiff import demos, policy, stopping, training, wall
from minidiff.beyond import tasks
from minidiff.demos import Task
from minidiff.scoring import rollout, scores
from minidiff.training import Config, Trainer

import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, is_png, run


@pytest.fixture
def written(tmp_path, monkeypatch):
    """written(text, name): the path of a task's file with that text, forgotten after the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)

    def write(text, name="reach.py"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    yield write
    for name in set(sys.modules) - known:
        del sys.modules[name]


# ---- a Task --------------------------------------------------------------------------------------

def test_a_task_has_a_default_for_everything():
    """Observations are features, actions are as they are, any finite number is accepted."""
    rng = np.random.default_rng(0)
    arrays = {"state": rng.normal(size=(40, 3)) * 1e6, "action": rng.normal(size=(40, 4)),
              "episode_ends": [25, 40]}
    trainer = Trainer(Config(steps=2, width=8, blocks=1, obs_horizon=2), Task(),
                      demos.check(arrays, Task()))
    assert trainer.cond.shape == (40, 6) and trainer.x0.shape == (40, 8, 4)
    planner = policy.from_trainer(trainer)
    obs = np.stack([arrays["state"][3:5]])
    plans = planner.plan(obs, rng)
    assert plans.shape == (1, 8, 4) and planner.action_horizon == 4
    assert np.array_equal(Task().features(obs, None), obs.reshape(1, 6))
    with pytest.raises(ValueError, match=r"array 'state' is not finite in row 3, column 1: nan"):
        arrays["state"][3, 1] = np.nan
        demos.check(arrays, Task())
    with pytest.raises(ValueError, match=r"should be numbers of shape \(N, width\), but is fl"):
        demos.check(arrays | {"state": np.zeros(40)}, Task())


def test_a_policy_of_a_task_without_ranges_is_kept_and_read(tmp_path):
    task = Task("free", action_horizon=2)
    data = demos.check({"state": np.eye(9), "action": np.eye(9)[:, :1], "episode_ends": [9]}, task)
    trainer = Trainer(Config(steps=1, width=8, blocks=1), task, data)
    policy.save(tmp_path / "policy.npz", trainer)
    planner, _ = policy.load(tmp_path / "policy.npz", task)
    obs = np.ones((3, 1, 9))
    assert planner.plan(obs, np.random.default_rng(0)).shape == (3, 8, 1)
    assert planner.action_horizon == 2
    with pytest.raises(ValueError, match="its actions are of 1 numbers, not of 2"):
        policy.load(tmp_path / "policy.npz", task._replace(action_range=np.zeros((2, 2))))
    with pytest.raises(ValueError, match=r"observations of shape \(B, 1, 9\), not \(3, 2, 9\)"):
        planner.plan(np.ones((3, 2, 9)), np.random.default_rng(0))


def test_the_demonstrations_of_a_task_are_a_function_or_a_file(tmp_path):
    made = wall.demonstrations(3)
    np.savez(tmp_path / "wall.npz", **made)
    from_function = demos.own(Task("a", demos=lambda: made))
    from_file = demos.own(Task("a", demos=tmp_path / "wall.npz"))
    for a, b in zip(from_function, from_file):
        assert np.array_equal(a, b)
    with pytest.raises(ValueError, match="'a' has no demonstrations of its own: .*--demos FILE"):
        demos.own(Task("a"))
    with pytest.raises(ValueError, match="the demonstrations of the task 'a': array 'action' is"):
        demos.own(Task("a", demos=lambda: {"state": made["state"]}))


# ---- by its name ---------------------------------------------------------------------------------

def test_a_task_is_found_by_its_file_or_by_its_module(written):
    by_file = tasks.load(str(ROOT / "minidiff" / "wall.py"))
    assert by_file == tasks.load("minidiff.wall") == wall.TASK
    path = written("from minidiff.demos import Task\nTASK = Task()\n")
    assert tasks.load(path) == tasks.load("reach") == Task("reach")  # named after its file
    (Path(path).parent / "deep").mkdir()
    written("from minidiff.demos import Task\nTASK = Task()\n", "deep/reach.py")
    written("", "deep/__init__.py")
    assert tasks.load("deep.reach").name == "reach"


def test_a_task_from_a_file_can_be_sent_to_another_process(written):
    task = tasks.load(written("from minidiff.demos import Task\ndef features(obs, frame):\n"
                              "    return obs[:, -1]\nTASK = Task('mine', features)\n"))
    assert pickle.loads(pickle.dumps(task)) == task and task.name == "mine"


@pytest.mark.parametrize("text, said", [
    ("", "reach.py: there is no TASK = minidiff.demos.Task"),
    ("TASK = 3", "reach.py: there is no TASK = minidiff.demos.Task"),
    ("TASK = (", "reach.py: cannot be imported: SyntaxError: '.' was never closed"),
    ("import nothing_of_that_name", "reach.py: cannot be imported: ModuleNotFoundError: No module"),
    ("\n1 / 0", r"reach.py: cannot be imported: ZeroDivisionError: division by zero \(reach.py, l"),
    ("from minidiff.demos import Task\nTASK = Task(features=lambda obs, frame: obs)",
     "reach.py: its TASK cannot be sent to other processes.* not as lambda")])
def test_a_file_that_is_no_task_is_refused_in_words(text, said, written):
    with pytest.raises(ValueError, match=said):
        tasks.load(written(text))


def test_a_name_that_leads_nowhere_is_refused_in_words(written):
    with pytest.raises(FileNotFoundError, match="nowhere.py: there is no such file of a task"):
        tasks.load("nowhere.py")
    with pytest.raises(ValueError, match="^nowhere.at_all: cannot be imported: ModuleNotFound"):
        tasks.load("nowhere.at_all")
    with pytest.raises(ValueError, match="random.py: another module has the name 'random'.*give"):
        tasks.load(written("", "random.py"))


def test_a_dot_in_the_name_of_a_file_is_refused(written):
    with pytest.raises(ValueError, match="the name of a task's file has one dot, that of .py"):
        tasks.load(written("", "v1.2.py"))


def test_without_gymnasium_an_environments_name_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ValueError, match=r"^'Pendulum-v1' is no file.*'minidiff\[gymnasium\]'"):
        tasks.load("Pendulum-v1")


# ---- environments of Gymnasium -------------------------------------------------------------------

def demonstrated(task, path, steps=30):
    """A file of demonstrations in which nothing but zeros is done."""
    env = task.make_env()
    obs, _ = env.reset(seed=0)
    states, actions = [], []
    for _ in range(steps):
        states.append(obs)
        actions.append(np.zeros(env.unwrapped.action_space.shape).ravel())
        obs, *_ = env.step(actions[-1])
    np.savez(path, state=np.array(states), action=np.array(actions), episode_ends=[steps])


def test_an_environment_of_gymnasium_is_a_task(tmp_path):
    pytest.importorskip("gymnasium")
    task = tasks.load("Pendulum-v1")
    assert task.name == "Pendulum-v1" and task.max_steps == 200 and task.score is sum
    picture = task.make_env()
    picture.reset(seed=0)
    assert np.ndim(picture.render()) == 3
    assert pickle.loads(pickle.dumps(task)).make_env().reset(seed=3)[0].shape == (3,)
    env = task.make_env()
    env.reset(seed=0)
    far = env.step(np.array([1e6]))[0]
    env.reset(seed=0)
    assert np.array_equal(far, env.step(np.array([2.0]))[0])  # its own limit
    demonstrated(task, tmp_path / "demos.npz")
    trainer = Trainer(Config(steps=1, width=8, blocks=1, T=3), task,
                      demos.load(tmp_path / "demos.npz", task))
    episode, = rollout.rollout(policy.from_trainer(trainer), [1])
    assert episode.steps == 200 and episode.score < 0 and episode.success is None


@pytest.mark.parametrize("name, said", [
    ("CartPole-v1", "CartPole-v1: its actions are Discrete"),
    ("Nothing-v1", "Nothing-v1: gymnasium.make: NameNotFound: "),
    ("no name", "no name: gymnasium.make: ")])
def test_an_environment_that_cannot_be_planned_is_refused_in_words(name, said):
    pytest.importorskip("gymnasium")
    with pytest.raises(ValueError, match=said):
        tasks.load(name)


def test_an_environment_observes_and_acts_in_any_shape(monkeypatch):
    gymnasium = pytest.importorskip("gymnasium")
    spaces = gymnasium.spaces

    class Square(gymnasium.Env):
        metadata = {"render_modes": ["rgb_array"]}
        observation_space = spaces.Dict(a=spaces.Box(-1, 1, (2, 3)), b=spaces.Discrete(2))
        action_space = spaces.Box(-1, 1, (2, 2), np.float32)

        def __init__(self, render_mode=None, dtype=np.float32):
            self.render_mode = render_mode
            self.action_space = spaces.Box(-1, 1, (2, 2), dtype)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return {"a": np.zeros((2, 3), np.float32), "b": 1}, {}

        def step(self, action):
            assert action.dtype == np.float32
            return self.reset()[0], float(action[1, 0]), False, False, {}

    for name, options in (("mine/Square-v0", {}), ("Whole-v0", {"dtype": np.int64})):
        gymnasium.register(name, Square, max_episode_steps=7, kwargs=options)
    try:
        task = tasks.load("mine/Square-v0")
        env = task.make_env()
        assert (task.name, task.max_steps, env.render_mode) == ("mine-Square-v0", 7, "rgb_array")
        assert rollout.numbers(env.reset(seed=0)[0]).shape == (8,)
        assert env.step(np.array([0.1, 0.2, 0.3, 4]))[1] == np.float32(0.3)
        with pytest.raises(ValueError, match="Whole-v0: its actions are Box.* a Box of floats"):
            tasks.load("Whole-v0")
    finally:
        for name in ("mine/Square-v0", "Whole-v0"):
            del gymnasium.registry[name]


# ---- from end to end -----------------------------------------------------------------------------

SMALL = "--steps 20 --width 8 --blocks 1 --T 4 --score-episodes 2".split()


@pytest.mark.slow
def test_another_task_is_trained_scored_drawn_resumed_and_evaluated(tmp_path):
    name = str(ROOT / "minidiff" / "wall.py")
    done = run(tmp_path, "train.py", "--task", name, *SMALL)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("300 demonstrations, 4,800 windows (0.0% of the rows are idle); ")
    assert lines[0].endswith("20 steps; into runs/wall-mlp-0/")
    following = f"next: python eval.py runs/wall-mlp-0 --task {name} --episodes 500 --seed 300000 "
    assert lines[-1].startswith(following) and lines[-2].startswith("the run takes 0.")
    assert is_png(tmp_path / "runs/wall-mlp-0/rollouts.png")
    scored = run(tmp_path, "eval.py", "runs/wall-mlp-0", "--task", name, "--episodes", "60",
                 "--max-steps", "9")
    assert scored.returncode == 0 and "(60 episodes, seeds 5000..5059)" in scored.stdout
    without = run(tmp_path, "eval.py", "runs/wall-mlp-0")
    assert "a policy for the task 'wall', not for 'pusht'" in without.stderr
    longer = run(tmp_path, "train.py", "--resume", "runs/wall-mlp-0", "--task", name, "--steps",
                 "30", "--score-episodes", "0")
    assert longer.returncode == 0 and " 30 steps; into runs/wall-mlp-0/" in longer.stdout
    rows = (tmp_path / "runs/wall-mlp-0/log.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["step", *map(str, range(1, 31))]


@pytest.mark.parametrize("arguments, said", [
    ("--kick-agent 3", "--kick-agent is for PushT alone: leave it out with --task"),
    ("--estimate 1", "--estimate is for PushT alone"),
    ("--candidates 3", "--candidates is for PushT alone"),
    ("--queue hold", "--queue is for PushT alone")])
def test_what_is_of_pushts_world_is_refused_elsewhere(arguments, said, tmp_path):
    pytest.importorskip("pymunk")
    refused = run(tmp_path, "eval.py", "a", "--task", "minidiff.wall", *arguments.split())
    assert refused.returncode == 2 and said in refused.stderr
    nothing = run(tmp_path, "eval.py", "--task", "minidiff.wall")
    assert "--task: name the folder of the run that is to be scored, too" in nothing.stderr


WALL = (ROOT / "minidiff" / "wall.py").read_text(encoding="utf-8")
STEP = "        move = action - self.position\n"
RESET = "        return self.position, {}\n"


AT_STEP_1 = "the world of the task 'wall' fails at step 1 from seed 5000: "
AT_RESET = "the world of the task 'wall' fails at its reset with seed 5000: "


def returns(text):
    """The step of the wall's world, that returns this."""
    return STEP, f"{STEP}        return {text}\n"


@pytest.mark.parametrize("change, said", [
    ((STEP, "        self.place\n"), AT_STEP_1 + "AttributeError: 'World' object has no attribute"),
    (returns("self.position, 0.0, False, False"), AT_STEP_1 + "ValueError: not enough values"),
    (returns("np.zeros(3), 0.0, False, False, {}"), "3 numbers are observed, but at first 2"),
    (returns("np.full(2, np.nan), 0.0, False, False, {}"), "observed is not finite: [nan nan]"),
    (returns("np.zeros(2), np.nan, False, False, {}"), AT_STEP_1 + "ValueError: the reward is nan"),
    ((RESET, "        return 7\n"), AT_RESET + "TypeError: cannot unpack"),
    ((RESET, "        return {'x': 3}, {}\n"), "observation is a dict, not an array of numbers"),
    (("*, seed=None, options=None", ""), AT_RESET + "TypeError: World.reset()"),
    (("return obs[:, -1]\n\n\ndef frame", "return obs[:, 7]\n\n\ndef frame"),
     "the features or the frame of the task 'wall' do not fit its demonstrations: IndexError"),
    (("return {\"state\"", "return [], {\"state\""), "should return arrays by name, not tuple"),
    (("\"steps\": 2000", "\"stepps\": 2000"), "got an unexpected keyword argument 'stepps'"),
    (("\"T\": 50", "\"T\": 0"), "score_range of its TASK: --T must be at least 1, not 0"),
    (("(0.0, 1.0)", "7"), "the recipe or score_range of its TASK: "),
    (("(0.0, 1.0)", "(1.0, 0.0)"), "(1.0, 0.0) must be finite, the lower number first"),
    (("(0.0, 1.0)", "(0, np.inf)"), "score_range (0, inf) must be finite, the lower"),
], ids=range(15))
def test_what_is_wrong_with_a_task_is_said_before_the_training(change, said, written, tmp_path,
                                                               monkeypatch, capsys):
    """In process; the file is as the wall's, but for one place."""
    old, new = change
    assert WALL.count(old) == 1
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)
    import train
    monkeypatch.setattr(sys, "argv", ["train.py", "--task", written(WALL.replace(old, new))])
    assert stopping.run("train.py", train.main) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
    assert not (tmp_path / "runs").exists()


def test_a_world_that_fails_later_loses_no_step(written, tmp_path):
    late = WALL.replace(STEP, STEP + "        assert self.position[1] < 0.5, 'too far'\n")
    failed = run(tmp_path, "train.py", "--task", written(late), "--out", "a", "--steps", "400",
                 "--score-every", "400", "--width", "32")
    assert failed.returncode == 1
    assert re.search(r"AssertionError: too far \(reach.py, line \d+\)\n$", failed.stderr)
    assert policy.read(tmp_path / "a")[1]["update"] == 400


def test_weights_for_other_demonstrations_are_refused_in_words(written, tmp_path):
    for name, columns in (("a", 1), ("b", 2)):
        np.savez(tmp_path / f"{name}.npz", **wall.demonstrations(3) | {
            "action": np.zeros((48, columns))})
    path = written("from minidiff.demos import Task\nTASK = Task()\n")
    first = run(tmp_path, "train.py", "--task", path, "--demos", "a.npz", "--out", "a", *SMALL)
    assert first.returncode == 0
    failed = run(tmp_path, "train.py", "--task", path, "--demos", "b.npz", "--init", "a")
    assert "do not fit its demonstrations or the weights of --init: ValueError: " in failed.stderr


def test_scores_beyond_the_range_of_the_task_are_refused():
    with pytest.raises(ValueError, match="scores from 0 to 2 lie beyond the task's score_ran"):
        scores.summary([scores.Episode(0, 0.0, None, 1, 0.0), scores.Episode(1, 2.0, None, 1, 0.0)])


def test_the_file_of_a_tasks_demonstrations_lies_beside_the_task(written, tmp_path, monkeypatch):
    np.savez(tmp_path / "mine.npz", **wall.demonstrations(3))
    path = written("from minidiff.demos import Task\nTASK = Task(demos='mine.npz')\n")
    monkeypatch.chdir("/")
    assert len(demos.own(tasks.load(path)).episode_ends) == 3


@pytest.mark.slow
def test_other_demonstrations_are_learned_where_the_tasks_own_are_missing(written, tmp_path):
    np.savez(tmp_path / "more.npz", **wall.demonstrations(3))
    np.savez(tmp_path / "wide.npz", **wall.demonstrations(3) | {"action": np.zeros((48, 3))})
    path = written("from minidiff.demos import Task\nTASK = Task(demos='mine.npz')\n")
    done = run(tmp_path, "train.py", "--task", path, "--demos", "more.npz", *SMALL)
    assert done.returncode == 0, done.stderr
    np.savez(tmp_path / "mine.npz", **wall.demonstrations(3))
    failed = run(tmp_path, "train.py", "--task", path, "--demos", "wide.npz", *SMALL)
    assert failed.stderr.endswith("wide.npz: array 'action' has 3 numbers in a row, but the task's "
                                  "own demonstrations have 2\n")
    (tmp_path / "mine.npz").unlink()
    failed = run(tmp_path, "train.py", "--task", path, "--demos", "wide.npz", "more.npz", *SMALL)
    assert "with 2 and with 3 numbers in a row of 'action' cannot be learned together" in \
        failed.stderr


@pytest.mark.slow
def test_a_task_without_a_world_is_trained_and_not_scored(written, tmp_path):
    path = written("from minidiff.demos import Task\nfrom minidiff.wall import demonstrations\n"
                   "TASK = Task(demos=demonstrations)\n")
    done = run(tmp_path, "train.py", "--task", path, "--score-every", "5", *SMALL)
    assert done.returncode == 0 and "next:" not in done.stdout
    assert "the task 'reach' has no make_env, so its policies are not scored" in done.stdout
    failed = run(tmp_path, "eval.py", "runs/reach-mlp-0", "--task", path)
    assert "the task 'reach' has no make_env, so nothing can be scored in it" in failed.stderr


# ---- a run that goes on --------------------------------------------------------------------------

DATA = demos.check(wall.demonstrations(5), wall.TASK)
TINY = {"width": 8, "blocks": 1, "T": 6, "pred_horizon": 4, "batch": 32, "warmup": 3}


def trained(steps, stop=None, **options):
    trainer = Trainer(Config(**TINY, steps=steps), wall.TASK, DATA, **options)
    for _ in trainer:
        if trainer.n == stop:
            break
    return trainer


def test_a_longer_run_goes_on_from_the_same_weights_to_its_own_end(tmp_path):
    first = trained(10)
    policy.save(tmp_path / "checkpoint.npz", first, resumable=True)
    longer = Trainer(Config(**TINY, steps=25), wall.TASK, DATA)
    longer.restore(*policy.read(tmp_path / "checkpoint.npz", training.STATE))
    assert np.array_equal(longer.net.theta, first.net.theta) and longer.n == 10
    assert len(list(longer)) == 15
    assert np.array_equal(longer.losses[:10], first.losses) and longer.losses[10:].all()
    assert not np.array_equal(longer.net.theta, first.net.theta)


@pytest.mark.parametrize("steps, stop, longer", [(10, 10, 25), (200, 150, 400), (200, 200, 1000)])
def test_a_longer_run_has_the_loss_by_t_at_the_steps_where_it_was(steps, stop, longer):
    trainer = Trainer(Config(**TINY, steps=longer), wall.TASK, DATA)
    points = min(100, steps)
    curve = np.full((points, 4), np.nan, np.float32)
    seen = np.arange(stop * points // steps)
    curve[seen] = seen[:, None]
    stretched = trainer.stretched(curve, steps)
    rows = np.flatnonzero(np.isfinite(stretched).all(1))
    assert rows[0] == 0 and rows[-1] == seen[-1] * len(stretched) * steps // (points * longer)
    was_at = stretched[rows, 0] * steps / points
    is_at = rows * longer / len(stretched)
    assert (np.abs(was_at - is_at) <= longer / len(stretched)).all()


def test_a_run_from_other_weights_starts_with_them_and_in_their_units():
    first = policy.from_trainer(trained(30))
    other = demos.check(wall.demonstrations(5, seed=1), wall.TASK)
    config = Config(**TINY, steps=10, seed=5, relabel=False)
    second = Trainer(config, wall.TASK, other, init=first)
    for mine, theirs in zip(second.normaliser, first.normaliser):
        assert np.array_equal(mine, theirs)
    assert np.array_equal(second.net.theta, first.eps_theta.net.theta)
    assert np.array_equal(second.optimiser.ema, second.net.theta)
    expected = first.normaliser.normalise(*framed(other))
    assert np.array_equal(second.x0, np.clip(expected, -4, 4))
    list(second)
    assert not np.array_equal(second.net.theta, first.eps_theta.net.theta)


def framed(data):
    obs, actions = demos.windows(data, 1, 4)
    return actions, wall.TASK.frame(obs)
