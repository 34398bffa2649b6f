"""The window of a policy does what it says: keys, mouse, plans on the screen, the world's clock."""
from minidiff import stopping
from minidiff.beyond import OBJECTIVES
from minidiff.beyond.samplers import ddim_sampling
from minidiff.pusht import __main__ as commands
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.estimate import EstimatingEnv
from minidiff.pusht.geometry import CENTER_OF_GRAVITY, GOAL_POSE, keypoints, to_world
from minidiff.pusht.study.candidates import best
from minidiff.pusht.view import drawing, watch, windows
from minidiff.pusht.view.windows import TRAIL

import contextlib
import functools
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from screen import Time, assert_panel_is_whole, at, color_at, key, pygame, unseen_window, wait


@pytest.fixture
def window(monkeypatch):
    with unseen_window(monkeypatch) as window:
        yield window


@pytest.fixture
def game(window, tiny_policy):
    """A Watch whose time is game.clock.now.seconds; each decision carries out 2 actions."""
    ddim = tiny_policy(sampler=functools.partial(ddim_sampling, steps=3))
    return watch.Watch({"ancestral": tiny_policy(), "ddim": ddim}, seed=7, noise_seed=4,
                       max_steps=9, seeding="legacy", candidates=16, now=Time())


def middle(state):
    """The T's centre of gravity, (2,)."""
    c, s = np.cos(state[4]), np.sin(state[4])
    return state[2:4] + np.array([[c, -s], [s, c]]) @ CENTER_OF_GRAVITY


# ---- the clock and the chain ---------------------------------------------------------------------

def test_denoise_yields_each_step_of_the_chain_and_then_the_plan(tiny_policy):
    obs = np.repeat(PushTEnv().reset(seed=1)[0][None, None], 2, 1).repeat(3, 0)
    quick = tiny_policy(sampler=functools.partial(ddim_sampling, steps=3))
    for policy, length in ((tiny_policy(), 7), (quick, 4)):
        chain = list(policy.denoise(obs, np.random.default_rng(0)))
        assert len(chain) == length and len({plans.tobytes() for plans in chain}) == length
        assert np.array_equal(chain[-1], policy.plan(obs, np.random.default_rng(0)))


def test_the_world_steps_ten_times_a_second_with_a_plan_every_two(game):
    wait(game, 0.095)
    assert game.steps == 0 and game.chain is None, "the first plan is complete before it is due"
    for step in range(1, 7):
        wait(game, 0.1)
        assert game.steps == step == len(game.trail) - 1
        assert len(game.decisions) == 1 + step // 2
    assert game.clock.dropped == 0


def test_the_chain_is_spread_over_the_time_that_there_is(game):
    wait(game, 0.2)  # one decision carried out: the length of the chain is known
    seen = [game.passed]
    for _ in range(7):
        wait(game, 0.01)
        seen.append(game.passed)
    assert seen == sorted(seen) and len(set(seen)) >= 6 and seen[-1] == 7
    wait(game, 0.01)
    assert game.chain is None and game.chosen is not None and game.steps == 2


def test_a_step_carries_out_the_plan_that_the_simulator_finds_best(game):
    wait(game, 0.095)
    plans, chosen = game.plans, game.plans[game.chosen]
    obs = np.tile(game.seen[0], (16, 2, 1))
    expected = game.policies["ancestral"].plan(obs, np.random.default_rng([4, 7]))
    assert np.array_equal(plans, expected) and plans.shape == (16, 8, 2)
    assert (chosen == best(game.env, game.scratch, plans)[0]).all()
    wait(game, 0.1)
    assert game.env.snapshot().actions[0] == tuple(np.clip(chosen[0], 0, 512))


@pytest.mark.parametrize("count", [16, 2])
def test_the_chosen_plan_is_that_of_the_simulator(count, game, monkeypatch):
    def last(env, scratch, plans):
        assert env is game.env, "tried from where they will be carried out"
        return plans[-1], 0.0

    monkeypatch.setattr(watch, "best", last)
    game.candidates = count
    game.replan()
    assert len(game.plans) == 0
    wait(game, 0.095)
    assert game.chosen == count - 1


