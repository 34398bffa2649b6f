"""Train a diffusion policy on demonstrations, on a CPU, in half a minute.

    python train.py                                 the main job: train, score the policy, draw
    python train.py --demos FILE ...                learn from other demonstrations
    python train.py --net conv                      the convolutional denoiser instead of the MLP
    python train.py --task minidiff/wall.py         another task: your own file, or Pendulum-v1, ..
    python train.py --resume runs/pusht-mlp-0       continue a stopped run, to the same weights
    python train.py --resume runs/pusht-mlp-0 --steps 7000        make a run longer
    python train.py --init runs/pusht-mlp-0 --demos FILE          fine-tune the weights of a run

Each run has a folder: config.json, checkpoint.npz (all that --resume needs), policy.npz (all that
eval.py needs: the averaged weights), log.csv (a row for each hundredth of the run and for each
score), scores.json, and the pictures loss.png and rollouts.png.
"""
import signal

if __name__ == "__main__":  # until there is work to save, Ctrl-C ends the program at once
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import minidiff  # first: it decides how many threads NumPy's BLAS takes  # noqa: F401
from minidiff import beyond, checkpoint, demos, folders, policy, stopping
from minidiff.beyond import OBJECTIVES, bind, config_of, formats, options, tasks
from minidiff.optim import learning_rate
from minidiff.progress import Progress, Table, say
from minidiff.pusht.features import PUSHT
from minidiff.pusht.view import charts, films
from minidiff.scoring import rollout, scores
from minidiff.training import NETWORK, QUARTERS, STATE, Config, Diverged, Trainer, flag

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path

import numpy as np

CLIPPED = 0.01  # there is a warning if a larger share of the actions' numbers exceeds --clip
SCORE_SEED = 5000  # the first of the seeds for tuning; demonstrations start from seeds below 3000
COLUMNS = ("step", "loss", "learning rate", "CPU seconds",
           *(f"loss in quarter {q} of the chain" for q in range(1, QUARTERS + 1)),
           "score", "success")


def main():
    args, task, config = parse_arguments()
    np.seterr(over="ignore", invalid="ignore")  # a loss that is not finite raises Diverged
    with held_folder(args, task, config) as folder:
        work(args, task, config, folder)


def held_folder(args, task, config):
    """A context manager that gives the run's folder, locked against other processes."""
    if args.resume:
        if not Path(args.resume).is_dir():
            raise FileNotFoundError(f"{args.resume}: there is no such folder of a run")
        return folders.hold(args.resume)
    if args.out:
        return folders.hold_new(args.out)
    return folders.hold_next(f"runs/{task.name}-{config.net}-{config.seed}")


def work(args, task, config, folder):
    """The whole job, in the run's folder."""
    notes = {"demos": args.demos, "drop_idle": args.drop_idle, "init": args.init}
    saved, start = None, args.init
    if args.resume:
        saved = policy.read(folder / "checkpoint.npz", STATE)
        notes, config = resumed(folder, task, saved[1], args.steps)
        start = folder if notes["init"] else None  # fine-tuned: with the Normaliser of --init
    init = beyond.load(start, task)[0] if start else None
    data, idle = demonstrations(task, notes)
    trainer = prepared(config, task, data, init)
    *_, quickest = samplers(config).values()
    untrained = policy.from_trainer(trainer, quickest)
    if saved:
        try:
            trainer.restore(*saved)
        except ValueError as error:
            which = ", ".join(notes["demos"]) or f"the demonstrations of the task '{task.name}'"
            raise ValueError(f"{folder}, with {which}: {error}") from None
    if not task.make_env:
        args.score_episodes = args.score_every = 0
        say(f"the task '{task.name}' has no make_env, so its policies are not scored")
    if args.score_every or args.score_episodes and task is not PUSHT:
        try_world(untrained)
    about = {"task": task.name, **notes, **dataclasses.asdict(config)}
    checkpoint.write_json(folder / "config.json", about)
    say(f"{len(data.episode_ends):,} demonstrations, {len(trainer.x0):,} windows ({idle}); "
        f"{config.net} with {trainer.net.theta.size:,} parameters; {config.steps:,} steps; "
        f"into {folder}/")
    if trainer.clipped() > CLIPPED:
        say(f"warning: {trainer.clipped():.1%} of the numbers in the actions exceed --clip "
            f"{config.clip:g} standard deviations and are cut to it: try a larger --clip")
    if trainer.n == config.steps:
        say(f"this run is finished; to make it longer: {again(args, folder)} "
            f"--steps {2 * config.steps}")

    train(trainer, folder, notes, args)
    seconds = trainer.cpu_seconds()
    say(f"trained in {seconds:.0f} CPU seconds ({1000 * seconds / config.steps:.1f} ms a step); "
        f"weights in {folder / 'checkpoint.npz'}")
    try:
        if args.score_episodes:
            score(trainer, folder, args)
        charts.loss(folder / "loss.png", trainer)
        say(f"picture: {folder / 'loss.png'}")
        if args.score_episodes:
            draw(folder / "rollouts.png", untrained, policy.from_trainer(trainer, quickest),
                 min(3, args.score_episodes))
    except RuntimeError as error:  # pymunk or pygame is missing
        say(f"no scores or no pictures: {error}")
    run = shlex.quote(str(folder))
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    say(f"the run takes {size:.1f} MB; to delete it: "
        f"{'rm -r' if os.name == 'posix' else 'rmdir /s'} {run}")
    if task.make_env:
        say(f"next: python eval.py {run}{named_task(args)} --episodes 500 --seed 300000    "
            "(eval.py --help lists faster samplers)")
    if task is PUSHT:
        say(f"watch it plan: python -m minidiff.pusht watch {run}")


