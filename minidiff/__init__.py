"""minidiff: denoising diffusion probabilistic models (DDPM) for robot policies, in NumPy alone.

Read the method in this order: tensor, nn, optim, diffusion, samplers, demos, policy, checkpoint.
The task that it is trained and scored on lives in minidiff.pusht.
"""
import os

# Networks of this size run fastest on one BLAS thread (README, "Threads"); a second core serves a second process.
# BLAS reads this when NumPy is first imported, so import minidiff first. To choose otherwise, set it yourself.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
