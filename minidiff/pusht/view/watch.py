"""A window in which a policy plays, and its plans form out of noise.

The mouse moves the T, and t along the denoising chain. The key h explains the keys.
"""
import contextlib
import math
import time

import numpy as np

from ... import beyond, stopping
from ...beyond import options
from .. import SHIPPED_POLICY
from ..features import PUSHT
from ..geometry import CENTER_OF_GRAVITY, distance, to_body, to_world
from . import drawing, scene, windows
from .drawing import BLUE, GREEN, ORANGE, VERMILLION
from .player import Player
from .windows import UNIT, Clock, key_name

CANDIDATES = 16
LATENCIES = (0, 2, 4, 8)  # steps of the world, chosen by the key l
PERIODS = (1.6, 0.8, 0.4, 0.2, 0.1, 0.05, 0.025)  # s per step of the world, by the keys - and +
SLICE = 0.015  # s of denoising before the window's events are handled again
PATIENCE = 2.5  # s for which the first plan of an episode is shown forming, at most 25 periods
AFTERGLOW = 1.5  # s for which the end of an episode is shown
HELP = (("space", "pause, or go on"), ("→ or .", "one step"), ("−  +", "slower, faster"),
        ("r", "the same start again"), ("b  n", "the start before, the next one"),
        ("s", "the next sampler"), ("c", "many candidate plans, or a single one"),
        ("l", "actions arrive 2, 4, 8 or 0 steps late"), ("d", "other policies beside this one"),
        ("p  v", "save a picture, the last ten seconds"), ("h  q or Esc", "this help, quit"),
        ("left button", "drag the T, or t on the bar"), ("right or wheel", "turn the T"))
COLOURS = ((GREEN, "the goal that the T should cover"), (BLUE, "the T"),
           (VERMILLION, "the agent, and its next actions"), (ORANGE, "where the agent has been"))
KEYS = ("space  pause     .  one step     −  +  speed     r  restart     b  n  start"
        "     s  sampler     c  candidates     l  latency     d  beside others     p  picture"
        "     v  animation     h  help     q  quit")
NO_OTHERS = ("To see others beside: python train.py --objective mse --out runs/mse, then watch "
             "--beside runs/mse")


