"""The live window: the world at ten steps a second, plans while they come out of the noise, and a mouse that takes part.

The denoising chain is a generator. From it a Watch takes as many steps as the time until the world's next step allows: a
quick chain is spread out, to be seen, and a slow one delays the pictures before it delays the world.
"""
import math
import time

import numpy as np

from ..env import PushTEnv
from ..geometry import CENTER_OF_GRAVITY, distance, to_body, to_world
from ..rollout import latest
from ..study.candidates import best
from . import drawing as draw
from .drawing import BLUE, GREEN, GREY, INK, ORANGE, PAPER, VERMILLION
from .windows import UNIT, Clock, key_name, overlay, panel, picture

CANDIDATES = 16
PERIODS = (1.6, 0.8, 0.4, 0.2, 0.1, 0.05, 0.025)  # s per step, to choose from by - and +
SLICE = 0.015  # s of denoising after which events get their turn
AFTERGLOW = 1.5  # s for which the end of an episode is shown
REACH = (85.0, 427.0)  # where the mouse may put the T's centre of gravity: all of the T stays within the walls
HELP = (("space", "pause, or go on"), ("→ or .", "one step"), ("+  −", "faster, slower"), ("n", "another start"),
        ("c", "many candidate plans, or a single one"), ("s", "the next sampler"), ("h", "this help"),
        ("q or Esc", "quit"), ("left button", "drag the T"), ("right button, wheel", "turn the T"))
COLOURS = ((GREEN, "the goal"), (BLUE, "the T"), (GREY, "candidate plans"), (INK, "the plan that was chosen"),
           (VERMILLION, "the agent, and its next actions"), (ORANGE, "where the agent has been"))


