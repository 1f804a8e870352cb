"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "Compile", "Settings", "Tensorboard", "Workers"]

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable.")]
Compile = Annotated[bool, typer.Option("--compile", help="Use torch.compile in training.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Change a recipe's field: --set epochs=1.")
]
Tensorboard = Annotated[bool, typer.Option(help="Write TensorBoard logs.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that prepare the data.")]