class Watch:
    """The game that shows a policy. policies: name -> DiffusionPolicy, in the order of the key s.
    beside: name -> DiffusionPolicy, others that the key d shows.

    The denoising chain is a generator. Between two steps of the world a Watch takes its steps one
    by one. Those of a quick chain are spread over the time until the next step of the world, so
    that they can be seen. A slow chain first delays the pictures, and only then the world.
    """

    def __init__(self, policies, seed, noise_seed, max_steps, seeding, candidates, beside=(),
                 now=time.monotonic):
        def player(policy):
            return Player(policy, noise_seed, max_steps, seeding, candidates)

        self.policies = policies
        self.name = next(iter(policies))
        self.player = player(policies[self.name])
        self.others = {name: player(policy) for name, policy in dict(beside).items()}
        self.many = candidates if candidates > 1 else CANDIDATES
        self.clock = Clock(now)
        self.paused, self.help, self.abreast = False, False, False
        self.note = f"d: {self.name} beside {', '.join(self.others)}" if self.others else ""
        self.film = windows.Film()
        self.start(seed)

    @property
    def players(self):
        """The Players whose worlds are shown."""
        return [self.player, *(self.others.values() if self.abreast else ())]

    @property
    def playing(self):
        return [player for player in self.players if not player.ended]

    def start(self, seed):
        """Begin an episode, from the same start for all players."""
        self.seed = seed % options.SEEDS  # after the last one comes 0
        for player in self.players:
            player.start(self.seed)
        self.over = None  # or the time, s, at which all episodes had ended
        self.grip = None  # or ("drag", "turn" or "look", offset) while the mouse holds T or bar
        self.fresh = True
        self.clock.restart()

    def update(self):
        """Do what is due. Returns whether there is more to do at once."""
        clock = self.clock
        still = self.paused or self.help
        if not self.playing:
            if not still and clock.now() > self.over + AFTERGLOW:
                self.start(self.seed + 1)
            return False
        first = not any(player.steps for player in self.players)
        span = 0.7 * clock.period  # the rest is for choosing a plan
        if still:
            span = 1.0
        elif first:
            span = min(PATIENCE, 25 * clock.period)
        until = clock.now() + SLICE
        while self.behind(span) and clock.now() < until:
            self.behind(span)[0].denoise()
            self.fresh = True
        thinking = any(player.chain is not None for player in self.playing)
        if first and thinking:
            clock.hold()
        elif not thinking and not still and clock.left() <= 0:
            self.step()
            clock.tick()
        return bool(self.behind(span))

    def behind(self, span):
        """The players whose chain must go on now, to be complete `span` seconds after the last step
        of the world."""
        share = (self.clock.now() - self.clock.last) / span
        return [player for player in self.playing
                if player.chain is not None and player.progress() <= share]

    def step(self):
        """One step of all worlds whose episode goes on."""
        for player in self.playing:
            player.step()
        self.fresh = True
        if not self.playing:
            self.over = self.clock.now()

    # ---- keys and mouse

    def handle(self, event):
        """What a key or the mouse asks for; see HELP."""
        if event.type == drawing.load_pygame().KEYDOWN:
            self.press(key_name(event))
        elif not self.abreast:
            self.mouse(event)

    def press(self, key):
        self.note = ""
        if key == "space":
            self.paused = not self.paused
            self.player.shown = -1
            self.clock.restart()
        elif key in ("right", ".") and self.playing:
            self.paused = True
            self.step()
            self.clock.restart()
        elif key in ("+", "=", "-"):
            i = PERIODS.index(self.clock.period) + (-1 if key == "-" else 1)
            self.clock.period = PERIODS[min(max(i, 0), len(PERIODS) - 1)]
            self.clock.restart()
        elif key in ("r", "b", "n"):
            self.start(self.seed + {"r": 0, "b": -1, "n": 1}[key])
        elif key == "c":
            self.settle(1 if self.player.candidates > 1 else self.many, self.player.latency)
        elif key == "s":
            names = list(self.policies)
            self.name = names[(names.index(self.name) + 1) % len(names)]
            self.player.policy = self.policies[self.name]
            self.settle(self.player.candidates, self.player.latency)
        elif key == "l":
            late = LATENCIES[(LATENCIES.index(self.player.latency) + 1) % len(LATENCIES)]
            self.settle(self.player.candidates, late)
            self.start(self.seed)
        elif key == "d" and self.others:
            self.abreast = not self.abreast
            self.settle(1, self.player.latency)  # no help by the simulator
            self.start(self.seed)
        elif key == "d":
            self.note = NO_OTHERS
        elif key == "h":
            self.help = not self.help
            self.clock.restart()
        elif key == "p":
            self.save(".png", drawing.save_screen)
        elif key == "v" and self.film.shots:
            self.save(".webp", self.film.save)

    def settle(self, candidates, latency):
        """Change settings, for all players, and forget what was measured with the old ones."""
        for player in self.players:
            player.candidates, player.latency = candidates, latency
            player.forget()
            if not player.ended:
                player.replan()

    def mouse(self, event):
        """The left button drags the T, or t on its bar; the right one and the wheel turn the T."""
        pg = drawing.load_pygame()
        pose = self.player.world.state[2:]
        centre = to_world(complex(*CENTER_OF_GRAVITY), pose)
        if event.type == pg.MOUSEWHEEL:
            self.move(centre, pose[2] + math.radians(10) * event.y)
        elif event.type == pg.MOUSEBUTTONUP:
            self.grip = None
        elif event.type == pg.MOUSEBUTTONDOWN:
            pointer = complex(*event.pos) / UNIT
            if event.button == 1 and self.player.denoises and scene.on_bar(*event.pos):
                self.paused = True
                self.grip = "look", 0
                self.mouse_at(pointer, centre, pose)
            elif event.button == 1 and distance(to_body(pointer, pose)) < 10:
                self.grip = "drag", centre - pointer
            elif event.button == 3:
                self.grip = "turn", pose[2] - np.angle(pointer - centre)
        elif event.type == pg.MOUSEMOTION and self.grip:
            self.mouse_at(complex(*event.pos) / UNIT, centre, pose)

    def mouse_at(self, pointer, centre, pose):
        """The mouse, which holds the T or the bar, is at a point of the world (complex, px)."""
        how, offset = self.grip
        if how == "look":
            self.player.look(scene.t_on_bar(pointer.real * UNIT, self.player.policy.schedule.T))
        elif how == "drag":
            self.move(pointer + offset, pose[2])
        else:
            self.move(centre, offset + np.angle(pointer - centre))

    def move(self, centre, angle):
        """Move the T of an episode that goes on."""
        if self.player.ended:
            return
        self.player.move(centre, angle)
        if self.paused:
            self.player.replan()  # if not paused, the next plan comes soon by itself

    def save(self, suffix, write):
        """Write a file with a new name, and show this name, or why it was not written."""
        path = windows.free_name(f"minidiff-{self.seed}-{self.player.steps}", suffix)
        try:
            write(path)
            self.note = f"saved {path}"
        except (OSError, RuntimeError) as error:
            self.note = stopping.in_words(error)
        self.clock.restart()

    # ---- the picture

    def draw(self, screen):
        pg = drawing.load_pygame()
        player = self.player
        word = player.ended
        if not word and self.grip and self.grip[0] != "look":
            word = "you hold the T"
        elif not word:
            word = "paused" if self.paused or self.help else ""
        if self.abreast and not self.help:
            name = self.name if self.name in beyond.BASELINES else f"diffusion: {self.name}"
            scene.beside(pg, screen, {name: player} | self.others,
                         self.note or f"start {self.seed}    {self.settings()}    {word}", KEYS)
        else:
            first = (f"coverage {player.coverage:4.0%}    step {player.steps}    "
                     f"start {self.seed}    {scene.tally(player)}")
            scene.world(pg, screen, player)
            if self.help:
                windows.panel(pg, screen, first, word, "", "")
                windows.overlay(pg, screen, HELP, COLOURS, scene.LOWER)
            else:
                windows.panel(pg, screen, first, word, f"{self.name}: {self.settings()}", KEYS,
                              scene.LOWER, self.note)
            scene.chain(pg, screen, player)
        self.film.add(pg, screen, self.clock.now())

    def settings(self):
        """The settings that the keys have made, the time of a decision and the speed, in words."""
        player = self.player
        plans = "a single plan"
        if player.candidates > 1:
            plans = f"{player.candidates} plans, the best one chosen by the simulator"
        ms = f"{np.median(player.decisions[-5:]):.0f}" if player.decisions else "–"
        late = f", actions {player.latency} steps late" if player.latency else ""
        return (f"{plans}{late}\n{ms} ms a decision\n"
                f"{self.clock.rate()}, {self.clock.dropped} of {self.clock.steps} steps late")

    def summary(self):
        """What is printed at the end, in a line."""
        decisions = self.player.decisions
        ms = f"{np.median(decisions):.0f} ms" if decisions else "–"
        return (f"{self.clock.steps} steps on the clock, {self.clock.dropped} late; "
                f"{self.name}: median {ms} a decision")


