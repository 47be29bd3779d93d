"""Plug-ins in help: those that are installed, below the commands of `telecine --help`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from telecine.infra import plugins

OPTIONS = {
    plugins.ENCODERS: "--vae",
    plugins.CAPTIONERS: "--captioner",
    plugins.SCORERS: "--scorer",
    plugins.EXPORTERS: "--format",
}


class Commands(TyperGroup):
    """The commands. Plug-ins are looked for where help is asked for, and none is imported."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        super().format_epilog(ctx, formatter)
        found = [
            (f"{option} {plugin.name}", str(plugin))
            for group, option in OPTIONS.items()
            for plugin in plugins.installed(group)
        ]
        if found:
            with formatter.section("Plug-ins"):
                formatter.write_dl(found)
