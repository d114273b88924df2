"""A page on which the plain classifier (ERM) and CLP's predict the same image, and show where they look."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from ..data.embedded import embedded_birds
from ..utils.extras import needed_by
from ..utils.text import one_line
from .explanation import Explainer, check_same_labels

with needed_by("The demo"):
    import gradio as gr

INTRODUCTION = """# What does it look at?

A classifier that has seen waterbirds on water and landbirds on land learns the background. Choose an image: two
classifiers, one trained plainly (**ERM**), one with causal logit perturbation (**CLP**), say what they see. The
heat map ([Grad-CAM](https://arxiv.org/abs/1610.02391)) is red where the image speaks most for the answer; it is as
coarse as the network's last layer, often 3 × 3 places for images of 96 pixels and 7 × 7 for 224.
"""
MOST_BYTES, MOST_PIXELS = 20 * 2**20, 25_000_000  # of an upload: a small file may be an image of gigabytes
LIMITS = f"A JPEG, PNG or WebP file of up to {MOST_BYTES // 2**20} MB and {MOST_PIXELS // 10**6} million pixels."
STYLE = ".gradio-container {max-width: 1080px !important; margin: 0 auto !important}"
NOTHING = "Nothing in the image speaks for this answer: the heat map is empty."


def _in_words(preprocess: Callable) -> Callable:
    """Gradio's reading of an upload, with an error on the page that says what is no image, or too large a one."""

    def refuse(said: str, error: Exception | None = None):
        raise gr.Error(f"{said}. {LIMITS}", print_exception=False) from error

    def read(payload):
        if payload is None or payload.path is None:
            return refuse("Images are uploaded as files") if payload else None
        path = Path(payload.path)
        name = one_line(path.name)
        if path.stat().st_size > MOST_BYTES:
            refuse(f"{name} has {path.stat().st_size / 2**20:,.0f} MB, which is too much")
        try:
            with Image.open(path) as image:  # reads the size, and no pixel
                width, height = image.size
            if width * height > MOST_PIXELS:
                refuse(f"{name} has {width:,} × {height:,} pixels, which is too much")
            return preprocess(payload.model_copy(update={"url": None}))  # that could hold another image
        except Image.DecompressionBombError as error:
            refuse(f"{name} has far too many pixels", error)
        except OSError as error:
            refuse(f"{name} cannot be read as an image", error)

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
                gr.Markdown(LIMITS)
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
    page.launch(server_port=port, css=STYLE, footer_links=[], max_file_size=MOST_BYTES)