def test_a_decision_is_timed_from_its_first_step_to_its_choice(game, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(watch.time, "perf_counter", lambda: next(clock) / 128)
    wait(game, 0.295)
    assert game.decisions == [1000 / 128 * 8] * 2  # seven of the chain, and the choice


def test_whatever_changes_the_picture_asks_for_a_new_one(game):
    for act in (game.replan, game.denoise, game.step):
        game.fresh = False
        act()
        assert game.fresh


def test_in_a_pause_the_chain_takes_a_second(game):
    wait(game, 0.2)  # the length of the chain is known
    game.handle(key("space"))
    game.replan()
    wait(game, 0.5)
    assert 2 <= game.passed <= 5


def test_after_the_last_seed_comes_the_first(game):
    game.start(2**32 - 1)
    game.handle(key("n"))
    assert game.seed == 0


def test_the_end_of_an_episode_is_shown_before_the_next_begins(game):
    wait(game, 1.0)
    assert game.ended[1] == "out of steps" and game.steps == 9 and game.seed == 7
    wait(game, watch.AFTERGLOW - 0.2)
    assert game.ended
    wait(game, 0.3)
    assert game.seed == 8 and not game.ended and game.steps <= 1
    game.env.reset(options={"state": [40, 40, *GOAL_POSE], "order": "exact"})
    game.step()
    assert re.fullmatch(r"solved after \d steps", game.ended[1])


# ---- keys ----------------------------------------------------------------------------------------

def test_space_pauses_and_the_point_steps_once(game):
    wait(game, 0.15)
    game.handle(key("space"))
    wait(game, 2)
    assert game.steps == 1
    for name in (".", "right"):
        steps = game.steps
        game.handle(key(name))
        wait(game, 2)
        assert game.paused and game.steps == steps + 1 and game.chain is None
    game.handle(key("space"))
    wait(game, 0.105)
    assert game.steps == 4 and game.clock.dropped == 0
    game.handle(key("."))
    assert game.steps == 5 and game.paused


def test_plus_and_minus_change_the_speed_up_to_a_limit(game):
    for names, period in (("+", 0.05), ("=", 0.025), ("+", 0.025), ("---", 0.2), ("------", 1.6)):
        for name in names:
            game.handle(key(name))
        assert game.clock.period == period
    wait(game, 1.55)
    assert game.steps == 0
    wait(game, 0.1)
    assert game.steps == 1


def test_n_c_s_and_h_change_start_candidates_sampler_and_help(game, window):
    game.handle(key("n"))
    assert game.seed == 8 and np.array_equal(game.env.state, PushTEnv().reset(seed=8)[0])
    lengths = {}
    for name in ("ancestral", "ddim", "ancestral"):
        assert game.name == name
        wait(game, 0.095)
        lengths[name] = game.passed
        game.handle(key("s"))
        assert game.length == math.inf, "that of another sampler says nothing"
    assert lengths == {"ancestral": 7, "ddim": 4}
    game.policies = dict.fromkeys(("ancestral", "pc", "ddim"), game.policies["ancestral"])
    names = []
    for _ in range(4):
        game.handle(key("s"))
        names.append(game.name)
    assert names == ["ancestral", "pc", "ddim", "ancestral"]
    for count in (1, 16):
        game.handle(key("c"))
        wait(game, 0.05)
        assert len(game.plans) == count
    pictures = []
    for _ in range(3):
        game.draw(window.screen)
        pictures.append(pygame.surfarray.array3d(window.screen))
        game.handle(key("h"))
    assert not np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


@pytest.mark.parametrize("close", ["q", "escape", "quit"])
def test_the_window_closes_and_leaves_no_display_behind(game, window, close, monkeypatch):
    patience = iter([False] * 99)
    monkeypatch.setattr(stopping, "asked", lambda: next(patience))
    pygame.event.post(pygame.event.Event(pygame.QUIT) if close == "quit" else key(close))
    windows.play(game, window)
    assert not window.open and not pygame.display.get_init()
    said = game.summary()
    assert re.fullmatch(r"0 steps on the clock, 0 dropped; median .* a decision", said)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_window_closes_when_something_goes_wrong(game, window, error):
    def update():
        raise error

    game.update = update
    with contextlib.suppress(OSError):  # Ctrl-C is no error
        windows.play(game, window)
    assert not window.open and not pygame.display.get_init()


# ---- the mouse and the T -------------------------------------------------------------------------

def test_the_left_button_drags_the_T_and_nothing_else_does(game):
    game.env.reset(options={"state": [60, 60, 256, 200, 0.3], "order": "exact"})
    before, agent = middle(game.env.state), game.env.state[:2]
    game.handle(at(pygame.MOUSEMOTION, before))
    game.handle(at(pygame.MOUSEBUTTONDOWN, [450, 450], button=1))  # not on the T
    game.handle(at(pygame.MOUSEMOTION, [400, 400]))
    assert np.allclose(middle(game.env.state), before) and game.grip is None
    game.handle(at(pygame.MOUSEBUTTONDOWN, before + [3, 4], button=1))
    for shift in ([20, 0], [60, -30]):
        game.handle(at(pygame.MOUSEMOTION, before + [3, 4] + shift))
        assert np.allclose(middle(game.env.state), before + shift)
        assert game.env.state[4] == pytest.approx(0.3)
        assert np.array_equal(game.env.state[:2], agent)
    game.handle(at(pygame.MOUSEBUTTONUP, before + [63, -26], button=1))
    game.handle(at(pygame.MOUSEMOTION, before))
    assert np.allclose(middle(game.env.state), before + [60, -30])


def test_the_right_button_and_the_wheel_turn_the_T_about_its_middle(game):
    game.env.reset(options={"state": [60, 60, 256, 200, 0.3], "order": "exact"})
    centre = middle(game.env.state)
    game.handle(at(pygame.MOUSEBUTTONDOWN, centre + [0, -100], button=3))
    game.handle(at(pygame.MOUSEMOTION, centre + [50, 0]))  # a quarter turn, from x to y
    assert game.env.state[4] == pytest.approx(0.3 + np.pi / 2)
    assert np.allclose(middle(game.env.state), centre)
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=-2))
    assert game.env.state[4] == pytest.approx(0.3 + np.pi / 2 - np.radians(20))
    assert np.allclose(middle(game.env.state), centre)


