"""The tables of RESULTS.md and README.md: the commands behind each, and what its cells say.

results.py runs the commands and writes the tables. Paths are those in its folder, runs/results.
"""
from minidiff import checkpoint
from minidiff.scoring import scores

import functools
import json
import math
import operator
import statistics

import numpy as np
from benchmarks import own_tasks
from benchmarks.errors import TIMESTEPS
from benchmarks.ladder import RUNGS
from benchmarks.measuring import FIRST
from benchmarks.results import FOLDER, Cell, Step, Table

DDIM = "--sampler ddim --sampler-steps 4"
HUMAN = "--demos human.npz"
SEEDS = range(3)


# ---- steps ---------------------------------------------------------------------------------------

def train(name, options="", after=(), seconds=14):
    return Step(f"{name}/policy.npz", f"python train.py {options} --score-episodes 0 --out {name}",
                after, seconds)


def run_of(step):
    return step.output.removesuffix("/policy.npz")


def score(run, options=DDIM, episodes=500, each=0.015, alone=False):
    """A sheet of a run's episodes. options: those of eval.py. each: CPU seconds of an episode."""
    words = f"{run_of(run)} {options} --episodes {episodes}"
    sheet = f"scores/{words.replace('--', '').replace(' ', '_')}.json"
    return Step(sheet, f"python eval.py {words} --seed {FIRST} --workers 1 --json {sheet}",
                (run,), episodes * each, alone)


def figures(script, arguments, name, after=(), seconds=60, alone=False):
    """A script of this folder and its file of figures."""
    return Step(f"{name}.json",
                f"python tests/benchmarks/{script}.py {arguments} --json {name}.json",
                after, seconds, alone)


def bound_of(run):
    name = f"likelihood/{run_of(run)}.json"
    return Step(name, f"python -m minidiff.pusht bound {run_of(run)} held-out.npz --json {name}",
                (run, HELD_OUT), 30)


def forks_of(runs, off):
    names = " ".join(map(run_of, runs))
    name = f"forks-{off}.json"
    return Step(name, f"python -m minidiff.pusht forks {names} --off {off} --json {name}",
                tuple(runs), 600)


def ladder(folder, options, seconds):
    return [Step(f"{folder}-{seed}/results-{seed}.json",
                 f"python tests/benchmarks/ladder.py {folder}-{seed} {options} --seeds {seed} "
                 "--episodes 300", (), seconds, resumes=True) for seed in SEEDS]


# ---- what a cell says ----------------------------------------------------------------------------

def rate(successes, n):
    """A share with its 95 % interval; where nothing failed, its lower end alone."""
    low, high = scores.clopper_pearson(successes, n)
    if successes == n:
        return f"{n:,} of {n:,}, ≥ {math.floor(1000 * low) / 10:.1f} %"
    digits = 2 if n >= 5000 else 1
    return f"{100 * successes / n:.{digits}f} % [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def episodes_of(sheets):
    return [episode for sheet in sheets for episode in sheet["episodes"]]


def success_of(episodes):
    return rate(sum(episode["success"] for episode in episodes), len(episodes))


def score_of(episodes, digits=3, score_range=(0.0, 1.0)):
    values = np.array([episode["score"] for episode in episodes])
    low, high = scores.mean_interval(values, score_range)
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def steps_of(episodes):
    solved = [episode["steps"] for episode in episodes if episode["success"]]
    return f"{statistics.median(solved):.0f}" if solved else "–"


def success(*steps):
    return Cell(steps, lambda *sheets: success_of(episodes_of(sheets)))


def mean_score(*steps):
    return Cell(steps, lambda *sheets: score_of(episodes_of(sheets)))


def median_steps(*steps):
    return Cell(steps, lambda *sheets: steps_of(episodes_of(sheets)))


def short(step, with_steps=False):
    """Success and score, and perhaps steps, in a few characters."""
    def text(sheet):
        shown = f"{100 * sheet['summary']['success']:.1f} %, {sheet['summary']['score']:.2f}"
        return shown + (f", {steps_of(sheet['episodes'])} steps" if with_steps else "")
    return Cell((step,), text)


def cpu(*scored):
    """CPU seconds of a training, the mean over those behind the score sheets."""
    def text(*sheets):
        seconds = [seconds_of(sheet) for sheet in sheets]
        return f"{statistics.mean(seconds):.0f}"
    return Cell(scored, text)


def seconds_of(sheet):
    _, meta = checkpoint.load(FOLDER / sheet["checkpoint"], [])
    return meta["cpu_seconds"]


def of(step, text):
    return Cell((step,), text)


