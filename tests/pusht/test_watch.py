"""The two windows do what they say: keys, mouse, plans on the screen, the world's clock, and a file that never suffers."""
import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, command
from hypothesis import given
from hypothesis import strategies as st

from minidiff import demos
from minidiff.pusht import EXPERT_DEMOS, draw, live, record, watch
from minidiff.pusht.study.candidates import best
from minidiff.pusht.env import CENTER_OF_GRAVITY, GOAL_POSE, PushTEnv, keypoints
from minidiff.pusht.expert import demonstrate
from minidiff.pusht.features import PUSHT
from minidiff.pusht.live import UNIT, VIEW

pygame = pytest.importorskip("pygame")


class Time:
    """A clock that stands still until it is told otherwise."""
    seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def window(monkeypatch):
    """A window of the driver that draws into nowhere."""
    pygame.display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = draw.Window()
    window.canvas((VIEW, VIEW + live.PANEL))
    yield window
    window.close()


@pytest.fixture
def game(window, tiny_policy):
    """A Watch whose time is game.clock.now.seconds; each decision carries out 2 actions."""
    policies = {name: tiny_policy(sampler=name, **more) for name, more in
                (("ancestral", {}), ("ddim", {"steps": 3}))}
    return watch.Watch(policies, seed=7, max_steps=9, now=Time())


def key(name):
    unicode = {"space": " ", "return": "\r", "backspace": "\b"}.get(name, name if len(name) == 1 else "")
    return pygame.event.Event(pygame.KEYDOWN, key=pygame.key.key_code(name if name != "+" else "="), unicode=unicode)


def at(kind, point, **more):
    """A mouse event at a point of the world."""
    return pygame.event.Event(kind, pos=(point[0] * UNIT, point[1] * UNIT), **more)


def wait(game, seconds):
    """Let time pass, in steps of 5 ms, and let the game do what is due."""
    for _ in range(round(200 * seconds)):
        game.clock.now.seconds += 0.005
        while game.update():
            pass


def middle(state):
    """The T's centre of gravity, (2,)."""
    c, s = np.cos(state[4]), np.sin(state[4])
    return state[2:4] + np.array([[c, -s], [s, c]]) @ CENTER_OF_GRAVITY


# ---- the clock and the chain --------------------------------------------------------------------------------------

def test_denoise_yields_every_step_of_the_chain_and_ends_with_the_plan(tiny_policy):
    obs = np.repeat(PushTEnv().reset(seed=1)[0][None, None], 2, 1).repeat(3, 0)
    for options, length in (({}, 7), ({"sampler": "ddim", "steps": 3}, 4)):
        policy = tiny_policy(**options)
        chain = list(policy.denoise(obs, np.random.default_rng(0)))
        assert len(chain) == length and len({plans.tobytes() for plans in chain}) == length
        assert np.array_equal(chain[-1], policy.plan(obs, np.random.default_rng(0)))


def test_the_clock_catches_up_small_delays_and_counts_large_ones():
    now = Time()
    clock = live.Clock(now)
    for seconds, left, dropped in ((0.1, 0.1, 0), (0.24, 0.06, 0), (0.3, 0.1, 0), (0.46, 0.1, 1), (0.56, 0.1, 1)):
        now.seconds = seconds
        clock.tick()
        assert clock.left() == pytest.approx(left) and clock.dropped == dropped
    assert clock.steps == 5


def test_the_world_steps_ten_times_a_second_and_plans_every_second_step(game):
    wait(game, 0.095)
    assert game.steps == 0 and game.chain is None, "the first plan is complete before it is due"
    for step in range(1, 7):
        wait(game, 0.1)
        assert game.steps == step == len(game.trail) - 1 and len(game.decisions) == 1 + step // 2
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


def test_a_step_carries_out_the_chosen_plan_and_its_choice_is_that_of_the_simulator(game):
    wait(game, 0.095)
    plans = game.plans
    assert plans.shape == (16, 8, 2) and (plans[game.chosen] == best(game.env, game.scratch, plans)[0]).all()
    wait(game, 0.1)
    assert game.env.snapshot().actions[0] == tuple(np.clip(plans[game.chosen][0], 0, 512))


