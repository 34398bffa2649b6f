"""Every figure of RESULTS.md, and the table of README.md, made again by one command.

    python tests/benchmarks/results.py                    what is missing; at first 1.5 h, 350 MB
    python tests/benchmarks/results.py --only human forks these tables alone
    python tests/benchmarks/results.py --check            which figures are older than their code?
    python tests/benchmarks/results.py --list             the tables, and the commands behind each

tables.py says of each table which commands it is made of, and what stands in its cells. This script
runs the commands, as many at a time as there are cores. What they make is kept in runs/results. It
is made again only when the code that makes it has changed; comments, docstrings and messages do not
count. So Ctrl-C loses only what is under way. The tables are then written into the pages, between
their marks, each with the date, the machine and a fingerprint of its code. --check compares these.

Some tables take the 206 human demonstrations of Diffusion Policy, as runs/results/human.npz.
minidiff/pusht/README.md says where they are. The content tells the format: their zip may be copied
under this name.
"""
import ast
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from minidiff import stopping  # noqa: E402
from minidiff.beyond.options import bounded  # noqa: E402
from minidiff.checkpoint import check_writable, write_atomically, write_json  # noqa: E402
from minidiff.folders import hold  # noqa: E402
from minidiff.progress import duration, say, say_aside  # noqa: E402

FOLDER = ROOT / "runs" / "results"
PAGES = [ROOT / "minidiff" / "pusht" / "RESULTS.md", ROOT / "minidiff" / "pusht" / "README.md",
         ROOT / "README.md"]
HUMAN = "human.npz"  # in FOLDER; cannot be made
DATA = ["minidiff/pusht/expert.npz", "minidiff/pusht/policy.npz"]
NO_FIGURES = ("minidiff/pusht/view/", "minidiff/progress.py", "minidiff/stopping.py",
              "minidiff/folders.py", "minidiff/scoring/cluster.py", "minidiff/scoring/workers.py")


class Step(NamedTuple):
    """A command, run in FOLDER, and the file there that it makes. `after`: the steps whose files it
    reads. `seconds`: CPU seconds that it takes, about. `alone`: it measures time. `resumes`: if it
    is stopped, it goes on from what is in its file's folder, which is its own. `loads`: files whose
    code it loads by their names."""
    output: str
    command: str
    after: tuple = ()
    seconds: float = 10
    alone: bool = False
    resumes: bool = False
    loads: tuple = ()


class Cell(NamedTuple):
    """What stands in a table: text(one file of figures for each step, read)."""
    steps: tuple
    text: Callable


class Table(NamedTuple):
    """`head`: a list of text. `rows`: lists as long; of Cells, or of text as it stands."""
    head: list
    rows: list

    def steps(self):
        found = [step for row in self.rows for cell in row if isinstance(cell, Cell)
                 for step in cell.steps]
        return list(dict.fromkeys(found))

    def markdown(self):
        lines = [self.head, ["---"] * len(self.head)]
        for row in self.rows:
            lines.append([cell if isinstance(cell, str) else
                          cell.text(*[read(FOLDER / step.output) for step in cell.steps])
                          for cell in row])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read(path):
    """A JSON file; ValueError, with its name, where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and start again") from None


# ---- which code makes a figure? ------------------------------------------------------------------

@functools.cache
def imports(path):
    """The files of the repository that one of its files imports."""
    found = []
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [name.name.split(".") for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = list(Path(path).parts[:-node.level]) if node.level else []
            module = above + (node.module.split(".") if node.module else [])
            found += [module] + [[*module, name.name] for name in node.names]
    files = []
    for parts in found:
        for base in (Path(*parts), Path("tests", *parts)):
            files += [f"{base.as_posix()}.py", f"{base.as_posix()}/__init__.py"]
    return [file for file in files if (ROOT / file).is_file()]


@functools.cache
def closure(path):
    """A file and all that it imports, directly or not; those that make no figures are left out."""
    found, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in found and not file.startswith(NO_FIGURES):
            found.add(file)
            waiting += imports(file)
    return sorted(found)


class Wordless(ast.NodeTransformer):
    """Takes out what is for people: docstrings, and strings and f-strings of several words."""

    def visit_Expr(self, node):
        node = self.generic_visit(node)
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node

    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) and " " in node.value else node

    def visit_JoinedStr(self, node):
        words = [part.value for part in node.values if isinstance(part, ast.Constant)]
        return ast.Constant("") if " " in "".join(words) else node


@functools.cache
def code(path):
    """A file without what is for people, written in one way."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return ast.unparse(ast.fix_missing_locations(Wordless().visit(tree)))


def script(command):
    """The file that a command runs; of `python -m minidiff.pusht NAME` that of NAME."""
    words = command.split()
    if words[1] != "-m":
        return words[1]
    parts = ["minidiff", "pusht", "*", f"{words[3]}.py"]
    return next(ROOT.glob("/".join(parts))).relative_to(ROOT).as_posix()