coordinate = st.floats(-1000, 1500)


@given(x=coordinate, y=coordinate, angle=st.floats(-10, 10))
def test_wherever_the_mouse_goes_the_T_stays_between_the_walls(x, y, angle):
    game = watch.Watch.__new__(watch.Watch)
    game.world, game.paused = PushTEnv(), False
    game.env = EstimatingEnv(lambda: game.world)
    game.env.reset(options={"state": [-90, -90, 256, 256, 0]})  # the agent far away
    game.move(complex(x, y), angle)
    corners = keypoints(game.env.state[2:])
    assert corners.min() > 7 and corners.max() < 504  # the walls' inner sides
    assert np.cos(game.env.state[4] - angle) == pytest.approx(1)


def test_for_a_T_that_was_moved_the_policy_plans_anew_without_a_past(game):
    wait(game, 0.395)
    observed = []
    policy = game.policies["ancestral"]
    plain_denoise = policy.denoise

    def denoise(obs, rng):
        observed.append(obs)
        return plain_denoise(obs, rng)

    policy.denoise = denoise
    velocity = game.env.motion[5:]
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=9))
    state = game.env.state
    assert velocity.any()
    assert np.array_equal(game.env.motion[5:], velocity), "the agent is not stopped"
    assert len(game.seen) == 1 and np.array_equal(game.seen[0], state) and game.steps == 3
    game.move(to_world(complex(*CENTER_OF_GRAVITY), np.array(GOAL_POSE)), GOAL_POSE[2])
    assert game.coverage == pytest.approx(1)
    game.handle(key("space"))
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=1))
    assert len(observed) == 1, "a paused window shows the plans for what it shows"
    assert (observed[0] == game.env.state).all() and observed[0].shape == (16, 2, 5)


# ---- the picture ---------------------------------------------------------------------------------

def test_plans_end_where_they_end_and_the_next_actions_are_marked(game, window):
    def is_marked():
        return [color_at(window, point) == drawing.VERMILLION for point in game.plans[5]]

    wait(game, 0.095)
    along = np.linspace(0, 1, 8)[:, None]
    ends = np.stack([np.linspace(40, 470, 16), np.full(16, 470.0)], 1)
    game.env.reset(options={"state": [100, 60, 350, 60, 1.5], "order": "exact"})
    game.plans = np.array([200, 200]) + along * (ends[:, None] - [200, 200])
    game.plans[9] = game.plans[5]  # below the chosen one
    game.plans[10, -1] = 1e30, -1e30
    game.chosen = 5
    game.draw(window.screen)
    for k in {*range(16)} - {10}:
        color = drawing.INK if k in (5, 9) else drawing.GREY
        assert color_at(window, game.plans[k, -1]) == color
    assert is_marked() == [True] * 2 + [False] * 6
    wait(game, 0.01)  # one of the two is carried out
    game.env.reset(options={"state": [100, 60, 350, 60, 1.5], "order": "exact"})
    game.draw(window.screen)
    assert is_marked() == [False, True] + [False] * 6


