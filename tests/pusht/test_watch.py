"""The window of a policy does what it says: keys, mouse, plans on the screen, the world's clock."""
from minidiff import stopping
from minidiff.beyond import OBJECTIVES
from minidiff.beyond.baselines import regression
from minidiff.beyond.samplers import (
    annealed_langevin,
    ddim_sampling,
    predictor_corrector,
    probability_flow,
    reverse_sde,
)
from minidiff.demos import check
from minidiff.diffusion import ancestral_sampling
from minidiff.policy import save
from minidiff.pusht import SHIPPED_POLICY
from minidiff.pusht import __main__ as commands
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.estimate import EstimatingEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.geometry import CENTER_OF_GRAVITY, GOAL_POSE, keypoints, to_world
from minidiff.pusht.study.candidates import best
from minidiff.pusht.view import drawing, player, scene, watch, windows
from minidiff.pusht.view.windows import TRAIL
from minidiff.training import Config, Trainer

import contextlib
import functools
import itertools
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
from screen import (
    SIZES,
    Time,
    assert_texts_are_whole,
    at,
    color_at,
    is_color,
    key,
    laid_out,
    load,
    pygame,
    unseen_window,
    wait,
)


@pytest.fixture
def window(monkeypatch):
    with unseen_window(monkeypatch) as window:
        yield window


@pytest.fixture
def game(window, tiny_policy, monkeypatch):
    """A Watch whose time is game.clock.now.seconds; each decision carries out 2 actions."""
    monkeypatch.setattr(watch, "PATIENCE", 0.07)
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
    assert game.player.steps == 0, "the first plan is complete before it is due"
    assert game.player.chain is None
    for step in range(1, 7):
        wait(game, 0.1)
        assert game.player.steps == step == len(game.player.trail) - 1
        assert len(game.player.decisions) == 1 + step // 2
    assert game.clock.dropped == 0


def test_the_chain_is_spread_over_the_time_that_there_is(game):
    wait(game, 0.2)  # one decision carried out: the length of the chain is known
    seen = [len(game.player.states)]
    for _ in range(7):
        wait(game, 0.01)
        seen.append(len(game.player.states))
    assert seen == sorted(seen) and len(set(seen)) >= 6 and seen[-1] == 7
    wait(game, 0.01)
    assert game.player.chain is None and game.player.chosen is not None and game.player.steps == 2


def test_a_step_carries_out_the_plan_that_the_simulator_finds_best(game):
    wait(game, 0.095)
    plans, chosen = game.player.plans, game.player.plans[game.player.chosen]
    obs = np.tile(game.player.seen[0], (16, 2, 1))
    expected = game.policies["ancestral"].plan(obs, np.random.default_rng([4, 7]))
    assert np.array_equal(plans, expected) and plans.shape == (16, 8, 2)
    assert (chosen == best(game.player.env, game.player.scratch, plans)[0]).all()
    wait(game, 0.1)
    assert game.player.env.snapshot().actions[0] == tuple(np.clip(chosen[0], 0, 512))


@pytest.mark.parametrize("count", [16, 2])
def test_the_chosen_plan_is_that_of_the_simulator(count, game, monkeypatch):
    def last(env, scratch, plans):
        assert env is game.player.env, "tried from where they will be carried out"
        return plans[-1], 0.0

    monkeypatch.setattr(player, "best", last)
    game.player.candidates = count
    game.player.replan()
    assert game.player.states == []
    wait(game, 0.095)
    assert game.player.chosen == count - 1


