#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Layers are one-way: a folder of src/ includes only from itself and from those above it.

Usage: include_direction.py SRC

The order of the layers is the list in SRC/meson.build. Prints TAP: one test a file with includes of
ours, and one for the list itself.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
# Made by meson in the build folder: no layer's.
GENERATED = {"sluice_config.h"}


def layers(src):
    """The layers, lowest first."""
    text = (src / "meson.build").read_text(encoding="utf-8")
    return re.findall(r"'([^']+)'", re.search(r"foreach folder : \[(.*?)\]", text, re.S).group(1))


def wrong_includes(src, order, path):
    """What is wrong with the includes of one file, as lines of text."""
    layer = path.relative_to(src).parts[0]
    allowed = order[:order.index(layer) + 1]
    for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
        if name in GENERATED:
            continue
        if not (src / name).is_file():
            yield f'"{name}" is no file under src: includes start from there'
        elif pathlib.PurePath(name).parts[0] not in allowed:
            yield f'"{name}" is of a layer below {layer}'


def check(src):
    """Yields (subject, list of mistakes)."""
    order = layers(src)
    folders = {p.name for p in src.iterdir() if p.is_dir()}
    yield "the list of layers", sorted(f"src/{f} is not in src/meson.build's list"
                                       for f in folders - set(order))
    for path in sorted(src.rglob("*.[ch]")):
        if path.relative_to(src).parts[0] in order:
            yield str(path.relative_to(src)), list(wrong_includes(src, order, path))


def main():
    """Prints TAP and ends with 1 if anything is wrong."""
    results = list(check(pathlib.Path(sys.argv[1])))
    print(f"1..{len(results)}")
    for number, (subject, mistakes) in enumerate(results, 1):
        print(f"{'not ok' if mistakes else 'ok'} {number} - {subject}")
        for mistake in mistakes:
            print(f"# {subject}: {mistake}")
    return int(any(mistakes for _, mistakes in results))


if __name__ == "__main__":
    sys.exit(main())
