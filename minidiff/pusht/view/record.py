"""Demonstrations of your own: push the T with the mouse, at ten steps a second.

They go into a file for train.py --demos. It holds what minidiff/demos.py describes (state, action,
episode_ends), and for each episode the `seed` of its start. An episode that is kept is written at
once, so at most the episode in progress can be lost.
"""
import math
import shlex
import time
from pathlib import Path

import numpy as np

from ... import demos, stopping
from ...beyond import options
from ...checkpoint import check_writable, read_npz, write_atomically
from .. import SHIPPED_POLICY
from ..env import PushTEnv
from ..features import PUSHT
from . import drawing, windows
from .drawing import INK, ORANGE, VERMILLION
from .windows import UNIT, VIEW, Clock, key_name

FIRST_SEED = 9000  # of a new file: none of expert.npz's seeds, nor of those that score by default
GRASP = 22  # px from the agent's centre, within which the pointer takes it
FEW = 100  # demonstrations; see RESULTS.md, "Going on from other weights"
AFTERGLOW = 2.5  # s for which the end of an episode is shown, and it can still be thrown away
EMPTY = {"state": np.zeros((0, 5), np.float32), "action": np.zeros((0, 2), np.float32),
         "episode_ends": np.zeros(0, np.int64), "seed": np.zeros(0, np.int64)}
HELP = (("pointer", "takes the agent; outside the world, time stands still"),
        ("Enter", "keep the episode as it is"),
        ("x or Backspace", "throw the episode away; also one just kept"),
        ("h", "this help"), ("q or Esc", "quit"))
COLOURS = ((VERMILLION, "the agent"), (INK, "where it is sent"), (ORANGE, "where it has been"))
WAITING = ("Put the pointer on the ringed agent to take it; then it follows you, and everything is "
           "recorded.")
RECORDING = ("Push the blue T onto its green outline, above 95 %. To rest, take the pointer out of "
             "the world.")
KEPT = "The next start follows. Press x if this episode should not be kept after all."
KEYS = "x  throw this episode away     Enter  keep it unfinished     h  help     q  quit"


class Record:
    """The game in which a person demonstrates. Episodes go into the file at `path`.

    seed: of the first start; by default one more than the largest in the file, and at least
    FIRST_SEED. Raises ValueError for a file that was not recorded here.
    """

    def __init__(self, path, seed=None, seeding="legacy", now=time.monotonic):
        self.path = path
        self.env = PushTEnv(seeding=seeding)
        self.clock = Clock(now)
        self.help = False
        self.start(max([FIRST_SEED - 1, *read(path)["seed"]]) + 1 if seed is None else seed)

    def start(self, seed):
        """Begin an episode. The world stands still until the pointer takes the agent."""
        self.seed = int(seed) % options.SEEDS  # after the last one comes 0
        state, info = self.env.reset(seed=self.seed)
        self.coverage = info["coverage"]
        self.states, self.actions = [state], []
        self.pointer = None  # x, y (px of the world), or None outside of it
        self.in_hand = False
        self.ended = None  # or (time in s, words), once the episode is kept
        self.fresh = True
        self.episodes = len(read(self.path)["seed"])

    def update(self):
        """Step the world, if the pointer holds the agent and the step is due. Returns False: there
        is never more to do at once."""
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
        """Send the agent to the pointer, and record the action and the next state."""
        state, _, solved, _, info = self.env.step(self.pointer)
        self.states.append(state)
        self.actions.append(self.pointer)
        self.coverage = info["coverage"]
        self.fresh = True
        if solved:
            self.keep("solved, and kept")

    def keep(self, words):
        """End the episode, and write it into the file."""
        append(self.path, self.states[:-1], self.actions, self.seed)
        self.ended = self.clock.now(), words
        self.episodes += 1

    def handle(self, event):
        """What a key or the mouse asks for; see HELP."""
        pg = drawing.load_pygame()
        if event.type == pg.MOUSEMOTION:
            self.point(*event.pos)
        elif event.type == pg.WINDOWLEAVE:
            self.pointer, self.in_hand = None, False
        elif event.type == pg.KEYDOWN:
            key = key_name(event)
            if key == "h":
                self.help, self.in_hand = not self.help, False
            elif key == "return" and self.actions and not self.ended:
                self.keep("kept")
            elif key in ("x", "backspace"):
                if self.ended:
                    drop_last(self.path)
                self.start(self.seed + 1)

    def point(self, x, y):
        """The pointer is at (x, y), px of the page. It takes the agent if it is near."""
        if 0 <= x < VIEW and 0 <= y < VIEW:
            self.pointer = (x / UNIT, y / UNIT)
            near = math.dist(self.pointer, self.states[-1][:2]) < GRASP
            self.in_hand = self.in_hand or near and not self.help
        else:
            self.pointer, self.in_hand = None, False

    def draw(self, screen):
        pg = drawing.load_pygame()

        def marks(canvas, unit):
            if self.in_hand:
                drawing.cross(pg, canvas, unit, self.pointer)
            elif not self.ended:
                agent = (self.states[-1][:2] * unit).tolist()
                pg.draw.circle(canvas, INK, agent, GRASP * unit, 3)

        trail = np.array(self.states)[:, :2]
        windows.picture(pg, screen, self.states[-1], trail, marks)
        word, what = "waiting for you", WAITING
        if self.in_hand:
            word, what = "recording", RECORDING
        if self.ended:
            word, what = self.ended[1], KEPT
        windows.panel(pg, screen, f"coverage {self.coverage:4.0%}    step {len(self.actions)}    "
                      f"{counted(self.episodes)} in {Path(self.path).name}", word, what, KEYS)
        if self.help:
            windows.overlay(pg, screen, HELP, COLOURS)

    def summary(self):
        """What is printed at the end: what was kept, and the command that trains on it."""
        if not self.episodes:
            return "nothing was kept"
        steps = len(read(self.path)["state"])
        command = f"python train.py --demos {shlex.quote(str(self.path))}"
        said = (f"{counted(self.episodes)}, {steps:,} steps, in {self.path}; to train on it: "
                f"{command}")
        if self.episodes < FEW:
            said += ("\nThat is little: from 20 episodes of people a policy solves 4 of 10 starts, "
                     "from 206 it solves 94 of 100. Fine-tuned on 20, the policy that comes with "
                     "minidiff solves 7 of 10, and pushes more as people do:\n"
                     f"{command} --init {shlex.quote(str(SHIPPED_POLICY))} --steps 500 --lr 1e-3")
        return said