def test_a_decision_is_timed_from_its_first_step_to_its_choice(game, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(player.time, "perf_counter", lambda: next(clock) / 128)
    wait(game, 0.295)
    assert game.player.decisions == [1000 / 128 * 8] * 2  # seven of the chain, and the choice


def test_whatever_changes_the_picture_asks_for_a_new_one(game):
    for act in (lambda: game.start(3), game.update, game.step):
        game.fresh = False
        act()
        assert game.fresh
    wait(game, 0.095)
    game.fresh = False
    wait(game, 0.002)
    assert not game.fresh, "nothing happens between two steps"


def test_in_a_pause_the_chain_takes_a_second(game):
    wait(game, 0.2)  # the length of the chain is known
    game.handle(key("space"))
    game.player.replan()
    wait(game, 0.5)
    assert 2 <= len(game.player.states) <= 5


def test_after_the_last_seed_comes_the_first(game):
    game.start(2**32 - 1)
    game.handle(key("n"))
    assert game.seed == 0


def test_the_end_of_an_episode_is_shown_before_the_next_begins(game):
    wait(game, 1.0)
    assert game.player.ended == "out of steps" and game.player.steps == 9 and game.seed == 7
    wait(game, watch.AFTERGLOW - 0.2)
    assert game.player.ended
    wait(game, 0.3)
    assert game.seed == 8 and not game.player.ended and game.player.steps <= 1
    game.player.env.reset(options={"state": [40, 40, *GOAL_POSE], "order": "exact"})
    game.step()
    assert re.fullmatch(r"solved after \d steps", game.player.ended)


# ---- keys ----------------------------------------------------------------------------------------

def test_space_pauses_and_the_point_steps_once(game):
    wait(game, 0.15)
    game.handle(key("space"))
    wait(game, 2)
    assert game.player.steps == 1
    for name in (".", "right"):
        steps = game.player.steps
        game.handle(key(name))
        wait(game, 2)
        assert game.paused and game.player.steps == steps + 1 and game.player.chain is None
    game.handle(key("space"))
    wait(game, 0.105)
    assert game.player.steps == 4 and game.clock.dropped == 0
    game.handle(key("."))
    assert game.player.steps == 5 and game.paused


def test_plus_and_minus_change_the_speed_up_to_a_limit(game):
    for names, period in (("+", 0.05), ("=", 0.025), ("+", 0.025), ("---", 0.2), ("------", 1.6)):
        for name in names:
            game.handle(key(name))
        assert game.clock.period == period
    wait(game, 1.55)
    assert game.player.steps == 0
    wait(game, 0.1)
    assert game.player.steps == 1


def test_n_c_s_and_h_change_start_candidates_sampler_and_help(game, window):
    game.handle(key("n"))
    assert game.seed == 8 and np.array_equal(game.player.env.state, PushTEnv().reset(seed=8)[0])
    lengths = {}
    for name in ("ancestral", "ddim", "ancestral"):
        assert game.name == name
        wait(game, 0.095)
        lengths[name] = len(game.player.states)
        game.handle(key("s"))
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
        assert len(game.player.plans) == count
    pictures = []
    game.clock.restart()
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
    assert re.fullmatch(r"0 steps on the clock, 0 late; ancestral: median .* a decision", said)


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
    game.player.env.reset(options={"state": [60, 60, 256, 200, 0.3], "order": "exact"})
    before, agent = middle(game.player.env.state), game.player.env.state[:2]
    game.handle(at(pygame.MOUSEMOTION, before))
    game.handle(at(pygame.MOUSEBUTTONDOWN, [450, 450], button=1))  # not on the T
    game.handle(at(pygame.MOUSEMOTION, [400, 400]))
    assert np.allclose(middle(game.player.env.state), before) and game.grip is None
    game.handle(at(pygame.MOUSEBUTTONDOWN, before + [3, 4], button=1))
    for shift in ([20, 0], [60, -30]):
        game.handle(at(pygame.MOUSEMOTION, before + [3, 4] + shift))
        assert np.allclose(middle(game.player.env.state), before + shift)
        assert game.player.env.state[4] == pytest.approx(0.3)
        assert np.array_equal(game.player.env.state[:2], agent)
    game.handle(at(pygame.MOUSEBUTTONUP, before + [63, -26], button=1))
    game.handle(at(pygame.MOUSEMOTION, before))
    assert np.allclose(middle(game.player.env.state), before + [60, -30])


def test_the_right_button_and_the_wheel_turn_the_T_about_its_middle(game):
    game.player.env.reset(options={"state": [60, 60, 256, 200, 0.3], "order": "exact"})
    centre = middle(game.player.env.state)
    game.handle(at(pygame.MOUSEBUTTONDOWN, centre + [0, -100], button=3))
    game.handle(at(pygame.MOUSEMOTION, centre + [50, 0]))  # a quarter turn, from x to y
    assert game.player.env.state[4] == pytest.approx(0.3 + np.pi / 2)
    assert np.allclose(middle(game.player.env.state), centre)
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=-2))
    assert game.player.env.state[4] == pytest.approx(0.3 + np.pi / 2 - np.radians(20))
    assert np.allclose(middle(game.player.env.state), centre)


def test_the_T_of_an_episode_that_is_over_stays_where_it_is(game):
    wait(game, 1.0)
    assert game.player.ended
    state = game.player.world.state
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=2))
    assert np.array_equal(game.player.world.state, state)


coordinate = st.floats(-1000, 1500)


