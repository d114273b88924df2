import pytest
import torch
import torch.nn.functional as F

from clp_hf.causal import boxes_to_masks, saliency_penalty


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2 * 4 * 5, dtype=torch.float64, generator=generator, requires_grad=True)
    pixel_values = torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=generator)
    mask = boxes_to_masks([[1, 1, 2, 2], [0, 0, 5, 2], [4, 3, 1, 1]], 4, 5).double()
    return weight, pixel_values, torch.tensor([0, 2, 1]), mask


def linear(weight):
    return lambda x: x.flatten(1) @ weight.T


def test_matches_a_linear_softmax_model(problem):
    weight, pixel_values, labels, mask = problem
    # ∂p_y/∂x = p_y (w_y − Σ_c p_c w_c)
    p = linear(weight)(pixel_values).softmax(1)
    own = p.gather(1, labels[:, None])
    gradient = (own * (weight[labels] - p @ weight)).view_as(pixel_values)
    per_pixel = gradient.square().sum(1, keepdim=True)  # summed over channels
    expected = ((per_pixel * (1 - mask)).sum((1, 2, 3)) / (1 - mask).sum((1, 2, 3))).mean()
    torch.testing.assert_close(
        saliency_penalty(linear(weight), pixel_values, labels, mask), expected, rtol=1e-12, atol=0
    )


def test_its_gradient_in_the_weights_is_exact(problem):
    weight, pixel_values, labels, mask = problem
    assert torch.autograd.gradcheck(lambda w: saliency_penalty(linear(w), pixel_values, labels, mask), weight)


def test_images_that_cannot_be_masked_do_not_count(problem):
    weight, pixel_values, labels, mask = problem
    more = torch.cat([pixel_values, 9 * torch.ones_like(pixel_values[:2])])
    masks = torch.cat([mask, torch.zeros_like(mask[:1]), torch.ones_like(mask[:1])])
    penalty = saliency_penalty(linear(weight), more, torch.cat([labels, labels[:2]]), masks)
    torch.testing.assert_close(penalty, saliency_penalty(linear(weight), pixel_values, labels, mask))


def test_without_masks_it_is_zero_and_the_model_does_not_run(problem):
    _, pixel_values, labels, mask = problem

    def forward(x):
        raise AssertionError("the model ran")

    assert saliency_penalty(forward, pixel_values, labels, torch.zeros_like(mask)) == 0


def test_a_model_that_ignores_the_background_pays_nothing(problem):
    weight, pixel_values, labels, _ = problem
    mask = boxes_to_masks([[1, 1, 2, 2]] * 3, 4, 5).double()
    assert saliency_penalty(lambda x: linear(weight)(x * mask), pixel_values, labels, mask) == 0
    assert saliency_penalty(lambda x: linear(weight)(x * (1 - mask)), pixel_values, labels, mask) > 0


def test_attention_can_be_trained_with_it():
    torch.manual_seed(0)
    qkv, head = torch.nn.Linear(3, 24), torch.nn.Linear(8, 2)

    def forward(x):
        q, k, v = qkv(x.flatten(2).mT)[:, None].chunk(3, -1)
        return head(F.scaled_dot_product_attention(q, k, v).mean((1, 2)))

    mask = boxes_to_masks([[1, 1, 2, 2]] * 2, 4, 4)
    saliency_penalty(forward, torch.randn(2, 3, 4, 4), torch.tensor([0, 1]), mask).backward()
    assert qkv.weight.grad.abs().sum() > 0
