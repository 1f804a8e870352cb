"""Loading, saving and publishing as methods of the calibrated network.

What they do lies in `siamcal.calibrators`, above the network; it is looked up at the first call, so
that wrapping a network needs neither huggingface_hub nor safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from siamcal.registry import late_module

if TYPE_CHECKING:
    from siamcal.graph.inputs import Inputs
    from siamcal.model.merges import MergeForm

__all__ = ["PretrainedMixin"]


class PretrainedMixin:
    """`from_pretrained`, `save_pretrained` and `push_to_hub`."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        subfolder: str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        backbone: nn.Module | str | None = None,
        head: nn.Module | None = None,
        merge: MergeForm | None = None,
        base: str | Path | None = None,
        strict: bool = True,
        example_inputs: Inputs | None = None,
        verify: bool = True,
        max_bytes: int | None = None,
        trust: bool = False,
    ) -> Self:
        """Load a calibrator from a folder or from the Hub; nothing that comes along is executed.

        Args:
            source: "owner/name", "hf-hub:owner/name@revision", "local-dir:path" or a folder.
            revision: Branch, tag or commit; None is the main branch.
            token: Access token; None takes the one of `hf auth login` or HF_TOKEN.
            cache_dir: The Hub's cache; None takes its own (HF_HOME).
            subfolder: Folder of the repository, or of `source`, in which the calibrator lies.
            force_download: Download anew what is in the cache.
            local_files_only: Take what is in the cache, and ask nobody.
            device: Where the calibrator goes, such as "cuda"; None leaves it on the processor.
            dtype: Precision of its weights, such as torch.bfloat16 or "bfloat16"; None keeps that
                of the network. The cut is proved beforehand, in the network's own.
            torch_dtype: The older name of `dtype`.
            backbone: The network to load into (changed in place), for one that can't be made by
                name; or a name to make it by, such as "./my_net.py:build".
            head: The head, where the author used one of their own.
            merge: The form of the merge, where the author used one of their own.
            base: For adapters over a network without public weights of its own: the file of the
                public weights, such as glint360k's backbone.pth.
            strict: Refuse missing and unexpected weights; False keeps start values and logs them.
            example_inputs: A valid input of the backbone, where it isn't one image.
            verify: Prove again that the cut is exact.
            max_bytes: Largest weights file that is accepted; None is 4 GiB.
            trust: You know who made it: a network or public weights that its config names are
                fetched from where they lie, and images of any size are tried.

        Returns:
            The calibrator in eval mode, with its description as `.config`.

        Raises:
            HubError: The Hub can't be reached, or has no such repository, revision or file.
            ConfigError: The config is damaged, newer or unsafe, or needs `backbone`, `head`,
                `merge` or `trust`.
            WeightsError: The weights are damaged or don't fit.
        """
        return late_module("siamcal.calibrators.hub").from_pretrained(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            subfolder=subfolder,
            force_download=force_download,
            local_files_only=local_files_only,
            device=device,
            dtype=dtype,
            torch_dtype=torch_dtype,
            backbone=backbone,
            head=head,
            merge=merge,
            base=base,
            strict=strict,
            example_inputs=example_inputs,
            verify=verify,
            max_bytes=max_bytes,
            trust=trust,
        )

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        config: Any = None,
        results: Mapping[str, Any] | None = None,
        adapter: bool = False,
        base: nn.Module | None = None,
        **facts: Any,
    ) -> Any:
        """Save weights, configuration and model card into a folder.

        Args:
            folder: Where to; made if needed.
            config: A `CalibratorConfig`; None takes the model's own.
            results: A run's `results.json`, for the card.
            adapter: Save only what lies behind the merge point.
            base: For adapters: the public backbone, to prove that its weights are unchanged.
            **facts: Fields of the config: `aus=(1, 12)`, `training_data="..."`, ...

        Returns:
            The `CalibratorConfig` as written.

        Raises:
            ConfigError: The config contradicts the model or lacks what can't be guessed.
            WeightsError: An adapter was asked for, but the weights before the merge have changed.
        """
        return late_module("siamcal.calibrators.hub").save_pretrained(
            self, folder, config=config, results=results, adapter=adapter, base=base, **facts
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        message: str = "Upload calibrator with siamcal",
        config: Any = None,
        results: Mapping[str, Any] | None = None,
        adapter: bool = False,
        base: nn.Module | None = None,
        **facts: Any,
    ) -> Any:
        """Publish the calibrator on the Hugging Face Hub.

        Args:
            repo_id: "owner/name"; made if needed.
            private: Only the owner may see it. A public repository is refused then.
            revision: Branch to commit to, made if needed; None is main.
            token: Access token; None takes the one of `hf auth login` or HF_TOKEN.
            message: Commit message.
            config: A `CalibratorConfig`; None takes the model's own.
            results: A run's `results.json`, for the card.
            adapter: Publish only what lies behind the merge point.
            base: For adapters: the public backbone, to prove that its weights are unchanged.
            **facts: Fields of the config: `aus=(1, 12)`, `training_data="..."`, ...

        Returns:
            A `siamcal.calibrators.hub.Pushed`: repository, commit, address, whether it changed.

        Raises:
            HubError: Not allowed, not reached, or public where private was asked for.
            ConfigError: See `save_pretrained`.
        """
        return late_module("siamcal.calibrators.hub").push_to_hub(
            self,
            repo_id,
            private=private,
            revision=revision,
            token=token,
            message=message,
            config=config,
            results=results,
            adapter=adapter,
            base=base,
            **facts,
        )