@given(x=coordinate, y=coordinate, angle=st.floats(-10, 10))
def test_wherever_the_mouse_goes_the_T_stays_between_the_walls(x, y, angle):
    it = player.Player.__new__(player.Player)
    it.world = PushTEnv()
    it.env = EstimatingEnv(lambda: it.world)
    it.env.reset(options={"state": [-90, -90, 256, 256, 0]})  # the agent far away
    it.move(complex(x, y), angle)
    corners = keypoints(it.env.state[2:])
    assert corners.min() > 7 and corners.max() < 504  # the walls' inner sides
    assert np.cos(it.env.state[4] - angle) == pytest.approx(1)


def test_for_a_T_that_was_moved_the_policy_plans_anew_without_a_past(game, monkeypatch):
    wait(game, 0.395)
    observed = []
    denoising = player.denoising

    def denoises(policy, obs, rng):
        observed.append(obs)
        return denoising(policy, obs, rng)

    monkeypatch.setattr(player, "denoising", denoises)
    velocity = game.player.env.motion[5:]
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=9))
    state = game.player.env.state
    assert velocity.any()
    assert np.array_equal(game.player.env.motion[5:], velocity), "the agent is not stopped"
    assert len(game.player.seen) == 1 and np.array_equal(game.player.seen[0], state)
    assert game.player.steps == 3
    game.move(to_world(complex(*CENTER_OF_GRAVITY), np.array(GOAL_POSE)), GOAL_POSE[2])
    assert game.player.coverage == pytest.approx(1)
    game.handle(key("space"))
    game.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=1))
    assert len(observed) == 1, "a paused window shows the plans for what it shows"
    assert (observed[0] == game.player.env.state).all() and observed[0].shape == (16, 2, 5)


# ---- the picture ---------------------------------------------------------------------------------

def test_plans_end_where_they_end_and_the_next_actions_are_marked(game, window):
    def is_marked():
        return [color_at(window, point) == drawing.VERMILLION for point in game.player.plans[5]]

    wait(game, 0.095)
    along = np.linspace(0, 1, 8)[:, None]
    ends = np.stack([np.linspace(40, 470, 16), np.full(16, 470.0)], 1)
    game.player.env.reset(options={"state": [100, 60, 350, 60, 1.5], "order": "exact"})
    plans = np.array([200, 200]) + along * (ends[:, None] - [200, 200])
    plans[9] = plans[5]  # below the chosen one
    plans[10, -1] = 1e30, -1e30
    game.player.states[-1] = 0, plans, plans
    game.player.chosen = 5
    game.draw(window.screen)
    for k in {*range(16)} - {10}:
        color = drawing.INK if k in (5, 9) else drawing.GREY
        assert color_at(window, game.player.plans[k, -1]) == color
    assert is_marked() == [True] * 2 + [False] * 6
    wait(game, 0.01)  # one of the two is carried out
    game.player.env.reset(options={"state": [100, 60, 350, 60, 1.5], "order": "exact"})
    game.draw(window.screen)
    assert is_marked() == [False, True] + [False] * 6


def test_the_trail_is_short_so_that_a_long_episode_hides_nothing(game, window):
    game.player.trail = list(np.stack([np.linspace(30, 480, 100), np.full(100, 490)], 1))
    game.draw(window.screen)
    is_orange = [color_at(window, point) == drawing.ORANGE for point in game.player.trail]
    assert not any(is_orange[:100 - TRAIL]) and all(is_orange[102 - TRAIL:95])


def test_a_single_plan_is_the_chosen_one_from_its_first_step(game, window, monkeypatch):
    drawn = []
    monkeypatch.setattr(windows, "picture", lambda *given: given[-1](None, 1))
    monkeypatch.setattr(scene, "fan", lambda pg, canvas, unit, state, chosen, upcoming: (
        drawn.append((state and len(state[1]), chosen))))
    for game.player.candidates in (1, 2):
        game.player.replan()
        game.draw(window.screen)
        game.player.denoise()
        game.draw(window.screen)
    assert drawn == [(None, 0), (1, 0), (None, None), (2, None)]


def test_a_plan_of_a_single_action_is_a_dot(window):
    canvas = pygame.Surface((100, 100))
    plans = np.full((2, 1, 2), 50.0)
    scene.fan(pygame, canvas, 1, (0, plans, plans), None, slice(0, 1))
    assert canvas.get_at((50, 50))[:3] == drawing.GREY


@pytest.fixture
def said(monkeypatch):
    """What the window says: (first, word, second, keys, y, note) of each picture."""
    said = []
    monkeypatch.setattr(windows, "panel", lambda pg, screen, *texts: said.append(texts))
    return said


