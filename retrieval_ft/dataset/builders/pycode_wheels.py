"""The wheels that `pycode` and `pycode-small` are made of, and which split each is in.

Pure Python wheels where there are some, else those of CPython 3.11 for manylinux x86-64: a wheel is
only read, so one file serves every machine.
"""

from __future__ import annotations

from retrieval_ft.dataset.builders.pycode import MAX_LINES, MIN_LINES, MIN_WORDS, CodeRecipe, Wheel
from retrieval_ft.dataset.types import Split
from retrieval_ft.packages import PackageSource

RULE = (
    "Passages: functions and methods that have a docstring, their source without it "
    f"({MIN_LINES} to {MAX_LINES} lines that are not blank); no tests, no code taken over from "
    "other packages, no deprecated functions, overloads, setters, deleters or bodies without code; "
    "functions of equal source are one passage. Queries: the first sentence of the docstring "
    f"without markup, at least {MIN_WORDS} words, in English letters, not standing in the passage; "
    "texts with the same words are one query, relevant are all functions that have it. Split by "
    "package; a query that functions of two splits have is left out."
)

# name, version and tags of the wheel, its sha256, split, licence, file of the licence
_TABLE: tuple[tuple[str, str, str, str, Split, str, str], ...] = (
    (
        "astropy",
        "8.0.2",
        "cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64",
        "000d6998bcf4f097257b3776f29f1dafde0967bf1b091edbad95df564eee4eea",
        "train",
        "BSD-3-Clause",
        "licenses/LICENSE.rst",
    ),
    (
        "biopython",
        "1.88",
        "cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64",
        "99e1f7022ab8eee2ae9e9a05b66ad183b9fe4eeb4e561a65ed0fd85eef5f8267",
        "train",
        "Biopython License Agreement, some files BSD-3-Clause too",
        "licenses/LICENSE.rst",
    ),
    (
        "boltons",
        "26.2.0",
        "py3-none-any",
        "41942cbce440211bbcf2487ccdc356964ad674f95a01068b8a0dd7a1d1fed036",
        "dev",
        "BSD-3-Clause",
        "licenses/LICENSE",
    ),
    (
        "django",
        "5.2.8",
        "py3-none-any",
        "37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
        "train",
        "BSD-3-Clause",
        "licenses/LICENSE",
    ),
    (
        "matplotlib",
        "3.11.2",
        "cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64",
        "07d9b9fa60cd4c393692f50d0bb03123242ddf61c99bb0e95e75feb354e7c1a8",
        "train",
        "Matplotlib licence (PSF style)",
        "LICENSE",
    ),
    (
        "networkx",
        "3.6.1",
        "py3-none-any",
        "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
        "test",
        "BSD-3-Clause",
        "licenses/LICENSE.txt",
    ),
    (
        "nltk",
        "3.10.4",
        "py3-none-any",
        "769ba5413f265b7d3e87cd163cc28efa01e29eeef8bb6080bc907949d9fcfb51",
        "train",
        "Apache-2.0",
        "licenses/LICENSE.txt",
    ),
    (
        "pandas",
        "3.1.1",
        "cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64",
        "4f1602f614bb83f443381dbcbb94c4ac764b2e50c8d6c965614c5cd83e328c47",
        "train",
        "BSD-3-Clause",
        "licenses/LICENSE",
    ),
    (
        "scikit-image",
        "0.26.0",
        "cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64",
        "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        "test",
        "BSD-3-Clause",
        "LICENSE.txt",
    ),
    (
        "scikit-learn",
        "1.9.1",
        "cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
        "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
        "train",
        "BSD-3-Clause",
        "licenses/COPYING",
    ),
    (
        "scipy",
        "1.17.1",
        "cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
        "43af8d1f3bea642559019edfe64e9b11192a8978efbd1539d7bc2aaa23d92de4",
        "train",
        "BSD-3-Clause",
        "LICENSE.txt",
    ),
    (
        "scrapy",
        "2.19.0",
        "py3-none-any",
        "44c1ad4b008f1976e946c75b2adce0e448cbfe470c584b1b59469abf270e8013",
        "dev",
        "BSD-3-Clause",
        "licenses/LICENSE",
    ),
    (
        "sqlalchemy",
        "2.1.9",
        "py3-none-any",
        "449fed5c2caa3b278cc57499d09db001fb3f28dc7f18affc48142aee4dcc0cdf",
        "dev",
        "MIT",
        "licenses/LICENSE",
    ),
    (
        "statsmodels",
        "0.15.0",
        "cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
        "b67886b66d9c7ca118526accedb5c6de7ffd74c015dc0492ea0b1690192b65da",
        "train",
        "BSD-3-Clause",
        "licenses/LICENSE.txt",
    ),
    (
        "sympy",
        "1.14.0",
        "py3-none-any",
        "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
        "train",
        "BSD-3-Clause",
        "licenses/LICENSE",
    ),
    (
        "twisted",
        "26.10.0",
        "py3-none-any",
        "3732f42af218925a0fe78d6668db55853f7fb532245a89a2669babe7d3000fa8",
        "train",
        "MIT",
        "licenses/LICENSE",
    ),
    (
        "xarray",
        "2026.9.0",
        "py3-none-any",
        "fe349fa871628b1a0a5217af3fe1283a2862d5485156e6eda354fffb81c3bb7c",
        "train",
        "Apache-2.0",
        "licenses/LICENSE",
    ),
)
_SMALL = ("boltons", "django", "networkx", "scrapy", "xarray")


def _wheel(
    name: str, version: str, tags: str, sha256: str, split: Split, licence: str, member: str
) -> Wheel:
    stem = f"{name.replace('-', '_')}-{version}"
    package = PackageSource("pypi", name, version, f"{stem}-{tags}.whl", sha256)
    return Wheel(package, split, licence, f"{stem}.dist-info/{member}")


ALL = CodeRecipe(tuple(_wheel(*row) for row in _TABLE), rule=RULE, rule_version=1)
SMALL = CodeRecipe(
    tuple(wheel for wheel in ALL.wheels if wheel.package.name in _SMALL), rule=RULE, rule_version=1
)
