"""The losses of a training on disk: `loss.csv`, and TensorBoard where it is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siamcal.errors import ConfigError
from siamcal.extras import needed_for
from siamcal.files import check_file, read_text


class LossLog:
    """`loss.csv` (step, loss), cut back to the checkpoint's step on resuming, and TensorBoard.

    Args:
        folder: Where both go; None writes nothing.
        step: The steps done before.
        tensorboard: Write `folder/tensorboard` too.

    Raises:
        MissingDependencyError: TensorBoard is wanted but not installed.
        ConfigError: Something else lies in the file's place.
    """

    def __init__(self, folder: Path | None, step: int, *, tensorboard: bool = False) -> None:
        self.file = None
        self.board: Any = None
        if folder is None:
            return
        path = folder / "loss.csv"
        if path.exists():
            check_file(path)
        lines = _lines(path)[1 : step + 1] if step and path.exists() else []
        self.file = path.open("w")
        self.file.write("\n".join(["step,loss", *lines]) + "\n")
        if tensorboard:
            self.board = _summary_writer(folder / "tensorboard", step)

    def __enter__(self) -> LossLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
        if self.board is not None:
            self.board.close()

    def write(self, step: int, loss: float) -> None:
        """Note the loss of a step."""
        if self.file is not None:
            self.file.write(f"{step},{loss:.6g}\n")
            self.file.flush()
        if self.board is not None:
            self.board.add_scalar("loss", loss, step)


def _lines(path: Path) -> list[str]:
    """Of a log that is cut off or damaged, what can be read: no number of a run depends on it."""
    try:
        return read_text(path).splitlines()
    except ConfigError:
        return []


def _summary_writer(folder: Path, step: int) -> Any:
    with needed_for("--tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder), purge_step=step)
