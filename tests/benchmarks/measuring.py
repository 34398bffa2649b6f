"""What the scripts of this folder share: a training, episodes, and a file of figures."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from minidiff import beyond, stopping  # noqa: E402
from minidiff.checkpoint import write_json  # noqa: E402
from minidiff.progress import Progress, say  # noqa: E402
from minidiff.scoring import rollout, scores  # noqa: E402
from minidiff.training import Trainer  # noqa: E402

FIRST = 300_000  # seed of the first episode; nothing was tuned on seeds from here on
TRAINING_SEEDS = range(3)


def trained(config, task, data, loss=None, init=None, name=""):
    """A Trainer whose training is over. loss: by default that of config.objective."""
    trainer = Trainer(config, task, data, loss or beyond.OBJECTIVES[config.objective].loss, init)
    progress = Progress(f"training {name or config.objective}, seed {config.seed}", config.steps)
    for mean in trainer:
        stopping.safe_point()
        progress.show(trainer.n, f"loss {mean:.4f}")
    return trainer


def played(policy, count, first=FIRST, **options):
    """`count` episodes, in this process. options: those of rollout.rollout."""
    progress = Progress("episodes", count)
    episodes = []
    for start in range(first, first + count, rollout.CHUNK):
        stopping.safe_point()
        seeds = range(start, min(start + rollout.CHUNK, first + count))
        episodes += rollout.rollout(policy, seeds, **options)
        progress.show(len(episodes))
    return episodes


class Sheet:
    """Figures by name, printed as they come and kept in a JSON file, if one is named."""

    def __init__(self, path):
        self.path = path
        self.figures = {}

    def add(self, name, figures):
        """figures: Episodes, or whatever JSON can hold."""
        if figures and isinstance(figures, list) and isinstance(figures[0], scores.Episode):
            say(f"{name}: {scores.sentence(scores.summary(figures))}")
            figures = {"episodes": [episode._asdict() for episode in figures]}
        else:
            say(f"{name}: {figures}")
        self.figures[name] = figures
        if self.path:
            write_json(self.path, self.figures)


def parser(script, doc):
    """A parser of a script's arguments, with --json."""
    made = stopping.Parser(prog=f"python tests/benchmarks/{script}.py", description=doc)
    made.add_argument("--json", metavar="FILE", help="keep the figures there, too")
    return made