def test_the_end_of_an_episode_is_shown_before_the_next_one_begins(game):
    wait(game, 1.0)
    assert game.ended[1] == "out of steps" and game.steps == 9 and game.seed == 7
    wait(game, watch.AFTERGLOW - 0.2)
    assert game.ended
    wait(game, 0.3)
    assert game.seed == 8 and not game.ended and game.steps <= 1
    game.env.reset(options={"state": [40, 40, *GOAL_POSE], "order": "exact"})
    game.step()
    assert re.fullmatch(r"solved after \d steps", game.ended[1])


# ---- keys ---------------------------------------------------------------------------------------------------------

def test_space_pauses_and_the_point_steps_once(game):
    wait(game, 0.15)
    game.handle(key("space"))
    wait(game, 2)
    assert game.steps == 1
    for name in (".", "right"):
        steps, dropped = game.steps, game.clock.dropped
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
    assert lengths == {"ancestral": 7, "ddim": 4}
    for count in (1, 16):
        game.handle(key("c"))
        wait(game, 0.05)
        assert len(game.plans) == count
    pictures = []
    for _ in range(3):
        game.draw(window.screen)
        pictures.append(pygame.surfarray.array3d(window.screen))
        game.handle(key("h"))
    assert not np.array_equal(pictures[0], pictures[1]) and np.array_equal(pictures[0], pictures[2])


@pytest.mark.parametrize("close", ["q", "escape", "quit"])
def test_the_window_closes_and_leaves_no_display_behind(game, window, close):
    pygame.event.post(pygame.event.Event(pygame.QUIT) if close == "quit" else key(close))
    live.play(game, window)
    assert not window.open and not pygame.display.get_init()
    assert re.fullmatch(r"0 steps on the clock, 0 dropped; median .* a decision", game.summary())


def test_the_window_closes_when_something_goes_wrong_or_is_interrupted(game, window):
    def update():
        raise error

    game.update = update
    for error in (OSError(), KeyboardInterrupt()):
        window = draw.Window()
        with contextlib.suppress(OSError):
            live.play(game, window)
        assert not window.open and not pygame.display.get_init()


# ---- the mouse and the T ------------------------------------------------------------------------------------------

def test_the_left_button_drags_the_T_and_nothing_else_does(game):
    game.env.reset(options={"state": [60, 60, 256, 200, 0.3], "order": "exact"})
    before, agent = middle(game.env.state), game.env.state[:2]
    game.handle(at(pygame.MOUSEMOTION, before))
    game.handle(at(pygame.MOUSEBUTTONDOWN, [450, 450], button=1))  # beside the T
    game.handle(at(pygame.MOUSEMOTION, [400, 400]))
    assert np.allclose(middle(game.env.state), before) and game.grip is None
    game.handle(at(pygame.MOUSEBUTTONDOWN, before + [3, 4], button=1))
    for shift in ([20, 0], [60, -30]):
        game.handle(at(pygame.MOUSEMOTION, before + [3, 4] + shift))
        assert np.allclose(middle(game.env.state), before + shift) and game.env.state[4] == pytest.approx(0.3)
        assert np.array_equal(game.env.state[:2], agent)
    game.handle(at(pygame.MOUSEBUTTONUP, before + [63, -26], button=1))
    game.handle(at(pygame.MOUSEMOTION, before))
    assert np.allclose(middle(game.env.state), before + [60, -30])


def test_the_right_button_and_the_wheel_turn_the_T_about_its_centre_of_gravity(game):
    game.env.reset(options={"state": [60, 60, 256, 200, 0.3], "order": "exact"})
    centre = middle(game.env.state)
    game.handle(at(pygame.MOUSEBUTTONDOWN, centre + [100, 0], button=3))
    game.handle(at(pygame.MOUSEMOTION, centre + [0, 50]))  # a quarter turn, from x to y
    assert game.env.state[4] == pytest.approx(0.3 + np.pi / 2) and np.allclose(middle(game.env.state), centre)
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=-2))
    assert game.env.state[4] == pytest.approx(0.3 + np.pi / 2 - np.radians(20))
    assert np.allclose(middle(game.env.state), centre)