def figure(sheet, keys):
    """What stands under these keys, one inside the other."""
    return functools.reduce(operator.getitem, keys, sheet)


def entry(step, form, *keys):
    return of(step, lambda sheet: form.format(figure(sheet, keys)))


def percent(step, *keys, digits=0):
    return of(step, lambda sheet: f"{100 * figure(sheet, keys):.{digits}f} %")


def played(step, name, what):
    """what(episodes) of the episodes that a script has kept under a name."""
    return of(step, lambda sheet: what(sheet[name]["episodes"]))


def of_seeds(steps, rung):
    """The mean over training seeds of the successes of a rung, with the lowest and the highest."""
    def text(*results):
        shares = [100 * np.mean([episode[0] for episode in result[rung]]) for result in results]
        if min(shares) == max(shares):
            return f"{shares[0]:.1f} %"
        return f"{np.mean(shares):.1f} % ({min(shares):.1f} .. {max(shares):.1f})"
    return Cell(tuple(steps), text)


def at_rest(steps, rung):
    """Of the failed episodes of all training seeds, those in which the agent came to rest."""
    def text(*results):
        failed = [episode for result in results for episode in result[rung] if not episode[0]]
        return f"{sum(episode[3] for episode in failed)} of {len(failed)}"
    return Cell(tuple(steps), text)


def pooled(steps, rung, what):
    """Of the ladder's results of all training seeds, as the episodes of a sheet."""
    def text(*results):
        return what([{"success": bool(solved), "score": score, "steps": steps}
                     for result in results for solved, score, steps, _ in result[rung]])
    return Cell(tuple(steps), text)


# ---- what several tables need --------------------------------------------------------------------

OWN = [train(f"own-{seed}", f"--seed {seed}") for seed in SEEDS]
PEOPLE = [train(f"human-{seed}", f"{HUMAN} --seed {seed}") for seed in SEEDS]
OWN_SHORT = train("own-short", "--steps 1300 --ema 0.995", seconds=5)
OWN_CONV = train("own-conv", "--net conv --steps 1500", seconds=50)
HUMAN_CONV = train("human-conv", f"{HUMAN} --net conv", seconds=110)
UNIFORM = [train(f"uniform-{seed}", f"--weight uniform --seed {seed}") for seed in SEEDS]
MSE = [train(f"mse-{seed}", f"--objective mse --seed {seed}") for seed in SEEDS]
NEXT = [train(f"next-{seed}", f"--objective mse --pred-horizon 1 --seed {seed}", seconds=8)
        for seed in SEEDS]
MIXTURE = [train(f"mixture-{seed}", f"--objective mixture --seed {seed}") for seed in SEEDS]
MIP = train("mip-0", "--objective mip")
HELD_OUT = Step("held-out.npz", "python -m minidiff.pusht collect --seed 8000 --episodes 200 "
                "--workers 1 --out held-out.npz", (), 60)
LADDER = {"own": ladder("ladder-own", "", 400),
          "human": ladder("ladder-human", HUMAN, 600),
          "wall": ladder("ladder-wall", "--wall", 300)}
DISTRACTED = {count: [Step(f"distractors-{count}/results-{SEEDS[-1]}.json",
                           f"python tests/benchmarks/distractors.py {count} distractors-{count}",
                           (), 150, resumes=True)] for count in (10, 100, 1000)}
FIDELITY = figures("fidelity", "ladder-own held-out.npz", "fidelity",
                   (HELD_OUT, *LADDER["own"]), 400)


# ---- how well does it do? ------------------------------------------------------------------------

def own():
    rows = []
    for label, run, many, fewer in [
            *[(f"{seed}", run, 10_000, 1000) for seed, run in enumerate(OWN)],
            ("0, 1,300 steps", OWN_SHORT, 1000, 1000),
            ("0, conv, 1,500 steps", OWN_CONV, 1000, None)]:
        ddim = score(run, episodes=many, each=0.05 if run is OWN_CONV else 0.012)
        ancestral = fewer and score(run, "--sampler ancestral", fewer, 0.15)
        rows.append([label, cpu(ddim), success(ddim), success(ancestral) if ancestral else "",
                     median_steps(ddim)])
    return Table(["training seed", "CPU s", "DDIM, 4 steps", "ancestral, 100 steps", "steps"], rows)


