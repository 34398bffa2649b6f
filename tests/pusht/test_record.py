"""Demonstrations by the mouse: what the pointer did is in the file, and the file never suffers."""
from minidiff import demos
from minidiff.pusht import EXPERT_DEMOS, SHIPPED_POLICY
from minidiff.pusht import __main__ as commands
from minidiff.pusht.data.expert import demonstrate
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.view import drawing, record, windows
from minidiff.pusht.view.windows import TRAIL

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from screen import (
    SIZES,
    Time,
    assert_texts_are_whole,
    at,
    color_at,
    key,
    laid_out,
    pygame,
    unseen_window,
    wait,
)


@pytest.fixture
def window(monkeypatch):
    with unseen_window(monkeypatch) as window:
        yield window


@pytest.fixture(scope="module")
def shown():
    return demonstrate(9000)


def perform(game, shown):
    """Record what the demonstrator showed: the pointer takes the agent and goes where it went."""
    game.handle(at(pygame.MOUSEMOTION, game.states[0][:2]))
    for done, point in enumerate(shown.actions):
        game.handle(at(pygame.MOUSEMOTION, point))
        while len(game.actions) == done:
            wait(game, 0.005)
        if game.ended:
            return


# ---- the window ----------------------------------------------------------------------------------

def test_a_recorded_episode_is_what_the_pointer_did_and_trains(window, tmp_path, shown):
    path = tmp_path / "mine.npz"
    game = record.Record(path, now=Time())
    assert game.seed == 9000
    game.handle(at(pygame.MOUSEMOTION, game.states[0][:2] + [30, 0]))
    wait(game, 1)
    assert not game.in_hand and len(game.actions) == 0, "the agent waits for the pointer"
    perform(game, shown)
    assert game.ended[1] == "solved, and kept" and game.coverage > 0.95
    data = demos.load(path, PUSHT)
    steps = game.clock.steps
    assert len(data.state) == len(data.action) == steps and data.episode_ends.tolist() == [steps]
    env = PushTEnv()
    assert np.array_equal(data.state[0], np.float32(env.reset(seed=9000)[0]))
    assert np.array_equal(data.state[1:], np.float32(env.simulate(data.action[:-1])))
    assert env.step(data.action[-1])[2], "its last action solves it"
    assert np.array_equal(data.action, shown.actions[:steps])
    said, little, more = game.summary().splitlines()
    assert said.startswith(f"1 episode, {steps} steps") and said.endswith(f"--demos {path}")
    assert little.startswith("That is little: from 20 episodes of people")
    assert more == (f"python train.py --demos {path} --init {SHIPPED_POLICY} --steps 500 "
                    "--lr 1e-3")
    game.episodes = 100
    assert game.summary().splitlines() == [said.replace("1 episode,", "100 episodes,")]


def test_time_stands_still_while_the_pointer_is_out_of_the_world(window, tmp_path):
    game = record.Record(tmp_path / "mine.npz", now=Time())
    assert game.summary() == "nothing was kept"
    outside = at(pygame.MOUSEMOTION, [520, 100])
    for leave in (outside, pygame.event.Event(pygame.WINDOWLEAVE), key("h")):
        game.handle(at(pygame.MOUSEMOTION, game.states[-1][:2]))
        before = len(game.actions)
        wait(game, 0.25)
        steps = len(game.actions)
        game.handle(leave)
        wait(game, 1)
        assert before + 2 == steps == len(game.actions) and game.clock.dropped == 0
        if leave.type == pygame.KEYDOWN:
            game.handle(at(pygame.MOUSEMOTION, game.states[-1][:2]))
            assert not game.in_hand, "the help hides the world"


def test_the_world_ends_with_the_last_pixel_of_its_picture(window, tmp_path):
    game = record.Record(tmp_path / "mine.npz")
    last = windows.VIEW - 1
    for pixel in ((0, 0), (last, last)):
        game.point(*pixel)
        assert game.pointer == (pixel[0] / windows.UNIT, pixel[1] / windows.UNIT)
    for pixel in ((-1, 5), (5, -1), (last + 1, 5), (5, last + 1)):
        game.point(*pixel)
        assert game.pointer is None


def test_whatever_changes_the_picture_asks_for_a_new_one(window, tmp_path):
    game = record.Record(tmp_path / "mine.npz", now=Time())
    game.point(100, 100)
    for act in (game.step, lambda: game.start(1)):
        game.fresh = False
        act()
        assert game.fresh