def test_the_panel_says_what_there_is_to_say(game, window, said, monkeypatch):
    monkeypatch.setattr(windows, "overlay", lambda pg, screen, *rows: said.append(rows))

    def panel():
        game.draw(window.screen)
        first, word, second, keys, y, note = said[-1]
        assert (keys, y) == (watch.KEYS, scene.LOWER)
        return first, word, second, note

    game.player.decisions = []
    assert game.summary() == "0 steps on the clock, 0 late; ancestral: median – a decision"
    many = "plans, the best one chosen by the simulator"
    end = "– of 10 Hz, 0 of 0 steps late"
    assert panel() == ("coverage   0%    step 0    start 7    solved 0 of 0", "",
                       f"ancestral: 16 {many}\n– ms a decision\n{end}", "")
    game.player.decisions = [90.0, 80.0, 7.0, 20.0, 30.0, 6.0, 5.0]
    assert game.summary() == "0 steps on the clock, 0 late; ancestral: median 20 ms a decision"
    game.player.candidates, game.paused, game.player.coverage = 2, True, 0.5
    game.player.solved, game.player.played, game.note = 7, 9, "a note"
    assert panel() == ("coverage  50%    step 0    start 7    solved 7 of 9", "paused",
                       f"ancestral: 2 {many}\n7 ms a decision\n{end}", "a note")
    game.player.candidates, game.grip = 1, ("drag", 0)
    game.clock.steps, game.clock.dropped = 153, 2
    assert panel()[1:3] == ("you hold the T", "ancestral: a single plan\n7 ms a decision\n"
                            "– of 10 Hz, 2 of 153 steps late")
    game.grip = "look", 0
    assert panel()[1] == "paused"
    game.player.ended, game.help = "out of steps", True
    game.draw(window.screen)
    assert said[-2][1] == "out of steps" and said[-1] == (watch.HELP, watch.COLOURS, scene.LOWER)


@pytest.fixture
def trio(window, tiny_policy, monkeypatch):
    """A Watch with a regression and a copy of the policy beside."""
    monkeypatch.setattr(watch, "PATIENCE", 0.07)
    others = {"regression: runs/mse": tiny_policy(sampler=regression), "again": tiny_policy()}
    return watch.Watch({"ancestral": tiny_policy()}, 7, 4, 9, "legacy", 16, others, Time())


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_text_is_cut_off_at_any_size(size, trio, monkeypatch):
    boxes = laid_out(monkeypatch, windows)
    trio.name = "a sampler of a long name, 100 steps"
    it = trio.player
    it.decisions, it.candidates, it.latency = [12345.0], 1000, 8
    trio.clock.steps, trio.clock.dropped, trio.seed = 123456, 12345, 4294967295
    it.solved, it.played = 1000, 1000
    for trio.note in ("", watch.NO_OTHERS, "minidiff-4294967295-300.png: cannot be read or written "
                      "(No space left on device)"):
        assert_texts_are_whole(trio, boxes, size)
    wait(trio, 0.095)
    it.ended, it.steps = "solved after 299 steps", 299
    assert_texts_are_whole(trio, boxes, size)
    trio.press("h")
    assert_texts_are_whole(trio, boxes, size)
    trio.press("h")
    trio.press("d")
    for _ in range(2):
        assert_texts_are_whole(trio, boxes, size)
        trio.others.popitem()


# ---- how noise becomes a plan --------------------------------------------------------------------

SAMPLERS = [(ancestral_sampling, range(6, -1, -1)), (reverse_sde, range(6, -1, -1)),
            (functools.partial(ddim_sampling, steps=3), [6, 4, 2, 0]),
            (functools.partial(probability_flow, steps=2), [6, 3, 0]),
            (annealed_langevin, range(6, -1, -1)), (predictor_corrector, range(6, -1, -1))]


@pytest.mark.parametrize("sampler, timesteps", SAMPLERS, ids=str)
def test_the_predicted_x0_at_t_is_what_the_equation_says(sampler, timesteps, tiny_policy):
    """Eq. 5 solved for x_0, bounded as by the sampler, and only at the timesteps it visits."""
    policy = tiny_policy(sampler=sampler, clip=0.8)
    obs = np.repeat(PushTEnv().reset(seed=1)[0][None, None], 2, 1).repeat(3, 0)
    states = list(player.denoising(policy, obs, np.random.default_rng(0)))
    plain = list(policy.denoise(obs, np.random.default_rng(0)))
    assert [t for t, _, _ in states] == list(timesteps)
    frame = PUSHT.frame(obs)
    cond = policy.normaliser.standardise(PUSHT.features(obs, frame))
    bounded = False
    for (t, x_t, x0), plans in zip(states, plain):
        assert np.array_equal(x_t, plans)
        if t == 0:
            assert np.array_equal(x0, plans)
            continue
        x = policy.normaliser.normalise(x_t, frame)
        eps = policy.eps_theta(x, t, cond)
        ab = np.prod(1 - policy.schedule.beta[1:t + 1])
        predicted = (x - np.sqrt(1 - ab) * eps) / np.sqrt(ab)
        bounded = bounded or (np.abs(predicted) > 0.8).any()
        expected = policy.normaliser.denormalise(predicted.clip(-0.8, 0.8), frame)
        np.testing.assert_allclose(x0, expected, atol=0.01)  # px
    assert bounded and len(states) == len(plain)


