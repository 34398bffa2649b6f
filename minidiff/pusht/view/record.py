"""Demonstrations of your own: push the T with the mouse, at ten steps a second, into a file that train.py --demos reads.

The file holds what minidiff/demos.py describes (state, action, episode_ends) and for each episode the `seed` of its start.
An episode that is kept stands in the file at once, so whatever happens later costs the episode in progress at most.
"""
import math
import shlex
import time
from pathlib import Path

import numpy as np

from ... import demos
from ...checkpoint import write_atomically
from ..env import PushTEnv
from ..features import PUSHT
from . import drawing as draw
from .drawing import INK, ORANGE, VERMILLION
from .windows import UNIT, VIEW, Clock, key_name, overlay, panel, picture

FIRST_SEED = 9000  # of the first start in a new file: no start of expert.npz, and none of those that score a policy
GRASP = 22  # px from the agent's middle, within which the pointer takes it
AFTERGLOW = 2.5  # s for which the end of an episode is shown: time to think better of it
EMPTY = {"state": np.zeros((0, 5), np.float32), "action": np.zeros((0, 2), np.float32),
         "episode_ends": np.zeros(0, np.int64), "seed": np.zeros(0, np.int64)}
HELP = (("pointer", "takes the agent; outside the world, time stands still"), ("Enter", "keep the episode as it is"),
        ("x or Backspace", "throw the episode away; also one just kept"), ("h", "this help"), ("q or Esc", "quit"))


class Record:
    """Someone at the mouse. Episodes go into the file at `path`; seed: of the first start, by default one that is new."""

    def __init__(self, path, seed=None, seeding="legacy", now=time.monotonic):
        seeds = read(path)["seed"]
        self.path, self.env, self.clock, self.help = path, PushTEnv(seeding=seeding), Clock(now), False
        self.start(max([FIRST_SEED - 1, *seeds]) + 1 if seed is None else seed)

    def start(self, seed):
        """Begin an episode. Time stands still until the pointer takes the agent."""
        state, info = self.env.reset(seed=int(seed))
        self.seed, self.coverage, self.states, self.actions = int(seed), info["coverage"], [state], []
        self.pointer, self.in_hand, self.ended, self.kept, self.fresh = None, False, None, False, True
        self.episodes = len(read(self.path)["seed"])

    def update(self):
        """Step the world, if the agent is in someone's hand and the time has come. There is never more to do at once."""
        if self.ended:
            if self.clock.now() > self.ended[0] + AFTERGLOW:
                self.start(self.seed + 1)
        elif not self.in_hand:
            self.clock.restart()
        elif self.clock.left() <= 0:
            self.step()
            self.clock.tick()
        return False

    def step(self):
        """Send the agent to the pointer, and write both down."""
        state, _, solved, _, info = self.env.step(self.pointer)
        self.states.append(state)
        self.actions.append(self.pointer)
        self.coverage, self.fresh = info["coverage"], True
        if solved:
            self.keep("solved, and kept")

    def keep(self, words):
        """End the episode, into the file."""
        append(self.path, self.states[:-1], self.actions, self.seed)
        self.ended, self.kept, self.episodes = (self.clock.now(), words), True, self.episodes + 1

    def handle(self, event):
        """What a key or the mouse asks for; see HELP."""
        pg = draw._pygame()
        if event.type == pg.MOUSEMOTION:
            x, y = event.pos
            inside = 0 <= x < VIEW and 0 <= y < VIEW
            self.pointer = (x / UNIT, y / UNIT) if inside else None
            near = inside and math.dist(self.pointer, self.states[-1][:2]) < GRASP
            self.in_hand = inside and (self.in_hand or near and not self.help)
        elif event.type == pg.WINDOWLEAVE:
            self.pointer, self.in_hand = None, False
        elif event.type == pg.KEYDOWN:
            key = key_name(event)
            if key == "h":
                self.help, self.in_hand = not self.help, False
            elif key == "return" and self.actions and not self.ended:
                self.keep("kept")
            elif key in ("x", "backspace"):
                if self.kept:
                    drop_last(self.path)
                self.start(self.seed + 1)

    def draw(self, screen):
        pg = draw._pygame()

        def marks(canvas, unit):
            if self.in_hand:
                draw.cross(pg, canvas, unit, self.pointer)
            elif not self.ended:
                pg.draw.circle(canvas, INK, (self.states[-1][:2] * unit).tolist(), GRASP * unit, 3)

        picture(pg, screen, self.states[-1], np.array(self.states)[:, :2], marks)
        word = self.ended[1] if self.ended else "recording" if self.in_hand else "waiting for you"
        what = ("The next start follows. Press x if this episode should not be kept after all." if self.kept else
                "Push the blue T onto its green outline, above 95 %. To rest, take the pointer out of the world." if self.in_hand else
                "Put the pointer on the ringed agent to take it; then it follows you, and everything is recorded.")
        panel(pg, screen, f"coverage {self.coverage:4.0%}    step {len(self.actions)}    "
                          f"{counted(self.episodes)} in {Path(self.path).name}", word, what,
              "x  throw this episode away     Enter  keep it unfinished     h  help     q  quit")
        if self.help:
            overlay(pg, screen, HELP, ((VERMILLION, "the agent"), (INK, "where it is sent"), (ORANGE, "where it has been")))

    def summary(self):
        """What there is to say at the end: the command that trains on the file."""
        steps = len(read(self.path)["state"])
        return (f"{counted(self.episodes)}, {steps:,} steps, in {self.path}; to train on it: "
                f"python train.py --demos {shlex.quote(str(self.path))}" if self.episodes else "nothing was kept")


def counted(episodes):
    return f"{episodes} episode{'s' * (episodes != 1)}"


def read(path):
    """The arrays of a file of recorded episodes, none if it is not there. ValueError for a damaged or another file."""
    if not Path(path).exists():
        return EMPTY
    demos.load(path, PUSHT)
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    if set(arrays) != set(EMPTY) or arrays["seed"].shape != arrays["episode_ends"].shape:
        raise ValueError(f"{path}: these demonstrations were not recorded here; choose another file, and train.py --demos "
                         "takes both")
    return arrays


def append(path, states, actions, seed):
    """Add an episode, states (n, 5) and actions (n, 2), to a file."""
    old = read(path)
    new = {"state": states, "action": actions, "episode_ends": [len(old["state"]) + len(states)], "seed": [seed]}
    write(path, {name: np.concatenate([old[name], np.asarray(new[name], old[name].dtype)]) for name in EMPTY})


def drop_last(path):
    """Take the last episode out of a file; the file goes with the only one."""
    old = read(path)
    if len(old["seed"]) == 1:
        return Path(path).unlink()
    end = old["episode_ends"][-2]
    write(path, {"state": old["state"][:end], "action": old["action"][:end],
                 "episode_ends": old["episode_ends"][:-1], "seed": old["seed"][:-1]})


def write(path, arrays):
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