def prepared(config, task, data, init):
    """The Trainer. An error in the task's own functions becomes a ValueError that says so."""
    loss = OBJECTIVES[config.objective].loss
    if task is PUSHT:
        return Trainer(config, task, data, loss, init)
    try:
        return Trainer(config, task, data, loss, init)
    except Exception as error:
        other = " or the weights of --init" if init else ""
        raise ValueError(f"the features or the frame of the task '{task.name}' do not fit its "
                         f"demonstrations{other}: {stopping.located(error)}") from error


def demonstrations(task, notes):
    """The Demos to learn from, and a phrase on the idle rows in them."""
    there = callable(task.demos) or task.demos and Path(task.demos).exists()
    data = own = demos.own(task) if there or not notes["demos"] else None
    if notes["demos"]:
        data = demos.join([formats.load(file, task, own) for file in notes["demos"]])
    idle = f"{formats.idle(data).mean():.1%} of the rows are idle"
    if notes["drop_idle"]:
        return formats.without_idle(data), f"{idle} and left out"
    return data, idle


def resumed(folder, task, meta, steps):
    """What a saved run was made from, by name, and its Config. ValueError if its meta is damaged.

    steps: a new number of steps, None to keep that of the run.
    """
    if meta.get("task") != task.name:
        raise ValueError(f"{folder}: a run of the task '{meta.get('task')}', not of '{task.name}': "
                         "name its --task")
    files = meta.get("demos")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise ValueError(f"{folder}: the names of its demonstrations are damaged")
    notes = {"demos": files, "drop_idle": meta.get("drop_idle") is True,
             "init": str(meta["init"]) if meta.get("init") else None}
    config = config_of(folder, meta)
    if steps is None:
        return notes, config
    if type(meta.get("update")) is int and steps < meta["update"]:
        raise ValueError(f"--steps {steps}: {folder} has done {meta['update']} steps already")
    return notes, dataclasses.replace(config, steps=steps)


def try_world(untrained):
    """Two decisions in the task's world, so that its errors show now, not after the training."""
    task = untrained.task._replace(max_steps=untrained.action_horizon + 1)
    rollout.rollout(dataclasses.replace(untrained, task=task), [SCORE_SEED])


