"""The figures of the pages: what makes them, how they are written, when they are out of date."""
from minidiff import folders, stopping
from minidiff.scoring.scores import Episode

import argparse
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarks import ladder, measuring, results, tables
from benchmarks.results import Cell, Step, Table
from conftest import ROOT

PLAIN = '''"""What it is."""
def double(x):
    """Twice x."""
    return 2 * x
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for figures, and nothing is remembered of other files."""
    for module in (results, tables):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "figures")
    (tmp_path / "figures").mkdir()
    for function in (results.imports, results.closure, results.code, results.fingerprint):
        function.cache_clear()
    yield tmp_path
    results.fingerprint.cache_clear()


def made_by(folder, name, text, output, after=(), words=""):
    """A step that runs a script of this text, which writes `output`."""
    path = folder / f"{name}.py"
    path.write_text(text)
    results.imports.cache_clear()
    results.closure.cache_clear()
    results.code.cache_clear()
    results.fingerprint.cache_clear()
    return Step(output, f"python {path} {output} {words}".strip(), after, 1)


COUNT = """import json, pathlib, sys
seen = pathlib.Path("runs.txt")
seen.write_text(seen.read_text() + sys.argv[1] if seen.exists() else sys.argv[1])
pathlib.Path(sys.argv[1]).write_text(json.dumps({"n": 3}))
"""


# ---- the fingerprint -----------------------------------------------------------------------------

@pytest.mark.parametrize("other", [
    PLAIN.replace("Twice x.", "The double of x."),
    PLAIN.replace("return 2 * x", "# why\n    return (2 *\n        x)  # how"),
    PLAIN.replace('    """Twice x."""\n', "")], ids=["docstring", "layout", "no docstring"])
def test_words_and_layout_do_not_count(folder, other):
    first = results.fingerprint(made_by(folder, "a", PLAIN, "a.json"))
    assert results.fingerprint(made_by(folder, "a", other, "a.json")) == first


def test_messages_do_not_count_but_names_and_numbers_do(folder):
    said = 'print("so many of them", 3, "key")\nprint(f"there are {3} of them")\n'
    first = results.fingerprint(made_by(folder, "a", said, "a.json"))
    for old, new, counts in (("so many of", "a lot of", False), ("there are", "they are", False),
                             ("3, ", "4, ", True), ("key", "other", True)):
        changed = made_by(folder, "a", said.replace(old, new), "a.json")
        assert (results.fingerprint(changed) != first) == counts, new


def test_the_fingerprint_changes_with_the_command_and_earlier_steps(folder):
    before = made_by(folder, "b", "1", "b.json")
    step = made_by(folder, "a", "1", "a.json", (before,))
    first = results.fingerprint(step)
    assert results.fingerprint(step._replace(command=step.command + " --more")) != first
    changed = made_by(folder, "b", "2", "b.json")
    assert results.fingerprint(step._replace(after=(changed,))) != first


def test_the_fingerprint_changes_with_imported_code_and_the_data(folder, monkeypatch):
    step = Step("a.json", "python eval.py a")
    monkeypatch.setattr(results, "DATA", [folder / "data"])
    found = set()
    for data, changed in (("1", None), ("2", None), ("2", "minidiff/diffusion.py")):
        (folder / "data").write_text(data)
        monkeypatch.setattr(results, "code", lambda path, changed=changed: str(path == changed))
        results.fingerprint.cache_clear()
        found.add(results.fingerprint(step))
    assert len(found) == 3


def test_the_fingerprint_of_a_table_changes_with_each_of_its_steps(folder):
    cells = [Cell((made_by(folder, name, "1", name),), str) for name in "ab"]
    first = results.of_table(Table([], [cells]))
    for k, name in enumerate("ab"):
        changed = [*cells]
        changed[k] = Cell((made_by(folder, name, "2", name),), str)
        assert results.of_table(Table([], [changed])) != first
        made_by(folder, name, "1", name)


def test_the_code_behind_a_command_is_all_that_it_imports():
    of_eval = results.closure("eval.py")
    assert {"minidiff/diffusion.py", "minidiff/scoring/rollout.py",
            "minidiff/beyond/samplers.py"} < set(of_eval)
    assert not any(path.startswith("minidiff/pusht/view") for path in of_eval)
    assert "tests/benchmarks/ladder.py" in results.closure("tests/benchmarks/fidelity.py")
    assert results.script("python -m minidiff.pusht forks a") == "minidiff/pusht/study/forks.py"


# ---- the steps -----------------------------------------------------------------------------------

def test_a_step_comes_after_what_it_needs_and_is_not_done_again(folder):
    first = made_by(folder, "a", COUNT, "a.json")
    second = made_by(folder, "b", COUNT, "b.json", (first,))
    last = made_by(folder, "c", COUNT, "c.json", (second,))._replace(alone=True)
    assert results.make([last], results.Ledger(), 2) == []
    runs = results.FOLDER / "runs.txt"
    assert runs.read_text() == "a.jsonb.jsonc.json"
    assert results.make([last], results.Ledger(), 2) == []
    assert runs.read_text() == "a.jsonb.jsonc.json"
    changed = made_by(folder, "b", COUNT + "\nmore = 1", "b.json", (first,))
    last = last._replace(after=(changed,))
    results.make([last], results.Ledger(), 2)
    assert runs.read_text() == "a.jsonb.jsonc.jsonb.jsonc.json"
    (results.FOLDER / "c.json").unlink()
    results.make([last], results.Ledger(), 2)
    assert runs.read_text() == "a.jsonb.jsonc.jsonb.jsonc.jsonc.json"
    assert results.Ledger().expected(last._replace(seconds=1e6)) < 1e6


RESUMED = """import pathlib, sys
part = pathlib.Path(sys.argv[1]).parent / "part.txt"
if not part.exists():
    part.write_text("half")
    sys.exit("stopped")
pathlib.Path(sys.argv[1]).write_text("{}")
"""


def test_a_stopped_step_goes_on_unless_its_code_has_changed(folder):
    step = made_by(folder, "a", RESUMED, "a/a.json")._replace(resumes=True)
    assert results.make([step], results.Ledger(), 1) == [step]
    assert results.make([step], results.Ledger(), 1) == []
    (results.FOLDER / "a" / "part.txt").unlink()
    assert results.make([step], results.Ledger(), 1) == []  # is not run again
    changed = made_by(folder, "a", RESUMED + "more = 1", "a/a.json")._replace(resumes=True)
    assert results.make([changed], results.Ledger(), 1) == [changed]
    assert results.make([changed], results.Ledger(), 1) == []


@pytest.mark.parametrize("text", ["pass", COUNT + "sys.exit(1)"], ids=["makes nothing", "fails"])
def test_a_step_counts_if_it_ends_well_and_makes_its_file(folder, text):
    step = made_by(folder, "a", text, "a.json")
    (results.FOLDER / "a.json").write_text("of older code")
    assert results.make([step], results.Ledger(), 1) == [step]
    assert not results.Ledger().has(step)


def test_a_run_finds_its_folder_empty(folder):
    looks = "import os, pathlib, sys\npath = pathlib.Path(sys.argv[1])\n"
    looks += "path.write_text(str(os.listdir(path.parent)))"
    step = made_by(folder, "a", looks, "a/policy.npz")
    (results.FOLDER / "a").mkdir()
    (results.FOLDER / "a" / "checkpoint.npz").write_text("of older code")
    results.make([step], results.Ledger(), 1)
    assert (results.FOLDER / "a" / "policy.npz").read_text() == "[]"


def test_without_human_demonstrations_the_rest_is_made(folder, capsys):
    human = made_by(folder, "a", COUNT, "a.json", words="--demos human.npz")
    needs = made_by(folder, "b", COUNT, "b.json", (human,))
    free = made_by(folder, "c", COUNT, "c.json")
    assert results.make([needs, free], results.Ledger(), 1) == [human, needs]
    said = capsys.readouterr().err
    assert "human.npz is missing" in said and "failed" not in said
    assert (results.FOLDER / "runs.txt").read_text() == "c.json"


def test_what_needs_a_failed_step_is_not_tried_and_the_rest_is(folder, capsys):
    broken = made_by(folder, "a", "raise SystemExit('no such thing')", "a.json")
    lost = made_by(folder, "b", COUNT, "b.json", (broken,))
    free = made_by(folder, "c", COUNT, "c.json")
    assert set(results.make([lost, free], results.Ledger(), 1)) == {broken, lost}
    assert (results.FOLDER / "runs.txt").read_text() == "c.json"
    assert "failed: python" in capsys.readouterr().err
    assert "no such thing" in results.log_of(broken).read_text()


def test_a_step_that_measures_time_runs_alone():
    quick, slow, timed = (Step(name, name, (), seconds, name == "t")
                          for name, seconds in (("q", 1), ("s", 2), ("t", 3)))
    assert results.ready([quick, slow, timed], [], 2) == [slow, quick]
    assert results.ready([timed], [quick], 2) == [] and results.ready([quick], [timed], 2) == []
    assert results.ready([timed, timed._replace(output="u")], [], 2) == [timed]
    later = Step("l", "l", (quick, timed))
    assert results.ready([later], [quick], 2) == results.ready([quick, later], [slow], 1) == []
    assert results.ready([quick, later], [slow], 2) == [quick]
    assert results.ready([timed, later], [], 2) == [timed]


SLOW = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(4)\n"


def test_ctrl_c_ends_the_commands_and_keeps_what_is_done(folder, monkeypatch):
    quick = made_by(folder, "a", COUNT, "a.json")
    slow = made_by(folder, "b", SLOW, "b.json", (quick,))
    start, processes = results.start, []
    monkeypatch.setattr(results, "start",
                        lambda step: processes.append(start(step)) or processes[-1])
    monkeypatch.setattr(stopping, "asked", (results.FOLDER / "begun").exists)
    page = a_page(folder, monkeypatch, "<!-- table: t -->\n<!-- end -->")
    made = {name: Table(["what"], [[Cell((step,), str)]]) for name, step in
            (("t", quick), ("u", slow))}
    with pytest.raises(stopping.Stopped, match="what is done is kept"):
        results.make_and_write(made, 2)
    assert processes[0].poll() == 0 and processes[1].poll()
    assert "| {'n': 3} |" in page.read_text()
    assert [results.Ledger().has(step) for step in (quick, slow)] == [True, False]


def test_a_command_runs_under_this_python_with_this_repository(folder):
    tells = "import os, pathlib, sys\n"
    tells += "pathlib.Path(sys.argv[1]).write_text(sys.executable + os.environ['PYTHONPATH'])"
    step = made_by(folder, "a", tells, "a.txt")
    results.make([step], results.Ledger(), 1)
    assert (results.FOLDER / "a.txt").read_text() == f"{sys.executable}{ROOT}"


def test_a_damaged_file_is_named(folder):
    (results.FOLDER / "ledger.json").write_text('{"a.json": {"co')
    with pytest.raises(ValueError, match="ledger.json is damaged .*: delete it"):
        results.Ledger()


# ---- the pages -----------------------------------------------------------------------------------

def a_page(folder, monkeypatch, text):
    page = folder / "PAGE.md"
    page.write_text(text, encoding="utf-8")
    monkeypatch.setattr(results, "PAGES", [page])
    return page


def test_a_table_is_written_between_its_marks_and_checked(folder, monkeypatch):
    step = made_by(folder, "a", COUNT, "a.json")
    table = Table(["what", "n"], [["three", Cell((step,), lambda sheet: f"{sheet['n']} %")]])
    page = a_page(folder, monkeypatch, "It is 3 %.\n\n<!-- table: t -->\n<!-- end -->\nEnd.\n")
    assert results.check({"t": table}) == ["t: older than the code that makes it",
                                           "PAGE.md: 3 % stands in no table"]
    ledger = results.Ledger()
    results.make(table.steps(), ledger, 1)
    results.write(page, {"t": table}, ledger)
    text = page.read_text(encoding="utf-8")
    assert "| what | n |\n| --- | --- |\n| three | 3 % |\n\n<sub>`python tests/benchm" in text
    assert "--only t`: 20" in text and text.endswith("<!-- end -->\nEnd.\n")
    assert results.check({"t": table}) == []
    missing = ["u: no page has this table, between its two marks"]
    assert results.check({"t": table, "u": table}) == missing
    assert results.check({"t": table, "u": table}, ["t"]) == []
    assert results.check({}) == ["t: nothing is known of this table"]
    made_by(folder, "a", COUNT + "\nmore = 1", "a.json")
    assert results.check({"t": table}) == ["t: older than the code that makes it"]


@pytest.mark.parametrize("prose, missing", [
    ("It is 12.5 %.", ["12.5 %"]), ("It is 7 of 9.", ["7 of 9"]), ("A score of 0.93.", ["0.93"]),
    ("Only 8.0 %.", ["8.0 %"]), ("So 3 of 4, or 3 of 40.", ["3 of 4"]), ("In `--lr` 7 %.", ["7 %"]),
    ("With 95 % confidence, by `--lr 0.05`, in 4 steps.", []), ("So 98.0 % of 300.", []),
    ("`python eval.py` says 12 %.", [])])
def test_a_figure_in_the_prose_needs_a_table_or_a_command(folder, monkeypatch, prose, missing):
    page = a_page(folder, monkeypatch, prose)
    assert results.unsupported(page, "| 98.0 % | 3 of 40 |") == missing


def test_prose_between_other_marks_stays_as_it_is(folder, monkeypatch):
    step = made_by(folder, "a", COUNT, "a.json")
    table = Table(["n"], [[Cell((step,), lambda sheet: str(sheet["n"]))], ["4"], ["5"]])
    before = "<!-- table: open -->\nSo.\n\n<!-- table: other -->\n| 1 |\n<!-- end -->\nEnd.\n\n"
    page = a_page(folder, monkeypatch, before + "<!-- table: t -->\n<!-- end -->\nLast.\n")
    results.make_and_write({"t": table, "open": table}, 1)
    text = page.read_text()
    assert text.startswith(before) and "| n |\n| --- |\n| 3 |\n| 4 |\n| 5 |\n\n<sub>" in text
    assert text.endswith("<!-- end -->\nLast.\n")


def test_a_cell_is_told_the_files_of_its_steps_in_their_order(folder):
    steps = tuple(Step(f"{n}.json", "") for n in "12")
    for step in steps:
        (results.FOLDER / step.output).write_text(f'"{step.output}"')
    table = Table(["n", "m"], [[Cell(steps, lambda one, two: f"{one}, {two}"), "so"]])
    assert table.markdown() == "| n | m |\n| --- | --- |\n| 1.json, 2.json | so |"


def test_the_line_below_a_table_has_the_last_date_and_all_machines(folder):
    steps = [made_by(folder, name, "1", name) for name in "abc"]
    ledger = results.Ledger()
    for step, date, cores in zip(steps, ("2030-01-02", "2031-01-01", "2030-05-05"), "242"):
        ledger.entries[step.output] = {"date": date, "machine": f"{cores} cores"}
    line = results.credit("t", Table([], [[Cell(tuple(steps), str)]]), ledger)
    assert "--only t`: 2031-01-01; 2 cores | 4 cores; code" in line


def test_the_command_makes_what_can_be_made_and_says_what_is_missing(folder, monkeypatch, capsys):
    cells = [Cell((made_by(folder, name, text, f"{name}.json"),), str)
             for name, text in (("a", COUNT), ("b", "raise SystemExit(1)"))]
    good, bad = Table(["n"], [cells[:1]]), Table(["n", "m"], [cells])
    monkeypatch.setattr(tables, "TABLES", {"good": good, "bad": bad})
    page = a_page(folder, monkeypatch, "<!-- table: good -->\n<!-- end -->\n"
                                       "<!-- table: bad -->\n<!-- end -->\n")
    with pytest.raises(RuntimeError, match="1 commands are missing"):
        results.main([])
    assert "1 of 2 tables written" in capsys.readouterr().out and "| {'n': 3} |" in page.read_text()
    with pytest.raises(RuntimeError, match="^1 faults"):
        results.main(["--check"])
    assert capsys.readouterr().out == "bad: older than the code that makes it\n"
    results.main(["--check", "--only", "good"])
    results.main(["--list", "--only", "bad"])
    said = capsys.readouterr().out
    assert "all figures are as their code makes them\nbad\n    python " in said
    results.main(["--only", "good"])
    assert "1 of 1 tables written" in capsys.readouterr().out


def test_the_command_refuses_before_it_starts(folder, monkeypatch):
    page = a_page(folder, monkeypatch, "")
    monkeypatch.setattr(tables, "TABLES", {})
    with folders.hold(results.FOLDER), pytest.raises(ValueError, match="another process is at"):
        results.main([])
    with pytest.raises(SystemExit):
        results.main(["--jobs", "0"])
    monkeypatch.setattr(results, "PAGES", [page / "PAGE.md"])
    with pytest.raises(OSError, match="cannot be written there"):
        results.main([])


def pixels(text):
    """How wide a cell is on GitHub's page, about: 16 px type, without links and marks."""
    text = re.sub(r"\]\([^)]*\)|[`*\[]|\$[^$]*\$", "", text)
    return 7.7 * len(text.strip()) + 27


@pytest.mark.parametrize("page", results.PAGES, ids=lambda page: page.name)
def test_the_page_has_every_figure_where_it_belongs(page):
    for name, block in results.marked(page).items():
        assert name in tables.TABLES
        lines = [line[1:-1].split("|") for line in block.splitlines() if line.startswith("|")]
        assert lines, f"{name}: not made yet"
        columns = [[pixels(line[k]) for line in lines] for k in range(len(lines[0]))]
        first = min(max(columns[0]), 250)  # the words of the first column may wrap
        assert first + sum(map(max, columns[1:])) <= 830, name
        assert re.search(rf"--only {name}`: \d{{4}}-\d\d-\d\d; .+ cores, .+; code \w{{8}}<", block)


def test_every_table_stands_in_one_page():
    found = [name for page in results.PAGES for name in results.marked(page)]
    assert sorted(found) == sorted(tables.TABLES)


# ---- the tables ----------------------------------------------------------------------------------

def every_step():
    steps = [step for table in tables.TABLES.values() for step in table.steps()]
    return results.with_all_before(steps)


def test_a_step_comes_after_each_whose_file_its_command_names():
    steps = every_step()
    makes = {step.output: step for step in steps}
    makes |= {tables.run_of(step): step for step in steps if "/policy.npz" in step.output}
    makes |= {Path(step.output).parts[0]: step for step in steps if step.resumes}
    for step in steps:
        named = step.command.split()[4 if " -m " in step.command else 2:]
        named += [f"{word}-{seed}" for word in named if "ladder-" in word for seed in tables.SEEDS]
        others = {makes[word] for word in named if word in makes} - {step}
        assert others <= set(step.after), step.command
        files = {word for word in named if word.endswith(".npz")}
        assert files <= {*makes, results.HUMAN, tables.SHIPPED}, step.command


def test_a_step_whose_folder_is_emptied_has_it_to_itself():
    emptied = [step for step in every_step()
               if step.resumes or step.output.endswith("/policy.npz")]
    keeps = ("ladder.py", "distractors.py")  # they go on from what is in their folder
    assert all(step.resumes == step.command.split()[1].endswith(keeps) for step in every_step())
    homes = [Path(step.output).parts for step in emptied]
    assert {len(parts) for parts in homes} == {2}
    assert len({folder for folder, _ in homes}) == len(homes)


def test_each_output_has_one_command_and_each_row_a_cell_for_each_column(folder):
    steps = every_step()
    assert len({step.output for step in steps}) == len(steps) > 200
    assert len({results.log_of(step) for step in steps}) == len(steps)
    for name, table in tables.TABLES.items():
        assert {len(row) for row in table.rows} == {len(table.head)}, name


def commands_of(cell):
    return "\n".join(step.command for step in results.with_all_before(cell.steps)) + "\n"


def test_the_commands_of_a_row_have_the_options_and_the_seed_of_its_label():
    checked = 0
    for name, table in tables.TABLES.items():
        for label, *cells in table.rows:
            commands = "".join(commands_of(cell) for cell in cells if isinstance(cell, Cell))
            if "train.py" not in commands:
                continue
            options = re.findall(r"`(?:eval.py )?(--[^`]+)`", label)
            if re.fullmatch(r"\d", label) and table.head[0] == "training seed":
                options.append(f"--seed {label}")
            checked += len(options)
            assert all(re.search(rf"{option}\s", commands) for option in options), (name, label)
    assert checked > 20


def test_the_folder_that_is_a_steps_own_has_no_file_of_another():
    steps = every_step()
    for step in steps:
        if step.resumes or step.output.endswith("/policy.npz"):
            own = step.output.rpartition("/")[0] + "/"
            assert [other for other in steps if other.output.startswith(own)] == [step]


def test_a_cell_is_made_of_different_files_and_a_table_unlike_others():
    cells = [cell for table in tables.TABLES.values() for row in table.rows for cell in row
             if isinstance(cell, Cell)]
    assert all(len(set(cell.steps)) == len(cell.steps) for cell in cells)
    assert len({tuple(table.head) for table in tables.TABLES.values()}) == len(tables.TABLES)


def test_each_policy_is_disturbed_under_its_own_name():
    objectives = {"mixture": "--objective mixture ", "regression": "--objective mse ",
                  "to the next action": "--objective mse --pred-horizon 1 "}
    table = tables.TABLES["disturbed"]
    for row in table.rows:
        for head, options in objectives.items():
            assert options in commands_of(row[table.head.index(head)]), head


def test_the_filter_is_told_the_noise_that_there_is():
    rows = tables.TABLES["estimated"].rows
    for command in "".join(commands_of(row[2]) for row in rows).splitlines():
        px, noise = (re.search(rf"--{name} (\d)", command) for name in ("estimate", "obs-noise"))
        assert not px or px[1] == (noise[1] if noise else "0"), command


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_the_commands_behind_the_tables_are_understood(script, monkeypatch):
    pytest.importorskip("pymunk")
    monkeypatch.syspath_prepend(ROOT)
    module = __import__(script.removesuffix(".py"))
    monkeypatch.setattr(argparse.ArgumentParser, "error",
                        lambda self, message: pytest.fail(f"{sys.argv}: {message}"))
    words = [step.command.split()[1:] for step in every_step()]
    listed = [arguments for arguments in words if arguments[0] == script]
    assert len(listed) > 50
    for arguments in listed:
        monkeypatch.setattr(sys, "argv", arguments)
        module.parse_arguments()


def test_a_rate_collapses_where_nothing_failed():
    assert tables.rate(1000, 1000) == "1,000 of 1,000, ≥ 99.6 %"
    assert tables.rate(150, 200) == "75.0 % [68.4, 80.8]"
    assert tables.rate(9999, 10_000) == "99.99 % [99.94, 100.00]"
    assert tables.rate(199, 200) == "99.5 % [97.2, 100.0]"


def of_ladder(*episodes):
    return {"rung": [list(episode) for episode in episodes]}


def test_a_rung_gives_the_mean_and_the_range_of_training_seeds():
    solved = True, 1.0, 80, False
    moving = False, 0.5, 300, False
    resting = False, 0.0, 300, True
    one = of_ladder(solved, solved, solved, moving)
    other = of_ladder(solved, moving, resting, resting)
    assert tables.of_seeds((), "rung").text(one, other) == "50.0 % (25.0 .. 75.0)"
    assert tables.at_rest((), "rung").text(one, other) == "2 of 4"
    assert tables.pooled((), "rung", tables.success_of).text(one, other) == tables.rate(4, 8)
    assert tables.pooled((), "rung", tables.score_of).text(one, other).startswith("0.625 [")
    assert tables.pooled((), "rung", tables.steps_of).text(one, other) == "80"


def test_scores_of_several_sheets_are_pooled():
    sheets = [{"episodes": [{"success": k < good, "score": (k < good) / 2, "steps": 10 * k}
                            for k in range(10)]} for good in (10, 5)]
    assert tables.success().text(*sheets) == tables.rate(15, 20)
    assert tables.mean_score().text(*sheets).startswith("0.375 [")
    assert tables.median_steps().text(*sheets) == "30"
    assert tables.steps_of([{"success": False, "steps": 9}]) == "–"
    assert tables.median_steps().text({"episodes": [
        {"success": k > 0, "steps": steps} for k, steps in enumerate((300, 10, 20, 90))]}) == "20"


def test_cells_of_one_sheet_say_percent_and_steps_of_it(folder, monkeypatch):
    sheet = {"summary": {"success": 0.5, "score": 0.618}, "share": {"left": 0.25},
             "episodes": [{"success": True, "steps": 70, "score": 1.0}]}
    assert tables.short(None).text(sheet) == "50.0 %, 0.62"
    assert tables.short(None, "steps").text(sheet) == "50.0 %, 0.62, 70 steps"
    assert tables.percent(None, "share", "left", digits=1).text(sheet) == "25.0 %"
    assert tables.played(None, "x", tables.success_of).text({"x": sheet}) == tables.rate(1, 1)
    assert tables.worst_and_best(sheet, {"summary": {"success": 0.75}}) == "50.0 .. 75.0 %"
    distance = {row[0]: row[1] for row in tables.fidelity().rows}["MIP"]
    assert distance.text({"MIP": {"distance": [1.0, 4.0]}}) == "2.5 (1.0 .. 4.0)"
    assert distance.text({"MIP": {"distance": [2.0]}}) == "2.0"
    sides = {"left": 0.2, "between": 0.3, "right": 0.5}
    assert tables.forks().rows[-1][1].text({"mip-0": sides}) == "20 / 30 / 50"
    monkeypatch.setattr(tables, "seconds_of", lambda sheet: sheet)
    assert tables.cpu().text(10.0, 20.0) == "15"


def test_distractors_are_read_of_all_training_seeds(folder):
    step = Step("d/results-2.json", "")
    (results.FOLDER / "d").mkdir()
    for seed, solved in enumerate((True, False, True)):
        (results.FOLDER / "d" / f"results-{seed}.json").write_text(
            json.dumps(of_ladder((solved, 1.0, 80, False))))
    assert tables.of_distracted(step, "rung").text(None) == "66.7 % (0.0 .. 100.0)"


def test_each_label_of_a_rung_is_another_rung_of_the_ladder():
    shown = [rung for rung in tables.RUNG_ROWS.values() if rung]
    assert len(set(shown)) == len(shown) and set(shown) <= set(ladder.RUNGS)


# ---- what the scripts share ----------------------------------------------------------------------

def test_episodes_are_played_in_parts_each_seed_once(monkeypatch):
    monkeypatch.setattr(measuring.rollout, "rollout", lambda policy, seeds, **options:
                        [(seed, options) for seed in seeds])
    count = 2 * measuring.rollout.CHUNK + 3
    played = measuring.played(None, count, 7, extra=1)
    assert played == [(seed, {"extra": 1}) for seed in range(7, 7 + count)]


def test_a_training_takes_the_loss_and_the_network_it_is_given(monkeypatch):
    class Trainer(list):
        def __init__(self, *given):
            self.given = given

    monkeypatch.setattr(measuring, "Trainer", Trainer)
    config = SimpleNamespace(objective="mse", seed=0, steps=3)
    of_mse = measuring.beyond.OBJECTIVES["mse"].loss
    assert measuring.trained(config, 1, 2).given == (config, 1, 2, of_mse, None)
    assert measuring.trained(config, 1, 2, "loss", "init").given == (config, 1, 2, "loss", "init")


def test_a_sheet_keeps_all_that_was_added(tmp_path, capsys):
    episodes = [Episode(seed, 0.5, seed > 1, 80, 0.5) for seed in (1, 2)]
    sheet = measuring.Sheet(tmp_path / "a.json")
    sheet.add("one", episodes)
    sheet.add("other", {"n": 3})
    kept = json.loads((tmp_path / "a.json").read_text())
    assert [episode["seed"] for episode in kept["one"]["episodes"]] == [1, 2]
    assert kept["other"] == {"n": 3} and "other: {'n': 3}" in capsys.readouterr().out
