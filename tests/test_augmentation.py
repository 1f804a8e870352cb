import torch

from siamcal.training.augmentation import change, draw, random_affine
from siamcal.training.recipe import Augmentation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment(images: torch.Tensor, generator: torch.Generator, how: Augmentation) -> torch.Tensor:
    return change(images, draw(len(images), images.shape[-1], generator, how))


def test_no_change_where_nothing_may_change() -> None:
    images = torch.rand(3, 3, 16, 16)
    same = augment(images, generator(), Augmentation(0.0, (1.0, 1.0), (1.0, 1.0)))
    torch.testing.assert_close(same, images)


def test_a_sure_flip_mirrors() -> None:
    images = torch.rand(2, 3, 8, 8)
    mirrored = augment(images, generator(), Augmentation(1.0, (1.0, 1.0), (1.0, 1.0)))
    torch.testing.assert_close(mirrored, images.flip(-1))


def test_crops_have_the_asked_area_and_ratio_and_stay_inside() -> None:
    m = random_affine(4000, 112, generator(), Augmentation(flip=0.5))
    width, height = m[:, 0, 0].abs(), m[:, 1, 1]
    area = width * height
    assert area.min() > 0.89
    assert area.max() <= 1.0
    ratio = width / height
    assert ratio.min() > 0.94
    assert ratio.max() < 1.06
    for centre, extent in ((m[:, 0, 2], width), (m[:, 1, 2], height)):
        assert (centre.abs() + extent).max() <= 1.0 + 1e-5
    flipped = (m[:, 0, 0] < 0).float().mean()
    assert 0.45 < flipped < 0.55


def test_equal_generators_draw_equally_and_others_differ() -> None:
    images = torch.rand(4, 3, 32, 32)
    how = Augmentation(brightness=0.2, contrast=0.2)
    first = augment(images, generator(1), how)
    assert torch.equal(first, augment(images, generator(1), how))
    assert not torch.equal(first, augment(images, generator(2), how))