def counted(episodes):
    return "1 episode" if episodes == 1 else f"{episodes} episodes"


def read(path):
    """The arrays of a file of recorded episodes; EMPTY if there is no such file.

    Raises ValueError for a damaged file, and for one that was not recorded here.
    """
    if not Path(path).exists():
        return EMPTY
    arrays = demos.read(path, tuple(EMPTY))
    data = demos.check(arrays, PUSHT, path)
    _, names = read_npz(path, ())  # other arrays would be lost when an episode is added
    whole = set(names) == set(EMPTY)
    if whole:
        seeds = arrays["seed"]
        whole = seeds.shape == data.episode_ends.shape and seeds.dtype.kind in "iu"
        whole = whole and seeds.min() >= 0 and seeds.max() < options.SEEDS
    if not whole:
        raise ValueError(f"{path}: these demonstrations were not recorded here; choose another "
                         "file, and train.py --demos takes both")
    arrays = data._asdict() | {"seed": seeds}
    return {name: arrays[name].astype(empty.dtype) for name, empty in EMPTY.items()}


def append(path, states, actions, seed):
    """Add an episode, states (n, 5) and actions (n, 2), to a file."""
    old = read(path)
    end = len(old["state"]) + len(states)
    new = {"state": states, "action": actions, "episode_ends": [end], "seed": [seed]}
    joined = {}
    for name, rows in old.items():
        joined[name] = np.concatenate([rows, np.asarray(new[name], rows.dtype)])
    write(path, joined)


def drop_last(path):
    """Remove the last episode from a file; if it is the only one, remove the file."""
    old = read(path)
    if len(old["seed"]) == 1:
        Path(path).unlink()
        return
    end = old["episode_ends"][-2]
    write(path, {"state": old["state"][:end], "action": old["action"][:end],
                 "episode_ends": old["episode_ends"][:-1], "seed": old["seed"][:-1]})


def write(path, arrays):
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def main(arguments):
    parser = stopping.Parser(prog="python -m minidiff.pusht record", description=__doc__)
    parser.add_argument("file", type=options.named, metavar="FILE.npz",
                        help="a new one, or one to add episodes to")
    parser.add_argument("--seed", type=options.seed,
        help="of the first start; the next ones follow (default: one that the file does not have)")
    parser.add_argument("--seeding", choices=("legacy", "modern"), default="legacy",
        help="how a seed becomes a start (default: legacy)")
    args = parser.parse_args(arguments)
    if not args.file.endswith(".npz"):
        parser.error(f"{args.file}: the name of the file must end in .npz")
    check_writable(args.file)
    windows.run(Record(args.file, args.seed, args.seeding))