def human():
    rows = []
    for label, run, sampled in [
            *[(f"{seed}", run, True) for seed, run in enumerate(PEOPLE)],
            ("0, 10,000 steps", train("human-long", f"{HUMAN} --steps 10000", seconds=40), False),
            ("0, conv", HUMAN_CONV, False)]:
        ddim = score(run, each=0.1 if run is HUMAN_CONV else 0.025)
        ancestral = sampled and score(run, "--sampler ancestral", 500, 0.35)
        rows.append([label, cpu(ddim), success(ddim), mean_score(ddim),
                     success(ancestral) if ancestral else "", median_steps(ddim)])
    return Table(["training seed", "CPU s", "DDIM, 4 steps", "its score", "ancestral", "steps"],
                 rows)


def readme():
    own_ddim = [score(run, episodes=10_000, each=0.012) for run in OWN]
    own_ancestral = [score(run, "--sampler ancestral", 1000, 0.15) for run in OWN]
    people = [score(run, each=0.025) for run in PEOPLE]
    conv = score(HUMAN_CONV, each=0.1)
    rows = [[label, success(*sheets), mean_score(*sheets), cpu(*sheets)] for label, sheets in [
        ("minidiff, its own demonstrations, DDIM in 4 steps", own_ddim),
        ("the same, ancestral sampling in 100 steps", own_ancestral),
        ("minidiff, 206 human demonstrations, DDIM in 4 steps", people),
        ("the same, convolutional denoiser, one training seed", [conv])]]
    rows.append(["regression in place of diffusion, human demonstrations",
                 pooled(LADDER["human"], "regression", success_of),
                 pooled(LADDER["human"], "regression", score_of), ""])
    rows += [["Diffusion Policy, 1-D U-Net, checkpoints (Chi et al. 2023)", "not stated",
              "best 0.95, last ten 0.91", "on a GPU"],
             ["Diffusion Policy from images, LeRobot's training (its card)", rate(319, 500),
              "0.959", "7 h, GPU"],
             ["the same, the original code (the same card)", rate(321, 500), "0.957", ""]]
    return Table(["policy", "success [95 % CI]", "score [95 % CI]", "CPU s"], rows)


def parts():
    """One thing changed at a time, from human demonstrations, training seed 0."""
    rows = []
    for label, options, sampled in [
            ("the defaults", "", DDIM),
            ("the demonstrations as they are: `--no-relabel`", "--no-relabel", DDIM),
            ("all rows alike: `--finish 1`", "--finish 1", DDIM),
            ("two observations: `--obs-horizon 2`", "--obs-horizon 2", DDIM),
            ("plans of 4 actions: `--pred-horizon 4`", "--pred-horizon 4", DDIM),
            ("plans of 16 actions: `--pred-horizon 16`", "--pred-horizon 16", DDIM),
            ("λ(t) = 1: `--weight uniform`", "--weight uniform", DDIM),
            ("`eval.py --temperature 1`", "", f"{DDIM} --temperature 1"),
            ("ancestral sampling", "", "--sampler ancestral"),
            ("ancestral, `--temperature 1`", "", "--sampler ancestral --temperature 1")]:
        name = f"human{options.replace('--', '-').replace(' ', '-')}"
        run = train(name, f"{HUMAN} {options}") if options else PEOPLE[0]
        sheet = score(run, sampled, 500, 0.35 if "ancestral" in sampled else 0.025)
        rows.append([label, success(sheet), mean_score(sheet), median_steps(sheet)])
    return Table(["human demonstrations", "success", "score", "steps"], rows)


def horizon():
    """How many actions of a plan are carried out."""
    rows = []
    for count in (1, 2, 4, 8):
        options = f"{DDIM} --action-horizon {count}"
        sheets = [score(run, options, 500, 0.06 / count) for run in (OWN[0], PEOPLE[0])]
        rows.append([f"{count} of 8"] + [cell(sheet) for sheet in sheets
                                         for cell in (success, median_steps)])
    return Table(["actions carried out", "own", "steps", "human", "steps"], rows)


# ---- why does diffusion beat regression? ---------------------------------------------------------

