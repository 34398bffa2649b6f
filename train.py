"""Train a diffusion policy on demonstrations, on a CPU, in half a minute.

    python train.py                                 the main job: train, score the policy, draw
    python train.py --demos FILE ...                learn from other demonstrations
    python train.py --net conv                      the convolutional denoiser instead of the MLP
    python train.py --resume runs/pusht-mlp-0       continue a stopped run, to the same weights

Each run has a folder: config.json, checkpoint.npz (all that --resume needs), policy.npz (all that
eval.py needs: the averaged weights), scores.json, loss.png and rollouts.png.
"""
import signal

if __name__ == "__main__":  # until there is work to save, Ctrl-C ends the program at once
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import minidiff  # first: it decides how many threads NumPy's BLAS takes  # noqa: F401
from minidiff import checkpoint, demos, folders, policy, stopping
from minidiff.beyond import OBJECTIVES, bind, config_of, formats, options
from minidiff.progress import Progress, say
from minidiff.pusht import setting  # the task
from minidiff.training import STATE, Config, Diverged, Trainer, flag

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

import numpy as np

CLIPPED = 0.01  # share of the actions' numbers beyond --clip above which there is a warning


def main():
    args, config = parse_arguments()
    np.seterr(over="ignore", invalid="ignore")  # a loss that is not finite raises Diverged
    with held_folder(args, config) as folder:
        work(args, config, folder)


def held_folder(args, config):
    """The run's folder, into which nobody else writes meanwhile: a context manager."""
    if args.resume:
        if not Path(args.resume).is_dir():
            raise FileNotFoundError(f"{args.resume}: there is no such run")
        return folders.hold(args.resume)
    if args.out:
        return folders.hold_new(args.out)
    return folders.hold_next(f"runs/{setting.TASK.name}-{config.net}-{config.seed}")


def work(args, config, folder):
    """The whole job, in the run's folder."""
    files, saved = args.demos, None
    if args.resume:
        saved = policy.read(folder / "checkpoint.npz", STATE)
        files, config = resumed(folder, saved[1])
    data = demos.join([formats.load(file, setting.TASK) for file in files or [setting.DEMOS]])
    trainer = Trainer(config, setting.TASK, data, OBJECTIVES[config.objective].loss)
    *_, quickest = samplers(config).values()
    untrained = policy.from_trainer(trainer, quickest)
    if saved:
        try:
            trainer.restore(*saved)
        except ValueError as error:
            trained_on = ", ".join(files) or setting.DEMOS
            raise ValueError(f"{folder}, with {trained_on}: {error}") from None
    else:
        about = {"demos": files, **dataclasses.asdict(config)}
        checkpoint.write_json(folder / "config.json", about)
    say(f"{len(data.episode_ends):,} demonstrations, {len(trainer.x0):,} windows; {config.net} "
        f"with {trainer.net.theta.size:,} parameters; {config.steps:,} steps; into {folder}/")
    if trainer.clipped() > CLIPPED:
        say(f"warning: {trainer.clipped():.1%} of the numbers in the actions exceed --clip "
            f"{config.clip:g} standard deviations and are learned as that: try a larger --clip")

    train(trainer, folder, files, args.save_every)
    seconds = trainer.cpu_seconds()
    say(f"trained in {seconds:.0f} CPU seconds ({1000 * seconds / config.steps:.1f} ms a step); "
        f"weights in {folder / 'checkpoint.npz'}")
    try:
        if args.score_episodes:
            score(trainer, folder, args.score_episodes)
        setting.draw_loss(folder / "loss.png", trainer)
        say(f"picture: {folder / 'loss.png'}")
        if args.score_episodes:
            trained = policy.from_trainer(trainer, quickest)
            shown = min(3, args.score_episodes)
            setting.draw_episodes(folder / "rollouts.png", untrained, trained, shown)
            say(f"picture: {folder / 'rollouts.png'} (before and after training)")
    except RuntimeError as error:  # pymunk or pygame is missing
        say(f"no scores or no pictures: {error}")
    say(f"next: python eval.py {shlex.quote(str(folder))} --episodes 500 --seed 300000    "
        "(eval.py --help lists faster samplers)")


def resumed(folder, meta):
    """The files of demonstrations and the Config of a saved run; ValueError if it is damaged."""
    files = meta.get("demos")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise ValueError(f"{folder}: the names of its demonstrations are damaged")
    return files, config_of(folder, meta)


