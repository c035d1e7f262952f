#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The test of include directions must itself fail on a planted violation. Prints TAP."""
import pathlib
import sys
import tempfile

from include_direction import check

CASES = [  # (file, its text, mistakes expected in it)
    ("low/a.h", '#include "low/b.h"\n#include <stdio.h>\n', 0),
    ("high/a.c", '#include "low/b.h"\n#include "high/a.h"\n#include "sluice_config.h"\n', 0),
    ("low/up.c", '#include "high/a.h"\n', 1),
    ("low/spaced.c", ' #  include "high/a.h"\n#include "low/b.h"\n', 1),
    ("high/deep/a.c", '#include "high/deep/none.h"\n', 1),
    ("low/relative.c", '#include "b.h"\n', 1),
]


def main():
    """Plants a tree and compares what is found with what was planted."""
    with tempfile.TemporaryDirectory() as folder:
        src = pathlib.Path(folder)
        (src / "meson.build").write_text("foreach folder : [\n  'low',\n  'high',\n]\n", "utf-8")
        for name, text, _ in CASES + [("low/b.h", "", 0), ("high/a.h", "", 0),
                                      ("stray/x.h", "", 0)]:
            (src / name).parent.mkdir(parents=True, exist_ok=True)
            (src / name).write_text(text, "utf-8")
        found = {subject: len(mistakes) for subject, mistakes in check(src)}
    expected = {name: count for name, _, count in CASES}
    expected["the list of layers"] = 1  # "stray" is not in it.
    print(f"1..{len(expected)}")
    failed = False
    for number, (name, count) in enumerate(expected.items(), 1):
        good = found.get(name) == count
        failed |= not good
        print(f"{'ok' if good else 'not ok'} {number} - {name}: {count} mistakes planted, "
              f"{found.get(name)} found")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
