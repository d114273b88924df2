"""Random search over HSFM's settings: all of them run at once, and validation chooses."""

import numpy as np

from .editor import HSFMSettings

# Learning rates are drawn log-uniformly between the bounds, the others from the list.
SPACE = {
    "support_size": [16, 32, 64],
    "inner_steps": [5, 10, 15],
    "inner_rate": (5e-5, 1e-2),
    "edit_rate": (1e-2, 1.0),
    "edits_per_epoch": [5, 10, 15],
    "hard_size": [16, 32, 64, 128],
}


def random_settings(count: int, base: HSFMSettings, seed: int = 0) -> list[HSFMSettings]:
    """`base`, and `count` − 1 settings drawn from `SPACE` with its epochs and seed.

    Args:
        count: at least 1.
        base: also among those that are tried.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    settings = [base]
    for _ in range(count - 1):
        drawn = {
            name: float(np.exp(generator.uniform(*np.log(values))))
            if isinstance(values, tuple)
            else int(generator.choice(values))
            for name, values in SPACE.items()
        }
        settings.append(HSFMSettings(**drawn, epochs=base.epochs, seed=base.seed))
    return settings
