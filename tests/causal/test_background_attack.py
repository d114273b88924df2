import pytest
import torch
import torch.nn.functional as F

from clp_hf.causal import boxes_to_masks, fgsm


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))


@pytest.fixture
def batch():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    region = 1 - boxes_to_masks([[2, 2, 4, 4]] * 4, 8, 8)
    return images, region, torch.tensor([0, 1, 2, 4])


def test_it_is_the_targeted_step_of_the_formula(classifier, batch):
    images, region, labels = batch
    attacked = fgsm(images, region, torch.Generator().manual_seed(2), labels=labels, logits_fn=classifier, epsilon=0.05)
    draw = torch.randint(1, 5, (4,), generator=torch.Generator().manual_seed(2))
    target = (labels + draw) % 5
    # CE of a linear classifier has the gradient (p − onehot) W in closed form
    weight = classifier[1].weight.view(5, 3, 8, 8)
    residual = classifier(images).softmax(1) - F.one_hot(target, 5)
    gradient = torch.einsum("nc,cijk->nijk", residual, weight)
    expected = torch.where(region > 0, (images - 0.05 * gradient.sign()).clamp(0, 1), images)
    assert torch.equal(attacked, expected.detach())


def test_only_the_background_changes_and_by_epsilon_at_most(classifier, batch):
    images, region, labels = batch
    attacked = fgsm(images, region, torch.Generator(), labels=labels, logits_fn=classifier, epsilon=0.3)
    kept = (region == 0).expand_as(images)
    assert torch.equal(attacked[kept], images[kept])
    assert (attacked - images).abs().max() <= 0.3 + 1e-6
    assert 0 <= attacked.min() <= attacked.max() <= 1


def test_the_target_becomes_likelier_and_is_never_the_own_class(classifier, batch):
    images, region, labels = batch
    for seed in range(20):
        attacked = fgsm(images, region, torch.Generator().manual_seed(seed), labels=labels, logits_fn=classifier)
        own = labels[:, None]
        assert (classifier(attacked).softmax(1) > classifier(images).softmax(1)).scatter(1, own, False).any(1).all()


def test_two_classes_leave_one_target(batch):
    images, region, labels = batch
    labels = labels % 2
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    attacked = fgsm(images, region, torch.Generator(), labels=labels, logits_fn=classifier)
    gain = classifier(attacked).softmax(1) - classifier(images).softmax(1)
    assert (gain.gather(1, 1 - labels[:, None]) > 0).all()


def test_the_model_is_left_alone_also_without_gradients(classifier, batch):
    images, region, labels = batch
    with torch.no_grad():
        attacked = fgsm(images, region, torch.Generator(), labels=labels, logits_fn=classifier)
    assert not attacked.requires_grad
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_one_class_is_an_error(batch):
    images, region, labels = batch
    with pytest.raises(ValueError, match="two classes or more, found logits for 1"):
        fgsm(images, region, torch.Generator(), labels=labels, logits_fn=lambda x: x.mean((1, 2, 3))[:, None])