def label(sampler, steps=None):
    """A sampler in words: "ancestral", "ddim 4"."""
    return f"{sampler} {steps}" if steps else sampler


def every_sampler(args, first, meta):
    """label -> DiffusionPolicy: `first`, with the sampler that args ask for, then the same policy
    with each other sampler that fits it."""
    names = beyond.OBJECTIVES[meta["config"]["objective"]].samplers
    policies = {label(args.sampler or names[0], args.sampler_steps): first}
    for name in names:
        own = {"steps": min(4, first.schedule.T)} if name == "ddim" else {}
        if label(name, **own) not in policies:
            with contextlib.suppress(ValueError):  # a sampler that does not take these options
                policies[label(name, **own)], _ = beyond.load(
                    args.run or SHIPPED_POLICY, PUSHT, name, args.guidance, args.action_horizon,
                    args.temperature, **own)
    return policies


def others(args):
    """"sampler: run" -> DiffusionPolicy, for each run of args.beside."""
    options.distinct(args.beside)
    policies = {}
    for run in args.beside:
        policy, meta = beyond.load(run, PUSHT, action_horizon=args.action_horizon)
        sampler = beyond.OBJECTIVES[meta["config"]["objective"]].samplers[0]
        policies[f"{sampler}: {run}"] = policy
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
    add("--beside", nargs="+", default=[], type=options.named, metavar="RUN",
        help="one or two runs, as of --objective mse, which the key d shows beside RUN")
    add("--seeding", choices=("legacy", "modern"), default="legacy",
        help="how a seed becomes a start (default: legacy)")
    args = parser.parse_args(arguments)
    if len(args.beside) > 2:
        parser.error(f"--beside: there is room for two more, not for {len(args.beside)}")
    policy, meta, sampling = options.load_policy(args, PUSHT, SHIPPED_POLICY)
    print(f"{args.run or 'the policy that comes with minidiff'}: {sampling}")
    windows.run(Watch(every_sampler(args, policy, meta), args.seed, args.noise_seed, args.max_steps,
                      args.seeding, args.candidates, others(args)))
