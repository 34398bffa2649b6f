"""What the tests share: demonstrations made on the spot, a tiny policy, scripts run by a user."""
import minidiff
from minidiff import demos, training
from minidiff.policy import DiffusionPolicy
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.training import Config, Trainer

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, settings

# the same examples on every machine
settings.register_profile("minidiff", deadline=None, derandomize=True)
settings.register_profile("hunt", settings.get_profile("minidiff"),
                          phases=[Phase.explicit, Phase.generate])
settings.register_profile("quick", settings.get_profile("minidiff"), max_examples=40)
settings.load_profile("minidiff")


def pytest_configure(config):
    """The quick selection draws fewer examples, too."""
    if config.option.markexpr == "not slow" and not config.getoption("--hypothesis-profile"):
        settings.load_profile("quick")


ROOT = Path(minidiff.__file__).parents[1]

# Under nohup a signal is ignored, and so it would be by the programs that tests start. What a
# handler ignores is not ignored by them.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


def play(lengths=(37, 50, 8, 44), seed=0):
    """Demonstrations by someone who pushes the block about: arrays by name, as demos wants them."""
    rng = np.random.default_rng(seed)
    states = []
    actions = []
    for episode, length in enumerate(lengths):
        env = PushTEnv()
        state, _ = env.reset(seed=episode)
        for step in range(length):
            if step % 8 == 0:
                target = np.clip(state[2:4] + rng.normal(0, 60, 2), 0, 512)
            states.append(state)
            actions.append(target)
            state = env.step(target)[0]
    return {"state": np.float32(states), "action": np.float32(actions),
            "episode_ends": np.cumsum(lengths)}


@pytest.fixture(scope="session")
def arrays():
    return play()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    """A folder for the files of one hypothesis example after another."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="session")
def demos_file(arrays, scratch):
    np.savez(scratch / "demos.npz", **arrays)
    return scratch / "demos.npz"


CONFIG = Config(width=16, blocks=1, T=6, obs_horizon=2, pred_horizon=8)


@pytest.fixture(scope="session")
def tiny_policy(arrays):
    """make(**options): an untrained policy that is a real network all the same."""
    data = demos.check(arrays, PUSHT)
    _, _, normaliser = demos.training_set(data, PUSHT, 2, 8, 4.0)
    rng = np.random.default_rng(0)
    schedule, eps_theta = training.build(CONFIG, 2, len(normaliser.mean), rng)

    def make(**options):
        options = {"obs_horizon": 2, "pred_horizon": 8, "action_horizon": 2,
                   "temperature": 1.0} | options
        return DiffusionPolicy(eps_theta, schedule, PUSHT, normaliser, **options)
    return make


@pytest.fixture(scope="session")
def trainer(arrays):
    """A Trainer that has taken its six steps; its averaged weights differ from its weights."""
    config = dataclasses.replace(CONFIG, steps=6, batch=32)
    trained = Trainer(config, PUSHT, demos.check(arrays, PUSHT))
    for _ in trained:
        pass
    return trained


def mirror(obs, actions):
    """Both in the mirror that leaves the goal where it is.

    (x, y) -> (512 - y, 512 - x), angle -> pi/2 - angle.
    """
    def reflected(xy):
        return 512 - xy[..., ::-1]

    parts = [reflected(obs[..., :2]), reflected(obs[..., 2:4]), np.pi / 2 - obs[..., 4:]]
    return np.concatenate(parts, -1), reflected(actions)


def command(script, *arguments):
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def run(folder, script, *arguments, **environment):
    """A script in a folder, to its end -> CompletedProcess with text."""
    return subprocess.run(command(script, *arguments), cwd=folder, capture_output=True, text=True,
                          timeout=120, env=os.environ | environment)


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n") and path.stat().st_size > 2000


class Bomb:
    """Unpickling one makes the folder that it names: a witness that code in a file was executed."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)
