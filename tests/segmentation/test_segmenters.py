"""Every kind of segmentation model, tiny, with random weights, from local folders."""

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SwinConfig,
    VitDetConfig,
    VitMatteConfig,
    VitMatteForImageMatting,
    VitMatteImageProcessor,
)

from clp_hf.segmentation import load_segmenter
from clp_hf.segmentation.centre_prior import centre_box, grabcut
from clp_hf.segmentation.segmenters import Matting

SIDE = 32


def picture(width=40, height=24, seed=0):
    """A red rectangle, columns 12 to 27 and rows 6 to 17, on a noisy green ground."""
    pixels = np.random.default_rng(seed).integers(0, 30, (height, width, 3))
    pixels[..., 1] += 150
    pixels[6:18, 12:28] = (220, 20, 30)
    return Image.fromarray(pixels.astype(np.uint8))


PICTURES = [picture(), picture(24, 24, 1), picture(seed=2)]  # not all of one size


def segformer(folder, labels):
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 8], depths=[1, 1], num_attention_heads=[1, 1], num_encoder_blocks=2, sr_ratios=[1, 1],
        patch_sizes=[3, 3], strides=[2, 2], mlp_ratios=[2, 2], decoder_hidden_size=8, id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )  # fmt: skip
    model = SegformerForSemanticSegmentation(config)
    model.decode_head.classifier.weight.data *= 100  # so that labels differ from place to place
    model.save_pretrained(folder)
    SegformerImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return str(folder)


def mask2former(folder):
    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=SIDE, patch_size=2, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=6,
        id2label={0: "bird", 1: "cat"}, label2id={"bird": 0, "cat": 1},
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(config)
    model.class_predictor.bias.data[0] = 20  # sure of its birds, or the post-processing drops every segment
    model.save_pretrained(folder)
    Mask2FormerImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return str(folder)


def sam(folder):
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 4,
        "output_channels": 16, "mlp_dim": 16, "global_attn_indexes": [0], "window_size": 4, "num_pos_feats": 8,
    }  # fmt: skip
    config = SamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 16, "image_size": SIDE, "patch_size": 4, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16,
            "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    SamModel(config).save_pretrained(folder)
    processor = SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    SamProcessor(processor).save_pretrained(folder)
    return str(folder)


def vitmatte(folder):
    torch.manual_seed(0)
    backbone = VitDetConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=16, num_channels=4,
        pretrain_image_size=SIDE, out_features=["stage1"], mlp_ratio=1,
    )  # fmt: skip
    config = VitMatteConfig(
        backbone_config=backbone, hidden_size=16, convstream_hidden_sizes=[4, 4, 4], fusion_hidden_sizes=[8, 8, 8, 8]
    )
    VitMatteForImageMatting(config).save_pretrained(folder)
    VitMatteImageProcessor().save_pretrained(folder)
    return str(folder)


REMOTE = """
    from pathlib import Path
    Path({marker!r}).touch()  # that it has run

    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

    class RedConfig(PreTrainedConfig):
        model_type = "red_is_salient"

    class RedModel(PreTrainedModel):
        config_class = RedConfig

        def __init__(self, config):
            super().__init__(config)
            self.unused = torch.nn.Parameter(torch.zeros(1))
            self.post_init()

        def forward(self, pixel_values):
            red = 100 * (pixel_values[:, :1] - pixel_values[:, 1:2])
            return [red[:, :, ::4, ::4] * 0, red]  # coarse, then fine
"""


