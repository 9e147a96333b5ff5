"""Write docs/options.md from the declarations in `cavalcade.config.options`. `make docs` runs this; a test fails when it was forgotten."""

from __future__ import annotations

from pathlib import Path

from cavalcade.config.values import OPTIONS, Option, show

TARGET = Path(__file__).with_name("options.md")

HEAD = """\
# Options

<!-- Made by docs/options.py; edit src/cavalcade/config/options.py instead. -->

Each option is a flag of the command line, a key of a config file, a variable of the environment and an argument of
`cavalcade.run()`. The later of these wins: default, platform variable (`PORT`, `WEB_CONCURRENCY`), `[tool.cavalcade]` in
pyproject.toml, `cavalcade.toml` or `--config FILE`, `CAVALCADE_*`, command line. `cavalcade config show` prints every value and
where it came from.

Times take a unit (`250ms`, `30s`, `5m`) or are seconds; sizes take one (`64KiB`, `1M`) or are bytes.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    group = ""
    for option in OPTIONS.values():
        if option.info.group != group:
            group = option.info.group
            parts.append(f"\n## {group.capitalize()}\n\n| flag | key, variable | default | |\n|---|---|---|---|\n")
        parts.append(row(option))
    return "".join(parts)


def row(option: Option) -> str:
    cells = [flags(option), names(option), default(option), option.info.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def flags(option: Option) -> str:
    if option.name == "app":
        return "`APP`"
    written = []
    for name in (option.name, *option.info.aliases):
        flag = f"--{name.replace('_', '-')}"
        written.append(f"`{flag}`, `--no-{flag[2:]}`" if option.kind == "flag" else f"`{flag} {option.metavar}`")
    if option.info.short:
        written.insert(0, f"`{option.info.short}`")
    return ", ".join(written)


def names(option: Option) -> str:
    return ", ".join(f"`{name}`" for name in (option.name, f"CAVALCADE_{option.name.upper()}", *option.info.env))


def default(option: Option) -> str:
    if option.kind == "flag":
        return "on" if option.default else "off"
    return f"`{show(option, option.default)}`" if option.default not in ("", ()) else ""


if __name__ == "__main__":
    TARGET.write_text(page(), "utf-8")