def test_the_trail_is_short_so_that_a_long_episode_hides_nothing(game, window):
    game.trail = list(np.stack([np.linspace(30, 480, 100), np.full(100, 490)], 1))
    game.draw(window.screen)
    is_orange = [color_at(window, point) == drawing.ORANGE for point in game.trail]
    assert not any(is_orange[:100 - TRAIL]) and all(is_orange[102 - TRAIL:95])


def test_a_single_plan_is_the_chosen_one_from_its_first_step(game, window, monkeypatch):
    drawn = []
    monkeypatch.setattr(windows, "picture", lambda *given: given[-1](None, 1))
    monkeypatch.setattr(watch, "fan", lambda pg, canvas, unit, plans, chosen, upcoming: (
        drawn.append((len(plans), chosen))))
    for game.candidates in (1, 2):
        game.replan()
        game.denoise()
        game.draw(window.screen)
    assert drawn == [(1, 0), (2, None)]


def test_a_plan_of_a_single_action_is_a_dot(window):
    canvas = pygame.Surface((100, 100))
    watch.fan(pygame, canvas, 1, np.full((2, 1, 2), 50.0), None, slice(0, 1))
    assert canvas.get_at((50, 50))[:3] == drawing.GREY


def test_the_panel_says_what_there_is_to_say(game, window, monkeypatch):
    said = []
    monkeypatch.setattr(windows, "panel", lambda pg, screen, *texts: said.append(texts))
    monkeypatch.setattr(windows, "overlay", lambda pg, screen, *rows: said.append(rows))

    def panel():
        game.draw(window.screen)
        first, word, second, keys = said[-1]
        assert keys == watch.KEYS
        return first, word, second

    game.decisions = []
    assert game.summary() == "0 steps on the clock, 0 dropped; median – a decision"
    many = "plans, the best one chosen by the simulator"
    assert panel() == ("coverage   0%    step 0    seed 7", "",
                       f"ancestral    16 {many}        10 Hz")
    game.decisions = [90.0, 80.0, 7.0, 20.0, 30.0, 6.0, 5.0]
    assert game.summary() == "0 steps on the clock, 0 dropped; median 20 ms a decision"
    game.candidates, game.paused, game.coverage = 2, True, 0.5
    assert panel() == ("coverage  50%    step 0    seed 7", "paused",
                       f"ancestral    2 {many}    7 ms a decision    10 Hz")
    game.candidates, game.grip = 1, ("drag", 0)
    assert panel()[1:] == ("you hold the T",
                           "ancestral    a single plan    7 ms a decision    10 Hz")
    game.ended, game.help = (0.0, "out of steps"), True
    game.draw(window.screen)
    assert said[-2][1] == "out of steps" and said[-1] == (watch.HELP, watch.COLOURS)


def test_no_text_is_cut_off(game, window, monkeypatch):
    name = "a sampler of a really long name, 100 steps"
    game.policies = {name: game.policies["ancestral"]}
    game.name = name
    game.decisions = [12345.0]
    game.ended = 0.0, "solved after 299 steps"
    for help in (False, True):
        game.help = help
        game.draw(window.screen)
        assert_panel_is_whole(window)
    sheets = []

    def put(canvas, text, x, y, across=0, down=0):
        left = x - across * text.get_width()
        sheets.append((canvas.get_width(), left, left + text.get_width()))

    monkeypatch.setattr(windows, "put", put)
    windows.overlay(pygame, window.screen, watch.HELP, watch.COLOURS)
    assert sheets and all(left >= 10 and right <= width - 10 for width, left, right in sheets)


# ---- the command ---------------------------------------------------------------------------------

def command(*arguments):
    return [sys.executable, "-m", "minidiff.pusht", "watch", *arguments]


