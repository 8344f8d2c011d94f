"""Options that datasets share."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from ssltransfer.config.formats import AnyDataset, CacheOptions, Dataset, Folder, Table, WebDataset


def test_cache_is_not_in_canonical_spec():
    plain, cached = Folder(root="x"), Folder(root="x", cache=CacheOptions(short_side=64))
    assert cached.cache is not None and cached.canonical() == plain.canonical()


def test_cache_explicit_default_is_equal():
    written = CacheOptions.model_validate({"short_side": 256, "format": "jpeg", "quality": 95})
    assert written.canonical() == CacheOptions().canonical() != CacheOptions(quality=94).canonical()
    assert CacheOptions.parse('{"format":"raw","short_side": 64}') == CacheOptions(format="raw", short_side=64)


def test_cache_raw_refuses_quality():
    with pytest.raises(ValidationError, match="raw pixels have no quality; remove `quality`"):
        CacheOptions(format="raw", quality=90)


def test_cache_bytes_grow_with_quality():
    each = [CacheOptions(quality=quality).bytes_per_pixel for quality in range(1, 101)]
    assert (
        all(low < high for low, high in pairwise(each)) and each[-1] < CacheOptions(format="raw").bytes_per_pixel == 3
    )


def test_docs_datasets_are_valid():
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^    datasets:\n(?:      .*\n)+", text, re.MULTILINE)
    found: list[Dataset] = [
        TypeAdapter(AnyDataset).validate_python(options)
        for block in blocks
        for options in yaml.safe_load(block)["datasets"].values()
    ]
    assert {Table, WebDataset, Folder} <= set(map(type, found))
    assert {one.label_type for one in found if isinstance(one, Table)} == {"single", "multi"}
