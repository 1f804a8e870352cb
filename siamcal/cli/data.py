"""`siamcal data`: make, look at and export data sets; `check` has its own file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from siamcal.cli import DATA, app
from siamcal.cli._options import AsJson
from siamcal.errors import ConfigError

data_app = typer.Typer(
    help="Make, look at and check data sets.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data", rich_help_panel=DATA)

RENDER_EXAMPLES = """
Render people with known action units; what is rendered already is kept.

Examples:

    siamcal data render                          # the default job's 60 people
    siamcal data render --size full              # 27 people, 4,845 frames x 2
    siamcal data render --bias 0 --out ~/faces   # the control, in your folder
    siamcal data render --verify                 # compare with the checksums

The folder is printed; without --out it lies in the user's cache.
"""

PREVIEW_EXAMPLES = """
Draw a contact sheet of rendered people, in the format that the name ends in (PNG, JPEG, WebP...).

Examples:

    siamcal data preview people.png
    siamcal data preview actions.png --sheet actions --participants 2
    siamcal data preview bias.jpg --sheet bias --participants 6

The same options draw the same people again.
"""

EXPORT_EXAMPLES = """
Write rendered people in the folder layout of DISFA, DISFA+ or UNBC-McMaster.

The parsers, checks and training commands for those data sets read it like the real one:

    siamcal data export --layout disfa /tmp/disfa --participants 6 --frames 60
    siamcal data check disfa --data-root /tmp/disfa
    siamcal data export --layout unbc /tmp/unbc --sequences 2 --frames 40

They are rendered people in another data set's folders, not the data set itself.
"""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
JPEG_QUALITY = 95

Size = Annotated[str, typer.Option(help="tiny, small, full or training.")]
Bias = Annotated[float, typer.Option(help="Scale of resting offsets and wrinkles, 0 to 1.")]
Seed = Annotated[int, typer.Option(help="Another seed gives other people.")]
Image = Annotated[int | None, typer.Option(help="Side of the pictures in pixels.")]
First = Annotated[int | None, typer.Option(help="Number of the first person.")]
Look = Annotated[str, typer.Option(help="usual, or shifted: another skin, light, camera.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default one a core.")]


@data_app.command("render", help=RENDER_EXAMPLES)
def render(
    size: Size = "small",
    out: Annotated[Path | None, typer.Option(help="Folder; default the user's cache.")] = None,
    bias: Bias = 1.0,
    seed: Seed = 0,
    participants: Annotated[int | None, typer.Option(help="Number of people.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of each person and view.")] = None,
    clips: Annotated[int | None, typer.Option(help="Recordings of each person.")] = None,
    views: Annotated[str | None, typer.Option(help="front, left, right; by commas.")] = None,
    image_size: Image = None,
    first_person: First = None,
    occlusion: Annotated[float | None, typer.Option(help="Share of covered recordings.")] = None,
    look: Look = "usual",
    workers: Workers = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check every picture.")] = False,
    as_json: AsJson = False,
) -> None:
    """Render a data set."""
    from siamcal.synth import library
    from siamcal.synth.plan import make_plan

    plan = make_plan(
        size,
        bias=bias,
        seed=seed,
        participants=participants,
        frames=frames,
        clips=clips,
        views=None if views is None else tuple(v.strip() for v in views.split(",")),
        image_size=image_size,
        first_person=first_person,
        occlusion=occlusion,
        look=look,
    )
    folder = library.rendered_folder(plan, out)
    if not (folder / "manifest.json").exists():
        typer.echo(
            f"{plan.total:,} pictures of {plan.participants} people at {plan.image_size} px: "
            f"about {plan.disk_bytes() / 1e6:,.0f} MB in {folder}",
            err=True,
        )
    library.ensure_rendered(plan, out, workers)
    checksum = library.verify(folder) if verify else library.manifest(folder)["sha256"]
    if as_json:
        facts = {"folder": str(folder), "frames": plan.total, "sha256": checksum}
        typer.echo(json.dumps({**facts, "verified": verify}))
        return
    checked = " (every picture verified)" * verify
    typer.echo(f"{folder}\n{plan.total:,} frames, sha256 {checksum}{checked}")


@data_app.command("preview", help=PREVIEW_EXAMPLES)
def preview(
    out: Annotated[Path, typer.Argument(help="Picture to write.")],
    sheet: Annotated[
        str, typer.Option(help="people, actions, levels, occlusion or bias.")
    ] = "people",
    participants: Annotated[int, typer.Option(help="Number of people.")] = 12,
    first_person: First = None,
    bias: Bias = 1.0,
    seed: Seed = 0,
    image_size: Image = None,
    views: Annotated[str | None, typer.Option(help="front, left, right; by commas.")] = None,
    look: Look = "usual",
) -> None:
    """Draw a contact sheet."""
    suffix = out.suffix.lower()
    if suffix not in PICTURES:
        raise ConfigError(
            f"The format is told by the name: it ends in {', '.join(PICTURES)}, but got {out}."
        )
    from siamcal.files import write_atomically
    from siamcal.synth.plan import make_plan
    from siamcal.synth.preview import contact_sheet
    from siamcal.synth.render import encode_picture

    suffix = ".jpg" if suffix == ".jpeg" else suffix
    quality = [JPEG_QUALITY] * (suffix == ".jpg")
    plan = make_plan(
        "small",
        participants=participants,
        first_person=first_person,
        bias=bias,
        seed=seed,
        image_size=image_size,
        views=None if views is None else tuple(v.strip() for v in views.split(",")),
        look=look,
    )
    write_atomically(out, encode_picture(contact_sheet(plan, sheet), suffix, *quality))
    typer.echo(str(out))


@data_app.command("export", help=EXPORT_EXAMPLES)
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    layout: Annotated[str, typer.Option(help="disfa, disfa-plus or unbc.")],
    participants: Annotated[int, typer.Option(help="How many of the layout's people.")] = 3,
    frames: Annotated[int, typer.Option(help="Frames of each recording.")] = 60,
    sequences: Annotated[int, typer.Option(help="Recordings of each (DISFA+, UNBC).")] = 2,
    videos: Annotated[bool, typer.Option(help="DISFA: write videos.")] = True,
    images: Annotated[bool, typer.Option(help="DISFA: write single frames.")] = True,
    first_person: First = None,
    bias: Bias = 1.0,
    seed: Seed = 0,
    image_size: Image = None,
    workers: Workers = None,
) -> None:
    """Write a licensed data set's layout."""
    from siamcal.environment import usable_cores
    from siamcal.synth.layouts import Export
    from siamcal.synth.layouts import export as write_layout
    from siamcal.synth.plan import make_plan

    plan = make_plan(
        "small", first_person=first_person, bias=bias, seed=seed, image_size=image_size
    )
    job = Export(layout, folder, participants, frames, sequences, videos, images, plan)
    write_layout(job, workers or usable_cores())
    typer.echo(f"{folder}\nRendered people, not the data set itself: use it with --data-root.")
