"""What the window `watch` shows: plans in the world, and the denoising chain that makes them."""
import numpy as np

from . import windows
from .drawing import BLUE, GREY, INK, ORANGE, PAPER, VERMILLION
from .windows import HEIGHT, LEFT, ROOM, WIDTH, Page

PALE = (196, 196, 192)
BAR = LEFT, 126, ROOM, 12  # left, top, width, height of the noise bar, on the page
LOWER = 294  # y on the page, below the panel that explains the chain


def world(pg, screen, player, **place):
    """Draw a Player's world, with its plans."""
    state, first, last = player.state, player.carried_out, player.policy.action_horizon
    if state and first == 0:
        state, first, last = attached(state, player.world.state[:2]), 1, last + 1
    windows.picture(pg, screen, player.world.state, player.trail, lambda canvas, unit: fan(
        pg, canvas, unit, state, player.chosen, slice(first, last)), **place)


def attached(state, agent):
    """A state of the chain (t, x_t, predicted x_0) with the agent's position (2,) put in front of
    each plan, so that its line begins at the agent."""
    t, *plans = state
    start = np.tile(agent, (len(plans[0]), 1, 1))
    return t, *(np.concatenate([start, part], 1) for part in plans)


def fan(pg, canvas, unit, state, chosen, upcoming):
    """Draw the plans of a state of the chain (t, x_t, predicted x_0). For None, draw nothing.

    Above t = 0: x_t pale, the predicted x_0 dark. At t = 0: the chosen plan (an index, or None)
    bold, with dots at its upcoming actions (a slice), and the others thin.
    """
    if state is None:
        return
    t, x_t, x0 = state
    order = sorted(range(len(x0)), key=lambda k: k == chosen)  # the chosen one on top
    for k in order if t else ():
        line(pg, canvas, unit, x_t[k], PALE, 3)
    for k in order:
        if k == chosen:
            line(pg, canvas, unit, x0[k], INK, 6)
        elif t:
            line(pg, canvas, unit, x0[k], INK, 4)
        else:
            line(pg, canvas, unit, x0[k], GREY, 2)
    if t == 0 and chosen is not None:
        for point in (x0[chosen, upcoming] * unit).tolist():
            pg.draw.circle(canvas, PAPER, point, 12)
            pg.draw.circle(canvas, VERMILLION, point, 9)


def line(pg, canvas, unit, plan, color, width):
    """Draw a plan (H, 2), and a dot at its end."""
    plan = np.clip(plan, -512, 1024) * unit
    if len(plan) > 1:
        pg.draw.lines(canvas, color, False, plan.tolist(), width)
    pg.draw.circle(canvas, color, plan[-1].tolist(), 2 + width)


def chain(pg, screen, player):
    """Draw the panel that explains the chain: a bar for the t that is shown, and x_t in numbers."""
    page = Page(pg, screen)
    schedule = player.policy.schedule
    left, top, width, height = BAR
    if not player.denoises:
        page.paragraph("This sampler denoises nothing: its plan is there at once.", 84, 16, GREY)
        return
    t = player.state[0] if player.states else schedule.T
    page.text(f"t = {t} / {schedule.T}", LEFT, 82, 26, width=150)
    page.text("steps of noise left to remove", WIDTH - 16, 92, 16, GREY, ROOM - 160, across=1)
    handle = left + width * (1 - t / schedule.T)
    page.bar(PALE, *BAR)
    page.bar(BLUE, left, top, max(handle - left, height), height)
    for visited, _, _ in player.states[1:-1] if len(player.states) < 30 else ():
        page.dot(PAPER, left + width * (1 - visited / schedule.T), top + height / 2, 3)
    page.dot(VERMILLION, handle, top + height / 2, 11)
    page.text(f"t = {schedule.T}: pure noise", LEFT, 146, 14, GREY, ROOM / 2)
    page.text(f"t = 0: plans of {player.policy.pred_horizon} actions", WIDTH - 16, 146, 14, GREY,
              ROOM / 2, across=1)
    signal, noise = schedule.signal[t], schedule.noise[t]
    page.text(f"x_t  =  {signal:.2f} x_0  +  {noise:.2f} noise", LEFT, 170, 18)
    for y, name, share, color in ((199, "signal  sqrt(alpha_bar_t)", signal, BLUE),
                                  (219, "noise  sqrt(1 - alpha_bar_t)", noise, ORANGE)):
        page.text(f"{name} = {share:.2f}", LEFT, y - 3, 14, GREY, 262)
        page.bar(color, LEFT + 270, y, share * (ROOM - 270), 10)
    for y, name, color, thick in (
            (240, "x_t: the plans with the noise of t in them", PALE, 3),
            (262, "predicted x_0: the plans without noise, as predicted", INK, 5)):
        page.bar(color, LEFT, y + 11 - thick / 2, 26, thick)
        page.text(name, LEFT + 36, y, 16, GREY, ROOM - 36)


def on_bar(x, y):
    """Whether this place of the page is on the noise bar, or close to it."""
    left, top, width, height = BAR
    return -12 <= x - left <= width + 12 and abs(y - top - height / 2) <= 16


def t_on_bar(x, T):
    left, _, width, _ = BAR
    return T * (1 - (x - left) / width)


def beside(pg, screen, players, word, keys):
    """Draw two or three worlds side by side. players: name -> Player. word: the text below them,
    keys: the line of keys."""
    page = Page(pg, screen)
    screen.fill(PAPER)
    size = min((WIDTH - 16) / len(players) - 16, 420)
    gap = (WIDTH - len(players) * size) / (len(players) + 1)
    for i, (name, player) in enumerate(players.items()):
        x = gap + i * (size + gap)
        page.text(name, x, 12, 18, width=size)
        world(pg, screen, player, x=x, y=42, size=size)
        first = player.ended or f"step {player.steps}    coverage {player.coverage:.0%}"
        page.text(first, x, size + 48, 16, VERMILLION if player.ended else INK, size)
        page.text(tally(player), x, size + 70, 16, GREY, size)
    page.text(word.replace("\n", "    "), gap, HEIGHT - 80, 16, GREY, WIDTH - 2 * gap)
    keys = keys.split(windows.APART)
    for row in (0, 1):  # every other one
        page.text(windows.APART.join(keys[row::2]), gap, HEIGHT - 50 + 20 * row, 14, GREY,
                  WIDTH - 2 * gap)


def tally(player):
    """How many of the finished episodes were solved, in words."""
    return f"solved {player.solved} of {player.played}"
