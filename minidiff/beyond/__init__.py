"""Beyond the paper: other samplers, guidance, and what diffusion is compared with."""
