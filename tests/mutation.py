"""Small defects, planted by a machine in one file after another: do the tests find them?

    python tests/mutation.py                          all files: hours
    python tests/mutation.py minidiff/optim.py        one, by the test files that TESTS names
    python tests/mutation.py minidiff/optim.py --again --slow --examples 100
                                                      those that survived, by slow tests, too

It needs `pip install -e '.[mutation]'`. mutmut (settings in pyproject.toml) writes a file anew in
mutants/, with all mutants of each function side by side; the variable MUTANT_UNDER_TEST chooses
one, also in the processes that a test starts. mutmut would start pytest for each mutant. This
collects the tests once and forks, so that a mutant costs the time of its tests alone: those that
call its function, quick ones first, then those that start processes, up to the first that fails.

The survivors, which nobody noticed, are printed with the line that was changed; mutants.json keeps
how each mutant ended. tests/README.md has the last results. Constants, fields of a dataclass and
decorated functions stay as they are, but for operations of the autograd.
"""
import argparse
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import is_hypothesis_test, settings
from mutmut.__main__ import create_mutants_for_file
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir

CHILDREN = 2
MEMORY = 6 << 30  # bytes; a mutant that asks for more has been found
PROCESS = "a process is started"
RESULTS = Path("mutants.json")  # file -> mutant -> how it ended

TESTS = {  # a file of the package, and the tests that belong to it
    "tensor": "autograd networks", "layers": "autograd networks", "nn": "networks",
    "optim": "optim", "training": "training beyond tasks", "demos": "demos tasks",
    "policy": "policy",
    "diffusion": "forward_process reverse_process objective bound samplers walk_through",
    "checkpoint": "checkpoint", "folders": "stopping", "progress": "stopping",
    "stopping": "stopping", "wall": "wall", "__main__": "walk_through",
    "beyond/__init__": "beyond samplers", "beyond/baselines": "baselines",
    "beyond/formats": "formats", "beyond/guidance": "guidance", "beyond/options": "beyond options",
    "beyond/realtime": "realtime", "beyond/samplers": "samplers",
    "pusht/__main__": "pusht/command_table", "pusht/env": "pusht/env",
    "pusht/estimate": "pusht/estimate",
    "pusht/features": "pusht/features", "pusht/geometry": "pusht/geometry",
    "scoring/rollout": "scoring/rollout scoring/score", "scoring/scores": "scoring/scores",
    "beyond/tasks": "tasks", "scoring/cluster": "scoring/cluster",
    "scoring/workers": "scoring/workers",
    "pusht/data/collect": "pusht/expert pusht/command_table options",
    "pusht/data/expert": "pusht/expert",
    "pusht/study/bound": "pusht/bound_of_plans options",
    "pusht/study/candidates": "pusht/candidates",
    "pusht/study/compare": "scoring/scores pusht/command_table",
    "pusht/study/disturbances": "pusht/candidates",
    "pusht/study/forks": "pusht/forks pusht/command_table options",
    "pusht/study/rests": "pusht/rests",
    "pusht/view/charts": "pusht/charts", "pusht/view/drawing": "pusht/drawing",
    "pusht/gym": "pusht/gym", "pusht/view/films": "pusht/films options",
    "pusht/view/record": "pusht/record options",
    "pusht/view/player": "pusht/watch", "pusht/view/scene": "pusht/watch",
    "pusht/view/watch": "pusht/watch options", "pusht/view/windows": "pusht/windows pusht/watch",
    "train": "scripts options", "eval": "scripts options"}


class Hunt:
    """A plugin of pytest that tries mutants where the session would run its tests once."""

    def __init__(self, mutants, is_program, examples):
        self.mutants = mutants
        self.is_program = is_program
        self.examples = examples
        self.made_by = {}  # fixture -> the functions that its setup calls
        self.results = {}  # mutant -> killed, survived, timeout or no tests

    def pytest_collection_modifyitems(self, items):
        for item in items:
            if is_hypothesis_test(item.obj):
                own = item.obj._hypothesis_internal_use_settings
                few = min(own.max_examples, self.examples)
                item.obj._hypothesis_internal_use_settings = settings(own, max_examples=few)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        before = set(state()._stats)
        state()._stats.clear()
        try:
            return (yield)
        finally:
            self.made_by.setdefault(fixturedef, set()).update(state()._stats)
            state()._stats.update(before)

    def pytest_runtestloop(self, session):
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            pid, read = self.fork(session, lambda: self.without_a_mutant(session.items))
            notes = received(read)
            os.waitpid(pid, 0)
            if not isinstance(notes, tuple):
                raise session.Failed(notes)
            self.try_all(session, *notes)
        return True

    def without_a_mutant(self, items):
        """Run all tests -> {function, or PROCESS: the tests that call it}, seconds of each test."""
        def heard(event, arguments):
            if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
                state()._stats.add(PROCESS)

        sys.addaudithook(heard)
        callers, seconds = {}, []
        for i, reports in enumerate(run(items, self.made_by)):
            if any(report.failed for report in reports):
                return f"{items[i].nodeid} fails without a mutant"
            called = set(state()._stats)
            for fixtures in items[i]._fixtureinfo.name2fixturedefs.values():
                called = called.union(*(self.made_by.get(fixture, ()) for fixture in fixtures))
            for function in called:
                callers.setdefault(function, []).append(i)
            seconds.append(sum(report.duration for report in reports))
        return callers, seconds

    def try_all(self, session, callers, seconds):
        set_mutant_under_test("")
        last = sorted(callers.get(PROCESS, []), key=seconds.__getitem__)
        waiting, running = list(self.mutants), {}
        while waiting or running:
            if waiting and len(running) < CHILDREN:
                name = waiting.pop(0)
                calling = callers.get(name.partition("__mutmut_")[0], [])
                first = sorted(set(calling) - set(last), key=seconds.__getitem__)
                if not first + last:
                    self.results[name] = "no tests"
                    continue
                limit = int(5 + 3 * sum(seconds[i] for i in first + last))
                batches = [[session.items[i] for i in tests] for tests in (first, last)]
                pid, read = self.fork(session, lambda n=name, b=batches: self.found(n, *b), limit)
                running[pid] = name, read, time.monotonic() + 30 + 3 * limit
                continue
            time.sleep(0.005)
            for pid, (name, read, end) in list(running.items()):
                if time.monotonic() > end:
                    os.killpg(pid, signal.SIGKILL)
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del running[pid]
                    self.results[name] = outcome(received(read), status)
                    end_group(pid)
                    shutil.rmtree(self.folder / str(pid), ignore_errors=True)
                    count = Counter(self.results.values())
                    print(end=f"\r{len(self.results)} of {len(self.mutants)}: {dict(count)}",
                          file=sys.__stderr__, flush=True)

    def found(self, name, first, last):
        """Whether a test fails with that mutant."""
        set_mutant_under_test(name)
        if any(any(report.failed for report in reports) for reports in run(first)):
            return True
        if self.is_program:  # a program that a test starts is the module __main__
            os.environ["MUTANT_UNDER_TEST"] = "__main__." + name.rpartition(".")[2]
        return any(any(report.failed for report in reports) for reports in run(last))

    def fork(self, session, job, seconds=None):
        """job() in a process of its own -> its id, and where it writes the result."""
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            os.close(write)
            return pid, read
        os.setsid()
        if seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        session.config._tmp_path_factory._basetemp = self.folder / str(os.getpid())
        (self.folder / str(os.getpid())).mkdir()
        try:
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(job(), pipe)
        finally:
            os._exit(0)