RUNG_ROWS = {
    "**one plan for each observation**": None,
    "regression, `--objective mse`": "regression",
    "the same, noise on the features in training": "regression, noise on features in training",
    "MIP, `--objective mip`": "MIP",
    "DDIM in 1 step": "DDIM, 1 step",
    "DDIM in 4 steps from x_T = 0": "DDIM, 4 steps, x 0",
    "the mixture's likeliest component": "mixture, the likeliest component",
    "**a draw at each decision**": None,
    "regression, 1 px of noise on what it observes": "regression, 1 px noise on observations",
    "regression, 2 px": "regression, 2 px noise on observations",
    "regression, 1 px of noise on each action": "regression, 1 px noise on actions",
    "regression, 4 px": "regression, 4 px noise on actions",
    "MIP, noise between its steps, `--spread 1`": "MIP, noise at test",
    "one Gaussian around regression": "Gaussian",
    "the same, noise × 0.5": "Gaussian, x 0.5",
    "the same, noise × 0.25": "Gaussian, x 0.25",
    "mixture of five Gaussians: the mean of one": "mixture",
    "DDIM in 2 steps": "DDIM, 2 steps",
    "DDIM in 3 steps": "DDIM, 3 steps",
    "DDIM in 4 steps": "DDIM, 4 steps",
    "DDIM in 16 steps": "DDIM, 16 steps",
    "DDIM in all T steps": "DDIM, all steps",
    "ancestral sampling, T steps": "ancestral",
    "DDIM in 4 steps, noise × 0.5": "DDIM, 4 steps, x 0.5",
    "DDIM in 4 steps, noise × 0.25": "DDIM, 4 steps, x 0.25",
    "**noise drawn once an episode**": None,
    "one Gaussian, kept for the episode": "Gaussian, kept",
    "one Gaussian, noise × 0.5, kept": "Gaussian, x 0.5, kept",
    "one Gaussian, noise × 0.25, kept": "Gaussian, x 0.25, kept",
    "DDIM in 4 steps, kept": "DDIM, 4 steps, kept",
    "DDIM in 4 steps, noise × 0.5, kept": "DDIM, 4 steps, x 0.5, kept",
    "DDIM in 4 steps, noise × 0.25, kept": "DDIM, 4 steps, x 0.25, kept",
    "DDIM in 4 steps, one x_T for all episodes": "DDIM, 4 steps, one x_T for all"}


def rungs(cell, settings):
    rows = []
    for label, rung in RUNG_ROWS.items():
        if rung is None:
            rows.append([label] + [""] * len(settings))
            continue
        rows.append([label] + ["" if name == "wall" and RUNGS[rung].obs_noise
                               else cell(LADDER[name], rung) for name in settings])
    return Table(["", *settings], rows)


def resting():
    """Without the rungs on which nothing rests: those with a draw, but for two of them."""
    table = rungs(at_rest, ["own", "human"])
    labels = list(RUNG_ROWS)
    drawn = range(labels.index("**a draw at each decision**") + 1,
                  labels.index("**noise drawn once an episode**"))
    kept = ("regression, 1 px of noise on each action", "DDIM in 4 steps")
    return table._replace(rows=[row for k, row in enumerate(table.rows)
                                if k not in drawn or row[0] in kept])


def moves():
    """How far plans lead at resting and at ordinary states."""
    rows = []
    for kind in ("resting", "ordinary"):
        for name in ("the demonstrator", "DDIM, 4 steps", "regression"):
            key = f"{kind}: {name}"
            rows.append([f"{kind} states: {name}", entry(FIDELITY, "{:.1f}", key, "each"),
                         entry(FIDELITY, "{:.1f}", key, "mean")])
    return Table(["fourth action of a plan, px from the agent", "mean distance of one",
                  "distance of their mean"], rows)


def fidelity():
    def distance(sheet, name):
        values = sheet[name]["distance"]
        ends = f" ({min(values):.1f} .. {max(values):.1f})" if len(values) > 1 else ""
        return f"{np.mean(values):.1f}{ends}"

    names = ["the demonstrator again", "regression", "MIP", "Gaussian", "mixture", "DDIM, 1 step",
             "DDIM, 2 steps", "DDIM, 3 steps", "DDIM, 4 steps", "DDIM, 4 steps, x 0.5",
             "DDIM, all steps", "ancestral"]
    rows = [[name, of(FIDELITY, functools.partial(distance, name=name)),
             entry(FIDELITY, "{:.1f}", name, "spread")] for name in names]
    return Table(["plans of", "energy distance, px", "spread, px"], rows)


def density():
    rows = []
    for label, runs, key in [
            ("diffusion, λ(t) = 1/ᾱ_t: exact, along the probability-flow ODE", OWN, "exact"),
            ("diffusion, λ(t) = 1: exact", UNIFORM, "exact"),
            ("λ(t) = 1/ᾱ_t: variational bound, variance β", OWN, "bound"),
            ("λ(t) = 1: variational bound, variance β", UNIFORM, "bound"),
            ("one Gaussian around regression, full covariance", MSE, "exact"),
            ("mixture of five Gaussians, isotropic", MIXTURE, "exact")]:
        cells = Cell(tuple(map(bound_of, runs)), lambda *sheets, key=key: ", ".join(
            f"{sheet[key]:.3f}" for sheet in sheets))
        rows.append([label, cells])
    return Table(["-log p, nats for each number of a plan", "training seeds 0, 1, 2"], rows)