def test_a_learned_variance_is_witnessed_too():
    class Network:
        net = "the network"

        def with_variance(self, x_t, t, cond):
            return x_t / 2, t

    witness = player.Witness(Network())
    assert witness.net == "the network" and witness.with_variance(4, 3, None) == (2, 3)
    assert witness.calls == [(4, 3, 2)]


def test_a_policy_that_denoises_nothing_has_its_plan_at_once(trio, window, monkeypatch):
    boxes = laid_out(monkeypatch, windows)
    trio.player = trio.others["regression: runs/mse"]
    trio.press("c")
    trio.start(7)
    wait(trio, 0.095)
    assert [t for t, _, _ in trio.player.states] == [0] and not trio.player.denoises
    trio.draw(window.screen)
    assert not [text for text in boxes if text and text.startswith("t = ")]
    trio.handle(on_bar(pygame.MOUSEBUTTONDOWN, 3))
    assert not trio.paused


def load_pixels(window):
    return pygame.surfarray.array3d(window.screen).swapaxes(0, 1)


def on_bar(kind, t, T=6):
    left, top, width, height = scene.BAR
    return pygame.event.Event(kind, pos=(left + width * (1 - t / T), top + height / 2), button=1)


def test_the_bar_shows_the_state_of_the_t_it_is_dragged_to(game, window, monkeypatch):
    boxes = laid_out(monkeypatch, windows)
    drawn = []
    monkeypatch.setattr(scene, "fan", lambda pg, canvas, unit, state, *rest: drawn.append(state))
    wait(game, 0.12)
    states, steps = list(game.player.states), game.player.steps
    game.handle(on_bar(pygame.MOUSEBUTTONDOWN, 5))
    assert game.paused, "to take the bar is to pause"
    for t in (5, 2.4, 6.2, 0, 3):
        game.handle(on_bar(pygame.MOUSEMOTION, t))
        boxes.clear()
        game.draw(window.screen)
        t = round(min(t, 6))
        assert drawn[-1] is states[6 - t] and drawn[-1][0] == t
        signal, noise = game.player.policy.schedule.signal[t], game.player.policy.schedule.noise[t]
        assert {f"t = {t} / 6", f"x_t  =  {signal:.2f} x_0  +  {noise:.2f} noise",
                f"signal  sqrt(alpha_bar_t) = {signal:.2f}",
                f"noise  sqrt(1 - alpha_bar_t) = {noise:.2f}"} <= set(boxes)
        left, _, width, _ = scene.BAR
        handle = int(left + width * (1 - t / 6)), scene.BAR[1] + 5
        assert window.screen.get_at(handle)[:3] == drawing.VERMILLION
        pixels = load_pixels(window)[180:236, left + 270:]
        for color, share in ((drawing.BLUE, signal), (drawing.ORANGE, noise)):
            assert is_color(pixels, color).any(0).sum() == pytest.approx(share * 122, abs=3)
    game.handle(pygame.event.Event(pygame.MOUSEBUTTONUP, pos=(0, 0), button=1))
    game.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=(700, 400), button=1))
    assert game.grip is None, "below the bar"
    game.handle(on_bar(pygame.MOUSEMOTION, 6))
    assert game.player.state[0] == 3, "it was let go"
    wait(game, 1)
    assert game.player.steps == steps
    game.handle(key("space"))
    assert game.player.state[0] == 0
    wait(game, 0.105)
    assert game.player.steps == steps + 1


def test_the_bar_completes_a_chain_and_stops_where_the_sampler_does(game, window):
    game.handle(key("s"))
    game.handle(key("space"))
    game.update()
    assert len(game.player.states) < 4
    game.handle(on_bar(pygame.MOUSEBUTTONDOWN, 6))
    assert [t for t, _, _ in game.player.states] == [6, 4, 2, 0] and game.player.chosen is not None
    shown = []
    for t in (6, 5.2, 4.8, 2.8, 0.8, 3.2):
        game.handle(on_bar(pygame.MOUSEMOTION, t))
        shown.append(game.player.state[0])
    assert shown == [6, 6, 4, 2, 0, 4]
    game.draw(window.screen)
    left, top, width, height = scene.BAR
    dots = [window.screen.get_at((left + round(width * (1 - t / 6)), top + 6))[:3] == drawing.PAPER
            for t in range(1, 6)]
    assert dots == [False, True, False, False, False], "where it stops; at t = 4 is the handle"
    game.handle(key("."))
    assert game.player.state[0] == 0, "a step is seen as it is"


