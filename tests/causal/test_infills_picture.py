"""A contact sheet of every infill, to be looked at: set `CLP_HF_PICTURES` to a folder to keep it."""

import os
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torchvision.transforms.functional import to_pil_image

from clp_hf.causal import (
    COUNTERFACTUAL_INFILLS,
    FACTUAL_INFILLS,
    CausalAugmentation,
    Role,
    maskable,
    prepare_masks,
)

GAP, HEAD = 4, 14


def contact_sheet(images, mask, labels, logits_fn, seed=0) -> Image.Image:
    """One row per image and mask shape, one column per infill; `images` `(n, 3, h, w)` in [0, 1]."""
    columns = [images.repeat_interleave(2, 0)]
    columns += [0.2 * columns[0] + 0.8 * mask.repeat_interleave(2, 0)]
    titles = ["image", "mask"]
    for role, names in ((Role.COUNTERFACTUAL, COUNTERFACTUAL_INFILLS), (Role.FACTUAL, FACTUAL_INFILLS)):
        for name in names:
            rows = []
            for shape in ("box", "exact"):
                chosen = ([name], []) if role == Role.COUNTERFACTUAL else ([], [name])
                augment = CausalAugmentation(*chosen, [0.0] * 3, [1.0] * 3, mask_shape=shape)
                generator = torch.Generator().manual_seed(seed)
                roles = torch.full_like(labels, int(role))
                rows.append(augment(images, labels, mask, roles, generator=generator, logits_fn=logits_fn)[0])
            columns.append(torch.stack(rows, 1).flatten(0, 1))
            titles.append(f"{'CF' if role == Role.COUNTERFACTUAL else 'F'} {name}")
    height, width = images.shape[2:]
    sheet = Image.new("RGB", (len(columns) * (width + GAP), HEAD + 2 * len(images) * (height + GAP)), "white")
    for c, (title, column) in enumerate(zip(titles, columns, strict=True)):
        ImageDraw.Draw(sheet).text((c * (width + GAP), 0), title, fill="black")
        for r, picture in enumerate(column):
            sheet.paste(to_pil_image(picture), (c * (width + GAP), HEAD + r * (height + GAP)))
    return sheet


def birds(size=96):
    """Two bird-like ellipses on land and on water: images `(2, 3, size, size)`, exact masks, labels."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    body = ((x + 0.2) / 0.35) ** 2 + ((y - 0.1) / 0.2) ** 2 < 1
    head = (x - 0.1) ** 2 + (y + 0.15) ** 2 < 0.15**2
    beak = (x > 0.2) & (x < 0.4) & ((y + 0.15).abs() < 0.06)
    mask = (body | head | beak).float().expand(2, 1, size, size)
    stripes = torch.stack([torch.sin(18 * y + 2 * torch.sin(5 * x)), torch.sin(25 * x + 3 * y) * torch.sin(7 * y)])
    colours = torch.tensor([[0.2, 0.4, 0.7], [0.3, 0.5, 0.2]])[:, :, None, None]
    background = colours + 0.1 * stripes[:, None] + 0.03 * torch.randn(2, 3, size, size, generator=generator)
    bird = torch.tensor([[0.9, 0.9, 0.85], [0.6, 0.3, 0.1]])[:, :, None, None] + 0.05 * stripes.flip(0)[:, None]
    return torch.where(mask > 0, bird, background).clamp(0, 1), mask, torch.tensor([0, 1])


def test_contact_sheet_of_every_infill(tmp_path):
    images, mask, labels = birds()
    assert maskable(prepare_masks(mask)).all()
    torch.manual_seed(0)
    classifier = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 7, 4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(2)
    )
    sheet = contact_sheet(images, mask, labels, classifier)
    for folder in {str(tmp_path), os.environ.get("CLP_HF_PICTURES", str(tmp_path))}:
        sheet.save(Path(folder) / "infills.png")
    assert sheet.size == (17 * 100, 14 + 4 * 100)
    assert (tmp_path / "infills.png").stat().st_size > 50_000  # not a blank sheet
