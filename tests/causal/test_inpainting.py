import sys
import types

import pytest
import torch
from PIL import Image, ImageChops

from clp_hf.causal import DiffusersInpainter, TeleaInpainter, boxes_to_masks, build_inpainter, composite


@pytest.fixture
def images():
    ramp = torch.linspace(0.2, 0.8, 32).expand(2, 3, 32, 32).clone()
    ramp[:, :, 10:20, 10:20] = 1.0
    return ramp


@pytest.fixture
def region():
    return boxes_to_masks([[10, 10, 10, 10]] * 2, 32, 32)


def test_telea_continues_the_background(images, region):
    filled = build_inpainter()(images, region)
    ramp = torch.linspace(0.2, 0.8, 32).expand(2, 3, 32, 32)
    assert (filled - ramp).abs().max() < 0.15  # the white square is gone
    assert torch.equal(composite(images, filled, region)[..., :10], images[..., :10])


def test_telea_does_not_smear_a_soft_rim_inwards(images, region):
    images[:, :, 9, 9:21] = 1.0  # the rim of the foreground, outside its mask
    smeared = TeleaInpainter(margin=0)(images, region)[:, :, 10:13, 12:18]
    clean = TeleaInpainter()(images, region)[:, :, 10:13, 12:18]
    assert clean.max() < 0.7 < smeared.max()


def test_telea_of_a_region_whose_margin_is_the_whole_image(images):
    region = boxes_to_masks([[1, 1, 30, 30]] * 2, 32, 32)
    assert TeleaInpainter()(images, region).isfinite().all()


class FakePipeline:
    """Paints the masked pixels blue, at the size it is told."""

    def __call__(self, prompt, image, mask_image, height, width, generator, **kwargs):
        self.prompt, self.kwargs = prompt, kwargs
        assert all(
            picture.size == hole.size == (width, height) for picture, hole in zip(image, mask_image, strict=True)
        )
        blue = Image.new("RGB", (width, height), "blue")
        painted = [Image.composite(blue, picture, hole) for picture, hole in zip(image, mask_image, strict=True)]
        assert ImageChops.difference(painted[0], image[0]).getbbox()
        return types.SimpleNamespace(images=painted)


def test_a_diffusers_pipeline_fills_the_region(images, region):
    pipeline = FakePipeline()
    inpainter = DiffusersInpainter("any/name", size=64, pipeline=pipeline, num_inference_steps=3)
    filled = inpainter(images, region, torch.Generator())
    assert torch.allclose(filled[:, :, 12:18, 12:18], torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1))
    assert (filled[..., :8] - images[..., :8]).abs().max() < 0.02  # resized there and back
    assert len(pipeline.prompt) == 2
    assert pipeline.kwargs == {"num_inference_steps": 3}


def test_a_pipeline_is_loaded_by_name_when_it_is_first_used(images, region, monkeypatch):
    loaded = []

    class AutoPipelineForInpainting(FakePipeline):
        @classmethod
        def from_pretrained(cls, name):
            loaded.append(name)
            return cls()

        def to(self, device):
            return self

        def set_progress_bar_config(self, disable):
            pass

    module = types.ModuleType("diffusers")
    module.AutoPipelineForInpainting = AutoPipelineForInpainting
    monkeypatch.setitem(sys.modules, "diffusers", module)
    inpainter = build_inpainter("some/pipeline", size=64)
    assert loaded == []
    inpainter(images, region)
    inpainter(images, region)
    assert loaded == ["some/pipeline"]


@pytest.mark.parametrize(
    ("module", "name", "package"),
    [("diffusers", "some/pipeline", "diffusers"), ("cv2", "telea", "opencv-python-headless")],
)
def test_a_missing_package_names_the_extra(module, name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{package}.*clp-hf\[vision\]"):
        build_inpainter(name)