def test_in_the_chain_x_t_is_faint_and_the_predicted_x0_bold(window):
    def colors(t, chosen):
        canvas = pygame.Surface((512, 512))
        x_t, x0 = np.zeros((2, 3, 2)), np.zeros((2, 3, 2))
        x_t[:, :, 0] = x0[:, :, 0] = [100, 200, 300]
        x_t[:, :, 1] = np.array([[50], [100]])
        x0[:, :, 1] = np.array([[150], [200]])
        scene.fan(pygame, canvas, 1, (t, x_t, x0), chosen, slice(0, 1))
        return [canvas.get_at((150, y))[:3] for y in (50, 100, 150, 200)], canvas

    dark, faint, grey, ink = (0, 0, 0), scene.PALE, drawing.GREY, drawing.INK
    assert colors(4, None)[0] == [faint, faint, ink, ink]
    seen, canvas = colors(4, 1)
    assert seen == [faint, faint, ink, ink]
    widths = [sum(canvas.get_at((150, y + k))[:3] != dark for k in range(-9, 9))
              for y in (50, 100, 150, 200)]
    assert widths == [3, 3, 4, 6], "the chosen one most of all"
    assert canvas.get_at((100, 200))[:3] == ink, "no action of it is next"
    seen, canvas = colors(0, 1)
    assert seen == [dark, dark, grey, ink]
    assert canvas.get_at((100, 200))[:3] == drawing.VERMILLION


def test_the_first_plan_of_an_episode_takes_its_time_to_be_seen(game, monkeypatch):
    monkeypatch.setattr(watch, "PATIENCE", 2.0)
    game.start(7)
    wait(game, 1.0)
    assert 2 <= len(game.player.states) <= 5 and game.player.steps == 0
    wait(game, 1.05)
    assert game.player.chosen is not None and game.player.steps == 1
    wait(game, 0.4)
    assert game.player.steps == 5 and game.clock.dropped == 0
    game.clock.period = 0.025
    game.start(7)
    wait(game, 0.65)
    assert game.player.steps > 0, "not where the world is quick"


# ---- starts, their tally, and files --------------------------------------------------------------

def test_r_replays_the_same_start_b_and_n_go_to_others(game):
    def trail():
        wait(game, 0.52)
        return np.array(game.player.trail)

    first = trail()
    game.handle(key("r"))
    assert game.player.steps == 0 and game.seed == 7
    assert np.array_equal(trail(), first) and len(first) == 6
    game.handle(key("n"))
    assert game.seed == 8 and not np.array_equal(trail()[0], first[0])
    game.handle(key("b"))
    assert game.seed == 7 and np.array_equal(trail(), first)
    game.start(0)
    game.handle(key("b"))
    assert game.seed == 2**32 - 1


def test_the_tally_counts_the_episodes_that_ended_and_were_solved(game):
    wait(game, 1.0)
    assert scene.tally(game.player) == "solved 0 of 1"
    game.handle(key("n"))
    game.player.env.reset(options={"state": [40, 40, *GOAL_POSE], "order": "exact"})
    game.step()
    assert scene.tally(game.player) == "solved 1 of 2"
    game.handle(key("r"))
    assert scene.tally(game.player) == "solved 1 of 2"


@pytest.mark.parametrize("name", "scl")
def test_other_settings_forget_what_was_measured(name, game):
    wait(game, 1.0)
    assert game.player.decisions and game.player.played == 1
    game.handle(key(name))
    assert game.player.decisions == [] and scene.tally(game.player) == "solved 0 of 0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_p_saves_what_is_shown_and_never_over_a_file(game, window, folder):
    wait(game, 0.25)
    contents = []
    for expected in ("minidiff-7-2.png", "minidiff-7-2-2.png", "minidiff-7-2-3.png"):
        game.draw(window.screen)
        game.handle(key("p"))
        assert game.note == f"saved {expected}"
        shown = pygame.surfarray.array3d(window.screen).swapaxes(0, 1)
        assert np.array_equal(load(folder / expected), shown)
        contents.append((folder / "minidiff-7-2.png").read_bytes())
    assert len(set(contents)) == 1 and len(os.listdir(folder)) == 3
    game.handle(key("."))
    assert game.note == ""


