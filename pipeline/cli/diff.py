"""The commands that look closely: what differs between builds or versions, why a clip is there."""

from __future__ import annotations

from typing import Annotated

import typer

from telecine.pipeline.cli.options import (
    AsJson,
    DatasetArgument,
    EndpointUrl,
    Profile,
    dataset_at,
    out,
    say_read,
)


def diff(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="The dataset; or a version of it: DATASET@N right after event N of `telecine "
            "inspect DATASET builds`, DATASET@now, DATASET@2026-11-20T10:30 (UTC).",
        ),
    ],
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A build by its name or id; or another version, DATASET@VERSION."
        ),
    ],
    b: Annotated[
        str | None,
        typer.Argument(metavar="[B]", help="The other build (none where versions are compared)."),
    ] = None,
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Say what came, went and changed: between two builds, or two versions of the dataset."""
    if b is not None:
        from telecine.pipeline.look.diff import inspect_builds

        opened = dataset_at(dataset, endpoint_url, profile)
        inspect_builds(opened.tables, a, b, as_json, out())
        return
    from telecine.pipeline.look.versions import diff_versions, print_versions, same_dataset

    name, first, second = same_dataset(dataset, a)
    opened = dataset_at(name, endpoint_url, profile)
    print_versions(diff_versions(opened, first, second), as_json, out())


def explain(
    dataset: DatasetArgument,
    name: Annotated[
        str,
        typer.Argument(
            metavar="URI_OR_CLIP_ID",
            help="Footage by its uri or how that ends, or a clip by how its id begins.",
        ),
    ],
    endpoint_url: EndpointUrl = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Say step by step why footage is in the current build, or is not, and what to do about it."""
    from telecine.pipeline.look.explain import explain as run_explain
    from telecine.pipeline.look.explain import print_explained

    opened = dataset_at(dataset, endpoint_url, profile)
    print_explained(run_explain(opened, name), as_json, out())
    say_read(opened)
