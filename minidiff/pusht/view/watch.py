"""A window in which a policy plays, with its plans as they come out of the noise.

The mouse takes part: it drags and turns the T. Press h for the keys.
"""
import contextlib
import math
import time

import numpy as np

from ... import beyond, stopping
from ...beyond import options
from ...policy import history
from .. import SHIPPED_POLICY
from ..env import PushTEnv
from ..estimate import EstimatingEnv
from ..features import PUSHT
from ..geometry import CENTER_OF_GRAVITY, distance, to_body, to_world
from ..study.candidates import best
from ..study.disturbances import DisturbedEnv
from . import drawing, windows
from .drawing import BLUE, GREEN, GREY, INK, ORANGE, PAPER, VERMILLION
from .windows import UNIT, Clock, key_name

CANDIDATES = 16
LATENCIES = (0, 2, 4, 8)  # steps, to choose from by l
PERIODS = (1.6, 0.8, 0.4, 0.2, 0.1, 0.05, 0.025)  # s per step, to choose from by - and +
SLICE = 0.015  # s of denoising after which events get their turn
AFTERGLOW = 1.5  # s for which the end of an episode is shown
REACH = (85.0, 427.0)  # where the T's centre of gravity may be put: it stays between the walls
HELP = (("space", "pause, or go on"), ("→ or .", "one step"), ("+  −", "faster, slower"),
        ("n", "another start"), ("c", "many candidate plans, or a single one"),
        ("s", "the next sampler"),
        ("l", "actions arrive 2, 4, 8 or 0 steps late"), ("h", "this help"), ("q or Esc", "quit"),
        ("left button", "drag the T"), ("right button, wheel", "turn the T"))
COLOURS = ((GREEN, "the goal"), (BLUE, "the T"), (GREY, "candidate plans"),
           (INK, "the plan that was chosen"), (VERMILLION, "the agent, and its next actions"),
           (ORANGE, "where the agent has been"))
KEYS = ("space  pause     mouse  drag the T     s  sampler     c  candidates     l  latency"
        "     n  new start     h  help     q  quit")