PLAIN_UNIFORM = "--no-precondition --weight uniform"
AT_FORKS = Step("at-forks.npz", "python tests/benchmarks/at_forks.py at-forks.npz", (), 100)
SHIPPED = "../../minidiff/pusht/expert.npz"
FORKED = {
    "diffusion, training seed 0": OWN[0], "seed 1": OWN[1], "seed 2": OWN[2],
    "λ(t) = 1, training seed 0": UNIFORM[0], "λ(t) = 1, seed 1": UNIFORM[1],
    "λ(t) = 1, seed 2": UNIFORM[2],
    "10,000 steps": train("own-long", "--steps 10000", seconds=35),
    "`--obs-horizon 2`": train("own-obs-2", "--obs-horizon 2"),
    "`--net conv`, 1,500 steps": OWN_CONV,
    "with demonstrations of forks": train("own-at-forks", f"--demos {SHIPPED} at-forks.npz",
                                          (AT_FORKS,)),
    "mixture": MIXTURE[0], "regression": MSE[0], "MIP": MIP}
FORKS = [forks_of(FORKED.values(), off) for off in (0, 5)]


def forks():
    def sides(sheet, name):
        figures = sheet[name]
        return " / ".join(f"{100 * figures[side]:.0f}" for side in ("left", "between", "right"))

    def points(sheet, name):
        return f"{100 * sheet[name]['difference']:.0f}"

    rows = []
    names = {"the demonstrator": "the demonstrator again"}
    names |= {label: run_of(run) for label, run in FORKED.items()}
    for label, name in names.items():
        row = [label]
        for step in FORKS:
            row += [of(step, functools.partial(sides, name=name)), percent(step, name, "both"),
                    of(step, functools.partial(points, name=name))]
        rows.append(row)
    return Table(["", "on the axis", "both ways", "error", "5 px right", "both ways", "error"],
                 rows)


# ---- what holds of the paper's claims? -----------------------------------------------------------

def chunks():
    rows = []
    for length in (4, 8, 16, 32, 64):
        cells = []
        for objective, options in (("mse", ""), ("simple", f"{DDIM} --temperature 1")):
            sheets = []
            for seed in SEEDS:
                run = train(f"{objective}-of-{length}-{seed}", f"--objective {objective} "
                            f"--pred-horizon {length} --seed {seed}", seconds=12 + length / 3)
                sheets.append(score(run, options, 300))
            cells.append(success(*sheets))
        rows.append([f"{length} ({2 * length})", *cells])
    return Table(["actions of a plan (numbers)", "regression", "DDIM, 4 steps"], rows)


def distractors():
    return Table(["useless features", "regression", "DDIM, 4 steps"], [
        [f"{count:,}"] + [of_distracted(steps[0], rung) for rung in ("regression", "DDIM, 4 steps")]
        for count, steps in DISTRACTED.items()])


def of_distracted(step, rung):
    """The last training seed's step stands for all: the script makes their files, too."""
    def text(_):
        folder = (FOLDER / step.output).parent
        results = [json.loads((folder / f"results-{seed}.json").read_text()) for seed in SEEDS]
        return of_seeds((), rung).text(*results)
    return Cell((step,), text)


def stability():
    rows = []
    for rate_text, rate_options in (("5e-3, the default", ""), ("1e-2, twice that", "--lr 1e-2")):
        sheets = []
        for seed in range(20):
            name = f"own-{seed}" if not rate_options else f"own-lr-{seed}"
            run = train(name, f"{rate_options} --seed {seed}".strip())
            sheets.append(score(run, f"{DDIM} --temperature 1", 300))
        rows.append([rate_text, Cell(tuple(sheets), worst_and_best), success(*sheets)])
    return Table(["learning rate", "of 20 training seeds, the worst and the best", "all"], rows)


def worst_and_best(*sheets):
    shares = [100 * sheet["summary"]["success"] for sheet in sheets]
    return f"{min(shares):.1f} .. {max(shares):.1f} %"


def pauses():
    rows = []
    files = [Step(f"{name}.npz", f"python tests/benchmarks/pauses.py {name}.npz {count}", (), 60)
             for name, count in (("as-before", 0), ("paused", 2))]
    for label, name, options, sampling in [
            ("diffusion, DDIM in 4 steps", "", "", DDIM),
            ("regression to the chunk", "-mse", "--objective mse", ""),
            ("regression to the next action", "-next", "--objective mse --pred-horizon 1", "")]:
        row = [label]
        for file in files:
            demos = file.output.removesuffix(".npz")
            run = train(f"{demos}{name}", f"--demos {file.output} {options}".strip(), (file,))
            row.append(success(score(run, sampling)))
        rows.append(row)
    return Table(["1,100 demonstrations, training seed 0", "without pauses", "with pauses"], rows)


