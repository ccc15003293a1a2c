"""`tango-cloud prepare`: an image that has what a course needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tango_cloud.api import Cloud
from tango_cloud.cli.display import errors, out, print_json
from tango_cloud.cli.interruption import saying_what_is_left


def prepare(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="What jobs shall call it.")],
    playbook: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What to apply. [default: only what runs jobs]"),
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            "--from", metavar="BASE", help="The image to begin with. [default: the jobs']"
        ),
    ] = "",
    provider: Annotated[
        str | None, typer.Option(help="Where to make it. [default: settings, `local`]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also when nothing has changed since the last.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the image as JSON.")] = False,
) -> None:
    """Make an image: a machine, a playbook applied to it, a job to try it out, and the image of it.

    The machine is gone at the end, whatever happens. With nothing changed nothing is made.

    **Examples:** `tango-cloud prepare course --playbook course/course.yml` ·
    `tango-cloud run hw1/alice --image course`
    """
    with (
        Cloud({"provider": provider} if provider else None) as cloud,
        saying_what_is_left(cloud),
        errors.status("preparing") as status,
    ):
        prepared = cloud.prepare(
            image,
            playbook,
            base=base,
            force=force,
            on_progress=lambda step: status.update(escape(step)),
        )
    found = prepared.image
    for one in prepared.left_out:
        errors.print(f"left out: {one}", style="yellow", markup=False, highlight=False)
    if as_json:
        print_json(
            {
                "name": found.recipe.name,
                "provider": prepared.provider,
                "id": found.id,
                "base": found.recipe.base,
                "digest": found.recipe.digest,
                "created": found.created.isoformat(),
                "size_bytes": found.size_bytes,
                "fresh": prepared.fresh,
                "level": prepared.level or None,
                "left_out": prepared.left_out,
            }
        )
        return
    told = f"prepared; jobs run at the level {prepared.level}" if prepared.fresh else "up to date"
    out.print(f"{found.recipe.name} ({found.id}): {told}", markup=False, highlight=False)