@functools.cache
def fingerprint(step):
    """Eight hexadecimal digits that change with the command, its code, the data and the steps
    before it. Of the demonstrations that FOLDER holds they know nothing."""
    digest = hashlib.sha256(step.command.encode())
    for path in [*closure(script(step.command)), *step.loads]:
        digest.update(code(path).encode())
    for path in DATA:
        digest.update((ROOT / path).read_bytes())
    for earlier in step.after:
        digest.update(fingerprint(earlier).encode())
    return digest.hexdigest()[:8]


def of_table(table):
    """As `fingerprint`, of all steps of a table. How the cells are written does not count."""
    return hashlib.sha256("".join(map(fingerprint, table.steps())).encode()).hexdigest()[:8]


# ---- the steps are done --------------------------------------------------------------------------

def with_all_before(steps):
    """The steps and all that they need, each after what it needs."""
    order = {}
    for step in steps:
        order |= dict.fromkeys(with_all_before(step.after))
        order[step] = None
    return list(order)


class Ledger:
    """What is in FOLDER: {output: {"code": .., "date": .., "machine": .., "seconds": ..}}, and of
    what is not whole {"begun": its code}."""

    def __init__(self):
        self.path = FOLDER / "ledger.json"
        self.entries = read(self.path) if self.path.exists() else {}

    def has(self, step):
        entry = self.entries.get(step.output, {})
        return entry.get("code") == fingerprint(step) and (FOLDER / step.output).exists()

    def begin(self, step):
        """Before a step starts: take away what a part of it, or older code, has left."""
        output = FOLDER / step.output
        is_run = step.output.endswith("/policy.npz")
        goes_on = step.resumes and self.entries.get(step.output, {}).get("begun")
        if is_run or (step.resumes and goes_on != fingerprint(step)):
            shutil.rmtree(output.parent, ignore_errors=True)
        elif not step.resumes:
            output.unlink(missing_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        self.entries[step.output] = {"begun": fingerprint(step)}
        write_json(self.path, self.entries)

    def add(self, step, seconds):
        self.entries[step.output] = {
            "code": fingerprint(step), "date": datetime.date.today().isoformat(),
            "machine": machine(), "seconds": round(seconds, 1)}
        write_json(self.path, self.entries)

    def expected(self, step):
        return self.entries.get(step.output, {}).get("seconds", step.seconds)


@functools.cache
def machine():
    """The processor and the versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text(encoding="utf-8"), re.M)
        name = re.sub(r"\((R|TM)\)| Processor| CPU", "", names[0]).strip() if names else name
    versions = [f"{package} {importlib.metadata.version(package)}"
                for package in ("numpy", "pymunk")]
    return (f"{os.cpu_count()} cores, {name}; Python {platform.python_version()}, "
            f"{', '.join(versions)}")


def start(step):
    """The command as a process in FOLDER, what it says in a file."""
    words = step.command.split()
    words[0] = sys.executable
    if words[1] != "-m":
        words[1] = str(ROOT / words[1])
    with open(log_of(step), "w", encoding="utf-8") as log:
        return subprocess.Popen(words, cwd=FOLDER, env=os.environ | {"PYTHONPATH": str(ROOT)},
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def log_of(step):
    folder = FOLDER / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{re.sub('[^a-zA-Z0-9.]+', '-', step.output)}.log"


def make(steps, ledger, jobs):
    """Run all steps that are missing -> those that failed, and those that need them."""
    waiting = [step for step in with_all_before(steps) if not ledger.has(step)]
    seconds = {step: ledger.expected(step) for step in waiting}
    started, made, running, lost = time.monotonic(), [], {}, []
    if not (FOLDER / HUMAN).exists():
        lost = [step for step in waiting if HUMAN in step.command.split()]
        waiting = [step for step in waiting if step not in lost]
    if lost:
        say_aside(f"{FOLDER / HUMAN} is missing (minidiff/pusht/README.md says where it is): "
                  f"left out what reads it, {len(lost)} commands")
    try:
        while waiting or running:
            for step in list(waiting):
                if any(earlier in lost for earlier in step.after):
                    waiting.remove(step)
                    lost.append(step)
            for step in ready(waiting, running, jobs):
                waiting.remove(step)
                ledger.begin(step)
                running[step] = start(step), time.monotonic()
            time.sleep(0.1)
            stopping.safe_point("stopped: what is done is kept")
            for step, (process, begun) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[step]
                if process.returncode or not (FOLDER / step.output).exists():
                    say_aside(f"failed: {step.command}\n    {log_of(step)} says why")
                    lost.append(step)
                    continue
                ledger.add(step, time.monotonic() - begun)
                made.append(step)
                pace = (time.monotonic() - started) / sum(map(seconds.get, made))
                left = pace * sum(map(seconds.get, [*waiting, *running]))
                say(f"{len(made)} of {len(seconds)}, {duration(left)} left: {step.command}")
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()
    return lost


def ready(waiting, running, jobs):
    """The steps that can start now, the longest first. One that measures time runs alone, and
    when nothing else can start. A step is free when all that it needs is neither waiting nor
    running: `make` takes away those that need a failed one."""
    if any(step.alone for step in running):
        return []
    busy = {step.output for step in [*waiting, *running]}
    free = [step for step in waiting if not busy & {earlier.output for earlier in step.after}]
    together = [step for step in free if not step.alone]
    if together or running:
        return sorted(together, key=lambda step: -step.seconds)[:jobs - len(running)]
    return free[:1]


# ---- the pages -----------------------------------------------------------------------------------

MARKED = re.compile(
    r"(?<=<!-- table: )([\w-]+)( -->\n)((?:(?!<!-- table: ).)*?)(?=<!-- end -->)", re.S)


def credit(name, table, ledger):
    """The line below a table: its command, the last date, all machines, its fingerprint."""
    entries = [ledger.entries[step.output] for step in table.steps()]
    machines = sorted({entry["machine"] for entry in entries})
    date = max(entry["date"] for entry in entries)
    return (f"<sub>`python tests/benchmarks/results.py --only {name}`: {date}; "
            f"{' | '.join(machines)}; code {of_table(table)}</sub>")


def write(page, tables, ledger):
    """Put into a page those of the tables whose marks it has."""
    def made(match):
        name = match[1]
        if name not in tables:
            return match[0]
        table = tables[name]
        return f"{name}{match[2]}{table.markdown()}\n\n{credit(name, table, ledger)}\n"
    text = page.read_text(encoding="utf-8")
    write_atomically(page, lambda file: file.write(MARKED.sub(made, text).encode()))


def marked(page):
    """{name: what stands between its marks} of a page."""
    return {match[1]: match[3] for match in MARKED.finditer(page.read_text(encoding="utf-8"))}


def check(tables, only=None):
    """-> in words, which figures are older than their code, or stand nowhere.

    only: names of the tables to look at. Unknown tables and the prose are always looked at.
    """
    found = {name: block for page in PAGES for name, block in marked(page).items()}
    faults = [f"{name}: nothing is known of this table" for name in found if name not in tables]
    for name in only or tables:
        if name not in found:
            faults.append(f"{name}: no page has this table, between its two marks")
        elif f"code {of_table(tables[name])}<" not in found[name]:
            faults.append(f"{name}: older than the code that makes it")
    return faults + [f"{page.name}: {figure} stands in no table" for page in PAGES
                     for figure in unsupported(page, "".join(found.values()))]


FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)? ?%|\d+\.\d\d+|\d[\d,]* of \d+(?:,\d{3})*")
NO_FIGURE = ("95 %", "0.95", "100 %")  # of confidence and success, and where all is meant


def unsupported(page, tables):
    """The percentages, shares and long decimals in a page's prose that no table holds.

    A paragraph with its own command or source may hold others, and so may code and pictures.
    """
    text = MARKED.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"```.*?```|<!--.*?-->|!\[.*?\]", "", text, flags=re.S)
    figures = []
    for paragraph in re.split(r"\n\s*\n", text):
        if not re.search(r"`python |^    python |et al\. \d{4}", paragraph, re.M):
            prose = re.sub(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)", "", paragraph.replace("\n", " "))
            figures += FIGURE.findall(prose)
    return [figure for figure in figures if figure not in NO_FIGURE
            and not re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\d)", tables)]


def make_and_write(tables, jobs):
    """Make what is missing and write the tables that are whole -> the steps that are lost."""
    ledger = Ledger()
    try:
        return make([step for table in tables.values() for step in table.steps()], ledger, jobs)
    finally:
        whole = {name: table for name, table in tables.items()
                 if all(map(ledger.has, table.steps()))}
        for page in PAGES:
            write(page, whole, ledger)
        say(f"{len(whole)} of {len(tables)} tables written")


# ---- the command ---------------------------------------------------------------------------------

def main(arguments):
    from benchmarks.tables import TABLES
    parser = stopping.Parser(prog="python tests/benchmarks/results.py", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(TABLES), metavar="NAME",
                        default=tuple(TABLES), help="of these tables: " + ", ".join(TABLES))
    parser.add_argument("--check", action="store_true",
                        help="make nothing; say which figures are older than their code, and which "
                             "stand in no table")
    parser.add_argument("--list", action="store_true",
                        help="make nothing; list the commands behind each table")
    parser.add_argument("--jobs", type=bounded(int, 1, 1000), default=os.cpu_count(),
                        metavar="N", help="commands at a time (default: one for each core)")
    args = parser.parse_args(arguments)
    tables = {name: TABLES[name] for name in args.only}
    if args.list:
        for name, table in tables.items():
            say(f"{name}\n" + "\n".join(f"    {step.command}"
                                        for step in with_all_before(table.steps())))
        return
    if args.check:
        faults = check(TABLES, args.only)
        if faults:
            say("\n".join(faults))
            raise RuntimeError(f"{len(faults)} faults, see above")
        say(f"{len(tables)} tables: all figures are as their code makes them")
        return
    for page in PAGES:
        check_writable(page)
    with hold(FOLDER):
        lost = make_and_write(tables, args.jobs)
    if lost:
        raise RuntimeError(f"{len(lost)} commands are missing, see above")


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("results", main, sys.argv[1:]))
