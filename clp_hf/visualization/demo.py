"""A page on which the plain classifier (ERM) and CLP's predict the same image, and show where they look."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from ..data.embedded import embedded_birds
from .explanation import Explainer, check_same_labels

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("The demo needs Gradio: pip install 'clp-hf[app]'.") from error

INTRODUCTION = """# What does it look at?

A classifier that has seen waterbirds on water and landbirds on land learns the background. Choose an image: two
classifiers, one trained plainly (**ERM**), one with causal logit perturbation (**CLP**), say what they see. The
heat map ([Grad-CAM](https://arxiv.org/abs/1610.02391)) is red where the image speaks most for the answer; it is as
coarse as the network's last layer, often 3 × 3 places for images of 96 pixels and 7 × 7 for 224.
"""
STYLE = ".gradio-container {max-width: 1080px !important; margin: 0 auto !important}"
NOTHING = "Nothing in the image speaks for this answer: the heat map is empty."


def _in_words(preprocess: Callable) -> Callable:
    """Gradio's reading of an upload, with an error on the page that says what is no image."""

    def read(payload):
        try:
            return preprocess(payload)
        except OSError as error:
            message = f"{Path(payload.path).name} cannot be read as an image: choose a JPEG, PNG or WebP file."
            raise gr.Error(message, print_exception=False) from error

    return read


def build_page(explainers: Mapping[str, Explainer], examples: Mapping[str, Image.Image]) -> gr.Blocks:
    """The page, not yet served.

    Args:
        explainers: title -> checkpoint.
        examples: what is on it -> an image to start with; may be empty.

    Raises:
        ValueError: the checkpoints have different labels.
    """
    check_same_labels(explainers)

    def explain(image: Image.Image | None) -> list:
        values = []
        for explainer in explainers.values() if image else ():
            found = explainer(image)
            values += [found.probabilities, found.overlay, "" if found.has_evidence else NOTHING]
        return values or [None] * len(outputs)

    with gr.Blocks(title="ERM and CLP", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        outputs = []
        with gr.Row():
            with gr.Column(min_width=280):
                image = gr.Image(
                    type="pil",
                    image_mode=None,  # transparency is for the classifier's preprocessing
                    label="Image",
                    sources=["upload", "clipboard"],
                    height=320,
                    elem_id="image",
                )
                image.preprocess = _in_words(image.preprocess)
                if examples:
                    pictures = [[picture] for picture in examples.values()]
                    gr.Examples(pictures, image, label="Or one of these", example_labels=list(examples))
            for title in explainers:
                with gr.Column(min_width=280, elem_id=title.lower()):
                    outputs += [
                        gr.Label(label=title, num_top_classes=5),
                        gr.Image(label=f"Where {title} looks", interactive=False, buttons=["fullscreen"]),
                        gr.Markdown(),
                    ]
        image.change(explain, image, outputs, api_name="explain", show_progress="minimal")
    return page


def example_images(label_names: Sequence[str]) -> dict[str, Image.Image]:
    """An embedded bird of every group, by its name; none for classifiers of anything else."""
    split = embedded_birds(4, 4, 8, image_size=224)["test"]
    if set(split.features["label"].names) != set(label_names):
        return {}
    names = split.features["group"].names
    return {names[row["group"]].replace("_", " "): row["image"] for row in split.sort("group")}


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
    page = build_page(explainers, example_images(explainers["ERM"].label_names))
    page.launch(server_port=port, css=STYLE, footer_links=[])
