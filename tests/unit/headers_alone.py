#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every header under src/ compiles alone, twice in one file too, with gcc and with clang.

Usage: headers_alone.py SRC BUILD

A compiler that is not installed is reported as a failure, unless it is missing by choice:
SLUICE_COMPILERS names others than "gcc clang". Prints TAP.
"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

FLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
         "-Wno-missing-field-initializers", "-fsyntax-only"]


def compile_alone(compiler, src, build, header, folder):
    """What the compiler complains about; empty if nothing."""
    unit = pathlib.Path(folder) / (compiler + "-" + str(header).replace("/", "-") + ".c")
    unit.write_text(f'#include "{header}"\n#include "{header}"\nextern int nothing;\n', "utf-8")
    try:
        done = subprocess.run([compiler, *FLAGS, f"-I{src}", f"-I{build}", str(unit)], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except FileNotFoundError:
        return f"{compiler} is not installed"
    return done.stdout or ("" if done.returncode == 0 else f"ended with {done.returncode}")


def main():
    """Prints TAP and ends with 1 if a header does not compile."""
    src, build = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
    compilers = os.environ.get("SLUICE_COMPILERS", "gcc clang").split()
    jobs = [(compiler, header.relative_to(src)) for header in sorted(src.rglob("*.h"))
            for compiler in compilers]
    print(f"1..{len(jobs)}")
    failed = False
    with tempfile.TemporaryDirectory() as folder, \
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        said = pool.map(lambda job: compile_alone(job[0], src, build, job[1], folder), jobs)
        for number, ((compiler, header), text) in enumerate(zip(jobs, said), 1):
            failed |= bool(text)
            print(f"{'not ok' if text else 'ok'} {number} - {compiler} {header}")
            for line in text.splitlines():
                print(f"# {line}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