class Watch:
    """A policy at work. policies: name -> DiffusionPolicy, in the order in which the key s goes through them."""

    def __init__(self, policies, seed=5000, noise_seed=0, max_steps=300, seeding="legacy", candidates=CANDIDATES,
                 now=time.monotonic):
        self.policies, self.name = policies, next(iter(policies))
        self.env, self.scratch = PushTEnv(seeding=seeding), PushTEnv()
        self.noise_seed, self.max_steps, self.clock = noise_seed, max_steps, Clock(now)
        self.candidates, self.many, self.paused, self.help = candidates, candidates, False, False
        self.decisions = []  # milliseconds
        self.length = math.inf  # of the chain; not known before one was seen to its end
        self.start(seed)

    def start(self, seed):
        """Begin an episode."""
        self.seed, self.rng = seed, np.random.default_rng([self.noise_seed, seed])
        state, info = self.env.reset(seed=seed)
        self.coverage, self.steps, self.seen, self.trail = info["coverage"], 0, [state], [state[:2]]
        self.ended, self.grip = None, None  # (seconds, words); (button, offset) while the mouse holds the T
        self.clock.restart()
        self.decide()

    # ---- the policy

    def decide(self):
        """Begin to denoise plans (K, H, 2) for what was seen last."""
        policy = self.policies[self.name]
        obs = np.repeat(latest(self.seen, policy.obs_horizon)[None], self.candidates, 0)
        self.chain, self.plans = policy.denoise(obs, self.rng), np.zeros((0, policy.pred_horizon, 2))
        self.passed, self.spent, self.chosen, self.carried_out, self.fresh = 0, 0.0, None, 0, True

    def denoise(self):
        """One step of the chain, or, at its end, the choice of a plan."""
        began, plans = time.perf_counter(), next(self.chain, None)
        if plans is not None:
            self.plans, self.passed = plans, self.passed + 1
        else:
            self.chain, self.length = None, self.passed
            plan = best(self.env, self.scratch, self.plans)[0] if len(self.plans) > 1 else self.plans[0]
            self.chosen = int((self.plans == plan).all((1, 2)).argmax())
        self.spent, self.fresh = self.spent + time.perf_counter() - began, True
        if self.chain is None:
            self.decisions.append(1000 * self.spent)

    def update(self):
        """Do what is due. Returns whether there is more of it, so that nobody sleeps or draws before."""
        clock = self.clock
        if self.ended:
            if not self.paused and clock.now() > self.ended[0] + AFTERGLOW:
                self.start(self.seed + 1)
            return False
        until, span = clock.now() + SLICE, 1.0 if self.paused else 0.7 * clock.period  # the choice takes time as well
        while self.behind(span) and clock.now() < until:
            self.denoise()
        if self.chain is None and not self.paused and clock.left() <= 0:
            self.step()
            clock.tick()
        return self.behind(span)

    def behind(self, span):
        """Is the chain less far than it should be, to be complete `span` seconds after the last step?"""
        share = (self.clock.now() - self.clock.last) / span
        return self.chain is not None and (self.length == math.inf or self.passed <= share * self.length)

    def step(self):
        """Carry out the next action of the plan; begin a new plan where it is time for one."""
        while self.chain is not None:
            self.denoise()
        state, _, solved, _, info = self.env.step(self.plans[self.chosen][self.carried_out])
        self.coverage, self.steps, self.carried_out = info["coverage"], self.steps + 1, self.carried_out + 1
        self.fresh = True
        self.seen.append(state)
        self.trail.append(state[:2])
        if solved or self.steps >= self.max_steps:
            self.ended = self.clock.now(), f"solved after {self.steps} steps" if solved else "out of steps"
        elif self.carried_out == self.policies[self.name].action_horizon:
            self.decide()

    # ---- keys and mouse

    def handle(self, event):
        """What a key or the mouse asks for; see HELP."""
        if event.type == draw._pygame().KEYDOWN:
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
            self.decide()
        elif key == "s" and not self.ended:
            names = list(self.policies)
            self.name, self.length = names[(names.index(self.name) + 1) % len(names)], math.inf
            self.decide()
        elif key == "h":
            self.help = not self.help

    def mouse(self, event):
        """The left button drags the T, the right one and the wheel turn it, about its centre of gravity."""
        pg, pose = draw._pygame(), self.env.state[2:]
        centre = to_world(complex(*CENTER_OF_GRAVITY), pose)
        if event.type == pg.MOUSEWHEEL:
            self.put(centre, pose[2] + math.radians(10) * event.y)
        elif event.type == pg.MOUSEBUTTONUP:
            self.grip = None
        elif event.type == pg.MOUSEBUTTONDOWN:
            at = complex(*event.pos) / UNIT
            if event.button == 1 and distance(to_body(at, pose)) < 10:
                self.grip = "drag", centre - at
            elif event.button == 3:
                self.grip = "turn", pose[2] - np.angle(at - centre)
        elif event.type == pg.MOUSEMOTION and self.grip:
            (how, offset), at = self.grip, complex(*event.pos) / UNIT
            self.put(*(at + offset, pose[2]) if how == "drag" else (centre, offset + np.angle(at - centre)))

    def put(self, centre, angle):
        """Put the T's centre of gravity (a complex number, px) somewhere, within reach. What came before is forgotten."""
        centre = complex(np.clip(centre.real, *REACH), np.clip(centre.imag, *REACH))
        corner = centre - np.exp(1j * angle) * complex(*CENTER_OF_GRAVITY)
        agent_x, agent_y, _, _, _, *velocity = self.env.motion
        state, info = self.env.reset(options={"order": "exact", "state": [agent_x, agent_y, corner.real, corner.imag, angle,
                                                                          *velocity]})
        self.coverage, self.seen = info["coverage"], [state]
        if self.paused:
            self.decide()  # else the next plan comes soon enough

    # ---- the picture

    def draw(self, screen):
        K, policy, pg = self.candidates, self.policies[self.name], draw._pygame()
        upcoming = slice(self.carried_out, policy.action_horizon)
        picture(pg, screen, self.env.state, self.trail, lambda canvas, unit: fan(
            pg, canvas, unit, self.plans, 0 if len(self.plans) == 1 else self.chosen, upcoming))
        word = self.ended[1] if self.ended else "you hold the T" if self.grip else "paused" if self.paused else ""
        plans = f"{K} plans, the best one chosen by the simulator" if K > 1 else "a single plan"
        ms = f"{np.median(self.decisions[-5:]):.0f} ms a decision" if self.decisions else ""
        panel(pg, screen, f"coverage {self.coverage:4.0%}    step {self.steps}    seed {self.seed}", word,
              f"{self.name}    {plans}    {ms}    {1 / self.clock.period:.3g} Hz",
              "space  pause     mouse  drag the T     s  sampler     c  candidates     n  new start     h  help     q  quit")
        if self.help:
            overlay(pg, screen, HELP, COLOURS)

    def summary(self):
        """What there is to say at the end, in a line."""
        ms = f"{np.median(self.decisions):.0f} ms" if self.decisions else "–"
        return f"{self.clock.steps} steps on the clock, {self.clock.dropped} dropped; median {ms} a decision"


def label(policy):
    """A policy's sampler in words: "ancestral", "ddim 4"."""
    name = policy.sampler.__name__.removesuffix("_sampling").replace("_", " ")
    return f"{name} {policy.options['steps']}" if policy.options.get("steps") else name


def fan(pg, canvas, unit, plans, chosen, upcoming):
    """Candidate plans (K, H, 2), thin lines to a dot at their end; the chosen one (or None) bold; its upcoming actions."""
    plans = np.clip(plans, -512, 1024) * unit
    for k in [k for k in range(len(plans)) if k != chosen] + ([] if chosen is None else [chosen]):
        color, width = (INK, 5) if k == chosen else (GREY, 2)
        pg.draw.lines(canvas, color, False, plans[k].tolist(), width)
        pg.draw.circle(canvas, color, plans[k, -1].tolist(), 2 + width)
    if chosen is not None:
        for point in plans[chosen, upcoming].tolist():
            pg.draw.circle(canvas, PAPER, point, 12)
            pg.draw.circle(canvas, VERMILLION, point, 9)
