"""Films of a policy's episodes: a strip of frames (.png), or an animation with its plans.

An animation (.webp or .gif) shows several plans at each decision, of which the first is carried
out. It needs one more package: pip install 'minidiff[film]'
"""
from pathlib import Path

import numpy as np

from ... import stopping
from ...beyond import options
from ...checkpoint import check_writable
from ...policy import run_episode
from ...scoring import rollout
from .. import SHIPPED_POLICY
from ..env import PushTEnv
from ..features import PUSHT
from ..geometry import SUCCESS_COVERAGE, coverage
from . import drawing

ABREAST = 16  # episodes side by side: more fit no screen, and WebP ends at a width of 16,383 px


def film(path, policy, seeds, noise_seed=0, frames=8, before=None, make_env=None):
    """Draw episodes as a film strip: for each a row of evenly spaced frames, from start to end.

    path: a .png. before: the policy before its training, or None. Its row stands above that of the
    trained one, from the same start. Raises ValueError or OSError for a path that cannot be
    written, and RuntimeError without pygame, all before the first episode.
    """
    _check_path(path, (".png",))
    played = {"before training\n": before, "after training\n": policy} if before else {"": policy}
    rows = []
    for when, player in played.items():
        episodes, paths = rollout.rollout(player, seeds, noise_seed, make_env=make_env, record=True)
        for episode, states in zip(episodes, paths):
            ending = f"best coverage\n{episode.score * SUCCESS_COVERAGE:.1%}"
            if episode.success:
                covered = f"{coverage(states[-1][2:]):.0%} covered"
                ending = f"success after\n{episode.steps} steps:\n{covered}"
            shown = []
            for k in np.unique(np.linspace(0, episode.steps, frames).round().astype(int)):
                shown.append((states[k], f"step {k}: {coverage(states[k][2:]):.0%}"))
            rows.append((f"seed {episode.seed}", shown, when + ending))
    by_seed = [row for k in range(len(seeds)) for row in rows[k::len(seeds)]]
    drawing.film_strip(path, by_seed)


class Filmed:
    """A world that renders itself after its reset and after each step, and keeps the pictures
    small: at most 400 px wide and high."""

    def __init__(self, env):
        self.env = env
        self.pictures = []

    def reset(self, **options):
        return self.seen(self.env.reset(**options))

    def step(self, action):
        return self.seen(self.env.step(action))

    def seen(self, happened):
        picture = self.env.render()
        if np.ndim(picture) != 3 or picture.shape[2] != 3:
            raise ValueError("the world's render() should return a picture, (height, width, 3) "
                             f"uint8, not {type(picture).__name__} {np.shape(picture)}")
        stride = 1 + max(picture.shape[:2]) // 400
        self.pictures.append(picture[::stride, ::stride].copy())
        return happened


def rendered(path, before, after, seeds, frames=8):
    """Draw episodes of any task as a film strip, from the pictures that its world's render()
    returns: before and after training. Errors as for `film`, and ValueError for other pictures."""
    _check_path(path, (".png",))
    rows = []
    for seed in seeds:
        for when, player in (("before training", before), ("after training", after)):
            world = Filmed(player.task.make_env())
            episode, = rollout.rollout(player, [seed], make_env=lambda world=world: world)
            shown = []
            for k in np.unique(np.linspace(0, episode.steps, frames).round().astype(int)):
                shown.append((world.pictures[k], f"step {k}"))
            solved = "\nsuccess" if episode.success else ""
            rows.append((f"seed {seed}", shown, f"{when}\nscore {episode.score:.4g}{solved}"))
    drawing.film_strip(path, rows)


def animation(path, policy, seeds, noise_seed=0, plans=8, size=240, make_env=PushTEnv):
    """Draw episodes side by side as an animation, with several plans at each decision.

    path: .webp or .gif. A frame is one step of the world. plans: how many are shown, of which the
    first is carried out. size: px of a world. An episode that is over shows its last frame until
    the others are over. Errors as for `film`, ValueError for more than ABREAST seeds, and
    RuntimeError without Pillow.
    """
    _check_path(path, (".webp", ".gif"))
    if len(seeds) > ABREAST:
        raise ValueError(f"{path}: an animation shows at most {ABREAST} episodes, "
                         f"not {len(seeds)}; a film strip (.png) shows more")
    drawing.load_pillow()
    films = [_moving(policy, seed, noise_seed, plans, size, make_env) for seed in seeds]
    length = max(map(len, films)) + 10  # a second to look at the end
    together = []
    for k in range(length):
        together.append(np.hstack([frames[min(k, len(frames) - 1)] for frames in films]))
    drawing.save_animation(path, together)


def _moving(policy, seed, noise_seed, plans, size, make_env):
    """The pictures of one episode: a list of arrays (size, size, 3)."""
    fan = None

    def decide(env, obs, rng):
        nonlocal fan
        fan = policy.plan(np.repeat(obs[None], plans, 0), rng)  # (plans, H, 2)
        return fan[0]

    rng = np.random.default_rng([noise_seed, seed])
    frames, before = [], None
    for state, _, _ in run_episode(policy, make_env(), rng, seed=int(seed), decide=decide):
        stopping.safe_point()
        if before is not None:  # the plans that led from there to here
            frames.append(drawing.frame(before, plans=fan, size=size))
        before = state
    return [*frames, drawing.frame(before, size=size)]


def _check_path(path, suffixes):
    """Raise for a picture that could not be saved, before the episodes are run."""
    drawing.load_pygame()
    if Path(path).suffix not in suffixes:
        raise ValueError(f"{path}: the name of this picture must end in {' or '.join(suffixes)}")
    check_writable(path)


def main(arguments):
    parser = stopping.Parser(prog="python -m minidiff.pusht film", description=__doc__,
                             usage="%(prog)s [RUN] FILE [options]")
    options.add_arguments(parser)
    parser.add_argument("file", type=options.named, metavar="FILE",
                        help="the film strip, .png, or the animation, .webp or .gif")
    add = parser.add_argument_group("what to film").add_argument
    add("--episodes", type=options.bounded(int, 1, 100), default=4, metavar="N",
        help=f"how many, in an animation at most {ABREAST} (default: 4)")
    add("--seed", type=options.seed, default=5000, help="of the first episode (default: 5000)")
    args = parser.parse_intermixed_args(arguments)  # options may stand between RUN and FILE
    if Path(args.file).suffix not in (".png", ".webp", ".gif"):
        parser.error(f"{args.file}: the name of the picture must end in .png, .webp or .gif")
    seeds = options.seeds(args)
    policy, _, sampling = options.load_policy(args, PUSHT, SHIPPED_POLICY)
    print(f"{args.run or 'the policy that comes with minidiff'}: {sampling}")
    draw = film if args.file.endswith(".png") else animation
    try:
        draw(args.file, policy, seeds, args.noise_seed)
    except stopping.Stopped:
        raise stopping.Stopped(f"stopped; {args.file} was not drawn") from None
    print(f"picture: {args.file}")
