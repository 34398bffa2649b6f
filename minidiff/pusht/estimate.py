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
UNITS = np.array([1, 1, 1, 1, 1 / 60])  # px, and radians that move the ends of the bar by as much
JUMP = 5.0  # standard deviations of the noise that no measurement differs by, unless things jumped


class EstimatingEnv:
    """A world that shows, in place of its observations, the estimated state that an action meets.

    env: a DisturbedEnv, or another PushTEnv that observes the state. noise: the standard deviation
    of its measurements, px. Without noise the estimate is the measurement. A measurement that
    cannot be explained by noise, as after a kick, starts a new estimate.

    The share by which measurement k corrects is 1/k, a mean over all of them, but for the block at
    least DRIFT / noise, as its model is wrong where it is pushed a little differently.
    """
    waiting = ()  # the estimate is already that of the state after the actions that wait

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
        self.set_model([*state, *self.env.motion[5:]])  # at a start, how fast the agent is is known
        self.count = 1
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
        if (np.abs(error) > (JUMP * self.noise + 1) * UNITS).any():
            self.count = 0
        self.count += 1
        share = np.full(5, 1 / self.count)
        share[2:] = max(1 / self.count, DRIFT / max(self.noise, DRIFT))
        motion[:5] += share * error
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
