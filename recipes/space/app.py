"""The page of `clp-hf demo`, as a Hugging Face Space runs it.

    python recipes/space/app.py --erm runs/waterbirds/erm --clp runs/waterbirds/clp

In a Space the checkpoints come from its variables CLP_HF_DEMO_ERM and CLP_HF_DEMO_CLP, Hub names of two models.
"""

import typer

from clp_hf.cli import demo

if __name__ == "__main__":
    typer.run(demo)