coordinate = st.floats(-1000, 1500)


@given(x=coordinate, y=coordinate, angle=st.floats(-10, 10))
def test_wherever_the_mouse_goes_all_of_the_T_stays_between_the_walls(x, y, angle):
    game = watch.Watch.__new__(watch.Watch)
    game.env, game.paused = PushTEnv(), False
    game.env.reset(options={"state": [-90, -90, 256, 256, 0]})  # the agent far away
    game.put(complex(x, y), angle)
    corners = keypoints(game.env.state[2:])
    assert corners.min() > 7 and corners.max() < 504  # the walls' inner sides
    assert np.cos(game.env.state[4] - angle) == pytest.approx(1)


def test_the_policy_plans_anew_for_a_T_that_was_moved_and_forgets_what_was_before(game):
    wait(game, 0.395)
    asked = []
    policy = game.policies["ancestral"]
    denoise = policy.denoise
    policy.denoise = lambda obs, rng: asked.append(obs) or denoise(obs, rng)
    velocity = game.env.motion[5:]
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=9))
    state = game.env.state
    assert np.array_equal(game.env.motion[5:], velocity) and velocity.any(), "the agent is not stopped"
    assert len(game.seen) == 1 and np.array_equal(game.seen[0], state) and game.steps == 3
    game.handle(key("space"))
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=1))
    assert len(asked) == 1, "a paused window shows the plans for what it shows"
    assert (asked[0] == game.env.state).all() and asked[0].shape == (16, 2, 5)


# ---- the picture --------------------------------------------------------------------------------------------------

def test_plans_end_on_the_screen_where_they_end_and_what_is_carried_out_is_marked(game, window):
    wait(game, 0.095)
    rng = np.random.default_rng(0)
    along = np.linspace(0, 1, 8)[:, None]
    ends = np.stack([np.linspace(40, 470, 16), np.full(16, 470.0)], 1)
    game.env.reset(options={"state": [100, 60, 350, 60, 1.5], "order": "exact"})
    game.plans, game.chosen = np.array([200, 200]) + along * (ends[:, None] - [200, 200]), 5
    game.draw(window.screen)
    color = lambda point: tuple(window.screen.get_at((int(point[0] * UNIT), int(point[1] * UNIT))))[:3]
    for k, plan in enumerate(game.plans):
        assert color(plan[-1]) == (draw.INK if k == 5 else draw.GREY)
    assert [color(point) == draw.VERMILLION for point in game.plans[5]] == [True] * 2 + [False] * 6
    wait(game, 0.01)  # one of the two is carried out
    game.env.reset(options={"state": [100, 60, 350, 60, 1.5], "order": "exact"})
    game.draw(window.screen)
    assert [color(point) == draw.VERMILLION for point in game.plans[5]] == [False, True] + [False] * 6


def test_in_both_windows_the_trail_is_short_so_that_a_long_episode_hides_nothing(game, window, tmp_path):
    trail, recorder = np.stack([np.linspace(30, 480, 100), np.full(100, 490)], 1), record.Record(tmp_path / "mine.npz")
    game.trail = list(trail)
    recorder.states = [np.array([*point, 350, 60, 1.5]) for point in trail]
    for shown in (game, recorder):
        shown.draw(window.screen)
        is_orange = [tuple(window.screen.get_at((int(x * UNIT), int(y * UNIT))))[:3] == draw.ORANGE for x, y in trail]
        assert not any(is_orange[:100 - live.TRAIL]) and all(is_orange[102 - live.TRAIL:95])


