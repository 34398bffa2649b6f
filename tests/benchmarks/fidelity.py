"""Do plans have the demonstrator's distribution? At states that nobody was trained on.

    python -m minidiff.pusht collect --seed 8000 --episodes 200 --out held-out.npz
    python tests/benchmarks/fidelity.py runs/ladder held-out.npz

The networks are those of ladder.py, in runs/ladder-SEED for each training seed. At 24 recorded
states the demonstrator plans anew 64 times, and 64 times again; each policy plans 64 times.
Measured is, for each policy, the mean over the states of the energy distance between its plans and
the demonstrator's,

    2 E|X - Y| - E|X - X'| - E|Y - Y'|        (Szekely & Rizzo 2013), 0 for equal distributions

with |.| the root mean square over the actions of a plan, in px; and the spread E|X - X'|. Then, at
these states and at 24 at which the regression rests: how far from the agent the fourth action of a
plan is, the last that is carried out, and how far the mean of these actions is.
"""
import itertools
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import demos, stopping  # noqa: E402
from minidiff.beyond import formats  # noqa: E402
from minidiff.progress import Progress  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.study import forks, rests  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.ladder import planner_of, pusht  # noqa: E402
from benchmarks.measuring import FIRST, TRAINING_SEEDS, Sheet, parser  # noqa: E402

STATES, DRAWS = 24, 64
POLICIES = ("regression", "MIP", "Gaussian", "mixture", "DDIM, 1 step", "DDIM, 2 steps",
            "DDIM, 3 steps", "DDIM, 4 steps", "DDIM, 4 steps, x 0.5", "DDIM, all steps",
            "ancestral")


def distances(a, b):
    """|x - y| of each plan of a (n, H, 2) from each of b (m, H, 2) -> (n, m) px."""
    return np.sqrt(((a[:, None] - b) ** 2).sum(-1).mean(-1))


def spread(a):
    """E|X - X'|, without bias: over pairs of different plans."""
    return distances(a, a).sum() / (len(a) * (len(a) - 1))


def energy_distance(a, b):
    return 2 * distances(a, b).mean() - spread(a) - spread(b)


def steps(plans, state):
    """Of plans (n, H, 2): the mean distance of the fourth actions from the agent, and that of their
    mean."""
    fourth = plans[:, 3] - state[:2]
    return np.hypot(*fourth.T).mean(), np.hypot(*fourth.mean(0))


def planned(name, seed, folder, states):
    """The plans of a policy at each of the states: a list of arrays (DRAWS, H, 2)."""
    planner = planner_of(pusht(None), name, seed, Path(f"{folder}-{seed}"))
    rng = np.random.default_rng(0)
    return [planner.plan(np.tile(state, (DRAWS, 1, 1)), rng) for state in states]


def demonstrated(states):
    """What the demonstrator plans at each of the states, likewise, twice."""
    progress = Progress("states of the demonstrator", len(states))
    shown, again = [], []
    for k, state in enumerate(states):
        rng = np.random.default_rng(k)
        shown.append(forks.demonstrated(state, DRAWS, rng)[:, :8])
        again.append(forks.demonstrated(state, DRAWS, rng)[:, :8])
        progress.show(len(shown))
    return shown, again


def main(arguments):
    options = parser("fidelity", __doc__)
    options.add_argument("folder")
    options.add_argument("held_out")
    args = options.parse_args(arguments)
    sheet = Sheet(args.json)
    data = formats.load(args.held_out, PUSHT)
    obs, _ = demos.windows(data, 1, 1)
    ordinary = obs[np.random.default_rng(0).permutation(len(obs))[:STATES], -1].astype(float)
    shown, again = demonstrated(ordinary)
    sheet.add("the demonstrator again", compared([again], shown))
    for name in POLICIES:
        drawn = [planned(name, seed, args.folder, ordinary) for seed in TRAINING_SEEDS]
        sheet.add(name, compared(drawn, shown))

    found = rests.resting(planner_of(pusht(None), "regression", 0, Path(f"{args.folder}-0")),
                          range(FIRST, FIRST + 2000))
    resting = [states[-1] for _, states in itertools.islice(found, STATES)]
    for kind, states, plans in (("resting", resting, demonstrated(resting)[0]),
                                ("ordinary", ordinary, shown)):
        everyone = {"the demonstrator": plans}
        for name in ("DDIM, 4 steps", "regression"):
            everyone[name] = planned(name, 0, args.folder, states)
        for name, plans in everyone.items():
            each, mean = np.mean([steps(*pair) for pair in zip(plans, states)], 0)
            sheet.add(f"{kind}: {name}", {"each": each, "mean": mean})


def compared(drawn, shown):
    """drawn: for each training seed, for each state, plans (n, H, 2). In px, the energy distance of
    each training seed, and the spread."""
    far = [np.mean([energy_distance(a, b) for a, b in zip(plans, shown)]) for plans in drawn]
    return {"distance": far, "spread": np.mean([spread(a) for plans in drawn for a in plans])}


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("fidelity", main, sys.argv[1:]))
