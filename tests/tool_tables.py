"""Tables as the tools write them, of random readings."""

import numpy as np
import pandas as pd

from siamcal.recalibration.tools import BLENDSHAPES

OPENFACE_R = [1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45]
OPENFACE_C = sorted([*OPENFACE_R, 28])
LIBREFACE_R = [1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26]
LIBREFACE_C = [1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24]
PY_FEAT = [1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43]


def openface(path, rows=40, failed=(), faces=1, end="\n", **change):
    """As RecorderCSV.cpp of OpenFace 2 writes: spaces, 2 decimals for _r, 1 for _c, 0 if failed."""
    rng = np.random.default_rng(rows)
    names = [f"AU{au:02d}_r" for au in OPENFACE_R] + [f"AU{au:02d}_c" for au in OPENFACE_C]
    gaze = ["gaze_0_x", "pose_Tx"]
    lines = [", ".join(["frame", "face_id", "timestamp", "confidence", "success", *gaze, *names])]
    for frame in range(1, rows + 1):
        for face in range(faces):
            good = frame not in failed
            start = [f"{frame}", f"{face}", f"{(frame - 1) / 30:.3f}", "0.98" if good else "0.03"]
            cells = [
                *start,
                "1" if good else "0",
                f"{rng.normal():.6f}",
                f"{rng.normal() * 30:.1f}",
            ]
            if good:
                cells += [f"{v:.2f}" for v in rng.gamma(1, 1, 17).clip(0, 5)]
                cells += [f"{v:.1f}" for v in rng.integers(0, 2, 18)]
            else:
                cells += ["0"] * 35
            lines.append(", ".join(cells))
    text = end.join(lines) + end
    for old, new in change.items():
        text = text.replace(old, new)
    path.write_bytes(text.encode())
    return path


def py_feat(path, rows=30, failed=()):
    """As py-feat's Fex.to_csv: boxes, landmarks, AUs in 0..1, emotions, input, frame from 0."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        rng.random((rows, 5)), columns=["FaceRectX", "FaceRectY", "w", "h", "FaceScore"]
    )
    table["FaceScore"] = 0.99
    table["x_0"] = rng.random(rows) * 200
    for au in PY_FEAT:
        table[f"AU{au:02d}"] = rng.random(rows)
    table["happiness"], table["input"] = rng.random(rows), 'videos/"a", take 1.mp4'
    table["frame"], table["approx_time"] = np.arange(rows), "00:00"
    table["Identity"] = "Person_0"
    table.loc[list(failed), [c for c in table if c[:2] in ("AU", "x_")]] = np.nan
    table.to_csv(path, index=False)
    return path


def libreface(path, rows=30, scale=1 / 30):
    rng = np.random.default_rng(2)
    table = pd.DataFrame(
        {"frame_idx": np.arange(rows), "frame_time_in_ms": np.arange(rows) * scale}
    )
    table["pitch"] = rng.normal(size=rows)
    for au in LIBREFACE_C:
        table[f"au_{au}"] = rng.integers(0, 2, rows)
    for au in LIBREFACE_R:
        table[f"au_{au}_intensity"] = rng.normal(1, 1, rows)  # its joint model isn't clamped
    table["facial_expression"] = "Neutral"
    table.to_csv(path, index=False)
    return path


def blendshapes(path, rows=25):
    rng = np.random.default_rng(3)
    names = ["_neutral", *sorted(BLENDSHAPES - {"tongueOut"})]
    table = pd.DataFrame(rng.random((rows, 52)).astype(np.float32), columns=names)
    table.insert(0, "timestamp_ms", np.arange(rows) * 33)
    table.to_csv(path, index=False)
    return path
