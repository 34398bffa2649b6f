"""minidiff: denoising diffusion probabilistic models (DDPM) for robot policies, in NumPy alone.

The path, to be read in this order: __main__ (the method in ten seconds), tensor, layers,
diffusion, nn, optim, demos, training, policy; wall is a small task from end to end. Other samplers,
guidance and baselines are in minidiff.beyond, the task PushT in minidiff.pusht.
"""
import os

# Networks of this size run fastest on one BLAS thread; a second core serves a second process. BLAS
# reads this when NumPy is first imported, so import minidiff first. To choose otherwise, set it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
