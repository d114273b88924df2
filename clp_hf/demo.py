"""A page on which the plain classifier (ERM) and CLP's predict the same image, and show where they look."""

import os
from collections.abc import Mapping

from PIL import Image

from .data import embedded_birds
from .visualization import Explainer, check_same_labels

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("The demo needs Gradio: pip install 'clp-hf[app]'.") from error

INTRODUCTION = """# What does it look at?

A classifier that has seen waterbirds on water and landbirds on land learns the background. Choose an image: the same
network, trained plainly (**ERM**) and with causal logit perturbation (**CLP**), says what it sees. The heat map
([Grad-CAM](https://arxiv.org/abs/1610.02391)) is red where the image speaks most for its answer.
"""
STYLE = """
.gradio-container {max-width: 1080px !important; margin: 0 auto !important}
"""
NOTHING = "Nothing in the image speaks for this answer: the heat map is empty."


def build_page(explainers: Mapping[str, Explainer], examples: list[tuple[Image.Image, str]]) -> gr.Blocks:
    """The page, not yet served.

    Args:
        explainers: title -> checkpoint.
        examples: images to start with, and what is on them.

    Raises:
        ValueError: the checkpoints have different labels.
    """
    check_same_labels(explainers)

    def explain(image: Image.Image | None) -> list:
        if image is None:
            return [None, None, ""] * len(explainers)
        found = [explainer(image) for explainer in explainers.values()]
        return [
            value
            for explanation in found
            for value in (
                explanation.probabilities,
                explanation.overlay,
                "" if explanation.has_evidence else NOTHING,
            )
        ]

    with gr.Blocks(title="ERM and CLP", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        outputs = []
        with gr.Row():
            with gr.Column(min_width=280):
                image = gr.Image(
                    type="pil", label="Image", sources=["upload", "clipboard"], height=320, elem_id="image", buttons=[]
                )
            for title in explainers:
                with gr.Column(min_width=280, elem_id=title.lower()):
                    outputs += [
                        gr.Label(label=title, num_top_classes=5),
                        gr.Image(label=f"Where {title} looks", interactive=False, buttons=["fullscreen"]),
                        gr.Markdown(),
                    ]
        gr.Examples([[picture] for picture, _ in examples], image, example_labels=[name for _, name in examples])
        image.change(explain, image, outputs, api_name="explain", show_progress="minimal")
    return page


def example_images() -> list[tuple[Image.Image, str]]:
    """An embedded bird of every group."""
    split = embedded_birds(4, 4, 8, image_size=224)["test"]
    names = split.features["group"].names
    rows = {row["group"]: row["image"] for row in split}
    return [(image, names[group].replace("_", " ")) for group, image in sorted(rows.items())]


def serve(erm: str, clp: str, port: int | None = None) -> None:
    """Load two checkpoints and serve the page until it is interrupted.

    Args:
        erm, clp: folders or Hub names.
        port: by default the first free one from 7860 on.

    Raises:
        ValueError: a checkpoint is not there, has no feature map, or knows other labels than the other one.
    """
    explainers = {}
    for title, checkpoint in {"ERM": erm, "CLP": clp}.items():
        try:
            explainers[title] = Explainer(checkpoint)
        except ValueError as error:
            raise ValueError(
                f"{title}: {error}\nTrain both: clp-hf train waterbirds --compare. Or name yours: --{title.lower()} or "
                f"the variable CLP_HF_DEMO_{title}."
            ) from error
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    page = build_page(explainers, example_images())
    page.launch(server_port=port, css=STYLE)
