"""What the two kinds of demonstrations are like, and how good and how diverse the demonstrator is.

    python tests/benchmarks/demonstrations.py human.npz

Of each file: its episodes and steps, the share of idle rows, and the median of the coverage at the
last recorded state. Of the demonstrator: 200 starts from seed 300000 on, and how many different
orders of the T's faces ten runs from one start have, for 20 starts.
"""
import sys
import time
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import demos, stopping  # noqa: E402
from minidiff.beyond import formats  # noqa: E402
from minidiff.progress import Progress  # noqa: E402
from minidiff.pusht.data.expert import demonstrate  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.geometry import coverage  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.measuring import FIRST, Sheet, parser  # noqa: E402

STARTS, FORKED, RUNS = 200, 20, 10


def described(data):
    lengths = np.diff(data.episode_ends, prepend=0)
    last = [coverage(state[2:].astype(float)) for state in data.state[data.episode_ends - 1]]
    return {"episodes": len(lengths), "steps": len(data.state), "mean steps": lengths.mean(),
            "median steps": np.median(lengths), "idle": formats.idle(data).mean(),
            "last coverage": np.median(last)}


def main(arguments):
    options = parser("demonstrations", __doc__)
    options.add_argument("human", help="the 206 human demonstrations")
    args = options.parse_args(arguments)
    sheet = Sheet(args.json)
    sheet.add("own", described(demos.own(PUSHT)))
    sheet.add("human", described(formats.load(args.human, PUSHT)))

    progress = Progress("demonstrations", STARTS)
    started = time.process_time()
    made = []
    for seed in range(FIRST, FIRST + STARTS):
        stopping.safe_point()
        made.append(demonstrate(seed))
        progress.show(len(made))
    steps = [len(demonstration.actions) for demonstration in made if demonstration.solved]
    sheet.add("demonstrator", {"solved": len(steps), "n": STARTS, "median steps": np.median(steps),
                               "cpu": (time.process_time() - started) / STARTS})
    for samples, refine in ((24, 2), (48, 4)):
        orders = []
        for seed in range(FIRST, FIRST + FORKED):
            stopping.safe_point()
            runs = [demonstrate(seed, stream, samples, refine) for stream in range(RUNS)]
            orders.append(len({demonstration.faces for demonstration in runs}))
        sheet.add(f"orders, {samples} samples", np.mean(orders))


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("demonstrations", main, sys.argv[1:]))
