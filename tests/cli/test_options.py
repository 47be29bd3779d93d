"""Options that go together reach a command as one value, and the line as they always were."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from telecine.pipeline.cli.options import (
    AsJson,
    Asking,
    DatasetArgument,
    Machines,
    Store,
    with_groups,
)

SEEN: list[tuple[str, Asking, Machines, Store, bool]] = []


@with_groups
def command(
    dataset: DatasetArgument,
    *,
    asking: Asking,
    machines: Machines,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """A command."""
    SEEN.append((dataset, asking, machines, store, as_json))


def run(*words: str) -> tuple[str, Asking, Machines, Store, bool]:
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return SEEN.pop()


def test_what_is_not_given_is_as_the_groups_say() -> None:
    assert run("d") == ("d", Asking(), Machines(), Store(), False)


def test_what_is_given_is_in_its_group() -> None:
    given = run(
        "d", "--profile", "p", "--workers", "0", "--batch", "3", "--gpus", "0.5", "--json",
        "--ray-address", "h:1", "--caption-url", "u", "--concurrency", "7", "--endpoint-url", "e",
    )  # fmt: skip
    assert given == ("d", Asking("u", 7, 3), Machines(0, 0.5, "h:1"), Store("e", "p"), True)
