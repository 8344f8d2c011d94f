"""The registry finds implementations by their options class and imports nothing before a lookup."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssltransfer.registry import Registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package `zoo` whose registry is in base.py; `cats` is called like its options' module, `more` is not."""
    files = {
        "zoo_options/__init__.py": "",
        "zoo_options/cats.py": "class Lion: ...\nclass Tiger: ...\n",
        "zoo_options/dogs.py": "class Wolf: ...\nclass Fox: ...\n",
        "zoo/__init__.py": "",
        "zoo/base.py": "from ssltransfer.registry import Registry\nANIMALS = Registry('zoo')\n",
        "zoo/cats.py": (
            "from zoo.base import ANIMALS\nfrom zoo_options.cats import Lion, Tiger\n"
            "@ANIMALS.register(Lion, Tiger)\nclass Cat: ...\n"
        ),
        "zoo/more.py": (
            "from zoo.base import ANIMALS\nfrom zoo_options.dogs import Wolf\n@ANIMALS.register(Wolf)\nclass Dog: ...\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "zoo"
    for name in [name for name in sys.modules if name.startswith("zoo")]:
        del sys.modules[name]


def test_lookup_imports_the_module_of_the_same_name_alone(package: str) -> None:
    from zoo.base import ANIMALS  # type: ignore[import-not-found]
    from zoo_options.cats import Lion, Tiger  # type: ignore[import-not-found]

    assert "zoo.cats" not in sys.modules
    assert ANIMALS[Lion].__name__ == "Cat" and ANIMALS[Tiger] is ANIMALS[Lion]
    assert "zoo.more" not in sys.modules


def test_lookup_searches_the_whole_package(package: str) -> None:
    from zoo.base import ANIMALS
    from zoo_options.dogs import Fox, Wolf  # type: ignore[import-not-found]

    assert ANIMALS[Wolf].__name__ == "Dog"
    with pytest.raises(KeyError):
        ANIMALS[Fox]


def test_register_refuses_a_second_implementation() -> None:
    registry: Registry[type] = Registry("nowhere")
    registry.register(int)(str)
    with pytest.raises(ValueError, match="int is already implemented"):
        registry.register(int)(float)
