"""A torch dispatch mode that doesn't load torch's compiler where nothing was compiled."""

from __future__ import annotations

import sys
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DispatchMode"]


class DispatchMode(TorchDispatchMode):
    """Base of all modes here.

    torch keeps its compiler out of a mode's `__torch_dispatch__`, and imports it for that, which
    takes a second of processor time. As long as nobody else has imported it, nothing is compiled.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        plain = cls.__dict__["__torch_dispatch__"]
        super().__init_subclass__(**kwargs)
        kept_out = cls.__torch_dispatch__

        def dispatch(self: DispatchMode, *args: Any, **kwargs: Any) -> Any:
            chosen = kept_out if "torch._dynamo" in sys.modules else plain
            return chosen(self, *args, **kwargs)

        cls.__torch_dispatch__ = dispatch  # type: ignore[method-assign, assignment]
