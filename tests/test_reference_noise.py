"""References left out, disturbed or replaced in training."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from facesets import RECIPE, squares
from PIL import Image

from siamcal import CalibratingSiamese
from siamcal.errors import ConfigError
from siamcal.preprocessing import Preprocessing
from siamcal.settings import from_dict, override, to_dict
from siamcal.training.batches import BatchSource, split, task_labels
from siamcal.training.frozen import Behind, keep_features, keep_reference_features
from siamcal.training.loop import fit
from siamcal.training.networks import build_network, fit_merge
from siamcal.training.noise import StandIns, disturb, draw_disturbances
from siamcal.training.objective import make_optimizer
from siamcal.training.prediction import predict
from siamcal.training.recipe import Recipe, ReferenceNoise

torch.set_num_threads(1)

ALL = ReferenceNoise(
    probability=0.5, blur=2, gain=0.3, gradient=0.4, noise=5, jpeg=40, rotation=20, scale=0.2
)
PLAIN = Preprocessing(size=32, contrast="none", mask="none")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"), people=6, frames=16)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))


def source_of(faces, recipe: Recipe, *share: int, **kept: object) -> BatchSource:
    return BatchSource(
        recipe, faces, faces.fold(0)[0], task_labels(faces, "intensity"), *share, **kept
    )


def test_settings_are_checked_and_kept() -> None:
    recipe = override(
        RECIPE, ["reference_dropout=0.25", "reference_noise.blur=2", "reference_noise.jpeg=50"]
    )
    assert recipe.reference_noise == ReferenceNoise(blur=2, jpeg=50)
    assert from_dict(to_dict(recipe), Recipe) == recipe
    assert not Recipe(name="x").reference_noise.changes_images
    assert not dataclasses.replace(ALL, probability=0).changes_images
    assert ReferenceNoise(distance=2).changes_images
    with pytest.raises(ConfigError, match="distance takes a number from 1 to 16"):
        ReferenceNoise(distance=0.5)
    for setting in (
        "reference_dropout=1.1",
        "reference_dropout=nan",
        "reference_noise.active=-1",
        "reference_noise.jpeg=100",
        "reference_noise.scale=1",
        "reference_noise.blur=-1",
    ):
        with pytest.raises(ConfigError, match=r"takes a number from 0 to .*, but got"):
            override(RECIPE, [setting])


class TestDropout:
    def test_share_and_stream(self, faces) -> None:
        recipe = dataclasses.replace(RECIPE, reference_dropout=0.3, steps=200)
        source, plain = source_of(faces, recipe), source_of(faces, RECIPE)
        dropped = torch.cat([source[step].dropped for step in range(120)]).double()
        spread = 4 * (0.3 * 0.7 / len(dropped)) ** 0.5
        assert float(dropped.mean()) == pytest.approx(0.3, abs=spread)
        assert torch.equal(source[3].dropped, source[3].dropped)
        assert not torch.equal(source[3].dropped, source[4].dropped)
        for step in range(3):  # all else is drawn as without it
            for ours, theirs in zip(source[step][:5], plain[step][:5], strict=True):
                assert torch.equal(ours, theirs)
        parts = split(source[1], 3)
        assert torch.equal(torch.cat([p.dropped for p in parts]), source[1].dropped)
        shares = [source_of(faces, recipe, rank, 2)[1].dropped for rank in (0, 1)]
        assert torch.equal(torch.stack(shares, 1).flatten(), source[1].dropped)
        everyone = dataclasses.replace(recipe, reference_dropout=1.0)
        assert source_of(faces, everyone)[0].dropped.all()

    @pytest.mark.parametrize("frozen", [0, 2])
    @pytest.mark.parametrize("per", ["target", "participant"])
    def test_a_training_with_it(self, faces, frozen: int, per: str) -> None:
        recipe = dataclasses.replace(
            RECIPE, reference_dropout=0.5, freeze_pre=frozen, references_per=per, steps=3
        )
        rows, held_out = faces.fold(0)
        network = fit(recipe, faces, rows, calibrated=True)
        assert isinstance(network, CalibratingSiamese)
        start = build_network(recipe, 2, calibrated=True)
        fit_merge(start, faces, rows)
        moved = network.null_reference.null_0 - start.null_reference.null_0
        assert 0 < float(moved.detach().abs().max()) < 0.1
        without = predict(network, faces, held_out, without_reference=True)
        images = faces.preprocessing.to_tensor(faces.images[held_out])
        with torch.no_grad():
            np.testing.assert_allclose(without, network(images, None).intensity, atol=1e-5)
        assert not np.allclose(without, predict(network, faces, held_out), atol=1e-4)
        if frozen:
            behind = Behind(network, recipe)
            kept = behind, keep_features(behind, faces, recipe, 2)
            fast = predict(network, faces, held_out, frozen=kept, without_reference=True)
            np.testing.assert_allclose(fast, without, atol=1e-4)

    def test_the_null_doesnt_decay(self, faces) -> None:
        recipe = dataclasses.replace(RECIPE, reference_dropout=0.5)
        network = build_network(recipe, 2, calibrated=True)
        groups = make_optimizer(network, recipe).param_groups
        own = [g for g in groups if any(p is network.null_reference.null_0 for p in g["params"])]
        assert len(own) == 1
        assert own[0]["weight_decay"] == 0

    def test_without_a_null_nothing_is_read_without(self, faces) -> None:
        network = build_network(RECIPE, 2, calibrated=True).eval()
        with pytest.raises(ConfigError, match="null_reference=True"):
            predict(network, faces, faces.fold(0)[1], without_reference=True)


def one_change(**changes: float):
    how = ReferenceNoise(probability=1, **changes)  # type: ignore[arg-type]
    return draw_disturbances(4, torch.Generator().manual_seed(2), how)


class TestChanges:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def test_nothing_is_nothing(self) -> None:
        draws = draw_disturbances(4, torch.Generator(), ReferenceNoise())
        assert torch.equal(disturb(self.images, draws, PLAIN), self.images)

    def test_blur_is_opencvs(self) -> None:
        draws = one_change(blur=3)
        got = disturb(self.images, draws, PLAIN)
        for image, result, sigma in zip(self.images, got, draws.blur.tolist(), strict=True):
            side = 2 * int(np.ceil(3 * sigma)) + 1
            want = cv2.GaussianBlur(
                image.permute(1, 2, 0).numpy(),
                (side, side),
                sigma,
                borderType=cv2.BORDER_REPLICATE,
            )
            np.testing.assert_allclose(result.permute(1, 2, 0), want, atol=1e-5)

    def test_a_farther_face_has_fewer_pixels_as_pillow_makes_them(self) -> None:
        draws = one_change(distance=4)
        assert draws.distance.min() >= 1
        assert draws.distance.max() <= 4
        got = disturb(self.images, draws, PLAIN)
        for image, result, distance in zip(self.images, got, draws.distance.tolist(), strict=True):
            side = round(32 / distance)
            for channel, own in zip(image.numpy(), result.numpy(), strict=True):
                small = Image.fromarray(channel).resize((side, side), Image.Resampling.BILINEAR)
                want = np.asarray(small.resize((32, 32), Image.Resampling.BILINEAR))
                np.testing.assert_allclose(own, want, atol=1e-5)

    def test_noise_and_jpeg_fall_on_the_fewer_pixels(self) -> None:
        """A grain of the small picture covers several pixels of the crop: neighbours agree."""
        draws = one_change(noise=40)._replace(distance=torch.full((4,), 4.0))
        grain = disturb(torch.full((4, 3, 32, 32), 0.5), draws, PLAIN) - 0.5
        flat, shifted = grain[..., 1:].flatten(), grain[..., :-1].flatten()
        assert float(torch.corrcoef(torch.stack([flat, shifted]))[0, 1]) > 0.8
        near = disturb(
            torch.full((4, 3, 32, 32), 0.5), draws._replace(distance=torch.ones(4)), PLAIN
        )
        flat, shifted = near[..., 1:].flatten(), near[..., :-1].flatten()
        assert abs(float(torch.corrcoef(torch.stack([flat, shifted]))[0, 1])) < 0.1

    def test_jpeg_is_opencvs(self) -> None:
        smooth = cv2.resize(self.images[0, :, :4, :4].permute(1, 2, 0).numpy(), (32, 32))
        smooth = torch.from_numpy(np.clip(smooth, 0, 1)).permute(2, 0, 1)[None]
        draws = one_change(jpeg=30).take(torch.tensor([0]))
        pixels = (smooth[0] * 255).round().byte().permute(1, 2, 0).numpy()[..., ::-1]
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(draws.quality)]
        coded = cv2.imencode(".jpg", np.ascontiguousarray(pixels), quality)[1]
        want = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1] / 255.0
        got = disturb(smooth, draws, PLAIN)[0].permute(1, 2, 0).numpy()
        assert np.abs(got - want).mean() < 1.5 / 255
        assert 30 <= int(draws.quality) <= 95

    def test_turned_as_opencv_turns(self) -> None:
        smooth = cv2.GaussianBlur(self.images[0].permute(1, 2, 0).numpy(), (0, 0), 3)
        draws = one_change(rotation=25, scale=0.2).take(torch.tensor([1]))
        (a, b), (c, d) = draws.turn[0, :, :2].tolist()
        centre = (32 - 1) / 2
        # Target pixel -> source pixel, around the middle.
        matrix = np.array(
            [[a, b, centre - a * centre - b * centre], [c, d, centre - c * centre - d * centre]]
        )
        want = cv2.warpAffine(
            smooth,
            matrix,
            (32, 32),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        got = disturb(torch.from_numpy(smooth).permute(2, 0, 1)[None], draws, PLAIN)[0]
        np.testing.assert_allclose(got.permute(1, 2, 0), want, atol=0.01)
        angle = np.degrees(np.arctan2(c, a))
        assert abs(angle) <= 25
        assert 1 / 1.2 <= np.hypot(a, c) <= 1 / 0.8

    def test_light_and_grain(self) -> None:
        grey = torch.full((4, 3, 33, 33), 0.5)
        draws = one_change(gain=0.2, gradient=0.3)
        got = disturb(grey, draws, PLAIN)
        torch.testing.assert_close(got[:, 0, 16, 16], 0.5 * (1 + draws.gain[:, 0]))
        right = (got[:, 0, 16, 32] - got[:, 0, 16, 16]) / 0.5
        down = (got[:, 0, 32, 16] - got[:, 0, 16, 16]) / 0.5
        assert (torch.hypot(right, down) <= 0.3001).all()
        torch.testing.assert_close(torch.stack([right, down], 1), draws.gain[:, 1:])
        grain = one_change(noise=8)
        noisy = disturb(grey, grain, PLAIN)
        found = (noisy - grey).flatten(1).std(1) * 255
        torch.testing.assert_close(found, grain.grain, rtol=0.05, atol=0.01)

    def test_normalised_images_are_changed_alike(self) -> None:
        how = dataclasses.replace(PLAIN, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
        draws = draw_disturbances(4, torch.Generator().manual_seed(5), ALL)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (how.mean, how.std))
        want = (disturb(self.images, draws, PLAIN) - mean) / std
        got = disturb((self.images - mean) / std, draws, how)
        # A grey level of JPEG's rounding may fall to either side.
        assert float((got - want).abs().mean()) < 0.01

    def test_each_kind_by_chance(self) -> None:
        draws = draw_disturbances(4000, torch.Generator().manual_seed(1), ALL)
        kinds = (
            draws.turn[:, 0, 1] != 0,
            draws.gain[:, 0] != 0,
            draws.gain[:, 1] != 0,
            draws.blur > 0,
            draws.grain > 0,
            draws.quality > 0,
        )
        for drawn in kinds:
            assert float(drawn.double().mean()) == pytest.approx(0.5, abs=0.04)
        together = np.corrcoef(np.stack([k.numpy() for k in kinds]))
        assert np.abs(together - np.eye(6)).max() < 0.06


class TestInBatches:
    def test_only_references_change_whatever_the_share(self, faces) -> None:
        noisy = dataclasses.replace(RECIPE, reference_noise=ALL)
        source, plain = source_of(faces, noisy), source_of(faces, RECIPE)
        assert torch.equal(source[2].targets, plain[2].targets)
        assert not torch.equal(source[2].references, plain[2].references)
        whole = source[2].references[source[2].reference_index]
        for rank in (0, 1):
            part = source_of(faces, noisy, rank, 2)[2]
            assert torch.equal(part.references[part.reference_index], whole[rank::2])

    def test_shared_augmentation_stays_shared(self, faces) -> None:
        shared = dataclasses.replace(RECIPE.augmentation, shared=True)
        recipe = dataclasses.replace(
            RECIPE, augmentation=shared, reference_noise=ReferenceNoise(probability=1, gain=0.5)
        )
        own = dataclasses.replace(faces, reference_rows=np.arange(len(faces)))
        batch = source_of(own, recipe)[0]
        ratio = (batch.references / batch.targets.clamp_min(1e-3)).flatten(1)
        assert float(ratio.std(1).max()) < 0.05  # one factor an image, clipped at white

    def test_kept_copies_are_the_same_as_images(self, faces) -> None:
        recipe = dataclasses.replace(
            RECIPE,
            reference_noise=dataclasses.replace(ALL, active=0.5, active_sum=3),
            freeze_pre=2,
        )
        rows = faces.fold(0)[0]
        behind = Behind(build_network(recipe, 2, calibrated=True), recipe)
        plain = keep_features(behind, faces, recipe, 2)
        noisy = keep_reference_features(behind, faces, recipe, rows)
        kept = source_of(faces, recipe, features=plain, reference_features=noisy)
        images = source_of(faces, recipe)
        for step in range(3):
            for name in ("targets", "references"):
                torch.testing.assert_close(
                    getattr(kept[step], name),
                    behind.pack(getattr(images[step], name)),
                    atol=1e-5,
                    rtol=1e-4,
                )
        again = keep_reference_features(behind, faces, recipe, rows)
        np.testing.assert_array_equal(again.values, noisy.values)
        assert len(noisy.rows) < len(faces)
        fit(recipe, faces, rows, calibrated=True)
        fit(recipe, faces, rows, calibrated=False)


class TestStandIns:
    @pytest.mark.parametrize("per", ["target", "participant"])
    def test_weak_frames_of_the_person(self, faces, per: str) -> None:
        noise = ReferenceNoise(active=0.4, active_sum=3)
        recipe = dataclasses.replace(
            RECIPE, reference_noise=noise, references_per=per, steps=300, batch_size=16
        )
        rows = faces.fold(0)[0]
        source = source_of(faces, recipe)
        table, total = faces.table, faces.labels((1, 12)).sum(1)
        references = np.unique(faces.reference_rows[rows])
        drawn = np.concatenate(
            [source.stand_ins.replace(references, np.random.default_rng(s)) for s in range(400)]
        )
        asked = np.tile(references, 400)
        other = drawn != asked
        assert (
            table["participant"].to_numpy()[drawn] == table["participant"].to_numpy()[asked]
        ).all()
        assert set(drawn[other]) <= set(rows)
        assert ((total[drawn[other]] > 0) & (total[drawn[other]] <= 3)).all()
        able = np.array([len(source.stand_ins.found[int(r)]) > 0 for r in asked])
        assert other[able].mean() == pytest.approx(0.4, abs=0.06)
        assert not other[~able].any()
        wanted = {r for r in rows if 0 < total[r] <= 3}
        assert set(source.stand_ins.rows) == wanted

    def test_neutral_ones_of_another_sequence_only(self, faces) -> None:
        table = faces.table.copy()
        table.loc[table["frame"].isin([4, 5]), ["AU01", "AU12"]] = 0.0
        table.loc[table["frame"] == 5, "sequence"] = "second"
        table.loc[table["frame"] == 6, ["AU01", "AU12"]] = [-1.0, 1.0]
        changed = dataclasses.replace(faces, table=table)
        how = ReferenceNoise(active=1, active_sum=0)
        found = StandIns(how, changed, changed.fold(0)[0]).rows
        assert set(table.loc[found, "frame"]) == {5}

    def test_nobody_to_stand_in_is_an_error(self, faces) -> None:
        recipe = dataclasses.replace(
            RECIPE, reference_noise=ReferenceNoise(active=0.2, active_sum=0)
        )
        with pytest.raises(ConfigError, match="no person has one in training"):
            source_of(faces, recipe)