def environment(driver):
    return os.environ | {"SDL_VIDEODRIVER": driver, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_the_command_plays_until_it_is_told_to_stop_and_sums_up(tmp_path):
    process = subprocess.Popen(
        command("--sampler", "ddim", "--sampler-steps", "2"), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment("dummy"))
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0 and error == ""
    first, last = out.splitlines()
    assert first == "the policy that comes with minidiff: ddim, sampler steps 2"
    said = re.fullmatch(r"(\d+) steps on the clock, \d+ dropped; median \d+ ms a decision", last)
    assert int(said[1]) > 0


def test_without_a_display_the_command_says_what_to_do_instead(tmp_path):
    result = subprocess.run(command(), cwd=tmp_path, capture_output=True, text=True, timeout=60,
                            env=environment("nonsense"))
    assert result.returncode == 1 and os.listdir(tmp_path) == []
    said = (r"minidiff.pusht watch: no display for a live window \(.*nonsense.*\): "
            r".*python -m minidiff.pusht film RUN FILE.*\n")
    assert re.fullmatch(said, result.stderr)


def watched(arguments, monkeypatch):
    """The game that the command would play."""
    games = []
    monkeypatch.setattr(windows, "run", games.append)
    assert commands.main(["watch", *arguments.split()]) == 0
    return games[0]


@pytest.mark.parametrize("arguments, first", [
    ("", "ancestral"), ("--sampler ddim --sampler-steps 4", "ddim 4"),
    ("--sampler ddim --sampler-steps 7", "ddim 7"), ("--sampler pc", "pc")])
def test_key_s_goes_from_the_chosen_sampler_through_all_others(arguments, first, monkeypatch):
    game = watched(arguments + " --action-horizon 3", monkeypatch)
    names = [name for name in OBJECTIVES["simple"].samplers if name != "ddim"] + ["ddim 4"]
    assert list(game.policies)[0] == first
    assert set(game.policies) == {first, *names} and len(game.policies) == len({first, *names})
    assert all(policy.action_horizon == 3 for policy in game.policies.values())
    assert game.policies["ddim 4"].sampler.keywords == {"steps": 4}


def test_the_command_hands_its_options_on(monkeypatch):
    for count, then in ((1, [watch.CANDIDATES, 1]), (2, [1, 2])):
        game = watched(f"--seed 12 --candidates {count} --max-steps 5 --seeding modern "
                       "--noise-seed 4", monkeypatch)
        assert np.array_equal(game.env.state, PushTEnv(seeding="modern").reset(seed=12)[0])
        assert (game.seed, game.candidates, game.max_steps, game.noise_seed) == (12, count, 5, 4)
        for candidates in then:
            game.press("c")
            assert game.candidates == candidates


@pytest.mark.parametrize("arguments, code, said", [
    (["--candidates", "0"], 2, "--candidates: must be from 1 to 1000, not 0"),
    (["--max-steps", "0"], 2, "--max-steps: must be from 1 to 1000000, not 0"),
    (["nowhere"], 1, "nowhere"),
    (["--sampler-steps", "3"], 1, "ancestral takes no steps")])
def test_the_command_refuses_in_a_sentence(arguments, code, said, capsys):
    try:
        status = commands.main(["watch", *arguments])
    except SystemExit as end:
        status = end.code
    assert status == code and said in capsys.readouterr().err.splitlines()[-1]


# ---- latency -------------------------------------------------------------------------------------

def test_l_makes_actions_late_and_the_picture_stays_the_worlds(game, monkeypatch):
    shown = []
    monkeypatch.setattr(windows, "picture", lambda pg, screen, state, trail, draw: shown.append(
        (state, trail)))
    monkeypatch.setattr(windows, "panel", lambda *texts: shown.append(" ".join(map(str, texts))))
    seed = game.seed
    for late in (2, 4, 8, 0, 2, 4):
        game.handle(key("l"))
        assert (game.latency, len(game.world.waiting)) == (late, late)
        assert (game.seed, game.steps) == (seed, 0)
    for _ in range(4):
        game.step()
    assert np.abs(game.seen[-1][:2] - game.world.state[:2]).max() > 1
    game.draw(None)
    (state, trail), text = shown
    assert (state == game.world.state).all() and (trail[-1] == state[:2]).all()
    assert "4 steps late" in text


def test_with_latency_the_mouse_takes_the_T_of_the_world(game):
    game.latency = 4
    game.start(game.seed)
    for _ in range(3):
        game.step()
    agent = game.world.state[:2]
    before = middle(game.world.state)
    game.env.set_model(game.world.motion + [0, 0, 100, 0, 0, 0, 0])  # the T is seen elsewhere
    game.handle(at(pygame.MOUSEBUTTONDOWN, before + [3, 4], button=1))
    game.handle(at(pygame.MOUSEMOTION, before + [13, 4]))
    np.testing.assert_allclose(middle(game.world.state), before + [10, 0], atol=1e-6)
    assert np.array_equal(game.world.state[:2], agent)