def train(trainer, folder, files, save_every):
    """The loop: one gradient step after another, saved now and then, and when asked to stop."""
    def save():
        policy.save(folder / "checkpoint.npz", trainer, resumable=True, demos=files)

    progress = Progress("training", trainer.config.steps, trainer.n)
    try:
        for _ in trainer:
            progress.show(trainer.n, f"loss {trainer.losses[:trainer.n][-100:].mean():.5f}")
            if trainer.n % save_every == 0:
                save()
            if stopping.asked():
                break
        save()
    except Diverged as error:
        kept = "nothing was saved yet"
        if folders.holds_run(folder):
            kept = f"the last good checkpoint is kept in {folder / 'checkpoint.npz'}"
        sys.exit(f"\n{error}; {kept}. "
                 f"Try a smaller learning rate: --lr {trainer.config.lr / 3:.0e}")
    if trainer.n == trainer.config.steps:
        policy.save(folder / "policy.npz", trainer)
    if stopping.asked():
        raise stopping.Stopped(f"stopped at step {trainer.n} and saved; go on with: "
                               f"python train.py --resume {shlex.quote(str(folder))}")


def samplers(config):
    """The samplers that score a policy, by name: ancestral and, last, the quickest, DDIM."""
    fitting = OBJECTIVES[config.objective].samplers
    if "ddim" not in fitting:
        return {fitting[0]: bind(fitting[0])}
    return {"ancestral": bind("ancestral"), "ddim": bind("ddim", steps=min(4, config.T))}


def score(trainer, folder, episodes):
    """Score the finished policy on seeds for development."""
    summaries = {}
    for name, sampler in samplers(trainer.config).items():
        summary = setting.score(policy.from_trainer(trainer, sampler), name, episodes)
        summaries[name] = summary
        checkpoint.write_json(folder / "scores.json", summaries)
        say(f"{name + ':':10} {setting.sentence(summary)}")
        if "incomplete" in summary:
            sentence = f"incomplete, {summary['incomplete']}; the run itself is complete"
            stopping.safe_point(sentence)
            raise ChildProcessError(sentence)


def parse_arguments():
    """-> arguments and Config; None where a run is resumed, which has its own."""
    parser = stopping.Parser(description=__doc__)
    add = parser.add_argument
    add("--demos", nargs="+", metavar="FILE", default=[], type=absolute,
        help="files of demonstrations, learned from all together: .npz with state, action, "
             "episode_ends; or a zarr folder or zip (default: those that come with minidiff)")
    for field in dataclasses.fields(Config):
        add_option(parser, field)
    add("--out", type=options.named,
        help="the run's folder (default: runs/TASK-NET-SEED, with a number behind it if that holds "
             "a run)")
    add("--resume", metavar="FOLDER", type=options.named,
        help="continue the run in FOLDER, with its own config")
    add("--save-every", type=options.bounded(int, 1, 10**9), default=1000,
        help="steps between checkpoints (default: 1000)")
    add("--score-episodes", type=options.bounded(int, 0, 1_000_000), default=50,
        help=f"episodes, from seed {setting.SCORE_SEED}, that score the policy at the end; 0 for "
             "none (default: 50)")
    args = parser.parse_args()
    fields = [field.name for field in dataclasses.fields(Config)]
    given = {name: value for name, value in vars(args).items() if name in fields}
    if args.resume:
        other = [*given] + [name for name in ("demos", "out") if getattr(args, name)]
        if other:
            parser.error("--resume goes on with the run's own config and folder; it takes no "
                         f"{flag(other[0])}")
        return args, None
    try:
        options.distinct(args.demos)
        config = Config(**given)
    except ValueError as error:
        parser.error(str(error))
    for name in OBJECTIVES[config.objective].ignores:
        if name in given:
            parser.error(f"--objective {config.objective} makes no use of {flag(name)}: leave it "
                         "out")
    config.outputs = OBJECTIVES[config.objective].outputs
    return args, config


def absolute(path):
    """A path that --resume finds again from another folder."""
    return str(Path(options.named(path)).absolute())


def add_option(parser, field):
    """A field of Config as an option of the command line."""
    if field.name == "outputs":
        return  # the objective decides
    text = f"{field.metadata['help']} (default: {field.default})"
    if field.type is bool:
        kind = {"action": argparse.BooleanOptionalAction}
    else:
        choices = tuple(OBJECTIVES) if field.name == "objective" else field.metadata["choices"]
        kind = {"type": field.type, "choices": choices}
    parser.add_argument(flag(field.name), default=argparse.SUPPRESS, help=text, **kind)


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("train.py", main))
