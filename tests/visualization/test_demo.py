"""The demo page in a real browser: what is uploaded is predicted by both checkpoints, and nobody else is called."""

import json
import runpy
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from browser import open_browser
from conftest import SIZE, resnet, vit
from huggingface_hub import SpaceCard
from PIL import Image, PngImagePlugin
from transformers import ViTImageProcessor

from clp_hf.data import embedded_birds

gr = pytest.importorskip("gradio")

from gradio.data_classes import ImageData  # noqa: E402

from clp_hf.visualization import Explainer  # noqa: E402
from clp_hf.visualization.demo import MOST_BYTES, build_page, example_images, serve  # noqa: E402

APP = Path(__file__).parents[2] / "recipes" / "space" / "app.py"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two folders of classifiers of the embedded classes, and one of other classes; the first is sure of waterbird."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name, model, labels in (
        ("erm", resnet(2), ("landbird", "waterbird")),
        ("clp", vit(2), ("landbird", "waterbird")),
        ("other", vit(2), ("cat", "dog")),
    ):
        head = model.classifier[1] if name == "erm" else model.classifier
        torch.nn.init.normal_(head.weight)
        head.bias.data = torch.tensor([0.0, 30.0 if name == "erm" else 0.0])
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: index for index, label in enumerate(labels)}
        model.save_pretrained(root / name)
        ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(root / name)
    return root


@pytest.mark.slow
def test_an_uploaded_image_is_predicted_and_explained_by_both(checkpoints, tmp_path, monkeypatch):
    called = []
    connect = socket.socket.connect
    monkeypatch.setattr(
        socket.socket, "connect", lambda self, address: called.append(address) or connect(self, address)
    )
    explainers = {"ERM": Explainer(str(checkpoints / "erm")), "CLP": Explainer(str(checkpoints / "clp"))}
    page = build_page(explainers, example_images(explainers["ERM"].label_names))
    page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    image = embedded_birds(4, 4, 4, image_size=64)["test"][0]["image"]
    image.save(tmp_path / "bird.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_text("no image either")
    try:
        with open_browser() as browser:
            window = browser.new_page()
            window.on("request", lambda request: called.append((request.url.split("/")[2].split(":")[0], 0)))
            window.goto(page.local_url)
            upload = window.locator("#image input[type=file]")
            upload.wait_for(state="attached")

            upload.set_input_files(tmp_path / "notes.txt")
            window.get_by_text("Invalid file type: notes.txt").wait_for()
            upload.set_input_files(tmp_path / "broken.png")
            window.get_by_text("broken.png cannot be read as an image").wait_for()
            window.get_by_label("Remove Image").click()

            upload.wait_for(state="attached")
            upload.set_input_files(tmp_path / "bird.png")
            for title, explainer in explainers.items():
                column = window.locator(f"#{title.lower()}")
                column.locator("img").wait_for()
                expected = explainer(image)
                best = max(expected.probabilities, key=expected.probabilities.get)
                assert column.get_by_test_id("label-output-value").inner_text() == best
                text = column.inner_text()
                assert all(f"{100 * share:.0f}%" in text for share in expected.probabilities.values())
                size = column.locator("img").evaluate("image => [image.naturalWidth, image.naturalHeight]")
                assert size == list(expected.overlay.size)
            assert window.locator("#erm").get_by_test_id("label-output-value").inner_text() == "waterbird"

            drawn = window.locator("#clp img").get_attribute("src")
            window.get_by_text("waterbird on land").click()
            window.wait_for_function("drawn => document.querySelector('#clp img')?.src !== drawn", arg=drawn)
    finally:
        page.close()
    hosts = {address[0] for address in called if isinstance(address, tuple)}
    assert hosts <= {"127.0.0.1", "::1", "localhost"}


def test_what_is_missing_is_said(checkpoints):
    with pytest.raises(
        ValueError, match=r"(?s)CLP: The checkpoint '.*nowhere' cannot be loaded.*train waterbirds --comp"
    ):
        serve(str(checkpoints / "erm"), str(checkpoints / "nowhere"))
    with pytest.raises(ValueError, match=r"ERM tells \['landbird', 'waterbird'\] apart, CLP \['cat', 'dog'\]"):
        serve(str(checkpoints / "erm"), str(checkpoints / "other"))


@pytest.mark.parametrize("case", ["pixels", "bomb", "bytes", "another image in its address"])
def test_what_is_too_large_is_refused_before_it_is_decoded(checkpoints, tmp_path, monkeypatch, case):
    page = build_page({"ERM": Explainer(str(checkpoints / "erm"))}, {})
    field = next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == "image")
    path = tmp_path / "large.png"
    Image.new("1", {"pixels": (6000, 5000), "bomb": (20_000, 20_000)}.get(case, (20, 10))).save(path)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("it was decoded"))
    url = None
    if case == "bytes":
        with path.open("ab") as file:
            file.truncate(MOST_BYTES + 1)
    if case == "another image in its address":
        monkeypatch.undo()
        url = "data:image/png;base64,AAAA"
        assert field.preprocess(ImageData(path=str(path), url=url)).size == (20, 10)
        path = None
    with pytest.raises(gr.Error, match="20 MB and 25 million pixels"):
        field.preprocess(ImageData(path=path and str(path), url=url))


def test_the_limits_are_on_the_page(checkpoints):
    page = build_page({"ERM": Explainer(str(checkpoints / "erm"))}, {})
    assert "20 MB and 25 million pixels" in json.dumps(page.get_config_file())


def test_examples_are_of_the_classifiers_classes():
    examples = example_images(["waterbird", "landbird"])
    assert list(examples) == ["landbird on land", "landbird on water", "waterbird on land", "waterbird on water"]
    assert example_images(["cat", "dog"]) == {}


def test_the_space_says_what_runs_it():
    space = SpaceCard.load(APP.parent / "README.md").data
    assert space.sdk == "gradio"
    assert (APP.parent / space.app_file).samefile(APP)
    assert "clp-hf[app]" in (APP.parent / "requirements.txt").read_text()


@pytest.mark.parametrize("source", ["options", "variables"])
def test_the_space_takes_options_or_variables(monkeypatch, source):
    served = []
    monkeypatch.setitem(
        sys.modules, "clp_hf.visualization.demo", SimpleNamespace(serve=lambda *given: served.append(given))
    )
    if source == "variables":
        monkeypatch.setenv("CLP_HF_DEMO_ERM", "me/plain")
        monkeypatch.setenv("CLP_HF_DEMO_CLP", "me/clp")
    options = ["--erm", "me/plain", "--clp", "me/clp"] if source == "options" else []
    monkeypatch.setattr(sys, "argv", ["app.py", *options])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(APP), run_name="__main__")
    assert served == [("me/plain", "me/clp", None)]