def train(trainer, folder, notes, args):
    """All gradient steps. The run is saved at intervals, at the end, and when a signal comes."""
    def save():
        policy.save(folder / "checkpoint.npz", trainer, resumable=True, **notes)

    config = trainer.config
    progress = Progress("training", config.steps, trainer.n)
    log = Table(folder / "log.csv", COLUMNS, trainer.n)
    hundredth = max(1, config.steps // 100)
    try:
        for _ in trainer:
            progress.show(trainer.n, f"loss {trainer.losses[:trainer.n][-100:].mean():.5f}")
            scored = (None, None)
            if args.score_every and trainer.n % args.score_every == 0:
                save()  # the world may fail
                scored = score_now(trainer, args.score_episodes)
            if trainer.n % hundredth == 0 or scored[0] is not None:
                log.add(*figures(trainer, hundredth), *scored)
            if trainer.n % args.save_every == 0:
                save()
            if stopping.asked():
                break
        save()
    except Diverged as error:
        kept = "nothing was saved yet"
        if folders.holds_run(folder):
            kept = f"the last good checkpoint is kept in {folder / 'checkpoint.npz'}"
        sys.exit(f"\n{error}; {kept}. "
                 f"Try a smaller learning rate: --lr {config.lr / 3:.0e}")
    if trainer.n == config.steps:
        policy.save(folder / "policy.npz", trainer)
    if stopping.asked():
        raise stopping.Stopped(f"stopped at step {trainer.n} and saved; go on with: "
                               f"{again(args, folder)}")


def figures(trainer, count):
    """A row of log.csv, up to the scores; the loss is the mean of the last `count` steps."""
    n, config = trainer.n, trainer.config
    by_t = trainer.loss_by_t[(n - 1) * len(trainer.loss_by_t) // config.steps]
    rate = learning_rate(n - 1, config.steps, config.lr, config.warmup)
    return n, trainer.losses[max(0, n - count):n].mean(), rate, trainer.cpu_seconds(), *by_t


def score_now(trainer, episodes):
    """Score and success during the training, by the quickest sampler; None if incomplete."""
    name, quickest = list(samplers(trainer.config).items())[-1]
    summary = seen_from(policy.from_trainer(trainer, quickest), name, episodes)
    if "incomplete" in summary:
        return None, None
    say(f"step {trainer.n}: {scores.sentence(summary)}")
    return summary["score"], summary["success"]


def seen_from(player, name, episodes):
    """The summary of that many episodes from SCORE_SEED on. name: of the sampler."""
    return rollout.score(player, range(SCORE_SEED, SCORE_SEED + episodes), name)


def samplers(config):
    """The samplers that score a policy, by name; the last is the quickest."""
    fitting = OBJECTIVES[config.objective].samplers
    if "ddim" not in fitting:
        return {fitting[0]: bind(fitting[0])}
    return {"ancestral": bind("ancestral"), "ddim": bind("ddim", steps=min(4, config.T))}


def score(trainer, folder, args):
    """Score the trained policy with each of its samplers, on seeds for tuning."""
    summaries = {}
    for name, sampler in samplers(trainer.config).items():
        planner = policy.from_trainer(trainer, sampler)
        summary = seen_from(planner, name, args.score_episodes)
        summaries[name] = summary
        checkpoint.write_json(folder / "scores.json", summaries)
        say(f"{name + ':':10} {scores.sentence(summary)}")
        if "incomplete" in summary:
            sentence = (f"incomplete, {summary['incomplete']}; the run itself is complete, and "
                        f"this scores it again: {again(args, folder)}")
            stopping.safe_point(sentence)
            raise ChildProcessError(sentence)


def draw(path, untrained, trained, episodes):
    """Film strips of the first episodes, with the policy before and after its training."""
    seeds = range(SCORE_SEED, SCORE_SEED + episodes)
    if trained.task is PUSHT:
        films.film(path, trained, seeds, before=untrained)
    else:
        env = trained.task.make_env()
        if not (hasattr(env, "render") and getattr(env, "render_mode", "any")):
            return say("no film: the task's world has no render(), or its render_mode is None")
        films.rendered(path, untrained, trained, seeds)
    say(f"picture: {path} (before and after training)")


def again(args, folder):
    """The command that continues this run."""
    more = named_task(args)
    for name, default in (("score_every", 0), ("score_episodes", 50), ("save_every", 1000)):
        if getattr(args, name) != default:
            more += f" {flag(name)} {getattr(args, name)}"
    return f"python train.py --resume {shlex.quote(str(folder))}{more}"


def named_task(args):
    return f" --task {shlex.quote(args.task)}" if args.task else ""


def parse_arguments():
    """-> arguments, Task, Config. The Config is None for --resume, as a run has its own."""
    parser = stopping.Parser(prog="python train.py", usage="%(prog)s [OPTIONS]",
                             description=__doc__)
    add = parser.add_argument_group("used most").add_argument
    add("--demos", nargs="+", metavar="FILE", default=[], type=absolute,
        help="files of demonstrations, which are joined: .npz with state, action, episode_ends; a "
             "zarr folder or zip; or a folder in LeRobot's layout (default: those that come with "
             "the task)")
    add("--task", type=options.named, metavar="NAME",
        help="what is to be learned: a Python file or module with TASK = minidiff.demos.Task(...), "
             "or an environment of Gymnasium; its recipe may change the defaults given here "
             "(default: PushT)")
    add_fields(add, "steps", "net", "seed")
    add("--out", metavar="FOLDER", type=options.named,
        help="the run's folder (default: runs/TASK-NET-SEED, or with -2, -3, .. at the end if that "
             "is taken)")
    add("--resume", metavar="FOLDER", type=options.named,
        help="continue the run in FOLDER, with its own config; --steps makes it longer")
    add("--init", metavar="RUN", type=absolute,
        help="fine-tune: start from the weights of RUN, with its network, and with its scales of "
             "features and actions")

    add = parser.add_argument_group("method").add_argument
    add_fields(add, "objective", "weight", "T", "schedule", "precondition", "clip", "drop_cond")
    add = parser.add_argument_group("network").add_argument
    add_fields(add, "pred_horizon", "obs_horizon", "width", "blocks")
    add = parser.add_argument_group("optimiser").add_argument
    add_fields(add, "lr", "batch", "warmup", "ema", "weight_decay")
    add = parser.add_argument_group("what is drawn from the demonstrations").add_argument
    add_fields(add, "finish", "relabel")
    add("--drop-idle", action="store_true",
        help="leave out idle rows, but for the first and last of an episode; a row is idle if no "
             "number of the state has moved by more than 1 %% of its standard deviation since the "
             "last row that was kept (default: all are learned)")

    add = parser.add_argument_group("run").add_argument
    add("--score-episodes", type=options.bounded(int, 0, 1_000_000), default=50, metavar="N",
        help=f"episodes, from seed {SCORE_SEED} on, that score the policy after its training; 0 "
             "for none (default: 50)")
    add("--score-every", type=options.bounded(int, 0, 10**9), default=0, metavar="N",
        help="score the policy every N steps during the training, too; 0 for never (default: 0)")
    add("--save-every", type=options.bounded(int, 1, 10**9), default=1000, metavar="N",
        help="steps between checkpoints (default: 1000)")
    args = parser.parse_args()
    if args.score_every and not args.score_episodes:
        parser.error("--score-every: --score-episodes 0 leaves nothing to score")
    task = tasks.load(args.task) if args.task else PUSHT
    fields = [field.name for field in dataclasses.fields(Config)]
    given = {name: value for name, value in vars(args).items() if name in fields}
    args.steps = given.get("steps")
    if args.resume:
        other = [name for name in given if name != "steps"]
        other += [name for name in ("demos", "drop_idle", "out", "init") if getattr(args, name)]
        if other:
            parser.error("--resume goes on with the run's own config and folder; it takes no "
                         f"{flag(other[0])}")
        return args, task, None
    start = like(args.init, given) if args.init else {}
    try:
        options.distinct(args.demos)
        config = Config(**task.recipe | start | given)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    for name in OBJECTIVES[config.objective].ignores:
        if name in given:
            parser.error(f"--objective {config.objective} makes no use of {flag(name)}: leave it "
                         "out")
    config.outputs = OBJECTIVES[config.objective].outputs
    return args, task, config


def like(run, given):
    """The fields of another run's Config that its weights need, for --init."""
    _, meta = policy.read(run)
    config = config_of(run, meta)
    fields = {name: getattr(config, name) for name in NETWORK}
    for name, value in given.items():
        if fields.get(name, value) != value:
            raise ValueError(f"{flag(name)}: the weights of {run} were trained with "
                             f"{fields[name]}, not with {value}; leave it out")
    return fields


def absolute(path):
    """An absolute path: --resume finds it from any folder."""
    return str(Path(options.named(path)).absolute())


def add_fields(add, *names):
    """Add fields of Config as options. add: the add_argument of a group."""
    fields = {field.name: field for field in dataclasses.fields(Config)}
    for field in [fields[name] for name in names]:
        text = f"{field.metadata['help']} (default: {field.default})"
        if field.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif field.name == "objective":
            kind = {"choices": tuple(OBJECTIVES)}
        elif field.metadata["choices"]:
            kind = {"choices": field.metadata["choices"]}
        else:
            kind = {"type": field.type, "metavar": {int: "N", float: "X"}[field.type]}
        add(flag(field.name), default=argparse.SUPPRESS, help=text, **kind)


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("train.py", main))
