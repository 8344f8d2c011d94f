"""Print torch's table of operators as JSON: name -> the dtypes of its CUDA kernel. It changes flags of its process."""

from __future__ import annotations

import json
import sys
import types
import unittest
from typing import Any

if __name__ == "__main__":
    stub: Any = types.ModuleType("expecttest")  # torch imports it for its own tests only
    stub.TestCase = unittest.TestCase
    stub.assert_expected_inline = stub.assert_expected_raises_inline = None
    sys.modules.setdefault("expecttest", stub)
    from torch.testing._internal.common_methods_invocations import op_db

    kernels: dict[str, set[str]] = {}
    for operator in op_db:
        for name in (operator.aten_name or operator.name, operator.name.removeprefix("nn.functional.")):
            kernels[name] = kernels.get(name, set()) | {str(dtype) for dtype in operator.dtypesIfCUDA}
    print(json.dumps({name: sorted(dtypes) for name, dtypes in kernels.items()}))