class Watch:
    """A policy at work. policies: name -> DiffusionPolicy, in the order of the key s.

    The denoising chain is a generator, from which a Watch takes as many steps as there is time for
    before the world's next step. A quick chain is spread out, to be seen; a slow one delays the
    pictures before it delays the world.
    """

    def __init__(self, policies, seed, noise_seed, max_steps, seeding, candidates,
                 now=time.monotonic):
        self.policies = policies
        self.name = next(iter(policies))
        self.seeding = seeding
        self.latency = 0
        self.scratch = PushTEnv()
        self.noise_seed, self.max_steps = noise_seed, max_steps
        self.candidates = candidates
        self.many = candidates if candidates > 1 else CANDIDATES
        self.clock = Clock(now)
        self.paused, self.help = False, False
        self.decisions = []  # milliseconds
        self.length = math.inf  # of the chain; not known before one was seen to its end
        self.start(seed)

    def start(self, seed):
        """Begin an episode."""
        self.seed = seed % options.SEEDS  # after the last one comes 0
        self.rng = np.random.default_rng([self.noise_seed, self.seed])
        self.world = DisturbedEnv(seeding=self.seeding, action_latency=self.latency)
        self.env = EstimatingEnv(lambda: self.world)  # what the policy sees of it
        state, info = self.env.reset(seed=self.seed)
        self.coverage = info["coverage"]
        self.steps = 0
        self.seen, self.trail = [state], [self.world.state[:2]]
        self.ended = None  # or (seconds, words)
        self.grip = None  # or (how, offset) while the mouse holds the T
        self.clock.restart()
        self.replan()

    # ---- the policy

    def replan(self):
        """Begin to denoise plans (K, H, 2) for the last observations."""
        policy = self.policies[self.name]
        obs = np.repeat(history(self.seen, policy.obs_horizon)[None], self.candidates, 0)
        self.chain = policy.denoise(obs, self.rng)  # None once it has come to its end
        self.plans = np.zeros((0, policy.pred_horizon, 2))
        self.passed = 0  # steps of the chain
        self.spent = 0.0  # s
        self.chosen = None
        self.carried_out = 0  # actions of the chosen plan
        self.fresh = True

    def denoise(self):
        """One step of the chain, or, at its end, the choice of a plan."""
        began = time.perf_counter()
        plans = next(self.chain, None)
        if plans is not None:
            self.plans = plans
            self.passed += 1
        else:
            self.chain, self.length = None, self.passed
            self.chosen = 0
            if len(self.plans) > 1:
                plan, _ = best(self.env, self.scratch, self.plans)
                self.chosen = int((self.plans == plan).all((1, 2)).argmax())
        self.spent += time.perf_counter() - began
        self.fresh = True
        if self.chain is None:
            self.decisions.append(1000 * self.spent)

    def update(self):
        """Do what is due. Returns whether there is more to do at once."""
        clock = self.clock
        if self.ended:
            if not self.paused and clock.now() > self.ended[0] + AFTERGLOW:
                self.start(self.seed + 1)
            return False
        span = 1.0 if self.paused else 0.7 * clock.period  # the choice takes time as well
        until = clock.now() + SLICE
        while self.behind(span) and clock.now() < until:
            self.denoise()
        if self.chain is None and not self.paused and clock.left() <= 0:
            self.step()
            clock.tick()
        return self.behind(span)

    def behind(self, span):
        """Must the chain go on now, to be complete `span` seconds after the world's last step?"""
        if self.chain is None:
            return False
        share = (self.clock.now() - self.clock.last) / span
        return self.length == math.inf or self.passed <= share * self.length

    def step(self):
        """Carry out the next action of the plan; begin a new plan where it is time for one."""
        while self.chain is not None:
            self.denoise()
        action = self.plans[self.chosen][self.carried_out]
        state, _, solved, _, info = self.env.step(action)
        self.coverage = info["coverage"]
        self.steps += 1
        self.carried_out += 1
        self.fresh = True
        self.seen.append(state)
        self.trail.append(self.world.state[:2])
        if solved:
            self.ended = self.clock.now(), f"solved after {self.steps} steps"
        elif self.steps >= self.max_steps:
            self.ended = self.clock.now(), "out of steps"
        elif self.carried_out == self.policies[self.name].action_horizon:
            self.replan()

    # ---- keys and mouse

    def handle(self, event):
        """What a key or the mouse asks for; see HELP."""
        if event.type == drawing.load_pygame().KEYDOWN:
            self.press(key_name(event))
        elif not self.ended:
            self.mouse(event)

    def press(self, key):
        if key == "space":
            self.paused = not self.paused
            self.clock.restart()
        elif key in ("right", ".") and not self.ended:
            self.paused = True
            self.step()
            self.clock.restart()
        elif key in ("+", "=", "-"):
            i = PERIODS.index(self.clock.period) + (-1 if key == "-" else 1)
            self.clock.period = PERIODS[min(max(i, 0), len(PERIODS) - 1)]
            self.clock.restart()
        elif key == "n":
            self.start(self.seed + 1)
        elif key == "c" and not self.ended:
            self.candidates = 1 if self.candidates > 1 else self.many
            self.replan()
        elif key == "s" and not self.ended:
            names = list(self.policies)
            self.name = names[(names.index(self.name) + 1) % len(names)]
            self.length = math.inf
            self.replan()
        elif key == "l":
            self.latency = LATENCIES[(LATENCIES.index(self.latency) + 1) % len(LATENCIES)]
            self.start(self.seed)
        elif key == "h":
            self.help = not self.help

    def mouse(self, event):
        """The left button drags the T; the right one and the wheel turn it about its centre."""
        pg = drawing.load_pygame()
        pose = self.world.state[2:]
        centre = to_world(complex(*CENTER_OF_GRAVITY), pose)
        if event.type == pg.MOUSEWHEEL:
            self.move(centre, pose[2] + math.radians(10) * event.y)
        elif event.type == pg.MOUSEBUTTONUP:
            self.grip = None
        elif event.type == pg.MOUSEBUTTONDOWN:
            pointer = complex(*event.pos) / UNIT
            if event.button == 1 and distance(to_body(pointer, pose)) < 10:
                self.grip = "drag", centre - pointer
            elif event.button == 3:
                self.grip = "turn", pose[2] - np.angle(pointer - centre)
        elif event.type == pg.MOUSEMOTION and self.grip:
            pointer = complex(*event.pos) / UNIT
            how, offset = self.grip
            if how == "drag":
                self.move(pointer + offset, pose[2])
            else:
                self.move(centre, offset + np.angle(pointer - centre))

    def move(self, centre, angle):
        """Put the T's centre of gravity (complex, px) there, within REACH. Forget the past."""
        centre = complex(np.clip(centre.real, *REACH), np.clip(centre.imag, *REACH))
        corner = centre - np.exp(1j * angle) * complex(*CENTER_OF_GRAVITY)
        agent_x, agent_y, _, _, _, *velocity = self.world.motion
        motion = [agent_x, agent_y, corner.real, corner.imag, angle, *velocity]
        state, info = self.env.reset(options={"order": "exact", "state": motion})
        self.coverage = info["coverage"]
        self.seen = [state]
        if self.paused:
            self.replan()  # else the next plan comes soon enough

    # ---- the picture

    def draw(self, screen):
        pg = drawing.load_pygame()
        chosen = 0 if len(self.plans) == 1 else self.chosen
        upcoming = slice(self.carried_out, self.policies[self.name].action_horizon)
        windows.picture(pg, screen, self.world.state, self.trail, lambda canvas, unit: fan(
            pg, canvas, unit, self.plans, chosen, upcoming))
        if self.ended:
            _, word = self.ended
        elif self.grip:
            word = "you hold the T"
        else:
            word = "paused" if self.paused else ""
        plans = "a single plan"
        if self.candidates > 1:
            plans = f"{self.candidates} plans, the best one chosen by the simulator"
        ms = f"{np.median(self.decisions[-5:]):.0f} ms a decision" if self.decisions else ""
        late = f"    {self.latency} steps late" if self.latency else ""
        windows.panel(
            pg, screen,
            f"coverage {self.coverage:4.0%}    step {self.steps}    seed {self.seed}", word,
            f"{self.name}    {plans}    {ms}    {1 / self.clock.period:.3g} Hz{late}", KEYS)
        if self.help:
            windows.overlay(pg, screen, HELP, COLOURS)

    def summary(self):
        """What there is to say at the end, in a line."""
        ms = f"{np.median(self.decisions):.0f} ms" if self.decisions else "–"
        return (f"{self.clock.steps} steps on the clock, {self.clock.dropped} dropped; "
                f"median {ms} a decision")


