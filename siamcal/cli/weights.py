"""`siamcal push`, `pull` and `convert`: weights to and from the Hugging Face Hub."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from siamcal.cli import SHARE, app
from siamcal.cli._options import AsJson

PUSH_EXAMPLES = """
Publish a run's calibrator, with a model card written from its results.

Examples:

    siamcal push runs/synth me/ir-tiny-synth --dry-run    # shows, sends nothing
    siamcal push runs/synth me/ir-tiny-synth --private
    siamcal push runs/disfa me/ir50-disfa --adapter --base backbone.pth

Log in once with `hf auth login`, or set HF_TOKEN. A mirror: HF_ENDPOINT.
"""

PULL_EXAMPLES = """
Download a calibrator; a cut connection goes on where it stopped.

Examples:

    siamcal pull owner/name
    siamcal pull owner/name --revision v2 -o my_calibrator
    siamcal predict video.mp4 --reference neutral.jpg \\
        --model hf-hub:owner/name -o aus.csv

Nothing that is downloaded is executed. HF_HUB_OFFLINE=1 uses what was pulled before.
"""

CONVERT_EXAMPLES = """
Turn face-recognition weights, or a checkpoint of the paper's authors, into a calibrator.

Examples:

    siamcal convert backbone.pth -o start         # glint360k's iResNet-50
    siamcal convert csn_stage4.pth -o csn --merge-at layer4 \\
        --aus 1,2,4,5,6,9,12,15,17,20,25,26

The file is read with weights_only=True: no code in it runs. A report says of every entry whether
it was taken, and what was missing.
"""


@app.command(help=PUSH_EXAMPLES, rich_help_panel=SHARE)
def push(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a calibrator's.")],
    repository: Annotated[str, typer.Argument(help="owner/name on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Only you may see it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent.")] = False,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Only the part behind the merge point and the head.")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="File of the public weights below an adapter.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch; main by default.")] = None,
    message: Annotated[
        str, typer.Option(help="Commit message.")
    ] = "Upload calibrator with siamcal",
    as_json: AsJson = False,
) -> None:
    """Publish a run's calibrator."""
    from siamcal.calibrators.hub import is_repository, parse_source, upload
    from siamcal.calibrators.hub.publication import plan_from_folder
    from siamcal.errors import ConfigError

    if not is_repository(repository):
        raise ConfigError(f"A repository is named owner/name, but got {repository!r}.")
    parse_source(f"hf-hub:{repository}", revision)
    if base and not adapter:
        raise ConfigError(f"--base {base} is the file below an adapter: add --adapter.")
    with tempfile.TemporaryDirectory() as workplace:
        plan = plan_from_folder(run, repository, workplace, adapter=adapter, base=base)
        if dry_run:
            _print_plan(plan.card, plan.sizes(), repository, as_json)
            return
        done = upload(plan, repository, private=private or None, revision=revision, message=message)
    if as_json:
        values = {"repository": done.repo_id, "commit": done.commit, "changed": done.changed}
        print(json.dumps({**values, "url": done.url}))
    elif done.changed:
        print(f"Pushed to {done.url} (commit {done.commit[:12]})")
    else:
        print(f"{done.url} already holds exactly these files (commit {done.commit[:12]})")


def _print_plan(card: str, sizes: dict[str, int], repository: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"repository": repository, "files": sizes, "card": card}, indent=2))
        return
    print(card)
    print(f"Would be sent to {repository} (nothing was):")
    for path, size in sizes.items():
        print(f"  {size:>12,}  {path}")
    print(f"  {sum(sizes.values()):>12,}  bytes in {len(sizes)} files")


@app.command(help=PULL_EXAMPLES, rich_help_panel=SHARE)
def pull(
    source: Annotated[str, typer.Argument(help="owner/name, or hf-hub:owner/name@revision.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; else the Hub's cache.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    max_gb: Annotated[
        float, typer.Option(min=0, help="Largest weights file that is accepted.")
    ] = 4.0,
) -> None:
    """Download a calibrator."""
    from siamcal.calibrators import hub

    folder = hub.pull(source, revision=revision, folder=output, max_bytes=int(max_gb * (1 << 30)))
    print(f"{source} lies in:", file=sys.stderr)
    print(folder)


@app.command(help=CONVERT_EXAMPLES, rich_help_panel=SHARE)
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth or .safetensors state dict.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the calibrator.")],
    backbone: Annotated[
        str | None, typer.Option(help="Its architecture; recognised from the names by default.")
    ] = None,
    merge_at: Annotated[str, typer.Option(help="Merge point it was trained with.")] = "layer4",
    aus: Annotated[
        str | None, typer.Option(help="AU numbers in the order of the outputs: 1,2,4,...")
    ] = None,
    task: Annotated[str | None, typer.Option(help="intensity or detection.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable report.")] = False,
) -> None:
    """Turn a checkpoint into a calibrator."""
    from siamcal.calibrators.convert import convert_checkpoint
    from siamcal.errors import ConfigError

    try:
        numbers = tuple(int(au) for au in aus.split(",")) if aus else None
    except ValueError:
        raise ConfigError(f"--aus takes AU numbers like 1,2,4, but got {aus!r}.") from None
    report = convert_checkpoint(
        checkpoint, output, backbone=backbone, merge_at=merge_at, aus=numbers, task=task
    )
    print(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