def test_a_ring_shows_the_agent_that_waits_to_be_taken(window, tmp_path):
    game = record.Record(tmp_path / "mine.npz")
    game.states = [np.array([100, 100, 350, 60, 1.5])]
    ringed = []
    for game.in_hand, game.ended in ((False, None), (True, None), (False, (0.0, "kept"))):
        game.pointer = (300, 300)
        game.draw(window.screen)
        ring = 100 + (record.GRASP - 0.5) * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
        ringed.append([sum(color_at(window, point)) < 600 for point in ring])
    assert ringed == [[True] * 4, [False] * 4, [False] * 4]


def test_enter_keeps_and_x_discards_and_the_file_goes_on(window, tmp_path):
    path = tmp_path / "mine.npz"
    game = record.Record(path, now=Time())

    def push(*names):
        game.handle(at(pygame.MOUSEMOTION, game.states[-1][:2]))
        wait(game, 0.3)
        for name in names:
            game.handle(key(name))
        if game.ended:
            assert game.ended[1] == "kept" and game.episodes == len(record.read(path)["seed"])
            wait(game, record.AFTERGLOW - 0.1)
            assert game.ended, "there is time to think better of it"
            wait(game, 0.2)

    push("x")
    assert not path.exists() and game.seed == 9001
    push("return", "backspace")  # kept, and thought better of
    assert not path.exists() and game.seed == 9002
    push("return")
    push("return")
    push("return", "x")
    push("x")
    game.handle(key("return"))  # nothing was done yet
    assert record.read(path)["seed"].tolist() == [9002, 9003]
    assert game.summary().startswith("2 episodes, ")
    again = record.Record(path, now=Time())
    assert again.seed == 9004 and again.episodes == 2
    before = record.read(path)
    perform(again, demonstrate(9004))
    after = record.read(path)
    assert after["seed"].tolist() == [9002, 9003, 9004]
    for name, rows in before.items():
        assert np.array_equal(after[name][:len(rows)], rows)
    demos.load(path, PUSHT)


def test_the_trail_is_short_so_that_a_long_episode_hides_nothing(window, tmp_path):
    game = record.Record(tmp_path / "mine.npz")
    trail = np.stack([np.linspace(30, 480, 100), np.full(100, 490)], 1)
    game.states = [np.array([*point, 350, 60, 1.5]) for point in trail]
    game.draw(window.screen)
    is_orange = [color_at(window, point) == drawing.ORANGE for point in trail]
    assert not any(is_orange[:100 - TRAIL]) and all(is_orange[102 - TRAIL:95])


