"""Tensors of a file that a backbone does not use: a head, or a sign that the file is of another network."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import groupby

from torch import Tensor

# Parts after the features, with any number of layers; MAE's decoder.
_HEADS = re.compile(r"(fc|head|heads|classifier|last_linear|top_layer)\.|decoder_")
# Not weights of the features: tokens of masked training, tables that other versions of a library store, counts of thop.
_TABLES = re.compile(
    r"(.*\.)?(num_batches_tracked|mask_token|attn_mask|relative_coords_table|periods|inv_freq|total_ops|total_params)"
)


def tensors_inside(
    used: Iterable[str], tensors: Mapping[str, Tensor], prefix: str = "", allowed: Sequence[str] = ()
) -> list[str]:
    """Names of the unused tensors that lie inside the network, such as `layer1.0.se.fc1.weight` or `register_tokens`.

    Heads are outside: modules that the backbone does not have and that contain a matrix, modules with the usual names
    of heads, and a linear layer after the backbone's last one in the same container.

    Args:
        used: names of the backbone's tensors.
        tensors: of the file.
        prefix: of the backbone's tensors in the file.
        allowed: patterns of names, without the prefix, that are not reported.
    """
    used = set(used)
    modules = {name.partition(".")[0] for name in used}
    left = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
    left = [
        name
        for name in left
        if name not in used
        and tensors[prefix + name].is_floating_point()
        and not _HEADS.match(name)
        and not _TABLES.fullmatch(name)
        and not any(fnmatchcase(name, pattern) for pattern in allowed)
    ]
    found: list[str] = []
    for module, group in groupby(left, key=lambda name: name.partition(".")[0]):
        names = list(group)
        dims = {name: tensors[prefix + name].ndim for name in names}
        if names == [module]:  # a parameter of the network itself: tokens and position embeddings have three axes
            found += names if dims[module] >= 3 else []
        elif module in modules:
            found += [name for name in names if not _is_last_linear(name, used, dims)]
        elif max(dims.values()) < 2 and f"{module}.weight" in dims:  # a norm
            found += names
    return [prefix + name for name in found]


def _is_last_linear(name: str, used: set[str], dims: Mapping[str, int]) -> bool:
    """Whether a tensor is of a linear layer after all used layers in its container, as `classifier.6` or `blocks.9.0`.

    Args:
        dims: number of axes of each unused tensor.
    """
    for match in re.finditer(r"\.(\d+)\.", name):
        container, layer = name[: match.start() + 1], name[: match.end()]
        numbers = [
            int(other[len(container) :].partition(".")[0])
            for other in used
            if re.match(rf"{re.escape(container)}\d+\.", other)
        ]
        inside = [other for other in dims if other.startswith(layer)]
        kinds = sorted((other.rpartition(".")[2], dims[other]) for other in inside)
        if numbers and int(match[1]) > max(numbers) and kinds in ([("weight", 2)], [("bias", 1), ("weight", 2)]):
            return True
    return False