def test_v_saves_a_film_and_never_over_a_file(game, window, folder):
    Image = pytest.importorskip("PIL.Image")
    game.handle(key("v"))
    assert game.note == "" and os.listdir(folder) == [], "nothing was shown yet"
    for _ in range(3):
        game.draw(window.screen)
        wait(game, 0.15)
    (folder / f"minidiff-7-{game.player.steps}.webp").write_bytes(b"mine")
    game.handle(key("v"))
    name = f"minidiff-7-{game.player.steps}-2.webp"
    assert game.note == f"saved {name}" and Image.open(folder / name).n_frames == 3
    assert (folder / f"minidiff-7-{game.player.steps}.webp").read_bytes() == b"mine"


def test_what_cannot_be_saved_is_said(game, window, folder, monkeypatch):
    game.draw(window.screen)
    monkeypatch.setitem(sys.modules, "PIL", None)
    game.handle(key("v"))
    assert game.note == "animations need Pillow: pip install 'minidiff[film]'"

    def full(path, array):
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(drawing, "save_png", full)
    game.handle(key("p"))
    assert game.note == "minidiff-7-0.png: cannot be read or written (No space left on device)"
    assert os.listdir(folder) == []


# ---- help, and others beside ---------------------------------------------------------------------

def test_help_stops_the_world_and_covers_nothing_of_it(game, window):
    wait(game, 0.285)
    game.draw(window.screen)
    before = pygame.surfarray.array3d(window.screen)
    game.handle(key("h"))
    wait(game, 2)
    assert game.player.steps == 2 and not game.paused
    game.draw(window.screen)
    after = pygame.surfarray.array3d(window.screen)
    changed = np.argwhere((before != after).any(2))
    below = changed[changed[:, 1] > 40]  # but for the word "paused"
    assert below[:, 0].min() > windows.VIEW and below[:, 1].min() >= scene.LOWER
    game.handle(key("h"))
    wait(game, 0.105)
    assert game.player.steps == 3 and game.clock.dropped == 0


def test_the_help_names_every_key_that_the_window_lists():
    named = " ".join(keys for keys, _ in watch.HELP)
    for entry in watch.KEYS.split(windows.APART):
        assert all(key in named.split() for key in entry.split("  ")[:-1]), entry


def test_d_shows_others_beside_in_step_from_the_same_start(trio, window, monkeypatch):
    boxes = laid_out(monkeypatch, windows)
    assert trio.note == "d: ancestral beside regression: runs/mse, again"
    wait(trio, 0.3)
    trio.handle(key("d"))
    states = [it.world.state for it in trio.players]
    assert len(states) == 3 and all(np.array_equal(state, states[0]) for state in states)
    assert len({id(it.world) for it in trio.players}) == 3
    assert [it.candidates for it in trio.players] == [1, 1, 1]
    for step in range(1, 6):
        wait(trio, 0.1)
        wait(trio, 0.005 if step == 1 else 0)
        assert [it.steps for it in trio.players] == [step] * 3
    diffusion, regressed, again = trio.players
    assert np.array_equal(diffusion.trail, again.trail), "the same policy, start and noise"
    assert not np.array_equal(diffusion.trail, regressed.trail)
    assert trio.clock.dropped == 0 and trio.clock.steps >= 5
    trio.handle(at(pygame.MOUSEBUTTONDOWN, middle(diffusion.world.state), button=1))
    assert trio.grip is None, "the mouse is for a single world"
    trio.draw(window.screen)
    assert {"diffusion: ancestral", "regression: runs/mse", "again"} <= set(boxes)
    assert len(boxes["step 5    coverage 0%"]) == 3 == len(boxes["solved 0 of 0"])
    for it, (left, *_) in zip(trio.players, boxes["solved 0 of 0"]):
        agent = it.world.state[:2] * 320 / 512
        red, _, blue = window.screen.get_at((round(left + agent[0]), round(42 + agent[1])))[:3]
        assert red - blue > 100 or blue < 60, "the agent, or its plan over it"
    trio.handle(key("c"))
    assert [it.candidates for it in trio.players] == [16] * 3
    trio.handle(key("d"))
    assert trio.players == [diffusion] and trio.player.candidates == 1


def test_beside_an_episode_ends_for_each_and_the_next_waits_for_all(trio):
    trio.handle(key("d"))
    first, second, third = trio.players
    first.env.reset(options={"state": [40, 40, *GOAL_POSE], "order": "exact"})
    wait(trio, 0.31)
    assert first.ended == "solved after 1 steps" and not second.ended
    assert second.steps == third.steps == 3 and first.steps == 1
    wait(trio, 0.6)
    assert [it.ended for it in trio.players[1:]] == ["out of steps"] * 2
    assert [scene.tally(it) for it in trio.players] == ["solved 1 of 1"] + 2 * ["solved 0 of 1"]
    assert trio.seed == 7
    wait(trio, watch.AFTERGLOW)
    assert trio.seed == 8 and not any(it.ended for it in trio.players)