def remote_code(folder):
    """A salient-object model with code of its own: what is redder than green."""
    folder.mkdir()
    (folder / "red.py").write_text(textwrap.dedent(REMOTE.format(marker=str(folder / "has_run"))))
    auto_map = {"AutoConfig": "red.RedConfig", "AutoModelForImageSegmentation": "red.RedModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "red_is_salient", "auto_map": auto_map}))
    from safetensors.torch import save_file

    save_file({"unused": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def red(image):
    pixels = np.asarray(image).astype(int)
    return pixels[..., 0] > pixels[..., 1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "semantic": segformer(root / "semantic", ["background", "bird", "cat"]),
        "salient": segformer(root / "salient", ["object"]),
        "panoptic": mask2former(root / "panoptic"),
        "promptable": sam(root / "promptable"),
        "matting": vitmatte(root / "matting"),
        "remote": remote_code(root / "remote"),
    }


def check(masks, images):
    for mask, image in zip(masks, images, strict=True):
        assert mask.dtype == np.uint8
        assert mask.shape == (image.height, image.width)


@pytest.mark.parametrize("kind", ["semantic", "salient", "panoptic", "promptable"])
def test_masks_fit_their_images_and_do_not_depend_on_the_batch(folders, kind):
    settings = {"foreground": ["bird"]} if kind == "panoptic" else {}
    segmenter = load_segmenter(folders[kind], **settings)
    masks = segmenter(PICTURES)
    check(masks, PICTURES)
    assert any(mask.any() for mask in masks)
    for image, mask in zip(PICTURES, masks, strict=True):
        difference = np.abs(segmenter([image])[0].astype(int) - mask)
        assert (difference > 1).mean() < 0.01  # of the values of a random network at a threshold
    assert load_segmenter(folders[kind], **settings).fingerprint == segmenter.fingerprint


def test_foreground_labels_are_united(folders):
    def mask(*labels):
        return load_segmenter(folders["semantic"], foreground=labels)(PICTURES[:1])[0] > 0

    bird, cat, background = mask("bird"), mask("CAT"), mask("background")
    assert (bird.astype(int) + cat + background == 1).all()
    np.testing.assert_array_equal(mask("bird", "cat"), bird | cat)
    np.testing.assert_array_equal(load_segmenter(folders["semantic"])(PICTURES[:1])[0] > 0, bird | cat)


def test_fingerprints_tell_settings_and_weights_apart(folders, tmp_path):
    prints = [load_segmenter(folders["semantic"], foreground=[label]).fingerprint for label in ("bird", "cat")]
    prints += [load_segmenter(folders[kind]).fingerprint for kind in ("salient", "promptable")]
    prints += [load_segmenter(matting_model=folders["matting"]).fingerprint, load_segmenter().fingerprint]
    model = SegformerForSemanticSegmentation.from_pretrained(folders["semantic"])
    model.decode_head.classifier.bias.data += 1
    model.save_pretrained(tmp_path)
    SegformerImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(tmp_path)
    prints.append(load_segmenter(str(tmp_path), foreground=["bird"]).fingerprint)
    assert len(set(prints)) == len(prints)


def test_remote_code_runs_only_when_the_user_says_so(folders):
    marker = folders["remote"] + "/has_run"
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_segmenter(folders["remote"])
    assert not Path(marker).exists()
    masks = load_segmenter(folders["remote"], trust_remote_code=True)(PICTURES)
    assert Path(marker).exists()
    check(masks, PICTURES)
    for mask, image in zip(masks, PICTURES, strict=True):
        assert ((mask >= 128) == red(image)).mean() > 0.97  # but for the outline, which is resampled


def test_grabcut_finds_the_rectangle_and_nothing_where_nothing_is():
    pytest.importorskip("cv2")
    flat = Image.new("RGB", (40, 40), "grey")
    masks = load_segmenter()([*PICTURES, flat])
    check(masks, [*PICTURES, flat])
    for mask, image in zip(masks[:3:2], PICTURES[::2], strict=True):
        found = mask >= 128
        assert (found & red(image)).sum() / (found | red(image)).sum() > 0.9
    assert not masks[3].any()


def test_grabcut_works_on_small_copies_of_large_images(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "clp_hf.segmentation.segmenters.grabcut", lambda image: sizes.append(image.shape) or image[..., 0] > 128
    )
    mask = load_segmenter()([picture().resize((800, 480))])[0]
    assert sizes == [(154, 256, 3)]
    assert mask.shape == (480, 800)
    assert mask[240, 400] == 255
    assert mask[20, 20] == 0


def test_centre_box():
    assert centre_box(20, 100, 0.5) == [25, 5, 75, 15]


def test_grabcut_is_the_same_every_time():
    pytest.importorskip("cv2")
    pixels = np.asarray(PICTURES[0])
    np.testing.assert_array_equal(grabcut(pixels), grabcut(pixels))


def test_matting_decides_near_the_outline_and_leaves_empty_masks_empty(folders):
    class Coarse:
        fingerprint = "coarse"

        def __call__(self, images):
            masks = [np.where(red(image), 255, 0).astype(np.uint8) for image in images]
            return [*masks[:-1], np.zeros_like(masks[-1])]

    matting = Matting(Coarse(), folders["matting"], torch.device("cpu"), {})
    seen = []
    processor = matting.processor

    def spy(images, trimaps, **kwargs):
        seen.extend(trimaps)
        return processor(images=images, trimaps=trimaps, **kwargs)

    matting.processor = spy
    masks = matting([picture(), picture(seed=1), picture(seed=2)])
    check(masks, [picture()] * 3)
    assert masks[0].any()
    assert not masks[2].any()
    assert len(seen) == 2  # nothing to refine in the third
    assert set(np.unique(seen[0])) == {0, 128, 255}
    assert (seen[0] == 255).sum() == 14 * 10  # the rectangle, less a pixel on every side
    assert (seen[0] == 0).sum() == 40 * 24 - 18 * 14


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("panoptic", {}, "no label 'background': say which labels are foreground. It has bird, cat"),
        ("semantic", {"foreground": ["dog"]}, "no label 'dog' to be foreground. It has background, bird, cat"),
        ("matting", {}, "pass it as matting_model"),
        ("semantic", {"matting_model": "salient"}, "segformer model; expected a vitmatte one"),
        ("grabcut", {"foreground": ["bird"]}, "GrabCut knows no labels"),
    ],
)
def test_bad_choices_are_named(folders, kind, settings, message):
    settings = {
        name: folders.get(value, value) if isinstance(value, str) else value for name, value in settings.items()
    }
    with pytest.raises(ValueError, match=message):
        load_segmenter(folders.get(kind, kind), **settings)


def test_a_classifier_is_no_segmenter(tmp_path):
    from conftest import vit

    vit().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\(vit\) is not a segmentation model"):
        load_segmenter(str(tmp_path))


def test_an_unreachable_hub_is_said_with_the_alternative():
    with pytest.raises(ConnectionError, match="'grabcut'"):
        load_segmenter("facebook/sam-vit-base")