def test_the_panel_says_what_there_is_to_do(window, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(windows, "panel", lambda pg, screen, *texts: said.append(texts))
    monkeypatch.setattr(windows, "overlay", lambda pg, screen, *rows: said.append(rows))
    game = record.Record(tmp_path / "mine.npz")
    for game.in_hand, game.ended in ((False, None), (True, None), (False, (0.0, "kept"))):
        game.pointer = (300, 300)
        game.draw(window.screen)
    first = "coverage   0%    step 0    0 episodes in mine.npz"
    assert said == [(first, "waiting for you", record.WAITING, record.KEYS),
                    (first, "recording", record.RECORDING, record.KEYS),
                    (first, "kept", record.KEPT, record.KEYS)]
    game.help = True
    game.draw(window.screen)
    assert said[-1] == (record.HELP, record.COLOURS)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_text_is_cut_off(size, window, tmp_path, monkeypatch):
    boxes = laid_out(monkeypatch, windows)
    game = record.Record(tmp_path / ("long" * 6 + ".npz"))
    for game.in_hand, game.pointer in ((False, None), (True, (100, 100))):
        assert_texts_are_whole(game, boxes, size)
    game.ended = 0.0, "solved, and kept"
    assert_texts_are_whole(game, boxes, size)


# ---- the file ------------------------------------------------------------------------------------

@pytest.mark.parametrize("content, said", [
    (b"not demonstrations", "cannot be read as demonstrations"),
    (b"", "cannot be read as demonstrations"),
    (EXPERT_DEMOS.read_bytes()[:100_000], "cannot be read as demonstrations"),
    (EXPERT_DEMOS.read_bytes(), "were not recorded here")], ids=["text", "empty", "cut", "expert"])
def test_a_damaged_or_foreign_file_is_refused_and_left_as_it_is(window, tmp_path, content, said):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    for touch in (lambda: record.Record(path), lambda: record.drop_last(path),
                  lambda: record.append(path, np.ones((2, 5)), np.ones((2, 2)), 1)):
        with pytest.raises(ValueError, match=said):
            touch()
    assert path.read_bytes() == content and os.listdir(tmp_path) == ["mine.npz"]


@pytest.mark.parametrize("change, said", [
    ({"seed": [-1]}, "were not recorded here"), ({"seed": [2**32]}, "were not recorded here"),
    ({"seed": [2**63 - 1]}, "were not recorded here"), ({"seed": [1.5]}, "were not recorded here"),
    ({"seed": [1, 2]}, "were not recorded here"), ({"more": 1}, "were not recorded here"),
    ({"seed": None}, "were not recorded here"),  # there is none
    ({"state": np.full((2, 5), np.nan)}, "array 'state' is not finite")], ids=str)
def test_a_file_that_record_cannot_have_written_is_refused(tmp_path, change, said):
    path = tmp_path / "mine.npz"
    arrays = {"state": np.ones((2, 5)), "action": np.ones((2, 2)), "episode_ends": [2], "seed": [1]}
    arrays |= change
    np.savez(path, **{name: rows for name, rows in arrays.items() if rows is not None})
    with pytest.raises(ValueError, match=f"^{path}: .*{said}"):
        record.read(path)


def test_by_default_the_seed_is_one_that_the_file_does_not_have(tmp_path):
    for seed, following in ((5, 9000), (9002, 9003), (9001, 9003)):
        record.append(tmp_path / "mine.npz", np.ones((2, 5)), np.ones((2, 2)), seed)
        assert record.Record(tmp_path / "mine.npz").seed == following


def test_after_the_last_seed_comes_the_first(tmp_path):
    path = tmp_path / "mine.npz"
    record.append(path, np.ones((2, 5)), np.ones((2, 2)), 2**32 - 1)
    game = record.Record(path)
    assert game.seed == 0 and game.episodes == 1
    record.append(path, np.ones((2, 5)), np.ones((2, 2)), 0)
    assert record.read(path)["seed"].tolist() == [2**32 - 1, 0]


RECORD_UNTIL_KILLED = """
import minidiff, pygame
from minidiff.pusht.view import drawing, record, windows
from minidiff.pusht.view.windows import UNIT
game, window = record.Record("mine.npz"), drawing.Window()
def events():
    if game.episodes < 1 and len(game.actions) >= 3:
        yield pygame.event.Event(pygame.KEYDOWN, key=pygame.K_RETURN, unicode="\\r")
    x, y = game.states[-1][:2]
    yield pygame.event.Event(pygame.MOUSEMOTION, pos=(x * UNIT, y * UNIT))
    if game.episodes == 1 and not game.ended and len(game.actions) >= 3:
        print("in the second", flush=True)
window.events, record.AFTERGLOW = lambda: list(events()), 0.1
windows.play(game, window)
"""


@pytest.mark.slow
def test_a_kill_costs_the_episode_in_progress_and_no_other(tmp_path):
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", RECORD_UNTIL_KILLED], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == "in the second\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert os.listdir(tmp_path) == ["mine.npz"]
    assert len(demos.load(tmp_path / "mine.npz", PUSHT).episode_ends) == 1


# ---- the command ---------------------------------------------------------------------------------

def test_the_command_hands_its_options_on(monkeypatch, tmp_path):
    games = []
    monkeypatch.setattr(windows, "run", games.append)
    path = str(tmp_path / "mine.npz")
    assert commands.main(["record", path]) == 0
    assert commands.main(["record", path, "--seed", "3", "--seeding", "modern"]) == 0
    first, second = games
    assert (first.path, first.seed, second.seed) == (path, 9000, 3)
    assert np.array_equal(second.env.state, PushTEnv(seeding="modern").reset(seed=3)[0])


def test_without_a_display_the_command_says_so_and_leaves_no_file(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "minidiff.pusht", "record", "mine.npz"], cwd=tmp_path,
        capture_output=True, text=True, timeout=60,
        env=os.environ | {"SDL_VIDEODRIVER": "nonsense", "PYTHONPATH": str(ROOT)})
    assert result.returncode == 1 and os.listdir(tmp_path) == []
    assert result.stderr.startswith("minidiff.pusht record: no display for a live window")


@pytest.mark.parametrize("arguments", [[], ["mine.txt"], ["mine.zip"]], ids=str)
def test_the_command_takes_an_npz_file_only(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        commands.main(["record", *arguments])
    assert end.value.code == 2 and ".npz" in capsys.readouterr().err.splitlines()[-1]