def fan(pg, canvas, unit, plans, chosen, upcoming):
    """Draw plans (K, H, 2), the chosen one (or None) bold, with its upcoming actions (a slice)."""
    plans = np.clip(plans, -512, 1024) * unit
    for k in sorted(range(len(plans)), key=lambda k: k == chosen):  # the chosen one on top
        color, width = (INK, 5) if k == chosen else (GREY, 2)
        if len(plans[k]) > 1:
            pg.draw.lines(canvas, color, False, plans[k].tolist(), width)
        pg.draw.circle(canvas, color, plans[k, -1].tolist(), 2 + width)
    if chosen is not None:
        for point in plans[chosen, upcoming].tolist():
            pg.draw.circle(canvas, PAPER, point, 12)
            pg.draw.circle(canvas, VERMILLION, point, 9)


def label(sampler, steps=None):
    """A sampler in words: "ancestral", "ddim 4"."""
    return f"{sampler} {steps}" if steps else sampler


def every_sampler(args, first, meta):
    """label -> DiffusionPolicy: `first`, as args ask for it, then by all its other samplers."""
    names = beyond.OBJECTIVES[meta["config"]["objective"]].samplers
    policies = {label(args.sampler or names[0], args.sampler_steps): first}
    for name in names:
        own = {"steps": min(4, first.schedule.T)} if name == "ddim" else {}
        if label(name, **own) not in policies:
            with contextlib.suppress(ValueError):  # a sampler that does not take such options
                policies[label(name, **own)], _ = beyond.load(
                    args.run or SHIPPED_POLICY, PUSHT, name, args.guidance, args.action_horizon,
                    args.temperature, **own)
    return policies


def main(arguments):
    parser = stopping.Parser(prog="python -m minidiff.pusht watch", description=__doc__,
                             usage="%(prog)s [RUN] [options]")
    options.add_arguments(parser)
    add = parser.add_argument_group("what to watch").add_argument
    add("--seed", type=options.seed, default=5000, help="of the first episode (default: 5000)")
    add("--candidates", type=options.bounded(int, 1, 1000), default=CANDIDATES, metavar="K",
        help="plans sampled for each decision, of which the best, tried in the simulator, is "
             f"carried out (default: {CANDIDATES})")
    add("--max-steps", type=options.bounded(int, 1, 1_000_000), default=300, metavar="N",
        help="an episode ends after so many steps, or with success (default: 300)")
    add("--seeding", choices=("legacy", "modern"), default="legacy",
        help="how a seed becomes a start (default: legacy)")
    args = parser.parse_args(arguments)
    policy, meta, sampling = options.load_policy(args, PUSHT, SHIPPED_POLICY)
    print(f"{args.run or 'the policy that comes with minidiff'}: {sampling}")
    windows.run(Watch(every_sampler(args, policy, meta), args.seed, args.noise_seed, args.max_steps,
                      args.seeding, args.candidates))
