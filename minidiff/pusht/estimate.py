"""A filter in front of a policy: what the state is, and what it will be when an action arrives.

The policy is trained on exact states, and chooses actions for the state that it is shown. Where
positions are measured with noise, and where actions are carried out late, a model of the world
gives it what it needs: an observer (Luenberger 1966) corrects the model's state by a share of the
difference to each measurement, and a Smith predictor (Smith 1957) lets the model run ahead through
the actions that are chosen, but not yet carried out.

The model is PushT itself: it knows the physics of the world exactly. A robot needs its own.
"""
import numpy as np

from .env import PushTEnv

DRIFT = 0.4  # px a step by which the model may go wrong
UNITS = np.array([1, 1, 1, 1, 1 / 60])  # px; the last in radians: it moves the bar's ends by 1 px
JUMP = 5.0  # what is farther off than so many standard deviations, and 1 px, has jumped
AGENT, BLOCK = slice(0, 2), slice(2, 5)  # in a state


class EstimatingEnv:
    """A world that shows, in place of its observations, the estimated state that an action meets.

    make_env: makes the world, a PushTEnv that observes the state. noise: the standard deviation of
    its measurements, px. Without noise the estimate is the measurement. A measurement that
    cannot be explained by noise, as after a kick, starts a new estimate.

    Measurement k moves the estimate by 1/k of the difference: the estimate is the mean of all. For
    the block the share is at least DRIFT / noise: where it is pushed, its model drifts.
    """
    waiting = ()  # what is shown already includes the effect of the actions that wait

    def __init__(self, make_env, noise=0.0):
        self.env = make_env()
        self.model = PushTEnv()
        self.noise = noise

    def __getattr__(self, name):
        if name == "env":  # of a copy in the making
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, *, seed=None, options=None):
        state, info = self.env.reset(seed=seed, options=options)
        self.set_model([*state, *self.env.motion[5:]])  # at a start the agent's velocity is known
        self.counts = {"agent": 1, "block": 1}  # measurements of each since it jumped
        return self.motion[:5], info

    def step(self, action):
        carried_out = [*self.env.waiting, action][0]
        measured, *rest = self.env.step(action)
        self.model.simulate([carried_out])
        self.correct(measured)
        return self.motion[:5], *rest

    def set_model(self, motion):
        """motion: a state, or with the agent's velocity seven numbers."""
        self.model.reset(options={"state": motion, "order": "exact"})

    def correct(self, measured):
        """Move the model's state towards a measurement (5,)."""
        motion = self.model.motion
        error = measured - motion[:5]
        error[4] = np.arctan2(np.sin(error[4]), np.cos(error[4]))
        jumped = np.abs(error) > (JUMP * self.noise + 1) * UNITS
        least = {"agent": 0 if self.noise else 1, "block": DRIFT / max(self.noise, DRIFT)}
        for name, part in (("agent", AGENT), ("block", BLOCK)):
            self.counts[name] = 1 if jumped[part].any() else self.counts[name] + 1
            motion[part] += max(1 / self.counts[name], least[name]) * error[part]
        self.set_model(motion)

    @property
    def motion(self):
        """`PushTEnv.motion` after the actions that wait, (7,)."""
        now = self.model.motion
        if not len(self.env.waiting):
            return now
        self.model.simulate(self.env.waiting)
        then = self.model.motion
        self.set_model(now)
        return then