def run(items, made_by=None):
    """Run tests one by one -> the reports of each."""
    for item, following in zip(items, [*items[1:], None]):
        state()._stats.clear()
        yield runtestprotocol(item, log=False, nextitem=following)


def received(read):
    with os.fdopen(read, "rb") as pipe:
        try:
            return pickle.load(pipe)
        except EOFError:  # it was ended, or has crashed
            return None


def outcome(found, status):
    if found is None and os.WIFSIGNALED(status):
        late = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        return "timeout" if late else "killed"
    return "survived" if found is False else "killed"


def end_group(pid):
    """End what a mutant's tests have started and left."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def plant(path, into):
    """All mutants of a file. mutmut skips what is decorated; operations are to be tried too."""
    skips = MutationVisitor._skip_node_and_children

    def skips_no_operation(self, node):
        names = [getattr(each.decorator, "value", "") for each in getattr(node, "decorators", ())]
        return names != ["operation"] and skips(self, node)

    MutationVisitor._skip_node_and_children = skips_no_operation
    create_mutants_for_file(path, into)
    # what it chooses is made an operation, not each mutant
    text = re.sub(r"@operation\n(?=def \w+__mutmut)", "", into.read_text(encoding="utf-8"))
    into.write_text(text, encoding="utf-8")


def hunt(path, args):
    """Try the mutants of a file; add to RESULTS."""
    name = path.with_suffix("").as_posix().removeprefix("minidiff/")
    tests = [Path("tests", test) for test in TESTS[name].split()]
    tests = [str(test.with_name(f"test_{test.name}.py")) for test in tests]
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    config().only_mutate = [str(path)]
    shutil.rmtree("mutants", ignore_errors=True)
    copy_src_dir()
    copy_also_copy_files()
    plant(path, Path("mutants") / path)
    data = SourceFileMutationData(path=path)
    data.load()
    known = before.get(str(path), {}) if args.again else {}
    left = [mutant for mutant in data.exit_code_by_key if known.get(mutant) != "killed"]
    plugin = Hunt(left, path.stem == "__main__" or len(path.parts) == 1, args.examples)
    options = [*config().pytest_add_cli_args, *(["-m", ""] if args.slow else [])]
    os.chdir("mutants")
    sys.path.insert(0, os.getcwd())
    set_mutant_under_test("stats")
    del os.environ["MUTANT_UNDER_TEST"]  # programs that tests start run as they are
    status = pytest.main(["--rootdir=.", *options, *tests], plugins=[plugin])
    os.chdir("..")
    if status:
        raise SystemExit(int(status))
    results = {mutant: known.get(mutant, "killed") for mutant in data.exit_code_by_key}
    results |= plugin.results
    RESULTS.write_text(json.dumps(before | {str(path): results}, indent=1), encoding="utf-8")
    print(f"\n{path}: {dict(Counter(results.values()))}")
    for mutant, how in results.items():
        if how != "killed":
            changed = [line for line in get_diff_for_mutant(mutant, path=path).splitlines()[3:]
                       if line[0] in "-+"]
            print(f"\n{how}: {mutant}", *changed, sep="\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--again", action="store_true", help="only what was not killed before")
    parser.add_argument("--slow", action="store_true", help="by slow tests, too")
    parser.add_argument("--examples", type=int, default=8, help="of hypothesis, at most")
    args = parser.parse_args()
    if args.path:
        hunt(args.path, args)
        return
    for name in TESTS:  # each in a process of its own, which imports minidiff anew
        path = f"{name}.py" if name in ("train", "eval") else f"minidiff/{name}.py"
        subprocess.run([sys.executable, __file__, path, *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
