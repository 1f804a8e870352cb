"""Rendered people at rest as the anchor of a network whose user has no neutral frames."""

import numpy as np
import pytest
import torch
from calibrators import tiny

from siamcal import Preprocessing
from siamcal.datasets import load_dataset, neutral_faces
from siamcal.errors import ConfigError
from siamcal.faces import FacePipeline

CROP = Preprocessing()  # 112 px


@pytest.fixture(scope="module")
def faces():
    return neutral_faces(CROP, people=4, frames=3)


def test_they_are_people_at_rest(faces) -> None:
    images, people = faces
    assert images.shape == (len(people), 3, 112, 112)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    names, counts = np.unique(people, return_counts=True)
    assert len(names) == 4
    assert 1 <= counts.min() <= counts.max() <= 3
    assert counts.max() > 1
    # The data set's own pictures, found and cropped without the cache, by their labels.
    source = load_dataset("synth", size="training", participants=4, frames=16)
    table = source.table
    aus = [name for name in table.columns if name.startswith("AU")]
    resting = table[(table[aus] == 0).all(axis=1)]
    with FacePipeline(CROP) as pipeline:
        from siamcal.faces.media import read_image

        crops = [pipeline.crop(read_image(path)) for path in resting["source"]]
    own = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255
    for image in images:
        assert float((own - image).abs().amax(dim=(1, 2, 3)).min()) < 1e-6


def test_one_frame_each_is_the_first_of_several(faces) -> None:
    images, people = neutral_faces(CROP, people=4)
    assert sorted(people) == sorted(set(faces[1]))
    for image, person in zip(images, people, strict=True):
        first = faces[0][list(faces[1]).index(person)]
        torch.testing.assert_close(image, first)


def test_they_fit_a_network_s_anchor(faces) -> None:
    model = tiny(merge_at="layer2", merge="anchored")
    model.fit_anchor(*faces)
    images, people = faces
    with torch.inference_mode():
        means = [model.split.pre(images[people == name]).tensors[0].mean(0) for name in set(people)]
        assert model(images[:1], images[1:2]).isfinite().all()
    anchor = next(p for n, p in model.named_parameters() if n.endswith("anchor"))
    torch.testing.assert_close(
        anchor.detach(), torch.stack(means).mean(0).flatten(1), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("options", [{"people": 1}, {"frames": 0}, {"people": 4.5}])
def test_odd_numbers_are_refused(options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        neutral_faces(CROP, **options)
