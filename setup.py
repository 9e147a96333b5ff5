"""The build: everything is declared in pyproject.toml; here are only the optional Cython extensions.

A hot module is compiled from its own .py when an augmenting .pxd lies beside it. Without Cython, without a compiler or when
either fails, the package is built all the same and runs from the .py files. One line says which build was made; the same line
goes into the package (`cavalcade --version` shows it), because pip hides what a build prints.

CAVALCADE_PURE=1              compile nothing
CAVALCADE_REQUIRE_COMPILED=1  a module that cannot be compiled fails the build

An editable install compiles nothing unless CAVALCADE_REQUIRE_COMPILED=1: an extension beside its source wins on import, and
would hide every later edit of that source.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import textwrap
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = Path("src", "cavalcade")


def flag(name: str) -> bool:
    return os.environ.get(name, "").lower() not in ("", "0", "false", "no")


PURE = flag("CAVALCADE_PURE")
REQUIRED = flag("CAVALCADE_REQUIRE_COMPILED")


def constant(name: str):
    """The value of a literal in build.py, which must not be imported here: the package is not installed yet."""
    for node in ast.parse((PACKAGE / "build.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
            return ast.literal_eval(node.value)
    raise SystemExit(f"build.py does not declare {name}")


def candidates() -> list[Extension]:
    """One extension for each hot module that has its .pxd."""
    found = []
    for name in constant("HOT_MODULES"):
        source = PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
        if source.exists() and source.with_suffix(".pxd").exists():
            found.append(Extension(f"cavalcade.{name}", [str(source)], optional=not REQUIRED, extra_compile_args=["-g0"]))
    return found


def first_line(exc: Exception) -> str:
    return textwrap.shorten((str(exc).strip().splitlines() or [""])[0], 120)


class build_optional_ext(build_ext):
    """Translates and compiles what it can, and writes down what became of it."""

    reason = ""

    def run(self) -> None:
        self.parallel = self.parallel or os.cpu_count()
        wanted = list(self.extensions)
        # pip builds in this folder, and what an earlier build left in build/ would go into the package as if it were ours.
        for ext in wanted:
            Path(self.build_lib, self.get_ext_filename(ext.name)).unlink(missing_ok=True)
        self.extensions = wanted if self._translate(wanted) else []
        if self.extensions:
            super().run()
        built = [ext.name for ext in self.extensions if Path(self.get_ext_fullpath(ext.name)).exists()]
        self.extensions = [ext for ext in self.extensions if ext.name in built]
        self._say(wanted, built)

    def _translate(self, wanted: list[Extension]) -> bool:
        """Put C sources in place of the .py; False with `reason` set where that is not wanted or fails."""
        if PURE:
            self.reason = "CAVALCADE_PURE is set"
            return False
        if (self.inplace or self.editable_mode) and not REQUIRED:
            self.reason = "editable install, so that edits of the source take effect"
            return False
        try:
            from Cython.Build import cythonize  # noqa: PLC0415  (optional at build time)

            # The .pxd alone says what has a C type; an annotation such as `int` would mean another type than the one declared there.
            directives = {"language_level": "3", "annotation_typing": False}
            # Processes that are started anew would run this file again.
            nthreads = self.parallel if multiprocessing.get_start_method() == "fork" else 0
            made = cythonize(
                wanted, build_dir="build/cython", compiler_directives=directives, include_path=["src"], force=True, nthreads=nthreads
            )
        except Exception as exc:
            if REQUIRED:
                raise
            self.reason = f"Cython failed: {type(exc).__name__}: {first_line(exc)}"
            return False
        for ext, translated in zip(wanted, made, strict=True):
            ext.sources = translated.sources  # setuptools has put marks on the objects of its own list; keep those
        return True

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as exc:
            if REQUIRED:
                raise
            self.reason = f"the C compiler failed: {first_line(exc)}"

    def copy_extensions_to_source(self) -> None:
        self.extensions = [ext for ext in self.extensions if Path(self.build_lib, self.get_ext_filename(ext.name)).exists()]
        super().copy_extensions_to_source()

    def get_output_mapping(self) -> dict[str, str]:
        return super().get_output_mapping() if self.extensions else {}

    def _say(self, wanted: list[Extension], built: list[str]) -> None:
        short = [name.removeprefix("cavalcade.") for name in built]
        if not built:
            note = f"pure Python: {self.reason or 'nothing to compile'}"
        elif len(built) < len(wanted):
            note = f"partly compiled: {', '.join(short)} ({self.reason})"
        else:
            note = f"compiled: {', '.join(short)}"
        print(f"cavalcade build: {note}")
        folder = PACKAGE if self.inplace or self.editable_mode else Path(self.build_lib, "cavalcade")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / constant("NOTE_FILE")).write_text(note + "\n", "utf-8")


setup(ext_modules=candidates(), cmdclass={"build_ext": build_optional_ext})