def next_action():
    return Table(["regression, `--objective mse`", "success", "steps"], [
        [label, success(*sheets), median_steps(*sheets)] for label, sheets in [
            ("to the chunk of 8 actions", [score(run, "") for run in MSE]),
            ("to the next action, `--pred-horizon 1`", [score(run, "") for run in NEXT])]])


# ---- what makes it work? -------------------------------------------------------------------------

def frames():
    step = figures("frames", "", "frames", seconds=60)
    labels = {"world": "of the world", "turned": "of the T",
              "mirrored": "of the T, the agent always on its right: the default"}
    rows = [[label] + [played(step, name, what) for what in (success_of, score_of, steps_of)]
            for name, label in labels.items()]
    return Table(["axes of plans and features", "success", "score", "steps"], rows)


def weights():
    rows = []
    for label, how, run in [
            ("1/ᾱ_t", "preconditioned: the default", OWN[0]),
            ("1, the simple loss of Ho et al.", "preconditioned", UNIFORM[0]),
            ("min-SNR", "preconditioned", train("min-snr", "--weight min-snr")),
            ("1/ᾱ_t", "without", train("plain", "--no-precondition")),
            ("1", "without", train("plain-uniform", PLAIN_UNIFORM))]:
        sheets = (score(run, episodes=500), score(run, "--sampler ancestral", 200, 0.2))
        rows.append([label, how, *map(short, sheets)])
    return Table(["λ(t)", "", "DDIM, 4 steps", "ancestral"], rows)


def errors_of_own():
    return figures("errors", "own-0 held-out.npz", "errors", (OWN[0], HELD_OUT), 5)


def errors():
    step = errors_of_own()
    rows = []
    for t in map(str, TIMESTEPS):
        row = [entry(step, "{:.3f}", t, name) for name in ("variance of v", "v", "eps", "x_0")]
        rows.append([t, *row, percent(step, t, "clipped", digits=3)])
    return Table(["t", "variance of v", "error of v", "of ε", "of x_0", "x_0 beyond the bound"],
                 rows)


def clipping():
    rows = []
    for clip in ("1", "2", "4", "100"):
        row = [f"{clip}, the default" if clip == "4" else clip]
        for name, options in (("own", ""), ("plain-uniform", PLAIN_UNIFORM)):
            run = train(f"{name}-clip-{clip}", f"{options} --clip {clip}".strip())
            row.append(short(score(run)))
        rows.append(row)
    step = errors_of_own()
    return Table(["`--clip`", "preconditioned", "without preconditioning, λ(t) = 1"], [
        *rows, ["largest number demonstrated", entry(step, "{:.2f}", "largest"), ""]])


# ---- which sampler? ------------------------------------------------------------------------------

def samplers():
    rows = []
    for label, options, calls, count, each in [
            ("ancestral, eq. 14", "ancestral", 100, 1000, 0.15),
            ("the same at temperature 1", "ancestral --temperature 1", 100, 200, 0.15),
            ("DDIM", "ddim --sampler-steps 4", 4, 10_000, 0.012),
            ("the same at temperature 1", "ddim --sampler-steps 4 --temperature 1", 4, 300, 0.015),
            ("probability-flow ODE, Heun", "flow", 15, 200, 0.05),
            ("reverse SDE, Euler–Maruyama", "sde", 100, 200, 0.15),
            ("annealed Langevin", "langevin", 201, 200, 0.3),
            ("predictor–corrector", "pc", 199, 200, 0.3)]:
        sheet = score(OWN[0], f"--sampler {options}", count, each)
        rows.append([label, f"`{options.removesuffix(' --temperature 1')}`", str(calls),
                     success(sheet), median_steps(sheet)])
    return Table(["sampler", "`--sampler`", "calls", "success", "steps"], rows)


def objectives():
    rows = []
    for label, run in [("simple, variance β̃", OWN[0]),
                       ("hybrid, learned variance", train("hybrid", "--objective hybrid")),
                       ("bound, learned variance", train("bound", "--objective bound"))]:
        nats = bound_of(run)
        sheets = (score(run, "--sampler ancestral", 200, 0.2), score(run, episodes=500))
        rows.append([label, entry(nats, "{:.3f}", "bound"), entry(nats, "{:.3f}", "exact"),
                     *map(short, sheets)])
    return Table(["objective", "bound", "exact", "ancestral", "DDIM, 4 steps"], rows)