def test_no_text_is_cut_off(game, window, tmp_path):
    game.policies = {"a sampler of a really long name, 100 steps": game.policies["ancestral"]}
    game.name, game.decisions = next(iter(game.policies)), [12345.0]
    game.ended = 0.0, "solved after 299 steps"
    for shown in (game, record.Record(tmp_path / ("long" * 6 + ".npz"))):
        for help in (False, True):
            shown.help = help
            shown.draw(window.screen)
            pixels = pygame.surfarray.array3d(window.screen).swapaxes(0, 1)
            margin = np.concatenate([pixels[VIEW:, :14], pixels[VIEW:, -14:]], 1)
            assert (margin == draw.PAPER).all() and (pixels[-8:] == draw.PAPER).all()
            assert (pixels[VIEW:] == draw.INK).all(-1).any() and (pixels[VIEW:] == draw.GREY).all(-1).any()
    sheets = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "_put", lambda canvas, text, x, y, across=0, down=0: sheets.append(
            (canvas.get_width(), x - across * text.get_width(), x + (1 - across) * text.get_width())))
        live.overlay(pygame, window.screen, watch.HELP, watch.COLOURS)
        live.overlay(pygame, window.screen, record.HELP)
    assert all(left >= 10 and right <= width - 10 for width, left, right in sheets)


# ---- your own demonstrations --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def shown():
    return demonstrate(9000)


def perform(game, shown):
    """Record the episode that the demonstrator showed: the pointer takes the agent and goes where it was sent."""
    game.handle(at(pygame.MOUSEMOTION, game.states[0][:2]))
    for done, point in enumerate(shown.actions):
        game.handle(at(pygame.MOUSEMOTION, point))
        while len(game.actions) == done:
            wait(game, 0.005)
        if game.ended:
            return


def test_a_recorded_episode_is_what_the_pointer_did_and_trains(window, tmp_path, shown):
    game = record.Record(tmp_path / "mine.npz", now=Time())
    assert game.seed == 9000
    game.handle(at(pygame.MOUSEMOTION, game.states[0][:2] + [30, 0]))
    wait(game, 1)
    assert not game.in_hand and len(game.actions) == 0, "the agent waits for the pointer"
    perform(game, shown)
    assert game.ended[1] == "solved, and kept"
    data = demos.load(tmp_path / "mine.npz", PUSHT)
    assert len(data.state) == len(data.action) == game.clock.steps and data.episode_ends.tolist() == [game.clock.steps]
    env = PushTEnv()
    assert np.array_equal(data.state[0], np.float32(env.reset(seed=9000)[0]))
    assert np.array_equal(data.state[1:], np.float32(env.simulate(data.action[:-1])))
    assert env.step(data.action[-1])[2], "its last action solves it"
    assert np.array_equal(data.action, shown.actions[:len(data.action)])
    said = game.summary()
    assert said.startswith(f"1 episode, {len(data.state)} steps") and said.endswith(f"--demos {tmp_path / 'mine.npz'}")


def test_time_stands_still_while_the_pointer_is_out_of_the_world(window, tmp_path, shown):
    game = record.Record(tmp_path / "mine.npz", now=Time())
    for leave in (at(pygame.MOUSEMOTION, [100, 520]), pygame.event.Event(pygame.WINDOWLEAVE), key("h")):
        game.handle(at(pygame.MOUSEMOTION, game.states[-1][:2]))
        wait(game, 0.25)
        steps = len(game.actions)
        game.handle(leave)
        wait(game, 1)
        assert steps > 0 and len(game.actions) == steps and game.clock.dropped == 0
        if leave.type == pygame.KEYDOWN:
            game.handle(at(pygame.MOUSEMOTION, game.states[-1][:2]))
            assert not game.in_hand, "the help hides the world"


def test_enter_keeps_and_x_discards_and_the_file_goes_on(window, tmp_path, shown):
    path = tmp_path / "mine.npz"
    game = record.Record(path, now=Time())

    def push(*names):
        game.handle(at(pygame.MOUSEMOTION, game.states[-1][:2]))
        wait(game, 0.3)
        for name in names:
            game.handle(key(name))
        wait(game, record.AFTERGLOW + 0.1 if game.ended else 0)

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
    again = record.Record(path, now=Time())
    assert again.seed == 9004 and again.episodes == 2
    before = record.read(path)
    perform(again, demonstrate(9004))
    after = record.read(path)
    assert after["seed"].tolist() == [9002, 9003, 9004]
    assert all(np.array_equal(after[name][:len(before[name])], before[name]) for name in before)
    demos.load(path, PUSHT)


