"""Compare two evaluations episode by episode: the differences B - A, with 95 % intervals.

    python eval.py runs/a --seed 300000 --json a.json
    python eval.py runs/b --seed 300000 --json b.json
    python -m minidiff.pusht compare a.json b.json

Episodes are paired by seed, so the difficulty of a start cancels out. So a difference shows with
fewer episodes than the intervals of A and B alone would need.
"""
import json
from pathlib import Path

from ... import stopping
from ...beyond.options import distinct, named
from ...scoring import scores


def read(path):
    """The Episodes in a file that eval.py --json wrote; ValueError for another file."""
    if not Path(path).exists() or Path(path).is_dir():
        raise FileNotFoundError(f"{path}: no such file: eval.py --json writes one")
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["episodes"]
        episodes = [scores.Episode(**row) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}: not a file that eval.py --json wrote") from None
    seeds = set()
    for number, episode in enumerate(episodes):
        problem = scores.wrong(episode)
        if problem is None and episode.seed in seeds:
            problem = f"seed {episode.seed} is there twice"
        if problem:
            raise ValueError(f"{path}: episode {number}: {problem}")
        seeds.add(episode.seed)
    return episodes


def sentence(a, b, difference):
    """What scores.compare returned, in words; a and b are the names of the two files."""
    low, high = difference["score_ci95"]
    said = (f"{b} compared with {a}, {difference['n']} episodes in both:\n"
            f"score {difference['score']:+.4f}, 95 % CI [{low:+.4f}, {high:+.4f}]")
    if difference["success"] is None:
        return said
    low, high = difference["success_ci95"]
    return (f"{said}\nsuccess {100 * difference['success']:+.1f} points, "
            f"95 % CI [{100 * low:+.1f}, {100 * high:+.1f}]   "
            f"(only {a} succeeds: {difference['only_a']}, only {b}: {difference['only_b']}; "
            f"exact McNemar p = {difference['p']:.3g})")


def main(arguments):
    parser = stopping.Parser(prog="python -m minidiff.pusht compare", description=__doc__)
    parser.add_argument("a", type=named, metavar="A.json", help="written by eval.py --json")
    parser.add_argument("b", type=named, metavar="B.json",
                        help="written by eval.py --json, the same seeds")
    args = parser.parse_args(arguments)
    distinct([args.a, args.b])
    difference = scores.compare(read(args.a), read(args.b))
    print(sentence(args.a, args.b, difference))
