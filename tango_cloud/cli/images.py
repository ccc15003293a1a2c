"""`tango-cloud images`: what `prepare` has made, and the removal of what is old."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from tango_cloud.api import Cloud
from tango_cloud.cli.display import duration, errors, out, print_json, print_table, unwatched
from tango_cloud.orchestration.images import Image, failed

_MIB = 1024 * 1024
_DIGEST = 12
"""As many of its digits as people can compare."""

images = typer.Typer(name="images")
_Json = Annotated[bool, typer.Option("--json", help="Print the images as JSON.")]


@images.callback(invoke_without_command=True)
def listing(context: typer.Context, as_json: _Json = False) -> None:
    """List the images that `prepare` has made here, by name, newest first; or `prune` them.

    **Examples:** `tango-cloud images` · `tango-cloud images prune --keep 3 --dry-run`
    """
    if context.invoked_subcommand is not None:
        return
    with Cloud() as cloud, errors.status("looking"):
        found = cloud.images()
    _print(found, "no images", as_json=as_json)


@images.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of each name stay.")] = 2,
    older_than: Annotated[
        float,
        typer.Option(metavar="DAYS", min=0, max=36500, help="Only what is older than that goes."),
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Remove old images, never the newest of a name nor one that a machine was made of.

    What has failed goes too, and what a killed `prepare` left half-made an hour after it was begun.

    **Examples:** `tango-cloud images prune --dry-run` ·
    `tango-cloud images prune --keep 3 --older-than 30`
    """
    age = dt.timedelta(days=older_than)
    with Cloud() as cloud, errors.status("looking" if dry_run else "pruning"):
        gone = cloud.prune_images(keep=keep, older_than=age, dry_run=dry_run)
    if gone or dry_run or as_json or not unwatched():
        _print(gone, "nothing to prune", as_json=as_json)
    if gone and not as_json:
        out.print("these would be removed" if dry_run else "removed")


def _print(found: Iterable[Image], nothing: str, *, as_json: bool) -> None:
    found = list(found)
    now = dt.datetime.now(dt.UTC)
    if as_json:
        print_json(_row(image, now) for image in found)
    elif found:
        print_table(
            ("image", "cloud", "id", "state", "age", "from", "digest", "size", "in use"),
            [_cells(image, now) for image in found],
        )
    else:
        out.print(nothing)


def _state(image: Image, now: dt.datetime) -> str:
    if image.baked.ready:
        return "ready"
    return "failed" if failed(image.baked, now) else "being made"


def _row(image: Image, now: dt.datetime) -> dict[str, Any]:
    baked = image.baked
    return {
        "name": baked.recipe.name,
        "provider": image.provider,
        "id": baked.id,
        "state": _state(image, now),
        "failure": baked.failure,
        "created": baked.created.isoformat(),
        "base": baked.recipe.base,
        "digest": baked.recipe.digest,
        "size_bytes": baked.size_bytes,
        "in_use": image.in_use,
    }


def _cells(image: Image, now: dt.datetime) -> tuple[str, ...]:
    baked = image.baked
    size = "" if baked.size_bytes is None else f"{baked.size_bytes / _MIB:,.1f} MiB"
    return (
        baked.recipe.name,
        image.provider,
        baked.id,
        _state(image, now),
        duration((now - baked.created).total_seconds()),
        baked.recipe.base,
        baked.recipe.digest[:_DIGEST],
        size,
        "yes" if image.in_use else "",
    )