@pytest.mark.parametrize("content, said", [
    (b"not demonstrations", "cannot be read as demonstrations"), (b"", "cannot be read as demonstrations"),
    (EXPERT_DEMOS.read_bytes()[:100_000], "cannot be read as demonstrations"),
    (EXPERT_DEMOS.read_bytes(), "were not recorded here")])
def test_a_file_that_is_damaged_or_of_another_origin_is_refused_and_left_as_it_is(window, tmp_path, content, said):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    for touch in (lambda: record.Record(path), lambda: record.append(path, np.ones((2, 5)), np.ones((2, 2)), 1),
                  lambda: record.drop_last(path)):
        with pytest.raises(ValueError, match=said):
            touch()
    assert path.read_bytes() == content and os.listdir(tmp_path) == ["mine.npz"]


RECORD_UNTIL_KILLED = """
import sys, minidiff, pygame
from minidiff.pusht.view import drawing as draw, live, record
from minidiff.pusht.live import UNIT
game, window = record.Record("mine.npz"), draw.Window()
def events():
    if game.episodes < 1 and len(game.actions) >= 3:
        yield pygame.event.Event(pygame.KEYDOWN, key=pygame.K_RETURN, unicode="\\r")
    x, y = game.states[-1][:2]
    yield pygame.event.Event(pygame.MOUSEMOTION, pos=(x * UNIT, y * UNIT))
    if game.episodes == 1 and len(game.actions) >= 3:
        print("in the second", flush=True)
window.events, record.AFTERGLOW = lambda: list(events()), 0.1
live.play(game, window)
"""


def test_a_kill_costs_the_episode_in_progress_and_no_other(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", RECORD_UNTIL_KILLED], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"SDL_VIDEODRIVER": "dummy", "PYTHONPATH": str(ROOT)})
    assert process.stdout.readline() == "in the second\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert os.listdir(tmp_path) == ["mine.npz"] and len(demos.load(tmp_path / "mine.npz", PUSHT).episode_ends) == 1


# ---- the command --------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_command_plays_until_it_is_told_to_stop_and_sums_up(tmp_path):
    process = subprocess.Popen(command("eval.py", "--watch", "--sampler", "ddim", "--steps", 2), cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"SDL_VIDEODRIVER": "dummy"})
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0 and error == ""
    assert int(re.search(r"^(\d+) steps on the clock, \d+ dropped; median \d+ ms a decision$", out, re.M)[1]) > 0


@pytest.mark.parametrize("arguments", [["--watch"], ["--policy", "mouse", "--record", "mine.npz"]])
def test_without_a_display_the_command_says_so_in_a_sentence_and_what_to_do_instead(arguments, tmp_path):
    result = subprocess.run(command("eval.py", *arguments), cwd=tmp_path, capture_output=True, text=True, timeout=60,
                            env=os.environ | {"SDL_VIDEODRIVER": "nonsense"})
    assert result.returncode == 1 and re.fullmatch(
        r"eval.py: no display for a live window \(.*nonsense.*\): .*--film FILE.*\n", result.stderr)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments, said", [
    ("--policy mouse", "go together"), ("--record mine.npz", "go together"), ("--policy mouse --record mine.txt", "go together"),
    ("--watch --json a.json", "a window shows"), ("--watch --film a.png", "a window shows"), ("--watch --delay 2", "it takes no --delay"),
    ("--watch --policy mouse --record mine.npz", "a window shows")])
def test_the_command_refuses_what_does_not_go_together(arguments, said, tmp_path):
    result = subprocess.run(command("eval.py", *arguments.split()), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and said in result.stderr.splitlines()[-1] and os.listdir(tmp_path) == []