def classifier_free():
    run = train("drop-cond", "--drop-cond 0.1")
    sheets = [(w, score(run, f"{DDIM} --guidance {w}", 300, 0.03)) for w in ("0", "0.5", "1", "2")]
    return Table(["`--guidance`", "success", "steps"], [
        [w, success(sheet), median_steps(sheet)] for w, sheet in sheets])


# ---- what if the world is disturbed? -------------------------------------------------------------

DISTURBANCES = {
    "nothing": "", "the block: 50 px and 45°": "--kick-block 50 45",
    "the block: 100 px and 90°": "--kick-block 100 90", "the agent: 150 px": "--kick-agent 150",
    "observation noise of 2 px": "--obs-noise 2", "observation noise of 4 px": "--obs-noise 4",
    "observation noise of 8 px": "--obs-noise 8",
    "action latency of 2 steps": "--action-latency 2",
    "action latency of 4 steps": "--action-latency 4",
    "action latency of 8 steps": "--action-latency 8"}


def disturbed():
    rows = []
    for label, options in DISTURBANCES.items():
        row = [label]
        for run, sampling in ((OWN[0], DDIM), (MIXTURE[0], ""), (MSE[0], ""), (NEXT[0], "")):
            row.append(short(score(run, f"{sampling} {options}".strip(), 300, 0.04)))
        rows.append(row)
    return Table(["what goes wrong", "diffusion", "mixture", "regression", "to the next action"],
                 rows)


def estimated():
    rows = []
    for label, options in list(DISTURBANCES.items())[4:] + [
            ("4 px and 2 steps together", "--obs-noise 4 --action-latency 2")]:
        px = options.split()[1] if "noise" in options else "0"
        plain, with_filter = (score(OWN[0], f"{DDIM} {options}{more}", 300, each)
                              for more, each in (("", 0.04), (f" --estimate {px}", 0.08)))
        rows.append([label, short(plain), short(with_filter)])
    return Table(["diffusion", "as it is", "the state estimated, `--estimate`"], rows)


def queues():
    rows = []
    for latency in (2, 4):
        sheets = [score(OWN[0], f"{DDIM} --action-latency {latency} --queue {queue}", 300, 0.05)
                  for queue in ("ignore", "skip", "hold")]
        rows.append([f"{latency} steps", *[short(sheet, with_steps=True) for sheet in sheets]])
    return Table(["latency", "`--queue ignore`, the default", "`skip`", "`hold`"], rows)


def outside():
    step = figures("outside", "", "outside", seconds=60)
    return Table(["farthest corner beyond the middle of the wall", "success"], [
        [px, played(step, px, success_of)]
        for px in (f"{distance} px" for distance in (0, 10, 20, 30, 40, 60))])


# ---- what does a simulator add? ------------------------------------------------------------------

def candidates():
    rows = []
    for label, run, options, count, alone in [
            ("diffusion", OWN[0], f"{DDIM} --candidates 16", 200, False),
            ("the same, `--budget-ms 10`", OWN[0], f"{DDIM} --budget-ms 10", 100, True),
            ("the same, `--budget-ms 30`", OWN[0], f"{DDIM} --budget-ms 30", 100, True),
            ("diffusion, human demonstrations", PEOPLE[0], f"{DDIM} --candidates 16", 200, False),
            ("mixture", MIXTURE[0], "--candidates 16", 200, False),
            ("regression and noise, `--spread 0.5`", MSE[0], "--spread 0.5 --candidates 16", 200,
             False),
            ("lines at random, `--sampler shooting`", OWN[0],
             "--sampler shooting --candidates 16", 30, False)]:
        sheet = score(run, options, count, 0.6, alone)
        rows.append([label, entry(sheet, "{:.0f}", "summary", "candidates"),
                     entry(sheet, "{:.0f}", "summary", "decision_ms"), success(sheet),
                     median_steps(sheet)])
    return Table(["plans from", "plans", "ms a decision", "success", "steps"], rows)


# ---- what do more, or other, demonstrations do? --------------------------------------------------

