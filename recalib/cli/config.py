"""Option values from a TOML file.

A key at the top level is a default for every command that has the option; a table named like a command
is for that one. Values on the command line win. Unknown keys are refused.
"""

import tomllib
from pathlib import Path
from typing import Any

import typer


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Eager callback of --config: make the file's values the defaults of the running command."""
    if path is None:
        return None
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: not TOML ({error})") from error
    context.default_map = {**(context.default_map or {}), **_values(context, document, path)}
    return path


def _values(context: typer.Context, document: dict[str, Any], path: Path) -> dict[str, Any]:
    commands: dict[str, Any] = context.parent.command.commands  # type: ignore[union-attr]
    options = {name: {p.name for p in command.params} for name, command in commands.items()}
    running = str(context.info_name)
    values = {}
    for key, value in document.items():
        if key in options and isinstance(value, dict):
            unknown = [inner for inner in value if _name(inner) not in options[key]]
            if unknown:
                raise typer.BadParameter(f"{path}: [{key}] has no option {unknown[0]!r}")
        elif not any(_name(key) in names for names in options.values()):
            raise typer.BadParameter(f"{path}: no command has an option {key!r}")
        elif _name(key) in options[running]:
            values[_name(key)] = value
    values.update({_name(key): value for key, value in document.get(running, {}).items()})
    return values


def _name(key: str) -> str:
    return key.replace("-", "_")