def test_beside_help_shows_the_one_world_that_it_explains(trio, window, said, monkeypatch):
    trio.handle(key("d"))
    trio.draw(window.screen)
    assert said == []
    trio.handle(key("h"))
    trio.draw(window.screen)
    assert len(said) == 1


def test_d_without_others_says_how_to_make_them(game):
    game.handle(key("d"))
    assert game.note == watch.NO_OTHERS and game.players == [game.player]
    assert "train.py --objective mse --out runs/mse" in game.note
    assert game.note.endswith("watch --beside runs/mse")


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
    said = re.fullmatch(r"(\d+) steps on the clock, \d+ late; ddim 2: median \d+ ms a decision",
                        last)
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
        assert np.array_equal(game.player.env.state, PushTEnv(seeding="modern").reset(seed=12)[0])
        it = game.player
        assert (game.seed, it.candidates, it.max_steps, it.noise_seed) == (12, count, 5, 4)
        for candidates in then:
            game.press("c")
            assert game.player.candidates == candidates


def test_the_command_brings_other_runs_along(arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, objective in (("mse", "mse"), ("gauss", "mixture")):
        kind = OBJECTIVES[objective]
        config = Config(objective=objective, outputs=kind.outputs, width=8, blocks=1, steps=1)
        save(f"{name}.npz", Trainer(config, PUSHT, check(arrays, PUSHT), kind.loss))
    game = watched("--beside mse.npz gauss.npz --action-horizon 3", monkeypatch)
    assert list(game.others) == ["regression: mse.npz", "mixture: gauss.npz"]
    assert all(it.policy.action_horizon == 3 for it in game.others.values())
    alone = watched("mse.npz --beside gauss.npz", monkeypatch)
    assert list(alone.policies)[0] == "regression" and list(alone.others) == ["mixture: gauss.npz"]
    alone.press("d")
    drawn = []
    monkeypatch.setattr(scene, "beside", lambda pg, screen, players, *words: drawn.append(players))
    alone.draw(pygame.Surface((1024, 600), 0, 32))
    assert list(drawn[0]) == ["regression", "mixture: gauss.npz"], "no diffusion here"


@pytest.mark.parametrize("arguments, code, said", [
    (["--beside", "a", "b", "c"], 2, "--beside: there is room for two more, not for 3"),
    (["--beside", "nowhere"], 1, "nowhere"),
    (["--beside", str(SHIPPED_POLICY), str(SHIPPED_POLICY)], 1, "give it only once"),
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
    screen = pygame.Surface((1024, 600))
    seed = game.seed
    for late in (2, 4, 8, 0, 2, 4):
        game.handle(key("l"))
        assert (game.player.latency, len(game.player.world.waiting)) == (late, late)
        assert (game.seed, game.player.steps) == (seed, 0)
    for _ in range(4):
        game.step()
    assert np.abs(game.player.seen[-1][:2] - game.player.world.state[:2]).max() > 1
    game.draw(screen)
    (state, trail), text = shown
    assert (state == game.player.world.state).all() and (trail[-1] == state[:2]).all()
    assert "actions 4 steps late" in text


def test_with_latency_the_mouse_takes_the_T_of_the_world(game):
    game.player.latency = 4
    game.start(game.seed)
    for _ in range(3):
        game.step()
    agent = game.player.world.state[:2]
    before = middle(game.player.world.state)
    elsewhere = game.player.world.motion + [0, 0, 100, 0, 0, 0, 0]
    game.player.env.set_model(elsewhere)  # the T is seen there
    game.handle(at(pygame.MOUSEBUTTONDOWN, before + [3, 4], button=1))
    game.handle(at(pygame.MOUSEMOTION, before + [13, 4]))
    np.testing.assert_allclose(middle(game.player.world.state), before + [10, 0], atol=1e-6)
    assert np.array_equal(game.player.world.state[:2], agent)


def test_plans_that_have_not_begun_are_drawn_from_the_agent():
    x_t, x0 = np.zeros((3, 8, 2)), np.ones((3, 8, 2))
    t, noisy, clean = scene.attached((57, x_t, x0), np.array([7.0, 9.0]))
    assert t == 57 and noisy.shape == clean.shape == (3, 9, 2)
    for plans, behind in ((noisy, x_t), (clean, x0)):
        assert (plans[:, 0] == (7, 9)).all() and np.array_equal(plans[:, 1:], behind)