def fine_tuned():
    step = figures("fine_tuning", "human.npz", "fine-tuning", seconds=500)
    labels = {"shipped": "shipped: 1,900 demonstrations of minidiff",
              "20 human on top of it": "20 human ones on top of it",
              "20 human alone": "20 human ones alone", "206 human": "206 human ones",
              "20 of minidiff on top of them": "20 of minidiff on top of them",
              "20 of minidiff alone": "20 of minidiff alone"}
    rows = []
    for k, (name, label) in enumerate(labels.items()):
        nats = entry(step, "{:.2f}", f"nats: {name}") if k < 3 else ""
        rows.append([label, played(step, name, success_of), played(step, name, score_of), nats])
    return Table(["policy", "success", "score", "-log p"], rows)


def idle():
    rows = []
    for label, name, options in [("all rows", "human", ""),
                                 ("without idle rows, `--drop-idle`", "human-moving",
                                  "--drop-idle")]:
        runs = [train(f"{name}-{seed}", f"{HUMAN} {options} --seed {seed}".replace("  ", " "))
                for seed in range(4)]
        sheets = [score(run, each=0.025) for run in runs]
        rows.append([label, success(*sheets), mean_score(*sheets)])
    return Table(["four training seeds", "success", "score"], rows)


def demonstrations():
    step = figures("demonstrations", "human.npz", "demonstrations", seconds=150)

    def shown(form, key):
        return [entry(step, form, name, key) for name in ("own", "human")]

    def solved(sheet):
        return rate(sheet["demonstrator"]["solved"], sheet["demonstrator"]["n"])

    def share(key, digits=0):
        return [percent(step, name, key, digits=digits) for name in ("own", "human")]

    return Table(["demonstrations", "own", "human"], [
        ["episodes", *shown("{:,}", "episodes")], ["steps", *shown("{:,}", "steps")],
        ["steps of an episode, mean", *shown("{:.0f}", "mean steps")],
        ["steps of an episode, median", *shown("{:.0f}", "median steps")],
        ["idle rows", *share("idle", 1)],
        ["coverage at the last state, median", *share("last coverage")],
        ["fresh starts that the demonstrator solves", of(step, solved), ""],
        ["its steps, median", entry(step, "{:.0f}", "demonstrator", "median steps"), ""],
        ["CPU s of an episode", entry(step, "{:.2f}", "demonstrator", "cpu"), ""],
        ["orders of faces in ten runs, 24 samples",
         entry(step, "{:.1f} of 10", "orders, 24 samples"), ""],
        ["the same, `--samples 48 --refine 4`",
         entry(step, "{:.1f} of 10", "orders, 48 samples"), ""]])


# ---- does it work on other tasks? ----------------------------------------------------------------

def tasks():
    def shown(episodes):
        if episodes[0]["success"] is None:
            return score_of(episodes, 0, None)
        return success_of(episodes)

    rows = []
    for name in own_tasks.NAMES:
        path = f"tests/benchmarks/tasks/{name}.py"
        step = figures("own_tasks", name, f"task-{name}", seconds=200)._replace(loads=(path,))
        rows.append([f"[{name}](../../{path})"] + [
            played(step, column, shown)
            for column in ("demonstrator", *own_tasks.COLUMNS)])
    return Table(["task", "demonstrator", *own_tasks.COLUMNS], rows)


# ---- how fast is it? -----------------------------------------------------------------------------

def speed():
    step = figures("against_torch", "", "speed", seconds=200, alone=True)
    rows = []
    for net in ("mlp", "conv"):
        for what in ("training step", "training step, its matrix products",
                     "plan by 100 steps, batch 1", "plan by 100 steps, batch 50"):
            key = f"{net}: {what}"
            rows.append([key, entry(step, "{:.1f}", key, "minidiff"),
                         entry(step, "{:.1f}", key, "PyTorch"),
                         entry(step, "{:.2f}", key, "ratio")])
    return Table(["MLP of 256 x 3, conv of 64 x 3", "minidiff, ms", "the other, ms", "ratio"], rows)


TABLES = {
    "readme": readme(), "own": own(), "human": human(), "parts": parts(), "horizon": horizon(),
    "ladder": rungs(of_seeds, ["own", "human", "wall"]), "resting": resting(), "moves": moves(),
    "fidelity": fidelity(), "density": density(), "forks": forks(), "chunks": chunks(),
    "distractors": distractors(), "stability": stability(), "pauses": pauses(),
    "next-action": next_action(), "frames": frames(), "weights": weights(), "errors": errors(),
    "clipping": clipping(),
    "samplers": samplers(), "objectives": objectives(), "guidance": classifier_free(),
    "disturbed": disturbed(), "estimated": estimated(), "queues": queues(), "outside": outside(),
    "candidates": candidates(), "demonstrations": demonstrations(),
    "fine-tuning": fine_tuned(), "idle": idle(), "tasks": tasks(),
    "speed": speed()}
